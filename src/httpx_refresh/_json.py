"""JSON's names for `_refresh.record`, until that imports them from `_token`."""

from __future__ import annotations

from ._token import is_shallow
from ._token import read_json as read
from ._token import write_json as write

__all__ = ["is_shallow", "read", "write"]
