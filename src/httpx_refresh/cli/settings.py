"""A command's settings: from its options and the environment first, then from the configuration file."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import typer

from .. import providers
from .._oauth.discovery import discover
from .._oauth.endpoint import TokenEndpoint
from ..client_auth import ClientAuth, MutualTLS, PrivateKeyJWT
from ..grants import ClientCredentials, EndpointSource, Grant, JWTBearer, TokenExchange
from ..mcp import Server
from .console import Problem, warn
from .extra import TOML


def _spelled(name: str) -> str:
    """Return a provider's name as spelled on this command line."""
    name = name.lower().replace("_", "-")
    return "2ba" if name == "twoba" else name


PRESETS: dict[str, providers.Preset] = {
    _spelled(name): preset for name, preset in providers.PRESETS.items()
}

# Some providers have a host or a tenant for each customer: the argument of their presets for it.
_HOUSES = ("domain", "tenant", "country", "dc", "realm", "host")


def _house(preset: providers.Preset) -> str | None:
    return next((name for name in _HOUSES if name in preset.parameters), None)


# The arguments of an endpoint besides its client, by the name of the setting.
_OVERRIDES = {
    "token_url": "url",
    "authorization_url": "authorization_endpoint",
    "device_authorization_url": "device_authorization_endpoint",
    "revocation_url": "revocation_endpoint",
    "pkce": "pkce",
}


# The methods that present a certificate (RFC 8705 §2). For a client they are the same.
_TLS_METHODS = ("tls_client_auth", "self_signed_tls_client_auth")

# The settings of the client's key besides its file.
_KEY_SETTINGS = (
    "client_key_password_env",
    "client_key_password_file",
    "client_key_id",
    "client_key_algorithm",
    "client_certificate_file",
)


GRANTS = ("client_credentials", "jwt-bearer", "token-exchange")
"""The grants of services that a slot may have, besides vendors' own grants, which have `params`."""

# Presets of services: each makes a source with its own grant, and not an endpoint.
_SERVICES = {"google-service-account": "jwt-bearer", "github-installation": "installation"}

NO_CLIENT_ID = (
    "there is no client id: give --client-id, set HTTPX_REFRESH_CLIENT_ID, or write client_id into the configuration "
    "file"
)
NO_STORE = (
    "there is no store: give --store, set HTTPX_REFRESH_STORE, or write store into the configuration file (for example "
    "file:token.json)"
)

_EXCHANGE_SETTINGS = (
    "subject_token_env",
    "subject_token_file",
    "subject_token_type",
    "actor_token_env",
    "actor_token_file",
    "actor_token_type",
    "requested_token_type",
)

