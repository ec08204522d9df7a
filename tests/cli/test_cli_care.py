from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import typer

from httpx_refresh import MemoryStore, Token, TokenEndpoint
from httpx_refresh._refresh import record as _record
from httpx_refresh._refresh.host import THIS_HOST
from httpx_refresh._refresh.record import Claim, Dead, Record, fingerprint, parse
from httpx_refresh._refresh.slot import Slot
from httpx_refresh.cli import care
from httpx_refresh.cli.console import Exit, reporting
from httpx_refresh.cli.settings import Settings
from httpx_refresh.cli.slots import is_to_be_used, state_of
from httpx_refresh.testing import LostAnswer, Outage

if TYPE_CHECKING:
    from httpx_refresh.testing import AuthorizationServer
    from tests.cli.conftest import Run

DAY = 86_400.0


def write(token: Token, generation: int, /, **notes: Any) -> str:
    """Return the text of a slot that holds a token."""
    return _record.write(Record(None, token, generation, **notes), rev="v1")


def put(token: Token, generation: int = 0, /, **notes: Any) -> None:
    """Write a token into the slot."""
    Path("token.json").write_text(write(token, generation, **notes))


def held() -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(Path("token.json").read_text())
    return fields


@pytest.fixture
def logged_in(server: AuthorizationServer) -> Token:
    """Put a token from the server into the slot, and return it."""
    token = Token.from_response(server.login())
    put(token, 4)
    return token


# -- status


def test_status_shows_a_good_token_and_none_of_its_secrets(run: Run) -> None:
    extra = {"expires_in": 3600, "scope": "a b", "realmId": "42", "id_token": "ID-TOKEN"}
    put(Token("ACCESS", "REFRESH", time.time() + 3599, extra=extra), 7)
    result = run("status", "quickbooks", "--store", "file:token.json")
    assert result.exit_code == Exit.DONE
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["provider"] == "quickbooks"
    assert (rows["state"], rows["generation"]) == ("good", "7")
    assert rows["access token"].startswith("expires in 60 minutes, ")
    # Intuit's refresh tokens live for 100 days since they were last used.
    assert rows["refresh token"].startswith("expires in 100 days, ")
    assert (rows["scope"], rows["realmId"]) == ("a b", "42")
    for secret in ("ACCESS", "REFRESH", "ID-TOKEN"):
        assert secret not in result.output


@pytest.mark.parametrize(
    "token, state, words, code",
    [
        (Token("a", "r"), "good", "no expiry is known", Exit.DONE),
        (Token("a", "r", 1.0), "due", "the next request refreshes it", Exit.DONE),
        (Token("a", None, 1.0), "expired", "there is no refresh token", Exit.LOG_IN),
        (Token("a"), "good", "refused", Exit.DONE),
    ],
)
def test_status_says_what_a_token_is_good_for(
    run: Run, token: Token, state: str, words: str, code: Exit
) -> None:
    put(token)
    result = run("status", "--store", "file:token.json")
    assert result.exit_code == code
    assert words in result.stdout
    as_json = run("status", "--store", "file:token.json", "--json")
    assert json.loads(as_json.stdout)["state"] == state
    assert as_json.exit_code == code


def test_status_of_an_empty_slot_asks_for_a_login(run: Run) -> None:
    result = run("status", "--store", "file:token.json")
    assert result.exit_code == Exit.LOG_IN
    assert "no token: log in" in result.stdout
    assert not Path("token.json").exists()


@pytest.mark.parametrize(
    "dead, words",
    [
        (("invalid_grant", "gone"), "(invalid_grant: gone)"),
        ((None, None), "(no reason)"),
    ],
)
def test_status_tells_why_a_token_is_dead(
    run: Run, dead: tuple[str | None, str | None], words: str
) -> None:
    put(Token("a", "r"), dead=Dead(fingerprint("r"), *dead, 1e9))
    result = run("status", "--store", "file:token.json")
    assert result.exit_code == Exit.LOG_IN
    assert f"at 2001-09-09 01:46:40+00:00 {words}" in result.stdout
    about = json.loads(run("status", "--store", "file:token.json", "--json").stdout)
    assert about["state"] == "dead"
    assert about["dead"] == {"error": dead[0], "error_description": dead[1], "since": 1e9}


