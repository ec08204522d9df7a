"""The structure of a preset: a provider's facts as data, and the function that makes an endpoint from them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from .._errors import frameless
from .._oauth.authentication import ClientAuth, Method
from .._oauth.endpoint import EndpointOptions, TokenEndpoint
from .._oauth.material import Text
from .._oauth.settings import no_others

HOUR = 3_600.0
DAY = 86_400.0

_STAYS_VALID = DAY
"""The `reuse_grace` of a refresh token that stays valid after use: a refresh may be repeated at any time."""

GrantName = Literal[
    "authorization_code",
    "device_code",
    "refresh_token",
    "client_credentials",
    "jwt_bearer",
    "token_exchange",
    "account_credentials",
    "installation",
]

Rotation = Literal["always", "sometimes", "never", "setting", "none", "unknown"]

Grace = float | Literal["until_used", "stays_valid"] | None


class Overrides(EndpointOptions, total=False):
    """The keyword arguments that every preset takes: those of `TokenEndpoint`, and its `url`."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The facts about a provider. The docstring of its preset names the source of each.

    A `{word}` in an address stands for an argument of the preset.

    Attributes:
        title: the name that people and messages use.
        url: the token endpoint.
        origins: the origins that its tokens may be sent to.
        grants: the grants that it supports: those of a login (`authorization_code`, `device_code`), the refresh
            (`refresh_token`), and those for services (the others).
        rotation: whether a refresh returns another refresh token: `always`, `sometimes`, `never`, or as a `setting` of
            the app or the server decides; `none`: there are no refresh tokens; `unknown`: not known.
        grace: seconds for which a spent refresh token is accepted again; `until_used`: until the new access token is
            used; `stays_valid`: for as long as it lives. None: not known, so no grace is assumed.
        client_auth: how a confidential client authenticates (RFC 7591), or an object of `httpx_refresh.client_auth`
            that takes the client's secret. None: not known, so HTTP Basic is used (RFC 6749 §2.3.1).
        access_token_lifetime: in seconds; None: not known, or set by the provider's customers.
        idle_lifetime: seconds after which an unused refresh token expires.
        absolute_lifetime: seconds after which a person must log in again, however often the token was refreshed.
        quirks: behaviour that a caller may not expect.
        unknown: facts that are not known.
        options: further arguments of its `TokenEndpoint`.
    """

    title: str
    url: str
    origins: tuple[str, ...]
    grants: tuple[GrantName, ...]
    rotation: Rotation
    grace: Grace = None
    client_auth: Method | ClientAuth | None = None
    access_token_lifetime: float | None = None
    idle_lifetime: float | None = None
    absolute_lifetime: float | None = None
    quirks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    options: EndpointOptions = field(default_factory=EndpointOptions)

    def endpoint(
        self, client_id: str | None, client_secret: Text | None, overrides: Overrides, **parts: str
    ) -> TokenEndpoint:
        """Make an endpoint from these facts; the caller's arguments override them.

        Args:
            client_id: the argument of `TokenEndpoint`.
            client_secret: the argument of `TokenEndpoint`.
            overrides: the caller's other arguments.
            parts: the values of the words in braces in the addresses.
        """
        given = cast("dict[str, Any]", overrides)
        _check_names(self.title, given)
        if client_id is None and _needs_client(self.title):
            raise ValueError(
                f"{self.title}: client_id is None. Is the environment variable that it comes from not set?"
            )
        facts: dict[str, Any] = {
            "url": self.url,
            "name": self.title,
            "origins": self.origins or None,
            "refresh_token_lifetime": self.idle_lifetime,
            **self.options,
        }
        if self.grace is not None:
            facts["reuse_grace"] = _STAYS_VALID if self.grace == "stays_valid" else self.grace
        # A public client needs no method, and credentials of another kind bring their own.
        if client_secret is not None:
            facts["client_auth"] = self.client_auth
        if "url" in given:  # Another server: the provider's address for refreshes does not apply.
            facts.pop("refresh_url", None)
        facts = {name: _filled(value, parts) for name, value in facts.items()} | given
        return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset and the facts about its provider."""

    name: str
    provider: Provider
    function: Callable[..., Any] = field(repr=False)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its own keyword arguments, such as `domain`."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)

    @property
    def leading(self) -> tuple[str, ...]:
        """The names of its positional arguments."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)

    @property
    def required(self) -> frozenset[str]:
        """The names among `parameters` that have no default."""
        parameters = inspect.signature(self.function).parameters
        empty = inspect.Parameter.empty
        return frozenset(name for name in self.parameters if parameters[name].default is empty)

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring."""
        return _paragraphs(self.function)[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of its facts, each with what it states. Empty if Python keeps no docstrings (-OO)."""
        text = inspect.getdoc(self.function) or ""
        _, found, lines = text.partition("\nSources:\n")
        joined = " ".join(lines.split("\n\n", 1)[0].split()) if found else ""
        return tuple(one.strip() for one in joined.split(";") if one.strip())


def _paragraphs(function: Callable[..., Any]) -> list[str]:
    text = inspect.getdoc(function) or ""
    return [" ".join(one.split()) for one in text.split("\n\n")]


PRESETS: dict[str, Preset] = {}
"""Every preset by its name, in the order of declaration. Only `known` writes to it."""

SERVICES: dict[str, Preset] = {}
"""The presets that make a source which starts without a stored token. Only `known` writes to it."""

_F = TypeVar("_F", bound=Callable[..., Any])


def known(provider: Provider, among: dict[str, Preset] = PRESETS) -> Callable[[_F], _F]:
    """Return a decorator that registers a function as the preset of a provider."""

    def declare(function: _F) -> _F:
        among[function.__name__] = Preset(function.__name__, provider, function)
        return cast("_F", frameless(function))

    return declare


def _preset_of(title: str) -> Preset:
    every = (*PRESETS.values(), *SERVICES.values())
    return next(one for one in every if one.provider.title == title)


def _needs_client(title: str) -> bool:
    """Return whether the preset requires a client id."""
    client_id = inspect.signature(_preset_of(title).function).parameters.get("client_id")
    return client_id is not None and client_id.default is client_id.empty


def _check_names(title: str, given: dict[str, Any]) -> None:
    if given.keys() <= Overrides.__optional_keys__:
        return
    preset = _preset_of(title)
    no_others(preset.name, given, [*preset.parameters, *Overrides.__optional_keys__])


def _filled(value: Any, parts: dict[str, str]) -> Any:
    """Replace the words in braces by their parts. Words without a part (`{instance_url}`) stay."""
    if isinstance(value, tuple):
        return tuple(_filled(one, parts) for one in value)
    if isinstance(value, dict):
        return {name: _filled(one, parts) for name, one in value.items()}
    if isinstance(value, str):
        for name, text in parts.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def host_of(name: str, value: str) -> str:
    """Return the name of a host, with its port if it has one, as it stands in an address.

    Raises:
        ValueError: it is no host name; `name` is the argument that the message names.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?", value.lower()):
        raise ValueError(f"{name} must be a host name")
    return value.lower()


def json_field(value: Any, *path: str | int) -> Any:
    """Return the value at a path in a JSON value; None if there is nothing."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
