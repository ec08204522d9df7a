"""Keep an async HTTP client's OAuth 2.0 bearer token alive, with one refresh for everybody who shares it."""

from ._answer import INVALID_GRANT, Refusal
from ._auth import RefreshAuth
from ._endpoint import TokenEndpoint
from ._errors import (
    BodyNotReplayable,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    StoreError,
)
from ._expiry import ExpiryRule
from ._token import Token
from .stores import FileStore, MemoryStore, TokenStore

__all__ = [
    "INVALID_GRANT",
    "BodyNotReplayable",
    "ExpiryRule",
    "FileStore",
    "MemoryStore",
    "OriginNotAllowed",
    "ReauthorizationRequired",
    "RefreshAuth",
    "RefreshAuthError",
    "RefreshUnavailable",
    "Refusal",
    "StoreError",
    "Token",
    "TokenEndpoint",
    "TokenStore",
]
