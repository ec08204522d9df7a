"""Keep an async HTTP client's OAuth 2.0 bearer token alive, with one refresh for everybody who shares it."""

from ._auth import RefreshAuth
from ._errors import (
    BodyNotReplayable,
    LoginFailed,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshAuthError,
    RefreshUnavailable,
    RevocationFailed,
    StepUpRequired,
    StoreError,
)
from ._http.challenge import ExpiryRule
from ._oauth.answer import INVALID_GRANT, Refusal
from ._oauth.device import DeviceAuthorization
from ._oauth.discovery import discover
from ._oauth.endpoint import TokenEndpoint
from ._oauth.login import AuthorizationRequest
from ._oauth.settings import LoginSettings
from ._token import Token
from ._version import __version__
from .stores import FileStore, MemoryStore, TokenStore
from .stores.urls import open_store

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
    "StepUpRequired",
    "StoreError",
    "Token",
    "TokenEndpoint",
    "TokenStore",
    "__version__",
    "discover",
    "open_store",
]
