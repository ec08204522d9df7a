"""One flight and its results: who waits for it, and what they get."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from httpx_refresh import (
    FileStore,
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StoreError,
    Token,
)
from httpx_refresh._refresh.record import fingerprint
from httpx_refresh.testing import Gate
from tests.fakes import (
    Api,
    Endpoint,
    Store,
    claims,
    loop_wall,
    no_write,
    refreshing,
)
from tests.virtual_time import virtual_time

if TYPE_CHECKING:
    from pathlib import Path


def in_loop_time(test: Any) -> Any:
    """Run a test in virtual time, including the library's clocks."""
    return pytest.mark.anyio(virtual_time(pytest.mark.usefixtures("loop_time")(test)))


# -- missing and broken texts ----------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_empty_store_is_named_and_a_login_is_asked_for(tmp_path: Path) -> None:
    endpoint = Endpoint()
    path = tmp_path / "token.json"
    for store, name in ((MemoryStore(), "MemoryStore"), (FileStore(path), str(path))):
        with pytest.raises(ReauthorizationRequired) as caught:
            await RefreshAuth(endpoint, store).token()
        assert name in str(caught.value)
        assert "holds no token for Fake" in str(caught.value)
    assert endpoint.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "text, said",
    [
        ("SECRET, not JSON", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"refresh_token": "SECRET"}', "no access_token"),
        ('{"access_token": 5}', "must be a str"),
        ('{"access_token": "SECRET\\r\\nX-Evil: 1"}', "printable ASCII"),
        ('{"access_token": "SECRET\\u0000"}', "printable ASCII"),
        ("[" * 100_000, "nested too deeply"),
        ('{"access_token": "a", "x": ' + "[" * 50 + "]" * 50 + "}", "nested too deeply"),
    ],
)
async def test_a_file_that_holds_no_token_is_named_and_left_as_it_is(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "token.json"
    path.write_text(text)
    endpoint = Endpoint()
    with pytest.raises(StoreError, match=said) as caught:
        await RefreshAuth(endpoint, FileStore(path)).token()
    assert str(path) in str(caught.value)
    assert "SECRET" not in repr(caught.value)
    assert (path.read_text(), endpoint.asked) == (text, [])


@pytest.mark.anyio
async def test_a_directory_and_a_fifo_in_the_place_of_the_file_are_store_errors(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin").write_bytes(b'{"access_token": "\xe9"}')
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "latin", tmp_path / "no" / "file"):
        with pytest.raises(StoreError) as caught:
            await RefreshAuth(Endpoint(), FileStore(path)).token()
        assert str(path) in str(caught.value)
        assert "Error (" in str(caught.value.caused_by)


@pytest.mark.anyio
async def test_without_a_refresh_token_a_login_is_asked_for_once_one_is_needed() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, MemoryStore('{"access_token": "SECRET-only"}'))
    assert (await auth.token()).access_token == "SECRET-only"
    with pytest.raises(ReauthorizationRequired, match="no refresh token beside it"):
        await auth.refresh()
    assert endpoint.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize("there", ["", "\n"])
async def test_a_file_that_somebody_has_only_made_holds_no_token_yet(
    tmp_path: Path, there: str
) -> None:
    path = tmp_path / "token.json"
    path.write_text(there)
    path.chmod(0o600)
    with pytest.raises(ReauthorizationRequired, match=r"holds no token for Fake yet\. Log in"):
        await RefreshAuth(Endpoint(), FileStore(path)).token()
    assert path.read_text() == there


