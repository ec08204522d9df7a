"""Where the token text lives: the protocol, and the stores that need nothing else.

The shared stores are imported by name, for each needs an extra: `httpx_refresh.stores.redis`,
`httpx_refresh.stores.sql` and `httpx_refresh.stores.encrypted`.
"""

from __future__ import annotations

from .base import TokenStore
from .file import FileStore
from .memory import MemoryStore

__all__ = ["FileStore", "MemoryStore", "TokenStore"]