# The settings of each grant besides the scope. A vendor's own grant has `params` and a subject.
_GRANT_SETTINGS: dict[str, tuple[str, ...]] = {
    "client_credentials": ("audience", "resource", "params"),
    "jwt-bearer": ("audience", "subject", "params"),
    "token-exchange": ("audience", "resource", "params", *_EXCHANGE_SETTINGS),
    "installation": ("installation_id",),
}
_VENDORS_OWN = ("params", "subject")
_ALL_GRANT_SETTINGS = tuple(
    dict.fromkeys(name for names in (*_GRANT_SETTINGS.values(), _VENDORS_OWN) for name in names)
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one slot: its provider, its client and its store."""

    name: str | None = None
    provider: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_secret_env: str | None = None
    client_secret_file: str | None = None
    client_key_file: str | None = None
    client_key_password_env: str | None = None
    client_key_password_file: str | None = None
    client_key_id: str | None = None
    client_key_algorithm: str | None = None
    client_certificate_file: str | None = None
    store: str | None = field(default=None, repr=False)  # There may be a password in it.
    encrypt_key_file: str | None = None
    scope: str | None = None
    mcp: str | None = None
    client_name: str | None = None
    issuer: str | None = None
    token_url: str | None = None
    authorization_url: str | None = None
    device_authorization_url: str | None = None
    revocation_url: str | None = None
    auth_method: str | None = None
    domain: str | None = None
    redirect_uri: str | None = None
    port: int | None = None
    pkce: bool | None = None
    grant: str | None = None
    audience: str | None = None
    resource: str | None = None
    subject: str | None = None
    subject_token_env: str | None = None
    subject_token_file: str | None = None
    subject_token_type: str | None = None
    actor_token_env: str | None = None
    actor_token_file: str | None = None
    actor_token_type: str | None = None
    requested_token_type: str | None = None
    installation_id: str | None = None
    params: Mapping[str, Any] | None = field(default=None, repr=False)  # Some may be secrets.

    @property
    def label(self) -> str:
        """The name of this slot in messages."""
        return self.name or self.provider or self.mcp or self.issuer or self.store or "the slot"

    def secret(self) -> str | None:
        """Return the client's secret from the place where it is kept."""
        if self.client_secret is not None:
            return self.client_secret
        if self.client_secret_env is not None:
            if self.client_secret_env not in os.environ:
                raise Problem(f"the environment variable {self.client_secret_env} is not set")
            return os.environ[self.client_secret_env]
        if self.client_secret_file == "-":  # noqa: S105 - the name of standard input
            return sys.stdin.readline().rstrip("\r\n")
        if self.client_secret_file is not None:
            warn_of_readers(self.client_secret_file, "the client's secret")
            return read_text(self.client_secret_file, "client secret file").strip()
        return None

    def client_auth(self) -> ClientAuth | str | None:
        """Return how the client authenticates: with its key if it has one, else by a method's name."""
        if self.client_key_file is None:
            stray = [name for name in _KEY_SETTINGS if getattr(self, name) is not None]
            if stray:
                raise Problem(f"{', '.join(stray)} needs client_key_file (--client-key-file)")
            return self.auth_method
        if self.client_secret or self.client_secret_env or self.client_secret_file:
            raise Problem("a client has a key or a secret, not both: leave one of them out")
        warn_of_readers(self.client_key_file, "the client's private key")
        key, certificate = Path(self.client_key_file), _path(self.client_certificate_file)
        if self.auth_method in (None, "private_key_jwt"):
            algorithm: Any = self.client_key_algorithm or "RS256"
            return PrivateKeyJWT(
                key,
                algorithm=algorithm,
                key_id=self.client_key_id,
                certificate=certificate,
                password=self._key_password(),
            )
        if self.auth_method not in _TLS_METHODS:
            raise Problem(
                f"auth_method {self.auth_method!r} uses no key; those that do are private_key_jwt, "
                + ", ".join(_TLS_METHODS)
            )
        if certificate is None:
            raise Problem(f"{self.auth_method} needs client_certificate_file")
        return MutualTLS(certificate, key, self._key_password())

    def _key_password(self) -> str | Path | None:
        """Return the password of the client's key, or the place where it is kept."""
        if self.client_key_password_env is not None:
            if self.client_key_password_env not in os.environ:
                raise Problem(f"the environment variable {self.client_key_password_env} is not set")
            return os.environ[self.client_key_password_env]
        if self.client_key_password_file is not None:
            warn_of_readers(self.client_key_password_file, "the password of the client's key")
        return _path(self.client_key_password_file)

    def overrides(self) -> dict[str, Any]:
        """Return the arguments of the endpoint besides its provider's facts."""
        chosen = {_OVERRIDES[name]: getattr(self, name) for name in _OVERRIDES}
        return {name: value for name, value in chosen.items() if value is not None}

    def preset(self) -> providers.Preset | None:
        """Return the provider's preset, if there is one."""
        return PRESETS.get(self.provider or "")

    def _parameters(self) -> dict[str, str]:
        """Return the preset's arguments: the provider's domain, and what the login needs."""
        preset = self.preset()
        house = None if preset is None else _house(preset)
        if self.domain is not None and house is None:
            known = (name for name, one in PRESETS.items() if _house(one) is not None)
            raise Problem(f"a domain is for {', '.join(known)} only")
        given = {} if house is None or self.domain is None else {house: self.domain}
        if preset is None:
            return given
        if "redirect_uri" in preset.parameters and self.redirect_uri is not None:
            given["redirect_uri"] = self.redirect_uri
        missing = preset.required - given.keys()
        if missing == {house}:
            raise Problem(f"{self.provider} needs a domain: give --domain, its {house}")
        if missing:
            raise Problem(
                f"{self.provider} needs {' and '.join(sorted(missing))}, which this command cannot be told: give "
                "--token-url, and the other addresses, instead"
            )
        return given

    def check_login(self) -> None:
        """Raise one `Problem` that names all missing settings of a login."""
        missing = []
        if self.mcp is None:
            if not self.client_id:
                missing.append(NO_CLIENT_ID)
            try:
                self._parameters()
            except Problem as problem:
                missing.append(str(problem))
        if self.store is None:
            missing.append(NO_STORE)
        if missing:
            raise Problem("; ".join(missing))

    async def login_place(self) -> TokenEndpoint | Server:
        """Return the server where a person logs in. Discover its endpoints if only the issuer is known."""
        return await self.endpoint() if self.mcp is None else self._server(self.mcp)

    def _server(self, url: str) -> Server:
        if self.provider is not None or self.overrides():
            raise Problem(
                "--mcp finds out by itself where to log in: no provider, and none of --token-url, --authorization-url, "
                "--device-authorization-url, --revocation-url, --auth-method and --pkce goes with it"
            )
        try:
            return Server(
                url,
                client_id=self.client_id,
                client_secret=self.secret(),
                issuer=self.issuer,
                scope=self.scope,
                client_name=self.client_name or "httpx-refresh",
            )
        except ValueError as error:
            raise Problem(str(error)) from None

    async def endpoint(self) -> TokenEndpoint:
        """Make the endpoint. Discover its address if only the issuer is known."""
        if not self.client_id:
            raise Problem(NO_CLIENT_ID)
        overrides = {**self.overrides(), **self._parameters()}
        try:
            client_auth = self.client_auth()
            if client_auth is not None:
                overrides["client_auth"] = client_auth
            found = await self._endpoint(self.client_id, self.secret(), overrides)
        except ValueError as error:
            raise Problem(str(error)) from None
        if found is not None:
            return found
        raise Problem(
            "there is no provider: name one ("
            + ", ".join(PRESETS)
            + "), or a table of the configuration file, or give --issuer or --token-url"
        )

    async def source(self) -> TokenEndpoint | EndpointSource | Server:
        """Make the source of this slot's tokens: a service's grant if one is named, else a login's endpoint."""
        self._check_grant()
        if self.grant is None:
            return await self.login_place()
        try:
            if self.provider in _SERVICES:
                return self._service()
            if self.grant == "client_credentials":
                return ClientCredentials(
                    await self.endpoint(),
                    scope=self.scope,
                    audience=self.audience,
                    resource=self.resource,
                    params=self._read_params(),
                )
            if self.grant == "jwt-bearer":
                return await self._jwt_bearer()
            if self.grant == "token-exchange":
                return await self._token_exchange()
            scope = {} if self.scope is None else {"scope": self.scope}
            return Grant(
                await self.endpoint(),
                self.grant,
                {**scope, **self._read_params()},
                subject=self.subject,
            )
        except (TypeError, ValueError) as error:
            raise Problem(str(error)) from None

    def _check_grant(self) -> None:
        """Raise a `Problem` if a setting does not belong to this grant."""
        if self.grant is not None and self.grant not in _GRANT_SETTINGS and self.params is None:
            raise Problem(
                f"the grant {self.grant!r} is not one of {', '.join(GRANTS)}; one of a vendor's own has a table "
                "params, which may be empty"
            )
        known = () if self.grant is None else _GRANT_SETTINGS.get(self.grant, _VENDORS_OWN)
        stray = [
            name
            for name in _ALL_GRANT_SETTINGS
            if name not in known and getattr(self, name) is not None
        ]
        if stray and self.grant is None:
            raise Problem(f"{', '.join(stray)} needs a grant: {' or '.join(GRANTS)}")
        if stray:
            theirs = [one for one in GRANTS if stray[0] in _GRANT_SETTINGS[one]]
            meant = f"is for the grant {' or '.join(theirs)}" if theirs else "is for another grant"
            raise Problem(f"{stray[0]} {meant}, and this is {self.grant}")

    def _read_params(self) -> dict[str, str]:
        """Return the current further parameters: texts, or the values that `env` and `file` name."""
        return {
            name: value if isinstance(value, str) else _read_place(value, f"params.{name}")
            for name, value in (self.params or {}).items()
        }

    def _service(self) -> EndpointSource:
        """Make the source of a service's preset."""
        if self.client_key_file is None:
            raise Problem(f"{self.provider} needs client_key_file")
        warn_of_readers(self.client_key_file, "the key of a service")
        key = Path(self.client_key_file)
        if self.provider == "google-service-account":
            if self.scope is None:
                raise Problem(f"{self.provider} needs a scope")
            return providers.google_service_account(key, scope=self.scope, subject=self.subject)
        if not self.client_id or self.installation_id is None:
            raise Problem(f"{self.provider} needs client_id (the app's) and installation_id")
        return providers.github_installation(self.client_id, key, self.installation_id)

    async def _token_exchange(self) -> TokenExchange:
        subject, actor = self._token_of("subject_token"), self._token_of("actor_token")
        kinds: dict[str, Any] = {
            "subject_token_type": self.subject_token_type,
            "actor_token_type": self.actor_token_type,
            "requested_token_type": self.requested_token_type,
        }
        return TokenExchange(
            await self.endpoint(),
            subject,
            actor_token=actor,
            scope=self.scope,
            audience=self.audience,
            resource=self.resource,
            params=self._read_params(),
            **{name: kind for name, kind in kinds.items() if kind is not None},
        )

    def _token_of(self, name: str) -> str | None:
        """Return a token's current value; None if none is named."""
        places = {kind: getattr(self, f"{name}_{kind}") for kind in ("env", "file")}
        given = {kind: place for kind, place in places.items() if place is not None}
        if not given:
            return None
        if len(given) > 1:
            raise Problem(f"{name}_env and {name}_file do not go together: leave one of them out")
        if "file" in given:
            warn_of_readers(given["file"], f"the {name}")
        return _read_place(given, name)

    async def _jwt_bearer(self) -> JWTBearer:
        if self.client_key_file is None:
            raise Problem("the grant jwt-bearer needs client_key_file, which signs the assertion")
        warn_of_readers(self.client_key_file, "the key of the assertion")
        algorithm: Any = self.client_key_algorithm or "RS256"
        # The key is the assertion's, not the client's.
        endpoint = await replace(
            self, client_key_file=None, **dict.fromkeys(_KEY_SETTINGS)
        ).endpoint()
        return JWTBearer(
            endpoint,
            Path(self.client_key_file),
            issuer=self.client_id,
            subject=self.subject,
            audience=self.audience,
            scope=self.scope,
            algorithm=algorithm,
            key_id=self.client_key_id,
            password=self._key_password(),
            params=self._read_params(),
        )

    async def _endpoint(
        self, client_id: str, client_secret: str | None, overrides: dict[str, Any]
    ) -> TokenEndpoint | None:
        preset = self.preset()
        if preset is not None:
            endpoint: TokenEndpoint = preset.function(client_id, client_secret, **overrides)
            return endpoint
        if self.issuer is not None:
            return await discover(self.issuer, client_id, client_secret, **overrides)
        if self.token_url is not None:
            return TokenEndpoint(overrides.pop("url"), client_id, client_secret, **overrides)
        return None

    def refresh_token_lifetime(self) -> float | None:
        """Return the seconds after which the provider's unused refresh tokens expire, if that is known."""
        preset = self.preset()
        return None if preset is None else preset.provider.idle_lifetime


def _read_place(place: Mapping[str, str], what: str) -> str:
    """Return the text in a variable or a file; `what` is its name in messages."""
    if "env" in place:
        if place["env"] not in os.environ:
            raise Problem(f"the environment variable {place['env']} is not set")
        return os.environ[place["env"]]
    return read_text(place["file"], what).strip()


def _path(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def read_text(path: str, what: str) -> str:
    """Return the text of a small file that the person named."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Problem(f"the {what} {path!r} is not UTF-8 text") from None
    except OSError as error:
        raise Problem(f"the {what} {path!r} cannot be read: {error.strerror}") from None


def warn_of_readers(path: str, what: str) -> None:
    """Warn if other users may read a file that holds a secret."""
    if _mode(path) & 0o077:
        warn(f"{path} holds {what}, and others may read it: chmod 600 {path}")


def _mode(path: str) -> int:
    """Return the permissions of a regular file; 0 for anything else, and on systems without permissions."""
    try:
        mode = Path(path).expanduser().stat().st_mode
    except OSError:  # Reading the file raises the error.
        return 0
    return stat.S_IMODE(mode) if stat.S_ISREG(mode) and os.name == "posix" else 0


def default_config() -> Path:
    """Return the default path of the configuration file. It is never in the working directory, which others may own."""
    return Path(typer.get_app_dir("httpx-refresh"), "config.toml")


def read_config(path: str | None) -> dict[str, Settings]:
    """Read the configuration file, which has a table for each slot."""
    if path is None:
        if not default_config().exists():
            return {}
        path = str(default_config())
    text = read_text(path, "configuration file")
    try:
        tables: dict[str, Any] = TOML.loads(text)
    except ValueError as error:
        raise Problem(f"the configuration file {path!r} is not TOML: {error}") from None
    except RecursionError:
        raise Problem(
            f"the configuration file {path!r} cannot be read: its values are nested too deeply"
        ) from None
    found = {name: _read_table(name, table, path) for name, table in tables.items()}
    if any(one.client_secret for one in found.values()):
        warn_of_readers(path, "a client secret")
    elif any(
        isinstance(value, str) for one in found.values() for value in (one.params or {}).values()
    ):
        warn_of_readers(path, "parameters of a grant")
    elif any(has_password(one.store or "") for one in found.values()):
        warn_of_readers(path, "a store's password")
    elif _mode(path) & 0o022:
        warn(
            f"{path} says where tokens come from and where they are kept, and others may change it: chmod go-w {path}"
        )
    return found


def _read_table(name: str, table: Any, path: str) -> Settings:
    if not isinstance(table, dict):
        raise Problem(f"{path}: {name!r} stands outside a table; write it below a [name]")
    kinds: dict[str, type] = {"port": int, "pkce": bool, "params": dict}
    known = {one.name: kinds.get(one.name, str) for one in fields(Settings) if one.name != "name"}
    for key, value in table.items():
        if key not in known:
            raise Problem(f"{path}: [{name}] knows no {key!r}; it knows {', '.join(known)}")
        if type(value) is not known[key]:
            raise Problem(f"{path}: {key} in [{name}] must be of type {known[key].__name__}")
    for key, value in table.get("params", {}).items():
        place = list(value.items()) if isinstance(value, dict) else []
        if not (
            isinstance(value, str)
            or (len(place) == 1 and place[0][0] in ("env", "file") and isinstance(place[0][1], str))
        ):
            raise Problem(
                f'{path}: params.{key} in [{name}] must be a text, {{ env = "VARIABLE" }} or {{ file = "path" }}'
            )
    settings = Settings(name=name, **table)
    provider = _spelled(settings.provider or name)
    if provider in _SERVICES:
        if settings.grant not in (None, _SERVICES[provider]):
            raise Problem(f"{path}: {provider} in [{name}] has the grant {_SERVICES[provider]}")
        return replace(settings, provider=provider, grant=_SERVICES[provider])
    if provider in PRESETS:
        return replace(settings, provider=provider)
    if settings.provider is not None:
        raise Problem(f"{path}: [{name}] names the unknown provider {settings.provider!r}")
    return settings


def has_password(url: str) -> bool:
    """Whether a store's URL holds a password, before the host or in the query, where drivers accept it, too."""
    try:
        parts = urlsplit(url)
        fields = parse_qsl(parts.query)
    except ValueError:  # Opening the store raises the error.
        return True
    return bool(parts.password) or any("passw" in name.lower() for name, _ in fields)


def resolve(
    name: str | None, chosen: Mapping[str, Any], config: Mapping[str, Settings]
) -> Settings:
    """Return the settings of the slot `name`; options of the command line take precedence."""
    given = {key: value for key, value in chosen.items() if value is not None}
    if name is None:
        return Settings(**given)
    if name in config:
        base = config[name]
        if given.keys() & {"client_secret", "client_secret_file", "client_key_file"}:
            base = replace(
                base,
                client_secret=None,
                client_secret_env=None,
                client_secret_file=None,
                client_key_file=None,
                client_key_password_env=None,
                client_key_password_file=None,
                client_key_id=None,
                client_key_algorithm=None,
                client_certificate_file=None,
            )
        return replace(base, **given)
    if _spelled(name) in PRESETS:
        return Settings(name=name, provider=_spelled(name), **given)
    if "mcp" in given or "issuer" in given or "token_url" in given or "store" in given:
        return Settings(name=name, **given)
    known = dict.fromkeys([*config, *PRESETS])
    raise Problem(f"{name!r} is not known; known are {', '.join(known)}")
