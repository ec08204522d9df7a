"""The options that the commands share, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

from .console import Problem, ask_hidden, warn
from .settings import Settings, has_password, read_config, resolve

_SERVER, _CLIENT, _PLACE = "The provider", "The client", "The store"


def _option(*names: str, help: str, panel: str, env: str | None = None, **more: Any) -> Any:
    return typer.Option(
        *names,
        help=help,
        rich_help_panel=panel,
        envvar=f"HTTPX_REFRESH_{env}" if env else None,
        show_envvar=env is not None,
        show_default=False,
        **more,
    )


class Hidden:
    """An option's value that is or may hold a secret; its repr does not show it.

    The frames of the command-line framework hold all values, and error trackers send their reprs.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: str = text

    def __repr__(self) -> str:
        return "'***'"


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="PROVIDER",
        help="xero, quickbooks, salesforce, 2ba, …, or a table of the configuration file.",
        show_default=False,
    ),
]
Config = Annotated[
    str | None,
    _option("--config", help="The configuration file (TOML).", panel=_PLACE, env="CONFIG"),
]
Store = Annotated[
    Hidden | None,
    _option(
        "--store",
        help="Where the token is: file:token.json, rediss://host/0?key=…, postgresql+asyncpg://host/db?ssl=verify-full&key=…",
        panel=_PLACE,
        env="STORE",
        parser=Hidden,
        metavar="URL",
    ),
]
KeyFile = Annotated[
    str | None,
    _option(
        "--encrypt-key-file",
        help="Encrypt the token with the first key of this file. The other keys can decrypt.",
        panel=_PLACE,
        env="ENCRYPT_KEY_FILE",
    ),
]
ClientId = Annotated[
    str | None,
    _option("--client-id", help="The client's identifier.", panel=_CLIENT, env="CLIENT_ID"),
]
ClientSecret = Annotated[
    Hidden | None,
    _option(
        "--client-secret",
        help="The client's secret. Prefer the variable: other users can see arguments in the list of processes.",
        panel=_CLIENT,
        env="CLIENT_SECRET",
        parser=Hidden,
        metavar="TEXT",
    ),
]
SecretFile = Annotated[
    str | None,
    _option(
        "--client-secret-file",
        help="A file with the client's secret; - for a line of standard input.",
        panel=_CLIENT,
        env="CLIENT_SECRET_FILE",
    ),
]
AskSecret = Annotated[
    bool, _option("--ask-secret", help="Ask for the client's secret.", panel=_CLIENT)
]
ClientKeyFile = Annotated[
    str | None,
    _option(
        "--client-key-file",
        help="A file with the client's private key (PEM or JWK), instead of a secret.",
        panel=_CLIENT,
        env="CLIENT_KEY_FILE",
    ),
]
ClientKeyPasswordFile = Annotated[
    str | None,
    _option(
        "--client-key-password-file",
        help="A file with the password of that key.",
        panel=_CLIENT,
        env="CLIENT_KEY_PASSWORD_FILE",
    ),
]
ClientKeyId = Annotated[
    str | None,
    _option(
        "--client-key-id",
        help="The key id (kid) that is registered at the provider.",
        panel=_CLIENT,
        env="CLIENT_KEY_ID",
    ),
]
ClientKeyAlgorithm = Annotated[
    str | None,
    _option(
        "--client-key-algorithm",
        help="The signature algorithm: RS256 (default), PS256, ES256, Ed25519, …",
        panel=_CLIENT,
        env="CLIENT_KEY_ALGORITHM",
    ),
]
ClientCertificateFile = Annotated[
    str | None,
    _option(
        "--client-certificate-file",
        help="A file with the certificate of that key.",
        panel=_CLIENT,
        env="CLIENT_CERTIFICATE_FILE",
    ),
]
AuthMethod = Annotated[
    str | None,
    _option(
        "--auth-method",
        help="How the client authenticates: client_secret_basic, client_secret_post, none, private_key_jwt, "
        "tls_client_auth, …",
        panel=_CLIENT,
        env="AUTH_METHOD",
    ),
]
McpUrl = Annotated[
    str | None,
    _option(
        "--mcp",
        help="An MCP server's address. The command finds the issuer of its tokens, and registers the client there.",
        panel=_SERVER,
        env="MCP",
    ),
]
ClientName = Annotated[
    str | None,
    typer.Option(
        help="With --mcp: the client's name on the consent page.",
        show_default=False,
    ),
]
Register = Annotated[
    bool, typer.Option("--register", help="With --mcp: register the client again.")
]
Issuer = Annotated[
    str | None,
    _option(
        "--issuer",
        help="An issuer that publishes its metadata (RFC 8414, OpenID Connect discovery).",
        panel=_SERVER,
        env="ISSUER",
    ),
]
TokenUrl = Annotated[
    str | None,
    _option("--token-url", help="The token endpoint.", panel=_SERVER, env="TOKEN_URL"),
]
RevocationUrl = Annotated[
    str | None,
    _option(
        "--revocation-url",
        help="The revocation endpoint (RFC 7009).",
        panel=_SERVER,
        env="REVOCATION_URL",
    ),
]
Domain = Annotated[
    str | None,
    _option(
        "--domain",
        help="Salesforce: login, test (sandboxes), or a My Domain name. Microsoft: the tenant. Exact Online: the "
        "country. Zoho: the data centre.",
        panel=_SERVER,
        env="DOMAIN",
    ),
]
AuthorizationUrl = Annotated[
    str | None, typer.Option(help="The authorization endpoint.", show_default=False)
]
DeviceUrl = Annotated[
    str | None,
    typer.Option(help="The device authorization endpoint (RFC 8628).", show_default=False),
]
GrantName = Annotated[
    str | None,
    typer.Option(
        "--grant",
        help="How a service gets its token: client_credentials, jwt-bearer, token-exchange, or a vendor's own.",
        envvar="HTTPX_REFRESH_GRANT",
        show_default=False,
    ),
]
Claims = Annotated[
    str | None,
    typer.Option(
        help="Claims that an API requires, as JSON (OpenID Connect Core §5.5).",
        show_default=False,
    ),
]
AcrValues = Annotated[
    str | None,
    typer.Option(
        help="The required strength of the login: words separated by spaces (RFC 9470).",
        show_default=False,
    ),
]
MaxAge = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="The greatest number of seconds since the person logged in (RFC 9470).",
        show_default=False,
    ),
]
Scope = Annotated[
    str | None,
    typer.Option(
        help="What the token may do: words separated by spaces.",
        envvar="HTTPX_REFRESH_SCOPE",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        help="The port of 127.0.0.1 that the browser comes back to; a free one if not given.",
        min=1,
        max=65535,
        show_default=False,
    ),
]
RedirectUri = Annotated[
    str | None,
    typer.Option(
        help="The registered redirect URI, if it is not http://127.0.0.1:PORT/callback.",
        show_default=False,
    ),
]
Browser = Annotated[
    bool, typer.Option(help="Open a browser here, or print the address and paste the result.")
]
Device = Annotated[
    bool, typer.Option("--device", help="Log in on another device with a code (RFC 8628).")
]
Pkce = Annotated[
    bool | None,
    typer.Option(
        "--pkce/--no-pkce",
        help="Use --no-pkce only if the server does not support PKCE.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(help="Seconds after which the login is given up.", min=0)]


def settings_of(context: typer.Context) -> Settings:
    """Return the settings of one slot."""
    given, chosen = context.params, _chosen(context)
    tables = read_config(given["config"])
    settings = resolve(given["name"], chosen, tables)
    if given.get("ask_secret"):
        chosen["client_secret"] = _ask_secret(settings)
        settings = resolve(given["name"], chosen, tables)
    return settings


def all_settings_of(context: typer.Context, what: str) -> list[Settings]:
    """Return the settings of many slots; `what` is the task for the message if there is none."""
    named = context.params["names"] if "names" in context.params else [context.params["name"]]
    names, chosen = [name for name in named or [] if name is not None], _chosen(context)
    tables = read_config(context.params["config"])
    if not names and "store" not in chosen:
        names = list(tables)
        if not names:
            raise Problem(f"there is nothing to {what}: the configuration file names no slot")
    if len(names) > 1 and chosen:
        raise Problem(
            f"{', '.join(sorted(chosen))}: given for one slot, by an option or a variable, and there are "
            f"{len(names)}. Write them into the configuration file"
        )
    return [resolve(name, chosen, tables) for name in names or [None]]


def _ask_secret(settings: Settings) -> str:
    """Ask for the client's secret, without echo."""
    secret = ask_hidden(f"Client secret for {settings.label} (it is not shown): ")
    if not secret:
        raise Problem("no client secret was given")
    return secret


def _chosen(context: typer.Context) -> dict[str, Any]:
    """Return the settings among a command's parameters. Warn of a secret on the command line."""
    given = context.params
    for option in ("client_secret", "store"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE" and _is_secret(option, given):
            warn(
                f"--{option.replace('_', '-')} is seen by all who list this machine's processes, and stays in the "
                f"shell's history. Use HTTPX_REFRESH_{option.upper()}, or the configuration file."
            )
    names = {one.name for one in fields(Settings)} - {"name"}
    chosen = {name: given[name] for name in names if given.get(name) is not None}
    return {
        name: value.text if isinstance(value, Hidden) else value for name, value in chosen.items()
    }


def _is_secret(option: str, given: Mapping[str, Any]) -> bool:
    """Whether an option's value is a secret, or holds one."""
    return option == "client_secret" or has_password(given[option].text)