def test_status_shows_who_refreshes_and_what_is_uncertain(run: Run) -> None:
    claim, uncertain = Claim("pod-7:12", "NONCE", 1e9), Claim("pod-3:9", "NONCE", 1e308)
    put(Token("a", "r"), redeeming=claim, uncertain=uncertain)
    result = run("status", "--store", "file:token.json")
    assert "being refreshed by pod-7:12 since 2001-09-09 01:46:40+00:00" in result.stdout
    assert "the outcome of a refresh by pod-3:9 at an unknown time is unknown" in result.stdout
    about = json.loads(run("status", "--store", "file:token.json", "--json").stdout)
    assert about["redeeming"] == {"by": "pod-7:12", "since": 1e9}
    assert about["uncertain"]["by"] == "pod-3:9"


@pytest.mark.parametrize(
    "provider, extra, days",
    [
        ("xero", {"expires_in": 1800}, 60),
        ("quickbooks", {"expires_in": 1800, "x_refresh_token_expires_in": 50 * DAY}, 50),
        ("salesforce", {"issued_at": "{now}000"}, 30),
        ("2ba", {"expires_in": 1800}, 30),  # assumed, as keep-alive does
        ("xero", {}, None),
    ],
)
def test_status_knows_when_a_refresh_token_dies_of_disuse(
    run: Run, provider: str, extra: dict[str, Any], days: float | None
) -> None:
    now = time.time()
    known = {
        name: value.format(now=int(now)) if isinstance(value, str) else value
        for name, value in extra.items()
    }
    put(Token("a", "r", now + 1800, extra=known))
    result = run("status", provider, "--store", "file:token.json", "--json")
    about = json.loads(result.stdout)
    dies_at = about["refresh_token_expires_at"]
    assert about["refresh_token_expires_at_assumed"] is (provider == "2ba")
    assert about["refresh_token_due"] is (days is None)
    if days is None:
        assert dies_at is None
    else:
        assert dies_at == pytest.approx(now + days * DAY, abs=60)


def test_status_without_a_name_shows_all_slots_in_a_table_and_the_worst_exit_code(
    run: Run,
) -> None:
    now = time.time()
    put(Token("SECRET", "SECRET", now + 1800, extra={"expires_in": 1800}))
    Path("config.toml").write_text(
        '[good]\nprovider = "xero"\nstore = "file:token.json"\n'
        '[empty]\nprovider = "2ba"\nstore = "file:other.json"\n'
        '[broken]\nprovider = "2ba"\nstore = "nothing:at-all"\n'
    )
    result = run("status", "--config", "config.toml")
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["name", "state", "access", "token", "refresh", "token", "store"]
    assert [row.split()[:2] for row in rows] == [
        ["good", "good"],
        ["empty", "empty"],
        ["broken", "cannot"],
    ]
    assert "expires in 60 days" in rows[0]
    assert result.exit_code == 3
    assert "SECRET" not in result.output
    told = [
        json.loads(one)
        for one in run("status", "--json", "--config", "config.toml").stdout.splitlines()
    ]
    assert [(one["name"], one["state"]) for one in told] == [("good", "good"), ("empty", "empty")]


