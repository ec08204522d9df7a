"""What an endpoint may be told: the addresses of its server, and arguments that are checked when they come in.

It knows no request and no answer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypedDict

import httpx

from .._challenges import claims_of, claims_text, united_claims
from .._http.libraries import LIBRARIES
from .._http.origins import is_secure
from .answer import Refusal

CLIENTS: tuple[type[Any], ...] = tuple(library.AsyncClient for library in LIBRARIES)

# What a token request says by itself (RFC 6749 §6, RFC 7521 §4.2).
_RESERVED = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "refresh_token",
    }
)


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
    resource: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """What a server has besides its token endpoint: where people log in, and where a token is revoked.

    Args:
        authorization_endpoint: where the browser is sent (RFC 6749 §3.1).
        device_authorization_endpoint: where a device asks for a code to show (RFC 8628 §3.1).
        revocation_endpoint: where a token is revoked (RFC 7009); `{instance_url}` in it stands for that field of
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
        resource: the API that tokens are for (RFC 8707): sent with each login, each exchange and each refresh.
        allow_http: whether the endpoints may be plain http, as in docker-compose or a service mesh.

    Raises:
        ValueError: an endpoint that is no https URL (http to loopback excepted), or a resource that is no absolute URI.
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
    resource: str | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        if self.resource is not None and not _is_absolute(self.resource):
            raise ValueError("resource must be an absolute URI without a fragment (RFC 8707 §2)")
        for name in (
            "authorization_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
        ):
            url = getattr(self, name)
            if url is not None and not url.startswith("{instance_url}/"):
                checked_url(url, name, allow_http=self.allow_http)

    def resource_params(self) -> dict[str, str]:
        """Return the parameters that say what a token is for (RFC 8707 §2)."""
        return {} if self.resource is None else {"resource": self.resource}

    def scope_of(self, scope: str | None) -> str:
        """Return the scope that a login asks for."""
        asked = (self.scope if scope is None else scope).split()
        return " ".join(dict.fromkeys([*asked, *self.offline_scope.split()]))


class BearerAssertion(TypedDict, total=False):
    """What is known of the assertions that a server takes as a grant (RFC 7523 §2.1, §3).

    Attributes:
        audience: whom they are for (`aud`); where it is not told, the token endpoint.
        lifetime: seconds for which they are good; 60.
        scope_as: whether the scope is a `"parameter"` of the request, or a `"claim"` of the assertion.
        issuer_is_subject: whether `sub` is the issuer where no subject is named; else it is left out then.
    """

    audience: str
    lifetime: float
    scope_as: Literal["parameter", "claim"]
    issuer_is_subject: bool


def bearer_assertion(value: BearerAssertion | None) -> BearerAssertion:
    """Return what is known of such assertions."""
    if not isinstance(value, (Mapping, type(None))):
        raise TypeError("jwt_bearer must be a mapping, or None")
    known: BearerAssertion = {**value} if value else {}
    no_others("jwt_bearer", known, BearerAssertion.__optional_keys__)
    if "audience" in known:
        audience(known["audience"], "audience of jwt_bearer")
    if not seconds("lifetime of jwt_bearer", known.get("lifetime", 60.0)):
        raise ValueError("lifetime of jwt_bearer must be more than 0 seconds")
    if known.get("scope_as", "claim") not in ("parameter", "claim"):
        raise ValueError("scope_as of jwt_bearer must be 'parameter' or 'claim'")
    return known


def names(value: Iterable[str], name: str) -> frozenset[str]:
    """Return several words."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must hold texts")
    found = tuple(value)
    if not all(isinstance(one, str) for one in found):
        raise TypeError(f"{name} must hold texts")
    return frozenset(found)


def _is_absolute(uri: object) -> bool:
    return (
        isinstance(uri, str)
        and uri.isprintable()
        and bool(re.match(r"[A-Za-z][\w+.-]*:[^#]+$", uri))
    )


def checked_url(url: str, name: str, *, allow_http: bool = False) -> str:
    """Return `url` if secrets may go there; raise ValueError or TypeError, which call it `name`, if not."""
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a str")
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{name} is no URL: {error}") from None
    if not url.isprintable():  # People are shown some of them.
        raise ValueError(f"{name} must not hold control characters")
    if not is_secure(parsed.scheme, host, allow_http=allow_http):
        raise ValueError(
            f"{name} must be https (RFC 6749 §3.1 and §3.2; http to loopback excepted): secrets go there. In a network "
            "that you trust, pass allow_http=True"
        )
    if not host or parsed.userinfo or parsed.fragment:
        raise ValueError(f"{name} must name a host, and have no user information and no fragment")
    return url


def seconds(name: str, value: float) -> float:
    """Return a duration."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be finite, and not negative")
    return float(value)


