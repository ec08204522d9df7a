"""What a server has besides its token endpoint: where people log in, and where a token is given back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import httpx

from .._http.origins import is_loopback


class LoginOptions(TypedDict, total=False):
    """The keyword arguments that `LoginSettings` takes."""

    authorization_endpoint: str | None
    device_authorization_endpoint: str | None
    revocation_endpoint: str | None
    issuer: str | None
    scope: str
    offline_scope: str
    authorization_params: Mapping[str, str]
    redirect_fields: tuple[str, ...]
    pkce: bool
    code_challenge_methods: tuple[str, ...] | None
    sends_iss: bool
    revocation_format: Literal["form", "json"]
    refresh_token_lifetime: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """What a server has besides its token endpoint: where people log in, and where a token is given back.

    Args:
        authorization_endpoint: where the browser is sent (RFC 6749 §3.1).
        device_authorization_endpoint: where a device asks for a code to show (RFC 8628 §3.1).
        revocation_endpoint: where a token is given back (RFC 7009); `{instance_url}` in it stands for that field of
            the token.
        issuer: the server's identifier (RFC 8414 §2); an `iss` in a redirect is compared with it (RFC 9207).
        scope: what a login asks for if it is not told.
        offline_scope: added to every scope that lacks it, for without it there is no refresh token.
        authorization_params: further parameters of the authorization request.
        redirect_fields: parameters of the redirect that are kept with the token.
        pkce: whether a login is protected by PKCE, S256 (RFC 7636). False only for a server that does not know it.
        code_challenge_methods: what the server says that it knows of PKCE; None if it is not known to say.
        sends_iss: whether every redirect must name the issuer (RFC 9207).
        revocation_format: how the revocation endpoint is asked: like a form, as RFC 7009 has it, or in JSON.
        refresh_token_lifetime: seconds after which a refresh token that was not used is no longer good.

    Raises:
        ValueError: an endpoint that is no https URL (http to loopback excepted).
    """

    authorization_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    revocation_endpoint: str | None = None
    issuer: str | None = None
    scope: str = ""
    offline_scope: str = ""
    authorization_params: Mapping[str, str] = field(default_factory=dict)
    redirect_fields: tuple[str, ...] = ()
    pkce: bool = True
    code_challenge_methods: tuple[str, ...] | None = None
    sends_iss: bool = False
    revocation_format: Literal["form", "json"] = "form"
    refresh_token_lifetime: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "authorization_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
        ):
            url = getattr(self, name)
            if url is not None and not url.startswith("{instance_url}/"):
                checked_url(url, name)

    def scope_of(self, scope: str | None) -> str:
        """Return the scope that a login asks for."""
        asked = (self.scope if scope is None else scope).split()
        return " ".join(dict.fromkeys([*asked, *self.offline_scope.split()]))


def checked_url(url: str, name: str) -> str:
    """Return `url` if secrets may go there; raise ValueError or TypeError, which call it `name`, if not."""
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a str")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{name} is no URL: {error}") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and is_loopback(parsed.host)):
        raise ValueError(
            f"{name} must be https (RFC 6749 §3.1 and §3.2; http to loopback excepted): secrets go there"
        )
    if not parsed.host or parsed.userinfo or parsed.fragment:
        raise ValueError(f"{name} must name a host, and have no user information and no fragment")
    return url