def test_status_says_which_refresh_tokens_are_due_and_which_moments_are_assumed(run: Run) -> None:
    now = time.time()
    for name, token in {
        "old.json": Token("a", "r", now - 40 * DAY + 1800, extra={"expires_in": 1800}),
        "young.json": Token("a", "r", now + 1800, extra={"expires_in": 1800}),
        "token.json": Token("a", "r"),  # It does not tell its age.
    }.items():
        put(token)
        Path("token.json").replace(name)
        Path(name).chmod(0o600)
    Path("config.toml").write_text(
        '[old]\nprovider = "xero"\nstore = "file:old.json"\n'
        '[assumed]\nprovider = "2ba"\nstore = "file:young.json"\n'
        '[unknown]\nprovider = "xero"\nstore = "file:token.json"\n'
    )
    Path("config.toml").chmod(0o600)
    rows = run("status", "--config", "config.toml").stdout.splitlines()[1:]
    assert "due: expires in" in rows[0]
    assert "(assumed)" in rows[1]
    assert " due " in rows[2]
    alone = run("status", "old", "--config", "config.toml").stdout
    assert "keep-alive would use it now" in alone


@pytest.mark.parametrize("command", ["status", "watch"])
def test_a_command_without_a_store_asks_for_one(run: Run, command: str) -> None:
    result = run(command, "xero")
    assert result.exit_code == Exit.USAGE
    assert "no store" in result.stderr


@pytest.mark.parametrize("age, due", [(1, False), (40, True)])
def test_status_watch_and_keep_alive_agree_about_what_is_due(
    run: Run, age: float, due: bool
) -> None:
    then = time.time() - age * DAY
    put(Token("a", "r", then + 1800, extra={"expires_in": 1800}))
    slot = ("--store", "file:token.json")
    about = json.loads(run("status", "xero", *slot, "--json").stdout)
    assert about["refresh_token_due"] is due
    assert ("is due" in run("watch", "xero", *slot, "--changes", "1").stdout) is due
    kept = run("keep-alive", "xero", *slot, "--verbose")
    # For a slot that is due only the client is missing.
    assert ("not due" in kept.stdout) is not due
    assert ("no client id" in kept.stderr) is due


