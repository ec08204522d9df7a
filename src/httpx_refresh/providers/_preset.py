"""What a preset is: a provider's facts as data, and the function that makes an endpoint of them."""

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
"""The `reuse_grace` of a refresh token that using it does not spend: a refresh may be repeated at any time."""

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
    """What a preset may be told: the keyword arguments of `TokenEndpoint`, and its `url`."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What is known of a provider, each fact from a source that its preset's docstring names.

    A `{word}` in an address stands for an argument of the preset.

    Attributes:
        title: what people and messages call it.
        url: the token endpoint.
        origins: where its tokens may be sent.
        grants: how tokens are had there: by a login (`authorization_code`, `device_code`), from then on
            (`refresh_token`), and by services (the others).
        rotation: whether a refresh brings another refresh token: `always`, `sometimes`, `never`, where a `setting` of
            the app or the server says so; `none`: there are no refresh tokens.
        grace: seconds for which a refresh token that was spent is accepted again; `until_used`: until the new access
            token is used; `stays_valid`: for as long as it lives. None: not known, and nothing is taken for granted.
        client_auth: how a confidential client authenticates (RFC 7591), or an object of `httpx_refresh.client_auth`
            that takes the client's secret; None: not known, HTTP Basic is taken (RFC 6749 §2.3.1).
        access_token_lifetime: in seconds; None: not known, or up to the provider's customers.
        idle_lifetime: seconds after which a refresh token that was not used is no longer good.
        absolute_lifetime: seconds after which a person must log in again, however often the token was refreshed.
        quirks: what a caller may stumble over.
        unknown: what is not known.
        options: what else its `TokenEndpoint` is told.
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
        """Make an endpoint of these facts; what the caller says overrides them.

        Args:
            client_id: of `TokenEndpoint`.
            client_secret: likewise.
            overrides: what the caller says.
            parts: what the words in the addresses stand for.
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
        # A public client has no use for it, nor one with credentials of its own.
        if client_secret is not None:
            facts["client_auth"] = self.client_auth
        if "url" in given:  # Another server, and another address for refreshes.
            facts.pop("refresh_url", None)
        facts = {name: _filled(value, parts) for name, value in facts.items()} | given
        return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset, and what is known of its provider."""

    name: str
    provider: Provider
    function: Callable[..., Any] = field(repr=False)

    @property
    def parameters(self) -> tuple[str, ...]:
        """What it is told beside the client and the overrides, such as a `domain`."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)

    @property
    def leading(self) -> tuple[str, ...]:
        """What it is told first, by position."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD)

    @property
    def required(self) -> frozenset[str]:
        """Those of its `parameters` that have no default."""
        parameters = inspect.signature(self.function).parameters
        empty = inspect.Parameter.empty
        return frozenset(name for name in self.parameters if parameters[name].default is empty)

    @property
    def summary(self) -> str:
        """What its docstring says first."""
        return _paragraphs(self.function)[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """Where its facts come from, each with what was read there. Empty where Python keeps no docstrings (-OO)."""
        text = inspect.getdoc(self.function) or ""
        _, found, lines = text.partition("\nSources:\n")
        joined = " ".join(lines.split("\n\n", 1)[0].split()) if found else ""
        return tuple(one.strip() for one in joined.split(";") if one.strip())


def _paragraphs(function: Callable[..., Any]) -> list[str]:
    text = inspect.getdoc(function) or ""
    return [" ".join(one.split()) for one in text.split("\n\n")]


PRESETS: dict[str, Preset] = {}
"""Every preset, by its name; in the order in which they were declared. `known` alone writes to it."""

SERVICES: dict[str, Preset] = {}
"""Those that make a source that starts from nothing, and are told more than a client. `known` alone writes to it."""

_F = TypeVar("_F", bound=Callable[..., Any])


def known(provider: Provider, among: dict[str, Preset] = PRESETS) -> Callable[[_F], _F]:
    """Make a function the preset of a provider."""

    def declare(function: _F) -> _F:
        among[function.__name__] = Preset(function.__name__, provider, function)
        return cast("_F", frameless(function))

    return declare


def _preset_of(title: str) -> Preset:
    every = (*PRESETS.values(), *SERVICES.values())
    return next(one for one in every if one.provider.title == title)


def _needs_client(title: str) -> bool:
    """Whether the preset cannot do without a client id."""
    client_id = inspect.signature(_preset_of(title).function).parameters.get("client_id")
    return client_id is not None and client_id.default is client_id.empty


def _check_names(title: str, given: dict[str, Any]) -> None:
    if given.keys() <= Overrides.__optional_keys__:
        return
    preset = _preset_of(title)
    no_others(preset.name, given, [*preset.parameters, *Overrides.__optional_keys__])


def _filled(value: Any, parts: dict[str, str]) -> Any:
    """Put the parts into addresses, and into what stands for one. Other words in braces (`{instance_url}`) stay."""
    if isinstance(value, tuple):
        return tuple(_filled(one, parts) for one in value)
    if isinstance(value, dict):
        return {name: _filled(one, parts) for name, one in value.items()}
    if isinstance(value, str):
        for name, text in parts.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def host_of(name: str, value: str) -> str:
    """Return the name of a host, and its port, as it stands in an address."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?", value.lower()):
        raise ValueError(f"{name} must be the name of a host")
    return value.lower()


def json_field(value: Any, *path: str | int) -> Any:
    """Walk into a JSON value; None where the way ends."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
