"""The commands, with their options and their help."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from .._version import __version__
from . import care, facts
from .console import (
    Problem,
    at_terminal,
    others_may_read_output,
    reporting,
    run,
    say,
    tell,
    visible,
    warn,
    write_private,
)
from .login import How, asked_for, log_in
from .options import (
    AcrValues,
    AskSecret,
    AuthMethod,
    AuthorizationUrl,
    Browser,
    Claims,
    ClientCertificateFile,
    ClientId,
    ClientKeyAlgorithm,
    ClientKeyFile,
    ClientKeyId,
    ClientKeyPasswordFile,
    ClientName,
    ClientSecret,
    Config,
    Device,
    DeviceUrl,
    Domain,
    GrantName,
    Issuer,
    KeyFile,
    MaxAge,
    McpUrl,
    Name,
    Pkce,
    Port,
    RedirectUri,
    Register,
    RevocationUrl,
    Scope,
    SecretFile,
    Store,
    Timeout,
    TokenUrl,
    all_settings_of,
    settings_of,
)

app: typer.Typer = typer.Typer(
    name="httpx-refresh",
    help="Log in with OAuth 2.0, and keep the token alive: show, refresh and revoke it.",
    epilog="Settings come from options, then HTTPX_REFRESH_… variables, then the configuration file. Exit codes: 0 "
    "done; 2 wrong usage or settings; 3 a person must log in; 4 try again later; 5 the store failed; 6 the login "
    "failed; 7 the provider refuses this client; 130 interrupted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback that shows the values of variables would show tokens.
    pretty_exceptions_enable=False,
    # Boxes and colours are for terminals; a pipe gets plain text.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"httpx-refresh {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Handle the options of all commands."""


@app.command()
def login(
    context: typer.Context,
    name: Name = None,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    client_secret_file: SecretFile = None,
    ask_secret: AskSecret = False,
    client_key_file: ClientKeyFile = None,
    client_key_password_file: ClientKeyPasswordFile = None,
    client_key_id: ClientKeyId = None,
    client_key_algorithm: ClientKeyAlgorithm = None,
    client_certificate_file: ClientCertificateFile = None,
    auth_method: AuthMethod = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    mcp: McpUrl = None,
    issuer: Issuer = None,
    token_url: TokenUrl = None,
    authorization_url: AuthorizationUrl = None,
    device_authorization_url: DeviceUrl = None,
    domain: Domain = None,
    scope: Scope = None,
    claims: Claims = None,
    acr_values: AcrValues = None,
    max_age: MaxAge = None,
    port: Port = None,
    redirect_uri: RedirectUri = None,
    browser: Browser = True,
    device: Device = False,
    pkce: Pkce = None,
    client_name: ClientName = None,
    register: Register = False,
    timeout: Timeout = 300.0,
) -> None:
    """Log in, and save the first token in the store.

    The command checks the store, then opens a browser. Over ssh use --no-browser: it prints the address, and asks for
    the address that the browser ended at.

    If an API requires a stronger login, request it with --scope, --claims, --acr-values and --max-age.
    """
    with reporting():
        asked = asked_for(claims, acr_values, max_age)
        log_in(settings_of(context), How(device, not browser, timeout, register, asked))


@app.command()
def status(
    context: typer.Context,
    name: Name = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object for each slot, one on each line, for scripts."
        ),
    ] = False,
) -> None:
    """Show a slot: its state, generation and times, never a token. Without a name show a table of all slots."""
    with reporting():
        if name is None and context.params["store"] is None:
            slots = all_settings_of(context, "show")
            code = run(partial(care.status_of_all, slots, as_json=as_json))
        else:
            code = run(partial(care.status, settings_of(context), as_json=as_json))
    raise typer.Exit(code)


@app.command()
def refresh(
    context: typer.Context,
    name: Name = None,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    client_secret_file: SecretFile = None,
    ask_secret: AskSecret = False,
    client_key_file: ClientKeyFile = None,
    client_key_password_file: ClientKeyPasswordFile = None,
    client_key_id: ClientKeyId = None,
    client_key_algorithm: ClientKeyAlgorithm = None,
    client_certificate_file: ClientCertificateFile = None,
    auth_method: AuthMethod = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    mcp: McpUrl = None,
    issuer: Issuer = None,
    token_url: TokenUrl = None,
    domain: Domain = None,
) -> None:
    """Refresh the token now, even if it is still valid.

    If a service has already begun a refresh, the command shares it.
    """
    with reporting():
        run(partial(care.refresh, settings_of(context)))