def _said(error: Exception, reason: object) -> Exception:
    error.store_reason = reason  # type: ignore[attr-defined]  # anybody's exception
    return error


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error, says",
    [
        (OSError(errno.ENOSPC, "SECRET"), "(OSError: No space left on device)"),
        (OSError(errno.EIO, "SECRET", "/t.json"), "(OSError: Input/output error: '/t.json')"),
        (OSError(errno.EIO, "SECRET", 5), "(OSError: Input/output error)"),
        (OSError(errno.EIO, "SECRET", b"SECRET"), "(OSError: Input/output error)"),
        (OSError(-2, "SECRET"), "(OSError)"),
        (OSError("SECRET"), "(OSError)"),
        (OSError("SECRET", "SECRET"), "(OSError)"),
        (KeyError("SECRET"), "(KeyError)"),
        (_said(KeyError("SECRET"), "25006"), "(KeyError: 25006)"),
        (_said(OSError(errno.EIO, "SECRET"), "a\nline"), "(OSError: a line)"),
        (_said(OSError(errno.EIO, "SECRET"), b"SECRET"), "(OSError: Input/output error)"),
    ],
)
async def test_a_store_s_error_says_why_in_words_that_hold_no_secret(
    error: Exception, says: str
) -> None:
    class Broken(MemoryStore):
        async def load(self) -> str | None:
            raise error

    with pytest.raises(StoreError) as caught:
        await RefreshAuth(Endpoint(), Broken()).token()
    assert says in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.anyio
async def test_a_store_s_own_error_is_a_store_error_that_names_its_cause() -> None:
    class Broken(MemoryStore):
        async def load(self) -> str | None:
            raise KeyError("table")

    class Plain(MemoryStore):
        async def load(self) -> str | None:
            raise StoreError("in my own words")

    class PlainToo(MemoryStore):
        async def replace(self, old: str | None, new: str) -> bool:
            raise StoreError("in my own words")

    with pytest.raises(StoreError, match="could not be read") as caught:
        await RefreshAuth(Endpoint(), Broken()).token()
    assert str(caught.value.caused_by).startswith(f"KeyError ({__file__}, line ")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    with pytest.raises(StoreError, match="in my own words"):
        await RefreshAuth(Endpoint(), Plain()).token()
    with pytest.raises(StoreError, match="in my own words"):
        await RefreshAuth(Endpoint(), PlainToo(Endpoint().text(expires_in=-1))).token()


# -- one flight, many waiters ----------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        RefreshUnavailable("gone", outcome="refused", retry_after=5),
        ReauthorizationRequired("dead", error="invalid_grant", error_description="long gone"),
    ],
)
async def test_ten_waiters_of_one_flight_get_ten_equal_errors_of_one_request(
    error: Exception,
) -> None:
    endpoint = Endpoint()
    endpoint.always = error
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    got: list[Exception] = []

    async def call() -> None:
        with pytest.raises(type(error)) as caught:
            await auth.token()
        got.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(call)
    assert len({id(one) for one in got}) == 10
    assert len({str(one) for one in got}) == 1
    assert {(one.__cause__, one.__context__) for one in got} == {(None, None)}
    kept = {name: value for name, value in vars(error).items() if name != "since"}
    assert all(vars(one).items() >= kept.items() for one in got)
    assert len(endpoint.asked) == 1


@pytest.mark.anyio
async def test_refresh_refreshes_a_token_that_is_still_good() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    assert (await auth.token()).access_token == "SECRET-a0"
    assert (await auth.refresh()).access_token == "SECRET-a1"
    assert (await auth.token()).access_token == "SECRET-a1"


@pytest.mark.anyio
async def test_refresh_is_not_content_with_a_flight_that_only_looks_at_the_store() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=3600)))
    async with anyio.create_task_group() as group:
        group.start_soon(auth.token)
        group.start_soon(auth.refresh)
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_a_server_that_returns_the_same_access_token_again_has_answered() -> None:
    class Same(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            assert len(self.asked) < 3
            answer = await super().refresh(token)
            return Token("SECRET-a0", answer.refresh_token)

    endpoint = Same()
    auth = RefreshAuth(endpoint, Store(endpoint.text()))
    held = await auth.token()
    assert (await auth.refresh(refused=held)).refresh_token == "SECRET-r1"
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_refresh_shares_one_that_is_under_way() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    async with refreshing(auth, endpoint) as group:
        group.start_soon(auth.refresh)
        group.start_soon(auth.refresh)
        await anyio.wait_all_tasks_blocked()
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_a_refresh_token_that_changed_is_read_under_the_claim_and_not_before() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    await auth.token()
    endpoint.issued = 5
    store.text = endpoint.text(expires_in=-1, generation=8)
    await auth.refresh()
    assert endpoint.asked == ["SECRET-r0", "SECRET-r5"]


@pytest.mark.anyio
async def test_a_refresh_runs_in_no_caller_s_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    class Nosy(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            seen.append(variable.get())
            return await super().refresh(token)

    endpoint = Nosy()
    variable.set("a caller's database session")
    await RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1))).token()
    assert seen == ["none"]


