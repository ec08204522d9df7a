"""The stored token as a refresh sees it: records instead of texts, `StoreError` instead of anybody's errors.

It reads, judges what it read, and swaps; whether to wait or to spend is not decided here. It knows no token source.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import anyio

from .._errors import StoreError, cause_of, shown
from .._token import Token
from ..stores.base import Release, TokenStore
from .host import CHANGING, Beside, CallRaised, Host, NotBack, bounded, current_loop, is_closed
from .pauses import Backoff
from .record import (
    A_DAY,
    BadText,
    Claim,
    Failed,
    Pause,
    Record,
    fingerprint,
    parse,
    with_token,
    write,
)

if TYPE_CHECKING:
    from .events import StoreCalled

T = TypeVar("T")

_MOST_STUCK = 4
_OPERATIONS = {"read": "load", "written": "replace", "locked": "hold"}
_REMEMBERED = 4


@dataclass(frozen=True, slots=True)
class View:
    """What the store held at one moment, and how to judge it.

    Attributes:
        record: the text, read.
        claim: `none`: nobody spends the token. `standing`: somebody does. `abandoned`: a claim stands there, and its
            owner will not go on.
        unsent: an abandoned claim is known to have sent nothing.
        failed: what the token endpoint answered last, each with the seconds for which it should not be asked again.
        refusals_for: seconds for which refusals by the API are not worth a refresh.
        accepted_for: seconds for which it counts that the API accepted requests with this token, in doubt.
        claims_for: seconds for which claims that the API asks for are not worth one.
    """

    record: Record
    claim: Literal["none", "standing", "abandoned"] = "none"
    unsent: bool = False
    failed: tuple[tuple[Failed, float], ...] = ()
    refusals_for: float = 0.0
    accepted_for: float = 0.0
    claims_for: float = 0.0


class _Owner(NamedTuple):
    """Who made a claim: on which event loop it runs, the lock it holds beside the store, and the store."""

    loop: object
    hold: Release | None
    store: TokenStore


# The owners of the claims of this process that stand, by nonce.
_standing: dict[str, _Owner] = {}

# The nonces of those that hold a lock beside the store. They alone are looked through at each new claim: of the others
# there may be thousands at once.
_holding: set[str] = set()

# The claims that stood in the parent when this process was forked. Their holds stay the parent's, and are not let go.
_inherited: frozenset[str] = frozenset()


def _inherit() -> None:
    global _inherited
    _inherited |= frozenset(_standing)


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(after_in_child=_inherit)


class Slot:
    """Reads and swaps the text of one store, and knows since when what stands there has been standing.

    Mutable, from any thread, each replaced as a whole:
        _seen: when (monotonic) this object first saw the claim and the pauses of the text it read last. An update that
            is lost to another thread's moves such a moment by the time between the two looks, and no more.
        _over: the last claims of this object that were given up, and whether something may have been sent under them.
            A claim is in it only once its owner has stopped for good: it is all that keeps the other event loops of
            this process from spending the same refresh token.
        _spent: hashes of refresh tokens that were exchanged here for others. One of them in the store again is an old
            text that somebody put back; it is never sent.
        hanging: a call of the store's `changed` that did not end when it was cancelled.
        said: that such a call failed has been told.
        told: is told of each call of a store outside this process; set once, by the session.
        _stuck: calls of the store that did not come back in time; with four of them no further one is made.
    """

    __slots__ = (
        "_in_memory",
        "_over",
        "_seen",
        "_spent",
        "_stuck",
        "hanging",
        "host",
        "refresh_timeout",
        "said",
        "store",
        "told",
    )

    def __init__(self, store: TokenStore, host: Host, *, refresh_timeout: float) -> None:
        self.store: TokenStore = store
        self.host: Host = host
        self.refresh_timeout: float = refresh_timeout
        self.hanging: Beside | None = None
        self.said: bool = False
        self.told: Callable[[StoreCalled], None] | None = None
        self._in_memory = _is_in_memory(type(store))
        self._seen: tuple[tuple[str, float], ...] = ()
        self._over: tuple[tuple[str, bool], ...] = ()
        self._spent: tuple[str, ...] = ()
        self._stuck: tuple[Callable[[], bool], ...] = ()

    def hangs(self) -> bool:
        """Whether a call of `changed` still has not ended."""
        return self.hanging is not None and not self.hanging.done.is_set()

    # -- reading -----------------------------------------------------------------------------------------------

    async def look(self) -> View:
        """Load the text, read it, and judge its claim and its pauses.

        Raises:
            StoreError: the store failed, or what it holds is no token, or is an old one.
        """
        spent = (
            self._spent
        )  # Before the text is read: it may be exchanged meanwhile, on another event loop.
        record = await self.read()
        held = record.token
        if (
            spent
            and held is not None
            and held.refresh_token is not None
            and fingerprint(held.refresh_token) in spent
        ):
            raise StoreError(
                f"{self.store!r} holds a refresh token that this process has already exchanged for another one: an "
                "older text was put back there. It was not sent, because a second use may end the grant. Restore the "
                "newer text, or log in (`httpx-refresh login`)."
            )
        return self.judge(record)

    async def read(self) -> Record:
        """Load and read the text; raise `StoreError` if either cannot be done."""
        text: object = await self._call("read", self.store.load)
        if not (text is None or isinstance(text, str)):
            raise StoreError(
                f"{self.store!r}.load() returned {_a(text)}. It must return the stored text, which is a str, or None. "
                "Nothing was sent. Fix its method load()."
            )
        try:
            return parse(text)
        except BadText as error:
            why = str(error)
        raise StoreError(
            f"{self.store!r} holds a text that is no token: {why}. It was left as it is, and nothing was sent. Put a "
            "token response there (a JSON object with access_token and refresh_token), or log in with `httpx-refresh "
            "login`."
        )

    def judge(self, record: Record) -> View:
        """Say what follows from a record read just now; the first look at a claim or a pause starts a watch."""
        claim, failed, refusals = record.redeeming, record.failed, record.refusals
        asked = record.asked_claims
        if claim is None and not failed and refusals is None and asked is None:
            return View(record)
        now, seen, before = self.host.monotonic(), [], dict(self._seen)

        def since(nonce: str) -> float:
            first = before.get(nonce, now)
            seen.append((nonce, first))
            return now - first

        def left(pause: Pause) -> float:
            by_watch = pause.seconds - since(pause.nonce)
            return max(0.0, min(by_watch, pause.until - self.host.wall()))

        state: Literal["none", "standing", "abandoned"] = "none"
        unsent = False
        if claim is not None:
            state = "abandoned" if self._is_abandoned(claim, since(claim.nonce)) else "standing"
            unsent = dict(self._over).get(claim.nonce, True) is False
        paused = tuple((one, left(one.pause)) for one in failed)
        refusals_for = 0.0 if refusals is None else left(refusals.pause)
        accepted = None if refusals is None else refusals.accepted
        accepted_for = 0.0 if accepted is None else left(accepted)
        claims_for = 0.0 if asked is None else left(asked.pause)
        self._seen = tuple(seen)
        return View(record, state, unsent, paused, refusals_for, accepted_for, claims_for)

    def _is_abandoned(self, claim: Claim, watched: float) -> bool:
        """Whether a claim is nobody's any more.

        It is if it stood unchanged for 1.5 times its owner's own `refresh_timeout`, on this host's monotonic clock; if
        it is older than any clock is wrong; if it was given up here; if its event loop was closed under it; or if it
        stands in a forked child's copy of its parent's memory, where nobody goes on with it.
        """
        if claim.nonce in _inherited and self._in_memory:
            return True
        patience = claim.patience or self.refresh_timeout
        standing = _standing.get(claim.nonce)
        if standing is not None and is_closed(standing.loop):
            # Remembered: the next look finds no event loop beside the claim any more.
            self.give_up(claim, maybe_spent=True)
            return True
        return (
            watched >= 1.5 * patience
            or self.host.wall() - claim.since > max(A_DAY, patience)
            or any(nonce == claim.nonce for nonce, _ in self._over)
        )

    def peek(self) -> Record:
        """Read a text that is in this process's memory; an empty record where it is elsewhere, or is no token."""
        if self._in_memory:
            store: Any = self.store
            with suppress(BadText):  # Who reads it gets the error.
                return parse(store.peek())
        return Record(None)

    # -- writing -----------------------------------------------------------------------------------------------

    async def swap(self, old: str | None, record: Record) -> Record | None:
        """Replace the text `old` with `record`; return it with its text, or None if another text is there.

        Raises:
            StoreError: the store failed; it may have written it all the same.
        """
        text = write(record, rev=self.host.nonce())
        won: object = await self._call("written", lambda: self.store.replace(old, text))
        if not isinstance(won, bool):
            raise StoreError(
                f"{self.store!r}.replace(old, new) returned {_a(won)}. It must return a bool. "
                "Make it say whether it wrote."
            )
        return record._replace(text=text) if won else None

    async def put(self, token: Token, purpose: str | None = None) -> Record:
        """Replace what the store holds, readable or not, with `token`; return what stands there then.

        Args:
            token: the token.
            purpose: what it is for, see `Facts`.

        Raises:
            StoreError: the store failed, or others kept on changing it for `refresh_timeout`.
        """
        backoff = Backoff(self.host, 0.02, 1.0)
        until = self.host.monotonic() + self.refresh_timeout
        while True:
            # A text that is damaged can be repaired by a login; its notes are lost.
            record = await self._readable_or_damaged()
            written = await self.swap(record.text, with_token(record, token, purpose))
            if written is not None:
                if token.refresh_token is not None:
                    digest = fingerprint(token.refresh_token)
                    with CHANGING:
                        self._spent = tuple(one for one in self._spent if one != digest)
                return written
            if self.host.monotonic() > until:
                raise self.keeps_changing()
            await anyio.sleep(backoff.next())

    def keeps_changing(self) -> StoreError:
        """Return the error for a text that is another one at each swap."""
        return StoreError(
            f"{self.store!r} holds another text at each attempt to replace it: something else writes to it all "
            "the time, or its replace(old, new) is wrong. Put it through `check_store`."
        )

    async def _readable_or_damaged(self) -> Record:
        text: object = await self._call("read", self.store.load)
        try:
            return parse(text if isinstance(text, str) else None)
        except BadText:
            return Record(text if isinstance(text, str) else None)

    # -- claims ------------------------------------------------------------------------------------------------

    def claim(self, hold: Release | None, seconds: float) -> Claim:
        """Make a claim that no other one equals. Its owner runs on this event loop, and goes on for so many seconds."""
        host = self.host
        for nonce in list(_holding):
            owner = _standing.get(nonce)
            if owner is not None and owner.hold is not None and is_closed(owner.loop):
                # Closed under its claim: nothing of it goes on.
                owner.hold.release()
                _holding.discard(nonce)
                _standing[nonce] = owner._replace(hold=None)  # Known, so that nobody waits for it.
        held = None if hold is None else host.machine()
        claim = Claim(host.name(), host.nonce(), host.wall(), seconds, held)
        _standing[claim.nonce] = _Owner(current_loop(), hold, self.store)
        if hold is not None:
            _holding.add(claim.nonce)
        return claim

    def release(self, claim: Claim) -> None:
        """Let go of what a claim of this process holds outside the store."""
        owner = _standing.pop(claim.nonce, None)
        _holding.discard(claim.nonce)
        if owner is not None and owner.hold is not None:
            owner.hold.release()

    def loop_of(self, claim: Claim | None) -> object | None:
        """Return the event loop of this process on which a claim's owner runs; None if it runs elsewhere."""
        owner = None if claim is None else _standing.get(claim.nonce)
        return None if owner is None else owner.loop

    def is_claimed_on(self, loop: object) -> bool:
        """Whether a claim on this very store stands whose owner runs on `loop`, be it another session's.

        Two stores may be on one cell, and nothing tells: that is seen by the claim, see `loop_of`.
        """
        return any(
            owner.loop is loop and owner.store is self.store for owner in list(_standing.values())
        )

    def give_up(self, claim: Claim, *, maybe_spent: bool) -> None:
        """Remember that nothing more is done under this claim, should it still stand in the store."""
        with CHANGING:
            others = tuple(one for one in self._over if one[0] != claim.nonce)
            self._over = (*others, (claim.nonce, maybe_spent))[-_REMEMBERED:]
        self.release(claim)

    def exchanged(self, old: Token | None, new: Token) -> None:
        """Remember that a refresh token was exchanged for another one, which is in the store; it is not sent again."""
        if (
            old is not None
            and old.refresh_token is not None
            and old.refresh_token != new.refresh_token
        ):
            with CHANGING:
                self._spent = (*self._spent, fingerprint(old.refresh_token))[-_REMEMBERED:]

    async def hold(self) -> Release | None:
        """Take the operating system's lock beside the store; None if the store has none, or if somebody holds it.

        It ends with the process. A process of the same machine that gets it while a claim with `held` stands knows that
        the claim's owner has died.
        """
        hold: Any = getattr(self.store, "hold", None)
        if hold is None:
            return None
        try:
            return await self._call("locked", hold)
        except StoreError:
            return None  # It only shortens a wait.

    def sees_lock_of(self, claim: Claim | None) -> bool:
        """Whether the claim's owner holds a lock that this machine sees, so that a free lock proves the owner's death.

        On a mount that two machines share, a lock that one of them holds may look free to the other.
        """
        return claim is not None and claim.held is not None and claim.held == self.host.machine()

    # -- somebody else's code ----------------------------------------------------------------------------------

    async def _call(self, done: str, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call of the store, in bounded time; raise `StoreError` for whatever it raises."""
        if self._in_memory:
            return await call()  # In memory: it never waits, and never fails.
        self._stuck = tuple(stuck for stuck in self._stuck if not stuck())
        if len(self._stuck) >= _MOST_STUCK:
            raise StoreError(
                f"{self.store!r} could not be {done}: {_MOST_STUCK} earlier calls have not come back yet. Nothing was "
                "sent. Find out what the store waits for; the next request tries again."
            )
        seconds = self.refresh_timeout / 2
        caused_by = outcome = None
        method, is_sync = "", False
        started = self.host.monotonic()
        try:
            return await bounded(call, seconds)
        except NotBack as late:
            outcome = "timeout"
            self._stuck = (*self._stuck, late.is_back)
            what = f"no answer within {seconds:g} s, half of refresh_timeout"
        except StoreError:
            outcome = StoreError.__name__
            raise
        except Exception as error:
            raised = error.error if isinstance(error, CallRaised) else error
            outcome = type(raised).__name__
            what = outcome + _reason_of(raised)
            caused_by = cause_of(raised)
            method = _OPERATIONS[done]
            is_sync = not iscoroutinefunction(getattr(self.store, method, None))
        finally:
            if self.told is not None:
                from . import events

                took = self.host.monotonic() - started
                operation = _OPERATIONS[done]
                self.told(events.StoreCalled(operation=operation, duration=took, outcome=outcome))
        if is_sync and outcome == "TypeError":
            raise StoreError(
                f"{self.store!r}.{method}() is no `async def`, and failed (TypeError). This failure spends no "
                "refresh token. Make it an `async def`.",
                caused_by=caused_by,
            )
        raise StoreError(
            f"{self.store!r} could not be {done} ({what}). This failure spends no refresh token. Repair the store; the "
            "next request tries again.",
            caused_by=caused_by,
        )


def _a(value: object) -> str:
    """Name the type of a value, which may be a secret."""
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _reason_of(error: BaseException) -> str:
    """Say why a call of the store failed: in the store's words, or in the operating system's; else it is empty.

    What the error itself says is not repeated: it may quote the text.
    """
    reason = getattr(error, "store_reason", None)
    if isinstance(reason, str) and reason:
        return f": {shown(reason, 100)}"
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number in errno.errorcode:
        name = getattr(error, "filename", None)
        file = f": {shown(name, 300)!r}" if isinstance(name, str) else ""
        return f": {os.strerror(number)}{file}"
    return ""


def _is_in_memory(kind: type[Any]) -> bool:
    """Whether the stores of a class keep their text in this process's memory, and have a `peek` that returns it.

    Not that of a base class, if `load` is another one's: what a subclass does when it loads is not to be passed by.
    """
    for owner in kind.__mro__:
        if "load" in vars(owner) or "peek" in vars(owner):
            return "load" in vars(owner) and "peek" in vars(owner)
    return False
