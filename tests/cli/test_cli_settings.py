from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from httpx_refresh import TokenEndpoint, providers
from httpx_refresh.cli.console import Exit, Problem
from httpx_refresh.cli.loopback import place_of
from httpx_refresh.cli.settings import (
    PRESETS,
    Settings,
    default_config,
    has_password,
    read_config,
    resolve,
    warn_of_readers,
)
from httpx_refresh.client_auth import PrivateKeyJWT
from tests.oauth.pems import certificate, pem

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer
    from tests.cli.conftest import Browser, Run


def configured(text: str, mode: int = 0o600) -> dict[str, Settings]:
    Path("config.toml").write_text(text)
    Path("config.toml").chmod(mode)
    return read_config("config.toml")


def test_every_preset_of_the_library_is_known_by_name() -> None:
    assert len(PRESETS) == len(providers.PRESETS)
    assert {"xero", "quickbooks", "salesforce", "2ba", "exact-online"} <= set(PRESETS)


@pytest.mark.parametrize("name", ["2ba", "twoba", "TwoBA"])
def test_2ba_is_known_by_both_its_names(name: str) -> None:
    assert resolve(name, {}, {}).provider == "2ba"
    assert configured(f"[{name}]\n")[name].provider == "2ba"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "provider, domain, url",
    [
        ("salesforce", "test", "https://test.salesforce.com/services/oauth2/token"),
        ("microsoft", "acme", "https://login.microsoftonline.com/acme/oauth2/v2.0/token"),
        ("zoho", "eu", "https://accounts.zoho.eu/oauth/v2/token"),
        ("exact-online", "be", "https://start.exactonline.be/api/oauth2/token"),
        ("gitlab", "git.acme.test", "https://git.acme.test/oauth/token"),
        ("okta", "acme.okta.com", "https://acme.okta.com/oauth2/v1/token"),
        (
            "keycloak",
            "https://sso.acme.test/realms/a",
            "https://sso.acme.test/realms/a/protocol/openid-connect/token",
        ),
    ],
)
async def test_a_domain_is_what_the_provider_makes_of_it(
    provider: str, domain: str, url: str
) -> None:
    settings = Settings(provider=provider, client_id="c", client_secret="s", domain=domain)
    assert (await settings.endpoint()).url == url


@pytest.mark.anyio
@pytest.mark.parametrize(
    "settings, words",
    [
        (Settings(provider="xero"), "there is no client id"),
        (Settings(client_id="c"), "there is no provider"),
        (Settings(provider="xero", client_id="c", domain="acme"), "a domain is for"),
        (Settings(provider="okta", client_id="c"), "okta needs a domain: give --domain"),
        (Settings(provider="workday", client_id="c"), "workday needs host and tenant"),
        (Settings(token_url="http://x.test/", client_id="c"), "must be https"),
        (Settings(issuer="http://x.test/", client_id="c"), "issuer must be https"),
        (Settings(provider="xero", client_id="c", auth_method="magic"), "must be one of"),
    ],
)
async def test_settings_that_cannot_be_meant_are_explained(settings: Settings, words: str) -> None:
    with pytest.raises(Problem, match=words) as caught:
        await settings.endpoint()
    assert caught.value.code == Exit.USAGE


@pytest.mark.anyio
async def test_what_is_for_grants_alone_asks_for_one() -> None:
    settings = Settings(provider="xero", client_id="c", subject_token_env="X")
    with pytest.raises(Problem, match="subject_token_env needs a grant: client_credentials"):
        await settings.source()


def test_a_login_names_all_that_it_lacks_at_once(run: Run) -> None:
    result = run("login", "okta")
    assert result.exit_code == Exit.USAGE
    said = " ".join(result.stderr.split())
    for missing in ("no client id", "okta needs a domain", "no store"):
        assert missing in said


