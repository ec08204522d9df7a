"""The imports of the extra `cli`. Without it the command line ends with a message."""

from __future__ import annotations

import sys
from types import ModuleType

try:
    import h11 as h11
    import rich as rich
    import typer as typer

    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:  # pragma: no cover  # Python 3.10
        import tomli as toml
except ImportError:
    raise ImportError(
        "The command line is not installed. Run: pip install 'httpx-refresh[cli]'"
    ) from None

TOML: ModuleType = toml