def test_a_pipe_gets_plain_lines_of_any_length_and_a_terminal_may_have_colours(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = " ".join(["scope"] * 40)
    put(Token("a", "r", extra={"scope": scope}))
    plain = run("status", "--store", "file:token.json")
    assert "\x1b[" not in plain.output
    assert f"scope          {scope}" in plain.stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32m" in run("status", "--store", "file:token.json").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in run("status", "--store", "file:token.json").stdout


# -- refresh


def test_refresh_replaces_the_token_and_counts(
    run: Run, at: list[str], server: AuthorizationServer, logged_in: Token
) -> None:
    result = run("refresh", *at)
    assert result.exit_code == Exit.DONE, result.output
    assert "generation 5; the access token holds until" in result.stdout
    assert held()["refresh_token"] != logged_in.refresh_token
    assert server.rotations == 1


def test_refresh_knows_no_expiry_where_there_is_none(
    run: Run, at: list[str], server: AuthorizationServer, logged_in: Token
) -> None:
    server.send_expires_in = False
    assert run("refresh", *at).stdout.endswith(": generation 5.\n")


@pytest.mark.parametrize(
    "spoil, code, words",
    [
        (lambda server: server.revoke_family(), Exit.LOG_IN, "`httpx-refresh login`"),
        (lambda server: server.script(LostAnswer()), Exit.TRY_LATER, "is unknown"),
        (lambda server: setattr(server, "clients", {"client": "other"}), Exit.REFUSED, "client"),
    ],
)
def test_a_refresh_that_fails_ends_with_a_line_and_its_exit_code(
    run: Run,
    at: list[str],
    server: AuthorizationServer,
    logged_in: Token,
    spoil: Callable[[AuthorizationServer], object],
    code: Exit,
    words: str,
) -> None:
    spoil(server)
    result = run("refresh", *at)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert held()["refresh_token"] == logged_in.refresh_token


# -- revoke


def test_revoke_gives_the_token_back_and_empties_the_slot(
    run: Run, at: list[str], server: AuthorizationServer, logged_in: Token
) -> None:
    result = run("revoke", *at, "--yes")
    assert result.exit_code == Exit.DONE
    assert "Revoked at 127.0.0.1, and emptied" in result.stdout
    assert server.families[0].revoked
    assert parse(Path("token.json").read_text()).revoked is not None
    assert logged_in.access_token not in Path("token.json").read_text()
    again = run("revoke", *at, "--yes")
    assert again.exit_code == Exit.DONE
    assert "nothing to revoke" in again.stdout


@pytest.mark.parametrize("answer, code", [("y\n", Exit.DONE), ("n\n", Exit.DONE)])
def test_revoke_asks_first(
    run: Run,
    at: list[str],
    logged_in: Token,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: Exit,
) -> None:
    monkeypatch.setattr("httpx_refresh.cli.app.at_terminal", lambda: True)
    asked: list[str] = []

    def confirm(question: str, *, err: bool) -> bool:
        asked.append(question)
        return answer == "y\n"

    monkeypatch.setattr(typer, "confirm", confirm)
    result = run("revoke", *at)
    assert result.exit_code == code
    assert asked == [
        "Revoke the token in FileStore('token.json')? Everybody who uses it must log in again."
    ]
    assert (parse(Path("token.json").read_text()).revoked is not None) is (answer == "y\n")


def test_revoke_without_anybody_to_ask_needs_to_be_told(
    run: Run, at: list[str], logged_in: Token
) -> None:
    result = run("revoke", *at)
    assert result.exit_code == Exit.USAGE
    assert "confirm with --yes" in result.stderr
    assert held()["access_token"] == logged_in.access_token


def test_a_question_that_is_not_answered_interrupts() -> None:
    with pytest.raises(typer.Exit) as caught, reporting():
        raise typer.Abort
    assert caught.value.exit_code == Exit.INTERRUPTED


def test_a_token_that_could_not_be_revoked_is_kept(
    run: Run, at: list[str], server: AuthorizationServer, logged_in: Token
) -> None:
    server.clients = {"client": "other"}
    result = run("revoke", *at, "--yes")
    assert result.exit_code == Exit.TRY_LATER
    assert "may still be good" in result.stderr
    assert held()["access_token"] == logged_in.access_token


def test_where_nothing_can_be_revoked_the_slot_is_emptied_all_the_same(
    run: Run, at: list[str], server: AuthorizationServer, logged_in: Token
) -> None:
    result = run("revoke", "--token-url", server.token_url, *at[2:], "--yes")
    assert result.exit_code == Exit.DONE, result.output
    assert "has no known revocation endpoint" in result.stderr
    assert "Not revoked, but emptied" in result.stdout
    assert not server.families[0].revoked


@pytest.mark.parametrize("home", [None, 5, ["https://acme.my.salesforce.com"]])
def test_a_token_that_does_not_say_where_it_is_revoked_is_kept_and_the_command_says_so(
    run: Run, home: object
) -> None:
    text = json.dumps({"access_token": "ACCESS", "refresh_token": "REFRESH", "instance_url": home})
    Path("token.json").write_text(text)
    result = run("revoke", "salesforce", "--client-id", "c", "--store", "file:token.json", "--yes")
    assert result.exit_code == Exit.USAGE
    assert "came with none" in result.stderr
    assert "--revocation-url" in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert Path("token.json").read_text() == text


def test_a_dead_token_is_not_sent_to_be_revoked(
    run: Run, at: list[str], server: AuthorizationServer
) -> None:
    put(Token("a", "r"), dead=Dead(fingerprint("r"), "invalid_grant", None, 1e9))
    server.clients = {"client": "other"}  # It would be refused.
    assert run("revoke", *at, "--yes").exit_code == Exit.DONE


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_revoke_waits_for_a_refresh_and_gives_back_what_that_brings(
    server: AuthorizationServer, logged_in: Token
) -> None:
    """The refresh has written its claim, and ends while the revocation waits for it."""
    claimed = write(logged_in, 4, redeeming=Claim("pod", "nonce", time.time(), 20.0))
    endpoint = TokenEndpoint(
        server.token_url, "client", "secret", revocation_endpoint=f"{server.issuer}/revoke"
    )

    class Refreshing(MemoryStore):
        """End another process's refresh as soon as its claim was seen."""

        async def load(self) -> str | None:
            seen = await super().load()
            if seen == claimed:
                assert await self.replace(claimed, write(await endpoint.refresh(logged_in), 5))
            return seen

    store = Refreshing(claimed)
    assert await care._revoke(
        endpoint, Slot(store, THIS_HOST, refresh_timeout=20.0), at_source=True
    )
    assert server.rotations == 1
    assert server.families[0].revoked
    assert parse(await store.load()).revoked is not None


# -- watch


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_watch_prints_a_line_for_each_change_of_a_slot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = Token("ACCESS", "REFRESH", time.time() + 60)
    claim, uncertain = Claim("pod-7:12", "nonce", time.time()), Claim("pod-3:9", "nonce", 1e9)
    dead = Dead(fingerprint("REFRESH"), "invalid_grant", None, 1e9)
    unnamed = Dead(fingerprint("REFRESH"), None, None, 1e9)
    texts = iter(
        [
            write(token, 1),
            write(token, 1),
            write(token, 1, redeeming=claim),
            write(token, 1, uncertain=uncertain),
            "no token",
            write(token, 1, dead=dead),
            write(token, 1, dead=unnamed),
            write(Token("a", "r"), 2),
        ]
    )

    async def change(seconds: float) -> None:
        await anyio.Path("token.json").write_text(next(texts))

    await care.watch(Settings(store="file:token.json"), interval=5, changes=8, sleep=change)
    out, err = capsys.readouterr()
    lines = [line.partition("  ")[2] for line in out.splitlines()]
    assert lines[0] == "generation 0, empty"
    assert lines[1].startswith("generation 1, good, until ")
    assert lines[2].endswith("being refreshed by pod-7:12")
    assert lines[3].endswith("uncertain since 2001-09-09 01:46:40+00:00")
    assert "holds a text that is no token" in lines[4]
    assert lines[5].endswith("dead, until " + lines[1].partition("until ")[2] + ", invalid_grant")
    assert lines[6].endswith(", no reason given")
    assert lines[7] == "generation 2, good"
    assert "Watching FileStore('token.json') every 5 s" in err
    assert "ACCESS" not in out


def test_watch_ends_after_so_many_lines(run: Run) -> None:
    result = run("watch", "--store", "file:token.json", "--changes", "1")
    assert result.exit_code == Exit.DONE
    assert result.stdout.endswith("generation 0, empty\n")


# -- keep-alive


def config(server: AuthorizationServer, *tables: str) -> None:
    """Write a configuration file with a slot for each of `tables`, all at one server."""
    text = "".join(
        f'[{table}]\nprovider = "xero"\ntoken_url = "{server.token_url}"\nclient_id = "client"\n'
        f'client_secret_file = "secret.txt"\nstore = "file:{table}.json"\n'
        for table in tables
    )
    Path("secret.txt").write_text("secret")
    Path("config.toml").write_text(text)


def aged(server: AuthorizationServer, days: float) -> Token:
    """Return a token that was last refreshed this many days ago."""
    response = server.login()
    then = time.time() - days * DAY
    return Token.from_response({**response, "expires_at": then + response["expires_in"]})


def test_keep_alive_refreshes_what_has_less_than_half_its_life_before_it(
    run: Run, server: AuthorizationServer
) -> None:
    config(server, "old", "young")
    Path("old.json").write_text(write(aged(server, 31), 0))
    Path("young.json").write_text(write(aged(server, 29), 0))
    silent = run("keep-alive", "--config", "config.toml")
    assert silent.exit_code == Exit.DONE, silent.output
    assert silent.output == ""
    assert server.rotations == 1
    assert parse(Path("old.json").read_text()).generation == 1
    assert parse(Path("young.json").read_text()).generation == 0


def test_keep_alive_tells_what_it_did_when_asked_to(run: Run, server: AuthorizationServer) -> None:
    config(server, "old", "young")
    Path("old.json").write_text(write(aged(server, 21), 0))
    Path("young.json").write_text(write(aged(server, 1), 0))
    result = run("keep-alive", "--config", "config.toml", "--within", "40", "-v")
    assert result.exit_code == Exit.DONE, result.output
    old, young = result.stdout.splitlines()
    assert old == "old: refreshed"
    assert young.startswith("young: not due; its refresh token lives until ")


def test_keep_alive_refreshes_what_does_not_tell_its_age(
    run: Run, server: AuthorizationServer
) -> None:
    config(server, "one")
    response = server.login()
    Path("one.json").write_text(json.dumps(response))
    assert run("keep-alive", "one", "--config", "config.toml").exit_code == Exit.DONE
    assert server.rotations == 1


def test_keep_alive_goes_on_after_a_failure_and_ends_with_the_gravest(
    run: Run, server: AuthorizationServer
) -> None:
    config(server, "dead", "empty", "broken", "later", "fine")
    Path("dead.json").write_text(
        write(Token("a", "r"), 0, dead=Dead(fingerprint("r"), "invalid_grant", None, 1e9))
    )
    Path("broken.json").write_text("no token")
    Path("later.json").write_text(write(aged(server, 40), 0))
    Path("fine.json").write_text(write(aged(server, 40), 0))
    server.script(Outage(503, retry_after=3600))
    result = run("keep-alive", "--config", "config.toml")
    assert result.exit_code == Exit.LOG_IN
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "dead",
        "empty",
        "broken",
        "later",
    ]
    assert parse(Path("fine.json").read_text()).generation == 1
    assert run("keep-alive", "broken", "--config", "config.toml").exit_code == Exit.STORE