@pytest.mark.anyio
async def test_a_redirect_uri_is_repeated_where_the_provider_wants_it_in_each_refresh() -> None:
    settings = Settings(
        provider="gitlab", client_id="c", redirect_uri="https://app.test/back", domain="gitlab.com"
    )
    endpoint = await settings.endpoint()
    assert isinstance(endpoint, TokenEndpoint)
    assert endpoint.refresh_params["redirect_uri"] == "https://app.test/back"


def test_a_configuration_file_has_a_table_for_each_slot() -> None:
    tables = configured(
        '[books]\nprovider = "xero"\nclient_id = "c"\nport = 8080\n[own]\nissuer = "https://x.test"\npkce = false\n'
    )
    assert tables["books"] == Settings(name="books", provider="xero", client_id="c", port=8080)
    assert tables["own"] == Settings(name="own", issuer="https://x.test", pkce=False)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[books", "is not TOML"),
        ('store = "file:x"', "stands outside a table"),
        ('[books]\ncolour = "red"', "knows no 'colour'"),
        ('[books]\nport = "8080"', "port in .books. must be of type int"),
        ("[books]\nport = true", "port in .books. must be of type int"),
        ("[books]\nstore = 7", "store in .books. must be of type str"),
        ('[books]\nprovider = "nobody"', "the unknown provider 'nobody'"),
    ],
)
def test_a_configuration_file_that_is_wrong_says_where(text: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        configured(text)


def test_a_configuration_file_that_is_named_must_be_there() -> None:
    with pytest.raises(Problem, match="cannot be read: No such file"):
        read_config("absent.toml")
    Path("binary.toml").write_bytes(b"\xff")
    with pytest.raises(Problem, match="is not UTF-8 text"):
        read_config("binary.toml")


def test_the_file_in_the_persons_own_directory_is_read_and_none_in_the_working_directory() -> None:
    Path("config.toml").write_text("[here]\n")
    Path("httpx-refresh.toml").write_text("[here]\n")
    assert read_config(None) == {}
    default_config().parent.mkdir(parents=True)
    default_config().write_text("[mine]\n")
    assert list(read_config(None)) == ["mine"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
@pytest.mark.parametrize(
    "line, what",
    [
        ('client_secret = "SECRET"', "a client secret"),
        ('store = "redis://:SECRET@host/0?key=a"', "a store's password"),
        ('params = { password = "SECRET" }', "parameters of a grant"),
    ],
)
def test_a_secret_in_a_file_that_others_may_read_is_warned_of(
    capsys: pytest.CaptureFixture[str], mode: int, line: str, what: str
) -> None:
    configured(f"[books]\n{line}\n", mode)
    said = capsys.readouterr().err
    assert f"config.toml holds {what}, and others may read it: chmod 600 config.toml" in said
    assert "SECRET" not in said
    configured(f"[books]\n{line}\n", 0o600)
    assert capsys.readouterr().err == ""


def test_a_file_that_others_may_change_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    configured('[books]\nclient_id = "c"\n', 0o644)
    assert capsys.readouterr().err == ""
    configured('[books]\nclient_id = "c"\n', 0o664)
    assert "others may change it: chmod go-w config.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, what",
    [("secret.txt", "the client's secret"), ("keys.txt", "keys"), ("token.json", "a token")],
)
def test_each_file_with_a_secret_that_others_may_read_is_warned_of(
    run: Run, server: AuthorizationServer, name: str, what: str
) -> None:
    Path("secret.txt").write_text("secret")
    Path("keys.txt").write_text(run("generate-key").stdout)
    Path("token.json").write_text(json.dumps(server.login()))
    client = ["--client-id", "client", "--client-secret-file", "secret.txt"]
    commands = [
        ["refresh", "--token-url", server.token_url, *client, "--store", "file:token.json"],
        ["status", "--store", "file:sealed.json", "--encrypt-key-file", "keys.txt"],
    ]
    assert [run(*command).stderr for command in commands] == ["", ""]
    Path(name).chmod(0o644)
    said = "".join(run(*command).stderr for command in commands)
    assert said.count("others may read it") == 1
    assert f"{name} holds {what}, and others may read it: chmod 600 {name}" in said


def test_what_is_no_regular_file_is_nobodys_to_protect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo("pipe", 0o600)
    Path("pipe").chmod(0o644)
    warn_of_readers("pipe", "a secret")
    warn_of_readers("absent", "a secret")
    assert capsys.readouterr().err == ""


def test_the_command_line_takes_precedence_over_the_file() -> None:
    tables = {"books": Settings(name="books", client_id="file", store="file:x", scope="a")}
    found = resolve("books", {"client_id": "option", "scope": None}, tables)
    assert (found.client_id, found.store, found.scope) == ("option", "file:x", "a")


@pytest.mark.parametrize("given", ["client_secret", "client_secret_file"])
def test_a_secret_that_is_given_replaces_the_files_wherever_that_keeps_it(given: str) -> None:
    Path("given.txt").write_text("given.txt")
    base = Settings(name="books", client_secret="old", client_secret_env="OLD")
    found = resolve("books", {given: "given.txt"}, {"books": base})
    assert found.secret() == "given.txt"


def test_a_secret_may_be_kept_in_a_file_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret.txt").write_text("from a file\n")
    monkeypatch.setenv("XERO_SECRET", "from a variable")
    assert Settings(client_secret_file="secret.txt").secret() == "from a file"
    assert Settings(client_secret_env="XERO_SECRET").secret() == "from a variable"
    assert Settings().secret() is None
    with pytest.raises(Problem, match="ABSENT is not set"):
        Settings(client_secret_env="ABSENT").secret()
    with pytest.raises(Problem, match=r"the client secret file 'absent.txt' cannot be read"):
        Settings(client_secret_file="absent.txt").secret()


def test_a_slot_is_called_by_what_is_known_of_it() -> None:
    assert Settings(name="books", provider="xero").label == "books"
    assert Settings(provider="xero").label == "xero"
    assert Settings(issuer="https://x.test").label == "https://x.test"
    assert Settings(store="file:x").label == "file:x"
    assert Settings().label == "the slot"


def test_settings_come_from_the_environment_too(
    run: Run, server: AuthorizationServer, browser: Browser
) -> None:
    env = {
        "HTTPX_REFRESH_ISSUER": server.issuer,
        "HTTPX_REFRESH_CLIENT_ID": "client",
        "HTTPX_REFRESH_CLIENT_SECRET": "secret",
        "HTTPX_REFRESH_STORE": "file:token.json",
        "HTTPX_REFRESH_SCOPE": "a b",
    }
    result = run("login", env=env)
    assert result.exit_code == Exit.DONE, result.output
    assert "Warning" not in result.output
    assert "scope=a+b" in browser.opened[0] or "scope=a%20b" in browser.opened[0]


def test_settings_come_from_the_file_by_the_name_of_a_table(
    run: Run, server: AuthorizationServer, browser: Browser, free_port: int
) -> None:
    Path("config.toml").write_text(
        f'[own]\nissuer = "{server.issuer}"\nclient_id = "client"\nclient_secret_env = "OWN_SECRET"\n'
        f'store = "file:own.json"\nscope = "a"\nport = {free_port}\n'
    )
    env = {"OWN_SECRET": "secret", "HTTPX_REFRESH_CONFIG": "config.toml"}
    result = run("login", "own", env=env)
    assert result.exit_code == Exit.DONE, result.output
    assert run("status", "own", env=env).exit_code == Exit.DONE
    assert str(browser.pages[0].request.url).startswith(f"http://127.0.0.1:{free_port}/")


def test_a_secret_on_the_command_line_is_warned_of_and_used(
    run: Run, server: AuthorizationServer, browser: Browser
) -> None:
    options = ["--issuer", server.issuer, "--client-id", "client", "--store", "file:token.json"]
    result = run("login", *options, "--client-secret", "secret")
    assert result.exit_code == Exit.DONE, result.output
    assert "--client-secret is seen by all who list this machine's processes" in result.stderr


def test_a_password_in_a_stores_url_on_the_command_line_is_warned_of_and_not_shown(
    run: Run,
) -> None:
    url = "redis://:PASSWORD@127.0.0.1:1/0?key=a"
    result = run("status", "--store", url)
    assert result.exit_code == Exit.STORE
    assert "--store is seen by all" in result.stderr
    assert "PASSWORD" not in result.output
    quiet = run("status", env={"HTTPX_REFRESH_STORE": url})
    assert "Warning" not in quiet.stderr


@pytest.mark.parametrize(
    "url, secret",
    [
        ("redis://:PASSWORD@h/0?key=a", True),
        ("postgresql+asyncpg://u:PASSWORD@h/db?key=a", True),
        ("postgresql+asyncpg://u@h/db?key=a&password=PASSWORD", True),
        ("redis://h/0?key=a&ssl_keyfile_PASSWORD=x", True),
        ("redis://[PASSWORD", True),
        ("postgresql+asyncpg://u@h/db?key=a", False),
        ("redis://h/0?key=password", False),
        ("file:password.json", False),
    ],
)
def test_a_password_is_known_wherever_a_stores_url_may_hold_one(url: str, secret: bool) -> None:
    assert has_password(url) is secret


def test_a_secret_is_read_from_standard_input(
    run: Run, at: list[str], server: AuthorizationServer, browser: Browser
) -> None:
    options = [*at[:4], "--store", "file:token.json"]
    piped = run("login", *options, "--client-secret-file", "-", input="secret\n")
    assert piped.exit_code == Exit.DONE, piped.output
    asked = run("login", *options, "--ask-secret", input="secret\n")
    assert asked.exit_code == Exit.DONE, asked.output
    assert "it is not shown" in asked.stderr
    none = run("login", *options, "--ask-secret", input="\n")
    assert none.exit_code == Exit.USAGE
    assert "no client secret was given" in none.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["login", "xero", "--client-id", "c"], "there is no store"),
        (["login", "xero"], "there is no client id: "),
        (["login", "xero"], "; there is no store: "),
        (["status", "--store", "nonsense"], "a store is named by a URL"),
        (["status", "--store", "memory:"], "is gone when the command ends"),
        (["status", "nobody"], "'nobody' is not known; known are"),
        (["status", "--store", "file:x", "--encrypt-key-file", "absent"], "cannot be read"),
        (["status", "--store", "file:x", "--encrypt-key-file", "empty"], "is empty"),
        (["status", "--store", "file:x", "--encrypt-key-file", "short"], "is not 32 bytes"),
        (["refresh", "mine", "--store", "file:x", "--client-id", "c"], "there is no provider"),
        (
            [
                "login",
                "xero",
                "--client-id",
                "c",
                "--store",
                "file:x",
                "--redirect-uri",
                "http://x:y/",
            ],
            "its port is not a number",
        ),
        (
            [
                "login",
                "xero",
                "--client-id",
                "c",
                "--store",
                "file:x",
                "--redirect-uri",
                "https://x/",
            ],
            "only http://127.0.0.1:PORT",
        ),
        (
            [
                *[
                    "login",
                    "xero",
                    "--client-id",
                    "c",
                    "--store",
                    "file:x",
                    "--redirect-uri",
                    "http://localhost/?a",
                ]
            ],
            "no query and no fragment",
        ),
        (
            [*["login", "xero", "--client-id", "c", "--store", "file:x", "--no-pkce"]],
            "must use PKCE",
        ),
    ],
)
def test_wrong_usage_ends_with_a_line_and_no_traceback(
    run: Run, arguments: list[str], words: str
) -> None:
    Path("empty").write_text("\n")
    Path("short").write_text("AAAA")
    result = run(*arguments)
    assert result.exit_code == Exit.USAGE, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_port_of_a_redirect_uri_without_one_is_that_of_http() -> None:
    assert place_of("http://localhost", None) == (80, "/", "localhost")
    assert place_of(None, None) == (0, "/callback", "127.0.0.1")