@pytest.mark.anyio
async def test_aclose_without_a_flight_returns_and_the_object_goes_on_working() -> None:
    endpoint = Endpoint()
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)))
    await auth.aclose()
    async with auth as same:
        assert same is auth
        await auth.token()
    assert (await auth.refresh()).access_token == "SECRET-a2"


# -- logins ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_set_token_after_a_login_is_saved_and_in_use_at_once() -> None:
    endpoint = Endpoint()
    store = Store(None)
    auth = RefreshAuth(endpoint, store)
    with pytest.raises(ReauthorizationRequired):
        await auth.token()
    token = Token("SECRET-new", "SECRET-r0", extra={"scope": "all"})
    await auth.set_token(token)
    assert await auth.token() == store.record.token == token
    assert store.record.generation == 1
    with pytest.raises(TypeError, match="from_response"):
        await auth.set_token({"access_token": "SECRET"})  # type: ignore[arg-type]  # no Token, on purpose


@pytest.mark.anyio
async def test_set_token_replaces_what_came_there_while_it_looked() -> None:
    endpoint = Endpoint()

    class Busy(Store):
        async def replace(self, old: str | None, new: str) -> bool:
            if self.tries == 0:
                self.text = endpoint.text(generation=3)
            return await super().replace(old, new)

    store = Busy(None)
    await RefreshAuth(endpoint, store).set_token(Token("SECRET-new"))
    assert store.record.token == Token("SECRET-new")
    assert store.record.generation == 4


@pytest.mark.anyio
async def test_a_token_that_could_not_be_put_there_is_not_in_use() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store)
    store.fails = lambda _: True
    with pytest.raises(StoreError):
        await auth.set_token(Token("SECRET-new"))
    assert (await auth.token()).access_token == "SECRET-a0"


@pytest.mark.anyio
async def test_a_login_during_a_refresh_is_not_overwritten_by_its_result() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    async with refreshing(auth, endpoint):
        await auth.set_token(Token("SECRET-login", "SECRET-r9"))
    assert (await auth.token()).access_token == "SECRET-login"
    assert store.record.token == Token("SECRET-login", "SECRET-r9")


# -- asking ----------------------------------------------------------------------------------------


@in_loop_time
@pytest.mark.parametrize(
    "outcome, least, most",
    [
        # 0.25, 0.5, 1 and 2 s, each multiplied by 0.6 to 1.
        ("not_sent", 2.25, 3.75),
        # The claim is not held during the last one: all processes that share the store pause for a second.
        ("busy", 1.65, 2.76),
    ],
)
async def test_what_was_not_spent_is_tried_again_with_backoff_and_noted_as_unspent(
    outcome: Any, least: float, most: float
) -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.script.extend(RefreshUnavailable("later", outcome=outcome) for _ in range(4))
    store = Store(endpoint.text(expires_in=-1))
    before = anyio.current_time()
    assert (await RefreshAuth(endpoint, store).token()).access_token == "SECRET-a1"
    assert least <= anyio.current_time() - before <= most
    assert endpoint.asked == ["SECRET-r0"] * 5
    assert (store.record.uncertain, store.record.failed) == (None, ())


@in_loop_time
async def test_retry_after_is_honoured() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.script.append(RefreshUnavailable("later", outcome="busy", retry_after=7))
    before = anyio.current_time()
    await RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1))).token()
    assert anyio.current_time() - before == pytest.approx(
        7, abs=0.01
    )  # A look at the store may come between.


