"""`httpx-refresh`, and `python -m httpx_refresh`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what has to be installed for it."""
    try:
        from .cli.app import app
    except ImportError as error:
        if "httpx-refresh[" not in str(error):
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    app(prog_name="httpx-refresh")


if __name__ == "__main__":
    main()