def grace(value: float | Literal["until_used"]) -> float | Literal["until_used"]:
    """Return how long a refresh token that was spent is accepted again."""
    return value if value == "until_used" else seconds("reuse_grace", value)


def optional_seconds(name: str, value: float | None) -> float | None:
    """Return a duration, or None if there is none."""
    return None if value is None else seconds(name, value)


def request_format(value: Literal["form", "json"]) -> Literal["form", "json"]:
    """Return how a token request is written."""
    if value in ("form", "json"):
        return value
    raise ValueError("request_format must be 'form' or 'json'")


def fields(value: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return where a server keeps the fields of its answers."""
    value = texts("answer_fields", value)
    for name, place in value.items():
        if not (name and all(place.split("."))):
            raise ValueError("answer_fields must hold names, and paths of names with dots between")
    return MappingProxyType(value)


def no_others(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise the TypeError of a keyword argument that is none; it names the one that was most likely meant.

    Args:
        function: whose arguments they are.
        given: the names that were passed.
        known: the names that may be.
    """
    known = list(known)
    for name in given:
        if name not in known:
            import difflib  # Not at the top: importing the library stays fast.

            close = difflib.get_close_matches(name, known, n=1)
            meant = f". Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{meant}")


def refusals(name: str, value: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """Return kinds of refusals."""
    if isinstance(value, Iterable):
        found = tuple(value)
        if all(isinstance(one, Refusal) for one in found):
            return found
    raise TypeError(f"{name} must hold Refusal objects")


def texts(name: str, value: Mapping[str, str] | None) -> dict[str, str]:
    """Return texts by their names."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, not {type(value).__name__}")
    found = dict(value)
    if not all(isinstance(one, str) for pair in found.items() for one in pair):
        raise TypeError(f"{name} must be a mapping of str to str")
    return found


def is_sendable(text: str) -> bool:
    """Whether a text can be encoded as UTF-8; JSON may hold half of a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def params(value: Mapping[str, str] | None, what: str = "params") -> dict[str, str]:
    """Return further parameters of a token request; `what` is what messages call them."""
    value = texts(what, value)
    for name, text in value.items():
        if name in _RESERVED:
            raise ValueError(f"{what} must not hold {name!r}: the token request says it by itself")
        if not is_sendable(name + text):
            raise ValueError(f"{what} must be text that can be encoded as UTF-8")
    return value


def audience(value: str | None, name: str = "client_assertion_audience") -> str | None:
    """Return what an assertion is for, if that is said."""
    if value is not None and not (isinstance(value, str) and value and is_sendable(value)):
        raise ValueError(f"{name} must be a str that is not empty, or None")
    return value


def with_claims(params: Mapping[str, str], claims: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters with `claims` (OpenID Connect Core §5.5) united with those among them, which take precedence.

    Those say what the client can do (`xms_cc` of Microsoft's), as MSAL has it.
    """
    united = united_claims(claims, claims_of(params.get("claims")))
    return {**params, "claims": claims_text(united)}


def scheme(value: str, name: str = "authorization_scheme") -> str:
    """Return the word before the credentials in an `Authorization` header (RFC 9110 §11.1)."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str")
    word = value.replace("-", "")
    if not (word.isascii() and word.isalnum()):
        raise ValueError(f"{name} must be one word")
    return value


def client(value: Any) -> Any:
    """Return a client, a factory of clients, or None."""
    is_other_class = isinstance(value, type) and not issubclass(value, CLIENTS)
    if not (value is None or isinstance(value, CLIENTS) or callable(value)) or is_other_class:
        raise TypeError(
            "client must be an AsyncClient of httpx or httpx2, a callable that makes one, or None"
        )
    return value


def one_loop_of(source: Any) -> str | None:
    """Say how to pass a client that serves every event loop, where this is one that belongs to one."""
    if not isinstance(source, CLIENTS):
        return None
    return f"client=lambda: {type(source).__module__.partition('.')[0]}.AsyncClient(...)"
