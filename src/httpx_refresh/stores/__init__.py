"""Token stores: the protocol, and the stores that need no further package.

Each shared store needs an extra, so it has a module of its own: `httpx_refresh.stores.redis`,
`httpx_refresh.stores.sql` and `httpx_refresh.stores.encrypted`.
"""

from __future__ import annotations

from .base import TokenStore
from .file import FileStore
from .memory import MemoryStore

__all__ = ["FileStore", "MemoryStore", "TokenStore"]