@in_loop_time
async def test_a_wait_that_would_last_past_refresh_timeout_is_not_begun() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.script.append(RefreshUnavailable("later", outcome="busy", retry_after=21))
    store = Store(endpoint.text(expires_in=-1))
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="later") as caught:
        await RefreshAuth(endpoint, store).token()
    assert anyio.current_time() == before
    assert caught.value.retry_after == 21
    record = store.record
    assert (record.redeeming, record.uncertain, record.generation) == (None, None, 0)
    assert [one.pause.seconds for one in record.failed] == [21]


@in_loop_time
async def test_an_outage_holds_nobody_longer_than_refresh_timeout() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.always = RefreshUnavailable("down", outcome="not_sent")
    store = Store(endpoint.text(expires_in=-1))
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="down"):
        await RefreshAuth(endpoint, store, refresh_timeout=10).token()
    assert anyio.current_time() - before <= 10
    assert 5 <= len(endpoint.asked) <= 9
    assert store.record.uncertain is None


@in_loop_time
async def test_a_hung_endpoint_holds_nobody_longer_than_refresh_timeout() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.gate = Gate()
    store = Store(endpoint.text(expires_in=-1))
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable, match="no answer within 10 s") as caught:
        await RefreshAuth(endpoint, store, refresh_timeout=10).token()
    assert anyio.current_time() - before == pytest.approx(10)
    assert caught.value.outcome == "unknown"
    assert store.record.uncertain is not None
    assert endpoint.asked == ["SECRET-r0"]