# -- a key instead of a secret ---------------------------------------------------------------------------------


@pytest.fixture
def key_files(tmp_path: Path) -> dict[str, Any]:
    """A client's key with a password, its certificate, and its password, in files."""
    texts = {
        "client_key_file": pem("RSA", b"s3cr3t"),
        "client_certificate_file": certificate("RSA"),
        "client_key_password_file": "s3cr3t\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return {name: str(tmp_path / name) for name in texts}


@pytest.mark.parametrize("of", [{"provider": "xero"}, {"token_url": "https://as.test/token"}])
@pytest.mark.anyio
async def test_a_client_may_have_a_key_instead_of_a_secret(
    of: dict[str, Any], key_files: dict[str, Any]
) -> None:
    settings = Settings(client_id="c", client_key_algorithm="PS256", **of, **key_files)
    assert (await settings.endpoint()).client_auth == "private_key_jwt"
    assert isinstance(settings.client_auth(), PrivateKeyJWT)


@pytest.mark.parametrize("method", ["tls_client_auth", "self_signed_tls_client_auth"])
@pytest.mark.anyio
async def test_a_client_may_show_a_certificate(method: str, key_files: dict[str, Any]) -> None:
    settings = Settings(provider="xero", client_id="c", auth_method=method, **key_files)
    assert (await settings.endpoint()).client_auth == "tls_client_auth"


def test_the_password_of_a_key_may_be_in_a_variable(
    monkeypatch: pytest.MonkeyPatch, key_files: dict[str, Any]
) -> None:
    del key_files["client_key_password_file"]
    settings = Settings(client_key_password_env="KEY_PASSWORD", **key_files)
    with pytest.raises(Problem, match="KEY_PASSWORD is not set"):
        settings.client_auth()
    monkeypatch.setenv("KEY_PASSWORD", "s3cr3t")
    assert isinstance(settings.client_auth(), PrivateKeyJWT)


@pytest.mark.parametrize(
    "more, said",
    [
        ({"client_secret": "s"}, "a key or a secret, not both"),
        ({"client_secret_env": "S"}, "a key or a secret, not both"),
        ({"auth_method": "client_secret_post"}, "'client_secret_post' uses no key"),
        ({"auth_method": "tls_client_auth", "client_certificate_file": None}, "needs client_cert"),
        ({"client_key_file": None}, "client_certificate_file needs client_key_file"),
        ({"client_key_file": "absent.pem"}, "passed as key cannot be read: No such file"),
        ({"client_key_password_file": None}, "key is encrypted, and no password"),
        ({"client_key_algorithm": "HS256"}, "algorithm must be one of"),
        ({"client_key_algorithm": "ES256"}, "key is of the wrong kind"),
    ],
)
@pytest.mark.anyio
async def test_a_key_that_cannot_be_used_is_a_problem(
    more: dict[str, Any], said: str, key_files: dict[str, Any]
) -> None:
    settings = Settings(**{"provider": "xero", "client_id": "c", **key_files, **more})
    with pytest.raises(Problem, match=said):
        await settings.endpoint()


def test_a_key_on_the_command_line_replaces_the_files_secret_and_the_other_way_round() -> None:
    base = Settings(name="books", client_secret_env="OLD", client_key_id="old")
    found = resolve("books", {"client_key_file": "key.pem"}, {"books": base})
    assert (found.client_key_file, found.client_secret_env, found.client_key_id) == (
        "key.pem",
        None,
        None,
    )
    found = resolve("books", {"client_secret": "s"}, {"books": found})
    assert (found.client_secret, found.client_key_file) == ("s", None)


def test_others_who_may_read_a_key_are_warned_of(
    key_files: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(key_files["client_key_file"]).chmod(0o644)
    Settings(**key_files).client_auth()
    assert "holds the client's private key, and others may read it" in capsys.readouterr().err
