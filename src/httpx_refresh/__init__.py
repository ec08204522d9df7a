"""Keep an async HTTP client's OAuth 2.0 bearer token alive, with one refresh for everybody who shares it."""

from ._answer import INVALID_GRANT, Refusal
from ._auth import RefreshAuth
from ._device import DeviceAuthorization
from ._discovery import discover
from ._endpoint import TokenEndpoint
from ._errors import (
    BodyNotReplayable,
    LoginFailed,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    RevocationFailed,
    StoreError,
)
from ._expiry import ExpiryRule
from ._login import AuthorizationRequest
from ._login_settings import LoginSettings
from ._store_urls import open_store
from ._token import Token
from .stores import FileStore, MemoryStore, TokenStore

__all__ = [
    "INVALID_GRANT",
    "AuthorizationRequest",
    "BodyNotReplayable",
    "DeviceAuthorization",
    "ExpiryRule",
    "FileStore",
    "LoginFailed",
    "LoginSettings",
    "MemoryStore",
    "OriginNotAllowed",
    "ReauthorizationRequired",
    "RefreshAuth",
    "RefreshAuthError",
    "RefreshUnavailable",
    "Refusal",
    "RevocationFailed",
    "StoreError",
    "Token",
    "TokenEndpoint",
    "TokenStore",
    "discover",
    "open_store",
]