def test_keep_alive_works_for_one_slot_without_a_configuration_file(
    run: Run, at: list[str], server: AuthorizationServer
) -> None:
    put(aged(server, 20))
    assert run("keep-alive", *at).exit_code == Exit.DONE
    assert server.rotations == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "names no slot"),
        (["xero", "2ba", "--store", "file:x.json"], "store: given for one slot"),
        (["nobody"], "'nobody' is not known"),
    ],
)
def test_keep_alive_says_what_it_cannot_do(run: Run, arguments: list[str], words: str) -> None:
    result = run("keep-alive", *arguments)
    assert result.exit_code == Exit.USAGE
    assert words in result.stderr


@pytest.mark.parametrize(
    "token, dead, revoked, state",
    [
        (None, False, False, "empty"),
        (None, False, True, "revoked"),
        (Token("a", "r", 2.0), False, False, "good"),
        (Token("a", "r"), False, False, "good"),
        (Token("a"), False, False, "good"),
        (Token("a", "r", 1.0), False, False, "due"),
        (Token("a", None, 1.0), False, False, "expired"),
        (Token("a", "r", 2.0), True, False, "dead"),
    ],
)
def test_a_stored_token_is_in_one_state(
    token: Token | None, dead: bool, revoked: bool, state: str
) -> None:
    assert state_of(token, dead=dead, revoked=revoked, now=1.0) == state


def test_a_refresh_token_is_used_in_the_second_half_of_its_life_or_within_what_was_said() -> None:
    assert is_to_be_used(60.0, lifetime=100.0, within=None, now=10.0)
    assert not is_to_be_used(60.0, lifetime=100.0, within=None, now=9.0)
    assert is_to_be_used(60.0, lifetime=100.0, within=51.0, now=9.0)
    assert not is_to_be_used(60.0, lifetime=100.0, within=50.0, now=9.0)
