"""Imports every module of the installed package, in an environment without the extras.

The core must import. A module that needs an extra imports too, or fails with an ImportError that
names the extra to install.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys

import httpx_refresh

NEEDS_AN_EXTRA = re.compile(
    r"httpx_refresh\.(__main__|otel|(cli|testing)(\..*)?|stores\.(redis|_?sql\w*|encrypted))$"
)
EXTRAS = ("httpx2", "redis", "sqlalchemy", "starlette", "uvicorn", "typer", "rich", "trio")


def main() -> int:
    present = [name for name in EXTRAS if importlib.util.find_spec(name)]
    if present:
        print(f"this environment is not bare: {', '.join(present)}")
        return 1
    wrong = imported = refused = 0
    for module in pkgutil.walk_packages(httpx_refresh.__path__, "httpx_refresh."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            refused += 1
            if not NEEDS_AN_EXTRA.match(module.name):
                print(f"{module.name} needs more than the four dependencies: {error}")
                wrong += 1
            # The SQL store's own helpers are imported by way of it, and it says what to install.
            elif "httpx-refresh[" not in str(error) and "._sql_" not in module.name:
                print(f"{module.name} does not say which extra to install: {error}")
                wrong += 1
        else:
            imported += 1
    print(f"{imported} modules imported, {refused} named the extra they need, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