class Strange(Endpoint):
    """Returns the answer that a test sets."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)

    async def refresh(self, token: Token, /) -> Token:
        self.asked.append(token.refresh_token)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]  # whatever the test gives


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer, said",
    [
        (KeyError("SECRET-inside"), "failed with KeyError"),
        ({"access_token": "SECRET"}, "returned dict where a Token belongs"),
        (None, "returned NoneType"),
        (RefreshUnavailable("no answer", outcome="unknown"), "no answer"),
    ],
)
async def test_what_was_sent_and_not_understood_is_noted_as_uncertain_and_not_sent_again(
    answer: Any, said: str
) -> None:
    endpoint = Strange(answer)
    store = Store(endpoint.text(expires_in=-1))
    with pytest.raises(RefreshUnavailable, match=said) as caught:
        await RefreshAuth(endpoint, store).token()
    assert caught.value.outcome == "unknown"
    assert "SECRET" not in str(caught.value)
    assert len(endpoint.asked) == 1
    assert store.record.redeeming is None
    uncertain = store.record.uncertain
    assert uncertain is not None
    assert store.written[0].redeeming == uncertain


@in_loop_time
async def test_within_the_grace_an_unanswered_token_is_sent_again() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.reuse_grace = 1800.0
    endpoint.script.extend(RefreshUnavailable("?", outcome="unknown") for _ in range(2))
    store = Store(endpoint.text(expires_in=-1))
    assert (await RefreshAuth(endpoint, store).token()).access_token == "SECRET-a1"
    assert endpoint.asked == ["SECRET-r0"] * 3
    assert store.record.uncertain is None


@in_loop_time
async def test_past_the_grace_an_unanswered_token_is_not_sent_again() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.reuse_grace = 1.0
    endpoint.always = RefreshUnavailable("?", outcome="unknown")
    store = Store(endpoint.text(expires_in=-1))
    before = anyio.current_time()
    with pytest.raises(RefreshUnavailable):
        await RefreshAuth(endpoint, store).token()
    assert anyio.current_time() - before < 1
    assert 2 <= len(endpoint.asked) <= 4


@in_loop_time
async def test_a_busy_answer_after_an_unanswered_one_does_not_make_the_token_unspent() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.reuse_grace = 1800.0
    endpoint.script.append(RefreshUnavailable("?", outcome="unknown"))
    endpoint.script.append(RefreshUnavailable("busy", outcome="busy", retry_after=60))
    store = Store(endpoint.text(expires_in=-1))
    with pytest.raises(RefreshUnavailable, match="busy"):
        await RefreshAuth(endpoint, store).token()
    assert store.record.uncertain is not None


@in_loop_time
async def test_an_uncertain_token_is_tried_once_more_and_a_refusal_then_says_what_happened() -> (
    None
):
    endpoint = Endpoint(clock=loop_wall)
    endpoint.script.append(RefreshUnavailable("?", outcome="unknown"))
    endpoint.script.append(ReauthorizationRequired("no", error="invalid_grant"))
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    with pytest.raises(RefreshUnavailable):
        await auth.token()
    await anyio.sleep(2)
    with pytest.raises(ReauthorizationRequired, match="had been interrupted") as caught:
        await auth.token()
    assert (caught.value.error, len(endpoint.asked)) == ("invalid_grant", 2)


@pytest.mark.anyio
async def test_a_refused_client_is_told_at_once_and_the_grant_is_left_alone() -> None:
    endpoint = Endpoint()
    endpoint.always = RefreshUnavailable("invalid_client", outcome="refused")
    store = Store(endpoint.text())
    token = store.record.token
    with pytest.raises(RefreshUnavailable, match="invalid_client"):
        await RefreshAuth(endpoint, store).refresh()
    record = store.record
    assert (record.token, record.generation, len(endpoint.asked)) == (token, 0, 1)
    assert (record.redeeming, record.uncertain, record.dead) == (None, None, None)


# -- dead grants -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_dead_grant_is_asked_for_once_by_everyone_and_the_store_remembers() -> None:
    endpoint = Endpoint()
    endpoint.always = ReauthorizationRequired(
        "no", error="invalid_grant", error_description="token revoked"
    )
    store = Store(endpoint.text(expires_in=-1))
    since = []
    for _ in range(3):  # Three processes, one after the other.
        with pytest.raises(ReauthorizationRequired, match="token revoked") as caught:
            await RefreshAuth(endpoint, store).token()
        assert caught.value.error == "invalid_grant"
        assert caught.value.error_description == "token revoked"
        assert "Fake refused the refresh token" in str(caught.value)
        since.append(caught.value.since)
    assert len(set(since)) == 1
    assert endpoint.asked == ["SECRET-r0"]
    assert store.text is not None
    assert "SECRET-r0" in store.text  # Kept as it is, and not sent again, not by refresh() either.
    with pytest.raises(ReauthorizationRequired):
        await RefreshAuth(endpoint, store).refresh()
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_the_latch_is_tied_to_that_refresh_token() -> None:
    endpoint = Endpoint()
    endpoint.script.append(ReauthorizationRequired("no"))
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store)
    with pytest.raises(ReauthorizationRequired, match="no error code"):
        await auth.token()
    assert store.text is not None
    store.text = store.text.replace(
        "SECRET-r0", "SECRET-r7"
    )  # The text was edited by hand, and the notes were left.
    endpoint.issued = 7
    assert (await RefreshAuth(endpoint, store).token()).access_token == "SECRET-a8"
    assert store.record.dead is None


@pytest.mark.anyio
async def test_before_a_refusal_is_believed_the_store_is_read_again() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))

    class Rotated(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            endpoint.issued = 4
            store.text = endpoint.text(expires_in=3600, generation=1)
            raise ReauthorizationRequired("spent before")

    assert (await RefreshAuth(Rotated(), store).token()).access_token == "SECRET-a4"
    assert store.record.dead is None


@pytest.mark.anyio
async def test_a_refresh_token_that_was_refused_in_vain_was_the_one_refresh_of_its_request() -> (
    None
):
    """A login was there by then. The API refuses its token, too, and no second one is spent for the same request."""

    class LogsIn(Endpoint):
        async def refresh(self, token: Token, /) -> Token:
            self.asked.append(token.refresh_token)
            store.text = '{"access_token": "SECRET-login", "refresh_token": "SECRET-r9"}'
            raise ReauthorizationRequired("no such refresh token", error="invalid_grant")

    endpoint, api = LogsIn(), Api(lambda _: False)
    store = Store(endpoint.text())
    async with api.client(RefreshAuth(endpoint, store)) as client:
        assert (await client.get("/")).status_code == 401
    assert api.seen == ["SECRET-a0", "SECRET-login"]
    assert endpoint.asked == ["SECRET-r0"]


@pytest.mark.anyio
async def test_a_refusal_that_cannot_be_noted_is_raised_all_the_same() -> None:
    endpoint = Endpoint()
    endpoint.always = ReauthorizationRequired("no", error="invalid_grant")
    store = Store(endpoint.text(expires_in=-1))
    store.fails = lambda record: not claims(record)
    with pytest.raises(ReauthorizationRequired, match="no"):
        await RefreshAuth(endpoint, store).token()
    store.fails = no_write
    assert store.record.dead is None


@pytest.mark.anyio
async def test_a_revoked_token_says_so() -> None:
    store = Store('{"httpx_refresh": {"generation": 3, "revoked": 1700000000}}')
    with pytest.raises(ReauthorizationRequired, match="was revoked"):
        await RefreshAuth(Endpoint(), store).token()


@pytest.mark.anyio
@pytest.mark.parametrize("since", [1e300, -1e300, 1e17])
async def test_a_latch_from_an_impossible_time_is_told_without_one(since: float) -> None:
    endpoint = Endpoint()
    dead = {"refresh_token_sha256": fingerprint("SECRET-r0"), "since": since}
    store = Store(endpoint.text(expires_in=-1, dead=dead))
    with pytest.raises(ReauthorizationRequired, match="at an unknown time"):
        await RefreshAuth(endpoint, store).token()


@pytest.mark.anyio
async def test_a_spent_refresh_token_that_was_put_back_is_not_sent_by_who_spent_it() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    old = store.text
    auth = RefreshAuth(endpoint, store)
    await auth.token()
    store.text = old  # A backup was restored.
    for _ in range(2):
        with pytest.raises(StoreError, match="an older text was put back"):
            await auth.refresh()
    assert (store.text, endpoint.asked) == (old, ["SECRET-r0"])
    # A login with that very token is accepted.
    endpoint.issued = 0
    await auth.set_token(Token("SECRET-a0", "SECRET-r0"))
    assert (await auth.refresh()).access_token == "SECRET-a1"


@pytest.mark.anyio
async def test_a_spent_refresh_token_that_was_put_back_is_sent_once_by_others_and_latched() -> None:
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    old = store.text
    await RefreshAuth(endpoint, store).token()
    store.text = old
    for _ in range(2):
        with pytest.raises(ReauthorizationRequired, match="invalid_grant"):
            await RefreshAuth(endpoint, store).refresh()
    assert endpoint.asked == ["SECRET-r0", "SECRET-r0"]


@pytest.mark.anyio
async def test_a_refusal_is_not_answered_with_the_very_token_that_was_refused() -> None:
    endpoint = Endpoint()

    class Slow(Store):
        async def load(self) -> str | None:
            first = self.loads == 0
            text = await super().load()
            if first:
                await gate.hold()
            return text

    store, gate = Slow(endpoint.text()), Gate()
    auth = RefreshAuth(endpoint, store)
    api = Api("SECRET-a0".__ne__)
    async with api.client(auth) as client, anyio.create_task_group() as group:
        group.start_soon(auth.token)  # Any token will do for this one.
        await gate.arrived()
        # Another event loop reads the same token meanwhile.
        await anyio.to_thread.run_sync(lambda: asyncio.run(auth.token()))

        async def call() -> None:
            assert (await client.get("/")).status_code == 200

        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        gate.release()
    assert api.seen == ["SECRET-a0", "SECRET-a1"]
    assert endpoint.asked == ["SECRET-r0"]


@in_loop_time
async def test_a_claim_that_was_taken_over_stays_uncertain_if_nothing_was_sent() -> None:
    endpoint = Endpoint(clock=loop_wall)
    endpoint.script.append(RefreshUnavailable("busy", outcome="busy", retry_after=100))
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall() - 90_000}
    store = Store(endpoint.text(expires_in=-1, redeeming=claim))
    with pytest.raises(RefreshUnavailable):
        await RefreshAuth(endpoint, store).token()
    record = store.record
    assert record.redeeming is None
    assert record.uncertain is not None
    assert record.uncertain.nonce == "n1"