@app.command()
def token(
    context: typer.Context,
    name: Name = None,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    client_secret_file: SecretFile = None,
    ask_secret: AskSecret = False,
    client_key_file: ClientKeyFile = None,
    client_key_password_file: ClientKeyPasswordFile = None,
    client_key_id: ClientKeyId = None,
    client_key_algorithm: ClientKeyAlgorithm = None,
    client_certificate_file: ClientCertificateFile = None,
    auth_method: AuthMethod = None,
    grant: GrantName = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    issuer: Issuer = None,
    token_url: TokenUrl = None,
    domain: Domain = None,
    scope: Scope = None,
) -> None:
    """Request a service's token, without a person, and save it in its store. A valid token is kept.

    The command does not show the token.
    """
    with reporting():
        run(partial(care.obtain, settings_of(context)))


@app.command()
def revoke(
    context: typer.Context,
    name: Name = None,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    client_secret_file: SecretFile = None,
    ask_secret: AskSecret = False,
    client_key_file: ClientKeyFile = None,
    client_key_password_file: ClientKeyPasswordFile = None,
    client_key_id: ClientKeyId = None,
    client_key_algorithm: ClientKeyAlgorithm = None,
    client_certificate_file: ClientCertificateFile = None,
    auth_method: AuthMethod = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    mcp: McpUrl = None,
    issuer: Issuer = None,
    token_url: TokenUrl = None,
    revocation_url: RevocationUrl = None,
    domain: Domain = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Revoke the token at the provider (RFC 7009), then empty the slot."""

    def confirm(question: str) -> bool:
        if yes:
            return True
        if not at_terminal():
            raise Problem("nobody can be asked here; confirm with --yes")
        return typer.confirm(visible(question), err=True)

    with reporting():
        care.revoke(settings_of(context), confirm=confirm)


@app.command()
def watch(
    context: typer.Context,
    name: Name = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    interval: Annotated[float, typer.Option(help="Seconds between two checks.", min=0.1)] = 1.0,
    changes: Annotated[
        int | None, typer.Option(help="Stop after this many lines.", min=1, show_default=False)
    ] = None,
) -> None:
    """Follow a slot: print a line for each refresh, claim, failure and login."""
    with reporting():
        run(partial(care.watch, settings_of(context), interval=interval, changes=changes))


@app.command("keep-alive")
def keep_alive(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Tables of the configuration file, or one provider; all tables if not given.",
            show_default=False,
        ),
    ] = None,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    client_secret_file: SecretFile = None,
    client_key_file: ClientKeyFile = None,
    client_key_password_file: ClientKeyPasswordFile = None,
    client_key_id: ClientKeyId = None,
    client_key_algorithm: ClientKeyAlgorithm = None,
    client_certificate_file: ClientCertificateFile = None,
    auth_method: AuthMethod = None,
    store: Store = None,
    encrypt_key_file: KeyFile = None,
    config: Config = None,
    mcp: McpUrl = None,
    issuer: Issuer = None,
    token_url: TokenUrl = None,
    domain: Domain = None,
    within: Annotated[
        float | None,
        typer.Option(
            help="Refresh tokens that expire within this many days. Default: half the lifetime.",
            min=0,
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Report successes too.")] = False,
) -> None:
    """Refresh the slots whose refresh token would expire unused (Xero 60 days, QuickBooks 100, Salesforce 30).

    Run it from cron: it prints one line for each slot with a problem, and exits with the code of the worst.
    """
    with reporting():
        slots = all_settings_of(context, "keep alive")
        verbose = verbose or sys.stdout.isatty()
        days = None if within is None else within * 86_400.0
        code = run(partial(care.keep_alive, slots, within=days, verbose=verbose))
    raise typer.Exit(code)


@app.command("providers")
def list_providers(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROVIDER]",
            help="The name of a provider; all if not given.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False,
) -> None:
    """List the known providers with their rotation, grace, lifetimes, quirks and sources."""
    with reporting():
        facts.show(name, as_json=as_json)


@app.command("generate-key")
def generate_key(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the key to a new file that only you may read.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Generate a new key for --encrypt-key-file."""
    with reporting():
        try:
            from ..stores.encrypted import generate_key
        except ImportError as error:
            raise Problem(str(error)) from None
        if output is not None:
            write_private(output, f"{generate_key()}\n")
            tell(f"A new key is in {output}; only you may read it (mode 0600).")
            return
        say(generate_key())
        if others_may_read_output():
            warn(
                "the key was written to a file that others may read. Delete the file, and make another key with "
                "--output FILE, which only you may read"
            )


@app.command()
def demo() -> None:
    """Compare a pasted asyncio.Lock recipe with this library: 200 callers, a second process, one kill -9."""
    from .demo import main

    raise typer.Exit(main())
