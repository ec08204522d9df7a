"""Keep an async HTTP client's OAuth 2.0 bearer token alive, with one refresh for everybody who shares it.

Each name is imported when it is first asked for (PEP 562), so that a program pays for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
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
    from .stores.base import TokenStore
    from .stores.file import FileStore
    from .stores.memory import MemoryStore
    from .stores.urls import open_store
else:  # Checkers of types must not take any other name for one that exists.
    _HOMES = {
        "._auth": ("RefreshAuth",),
        "._errors": (
            "BodyNotReplayable",
            "LoginFailed",
            "OriginNotAllowed",
            "ReauthorizationRequired",
            "RefreshAuthError",
            "RefreshUnavailable",
            "RevocationFailed",
            "StepUpRequired",
            "StoreError",
        ),
        "._http.challenge": ("ExpiryRule",),
        "._oauth.answer": ("INVALID_GRANT", "Refusal"),
        "._oauth.device": ("DeviceAuthorization",),
        "._oauth.discovery": ("discover",),
        "._oauth.endpoint": ("TokenEndpoint",),
        "._oauth.login": ("AuthorizationRequest",),
        "._oauth.settings": ("LoginSettings",),
        "._token": ("Token",),
        ".stores.base": ("TokenStore",),
        ".stores.file": ("FileStore",),
        ".stores.memory": ("MemoryStore",),
        ".stores.urls": ("open_store",),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(home, __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
