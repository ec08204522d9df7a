"""When not to ask: pauses that grow, and whether a refusal by the API is worth a refresh. No I/O."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

from .._errors import ReauthorizationRequired, RefreshAuthError, StoreError
from .host import Host
from .record import AskedClaims, Pause, Refusals

LOOK = 1.0
"""Seconds between two looks at the store while there is trouble."""

FIRST_DOUBT, MOST_DOUBT = 30.0, 300.0
"""Seconds: the first pause between two refreshes that brought nothing, and the longest."""

MANY_EARLY_ENDS = 3
"""After this many tokens in a row that ended early, pauses apply to early ends, too."""

FIRST_EARLY = 0.05
"""Seconds: the first of these pauses; each is 1.5 times the one before, up to `MOST_DOUBT`; about 30 fit in an hour.

They begin short, and callers wait for their end. So callers do not notice a dozen early ends in a row, but they do
notice an API, or another client, that ends tokens for an hour.
"""

LONGEST_EARLY_WAIT = 6.0
"""Seconds (half of `refresh_timeout` at most) for which callers wait such a pause out; else they get the refusal."""

ACCEPTED_FOR = MOST_DOUBT
"""Seconds for which an accepted request shows that the token is good, so that other refusals mean "forbidden".

A process whose requests are accepted notes that in the store, each time that half of this has passed.
"""

STRANGERS = 3
"""So many unknown kinds of request refused, and none accepted between, are an early end of the token."""

MOST_KINDS = 128
"""Kinds of request that are remembered in doubt."""

MOST_KINDS_TOLD = 16
"""Kinds of request that are told to other processes."""


class Backoff:
    """Pauses that grow from `first` to `most` seconds, each `factor` times the one before, with jitter.

    Mutable, by its one user: the next pause.
    """

    __slots__ = ("_factor", "_host", "_most", "_pause")

    def __init__(self, host: Host, first: float, most: float, *, factor: float = 2.0) -> None:
        self._host = host
        self._pause = first
        self._most = most
        self._factor = factor

    def next(self) -> float:
        """Return the next pause in seconds."""
        pause, self._pause = self._pause, min(self._pause * self._factor, self._most)
        return self._host.jitter(pause, 0.6)


class Polls:
    """Pauses between two looks at what another process does: a tenth of what was waited so far, with jitter.

    So a waiter learns of the end at most a tenth of the wait later. A wait costs about ten looks for its first tenth
    of a second, ten more each time that it becomes 2.7 times as long, and four to five a second after 2.5 seconds.

    Mutable, by its one user: when (monotonic) the wait began.
    """

    __slots__ = ("_host", "_least", "_most", "_since")

    def __init__(self, host: Host, *, least: float = 0.01, most: float = 0.25) -> None:
        self._host = host
        self._least = least
        self._most = most
        self._since: float | None = None

    def next(self) -> float:
        """Return the next pause in seconds; the first call is the beginning of the wait."""
        now = self._host.monotonic()
        if self._since is None:
            self._since = now
        pause = max(self._least, min((now - self._since) / 10, self._most))
        return self._host.jitter(pause, 0.8)


def pause_after(failures: int, *, first: float, most: float) -> float:
    """Return the pause in seconds after so many failures in a row before this one."""
    return float(min(first * 2.0 ** min(failures, 32), most))


class Trouble(NamedTuple):
    """What the last flight failed with, and when (monotonic) this process may look at the store and ask again.

    It covers failures that do not concern other processes: requests that were never sent, and a store that fails.
    `failures`: how many of those there were in a row.
    """

    error: RefreshAuthError
    look_at: float
    ask_at: float
    failures: int = 0


def trouble_after(before: Trouble | None, error: RefreshAuthError, host: Host) -> Trouble:
    """Return the trouble that follows from a flight's error."""
    now = host.monotonic()
    look_at = now + host.jitter(LOOK, 0.8)
    if isinstance(error, ReauthorizationRequired):
        return Trouble(error, look_at, now)
    failures = 0 if before is None else before.failures
    if isinstance(error, StoreError):
        pause = host.jitter(pause_after(failures, first=0.1, most=2.0), 0.5)
        return Trouble(error, min(look_at, now + pause), now + pause, failures + 1)
    wait = min(getattr(error, "retry_after", None) or 0.0, 300.0)
    if getattr(error, "outcome", None) != "not_sent":
        return Trouble(error, look_at, now + wait)  # The store tells everybody how long to wait.
    pause = max(wait, host.jitter(pause_after(failures, first=1.0, most=30.0), 0.5))
    return Trouble(error, min(look_at, now + pause), now + pause, failures + 1)


class Need(IntEnum):
    """What a flight has to do, in ascending order; a caller that joins may need more than the one that started it."""

    LOOK = 0
    """Adopt another token if the store holds one; refresh nothing."""
    AHEAD = 1
    """Refresh, unless another process holds a claim: the token is still good, and no caller waits."""
    REFUSED = 2
    """The API refused the token. Learn first what other processes know of refusals."""
    PROBE = 3
    """The API refused the token, and that is in doubt: refresh, unless the pause for it lasts on."""
    ENDED = 4
    """The token was good and is refused now: refresh, unless that happens all the time."""
    RESULT = 5
    """Bring a token, or the reason why there is none."""
    CLAIMS = 6
    """Bring a token with claims that the API asked for: the one in use is good, but not for every request."""


def early_pause(early: int) -> float:
    """Return the seconds between two refreshes after so many early ends in a row."""
    if early < MANY_EARLY_ENDS - 1:
        return 0.0
    return min(float(FIRST_EARLY * 1.5 ** min(early - MANY_EARLY_ENDS + 1, 64)), MOST_DOUBT)


def early_left(refusals: Refusals, left: float) -> float:
    """Return the seconds that the pause for early ends lasts on, where that for everything lasts on for `left`."""
    elapsed = refusals.pause.seconds - left
    return max(0.0, early_pause(refusals.early) - elapsed) if left > 0 else 0.0


def held_back(need: Need, refusals: Refusals, left: float, accepted_for: float) -> float:
    """Return the seconds that a refresh because of a refusal has to wait, for what the refreshes before it came to.

    0: it need not wait. Infinity: do not refresh, and let the waiters judge again by what the store says.

    Args:
        need: why a refresh is wanted.
        refusals: the store's note on refusals.
        left: seconds that are left of its pause.
        accepted_for: seconds for which the note still says that requests are accepted with this token.
    """
    if need not in (Need.REFUSED, Need.PROBE, Need.ENDED):
        return 0.0
    if need is Need.REFUSED and refusals.futile:
        return math.inf
    if need is Need.PROBE and refusals.futile:
        # Other requests are accepted with this token, so the refused ones are forbidden, and no refresh helps.
        return math.inf if accepted_for > 0 else left
    return early_left(refusals, left)


def after_refresh(
    refusals: Refusals | None,
    need: Need,
    *,
    generation: int,
    now: float,
    nonce: str,
) -> Refusals | None:
    """Return the note on refusals for a refresh that returned a token.

    Args:
        refusals: the earlier note.
        need: why the token was refreshed.
        generation: the generation of the new token.
        now: epoch seconds.
        nonce: a new name for the note's pause, by which its readers know it.
    """
    early = 0 if refusals is None else refusals.early
    futile = 0 if refusals is None else refusals.futile
    if need in (Need.REFUSED, Need.ENDED):
        if refusals is not None and now - refusals.pause.until > MOST_DOUBT:
            early = 0  # The last token lived long enough.
        early += 1
    elif need not in (Need.PROBE, Need.CLAIMS):
        early = 0
    if not (early or futile):
        return None
    seconds = early_pause(early)
    if futile:
        seconds = max(seconds, pause_after(futile - 1, first=FIRST_DOUBT, most=MOST_DOUBT))
    pause = Pause(nonce, seconds, now + seconds)
    return Refusals(early, futile, (), generation, pause, probed=need is Need.PROBE)


def claims_are_futile(asked: AskedClaims | None, claims: str, generation: int, left: float) -> bool:
    """Whether a refresh with these claims is useless.

    It is if the token was already requested with the same claims, or they were refused for it, or if such refreshes
    are paused.

    Args:
        asked: the store's note on such refreshes.
        claims: the claims as text; equal claims have equal texts.
        generation: the generation of the token in the store.
        left: seconds that are left of the pause.
    """
    if asked is None:
        return False
    return left > 0 or (asked.generation == generation and _hash(claims) in asked.tried)


def after_claims(
    asked: AskedClaims | None, claims: str, *, before: int, generation: int, now: float, nonce: str
) -> AskedClaims:
    """Return the note for a refresh with claims that returned a token, or whose claims were refused.

    The pauses between such refreshes grow like those between early ends: they begin short, and about 30 fit in an hour.

    Args:
        asked: the earlier note.
        claims: the claims as text; equal claims have equal texts.
        before: the generation of the token that was refreshed.
        generation: the generation of the new token; `before` if there is none.
        now: epoch seconds.
        nonce: as for `after_refresh`.
    """
    count = 0 if asked is None or now - asked.pause.until > MOST_DOUBT else asked.times
    kept = asked.tried if asked is not None and before == generation == asked.generation else ()
    seconds = early_pause(count + 1)
    return AskedClaims(
        (_hash(claims), *kept)[:MOST_KINDS_TOLD],
        generation,
        count + 1,
        Pause(nonce, seconds, now + seconds),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def after_futile(
    refusals: Refusals | None, kinds: tuple[str, ...], *, generation: int, now: float, nonce: str
) -> Refusals:
    """Return the note for a refreshed token that was refused as well."""
    early = 0 if refusals is None else refusals.early
    futile = 1 if refusals is None else refusals.futile + 1
    seconds = pause_after(futile - 1, first=FIRST_DOUBT, most=MOST_DOUBT)
    seconds = max(seconds, early_pause(early))
    pause = Pause(nonce, seconds, now + seconds)
    probed = refusals is not None and refusals.probed
    return Refusals(early, futile, kinds[:MOST_KINDS_TOLD], generation, pause, probed=probed)


def after_acceptance(
    refusals: Refusals | None,
    accepted_for: float,
    forbidden: Sequence[str],
    *,
    generation: int,
    now: float,
    nonce: str,
) -> Refusals | None:
    """Return the note for a request that was accepted with a token that is in doubt.

    Args:
        refusals: the earlier note.
        accepted_for: seconds for which the note still says that requests are accepted.
        forbidden: the kinds of request that this process knows to be forbidden with this token.
        generation: the generation of the token that was accepted.
        now: epoch seconds.
        nonce: as for `after_refresh`.
    """
    if refusals is None or not refusals.futile or refusals.generation != generation:
        return refusals
    others = [kind for kind in refusals.forbidden if kind not in forbidden]
    known = (*others, *forbidden)[-MOST_KINDS_TOLD:]
    if accepted_for > ACCEPTED_FOR / 2 and set(known) == set(refusals.forbidden):
        return refusals  # Another process has just told so.
    pause = Pause(nonce, ACCEPTED_FOR, now + ACCEPTED_FOR)
    return refusals._replace(accepted=pause, forbidden=known)


def after_fruit(refusals: Refusals | None) -> Refusals | None:
    """Return the note for a refreshed token that was accepted where the one before was refused.

    If the refresh was a probe, it shows that the token before had ended early, like those that were found to have.
    """
    early = 0 if refusals is None else refusals.early + refusals.probed
    if refusals is None or not early:
        return None
    return refusals._replace(
        early=early, futile=0, kinds=(), accepted=None, forbidden=(), probed=False
    )


_ID = re.compile(r"(?<=/)[^/]*[0-9%][^/]*|(?<=/)[^/]{25,}")


def kind_of(method: str, origin: str, path: str) -> str:
    """Name a kind of request: by method, origin and path, with ids and numbers made alike, hashed.

    Args:
        method: the request's.
        origin: scheme, host and port.
        path: of which segments with a digit, and very long ones, count as ids.
    """
    text = f"{method} {origin}{_ID.sub('#', path[:512])}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


@dataclass(slots=True)
class Doubt:
    """Which kinds of request the API accepted and refused with one token, while it is in doubt what a refusal means.

    All moments are monotonic. A kind that is refused is forbidden if the token is good. An acceptance shows that it is,
    but only up to that moment: a token may end later, without a sign. So a kind is forbidden for good only if another
    kind was accepted after it was refused; until then it is worth a refresh once the last acceptance is too old.

    Mutable, by the session that owns it, under its lock: all of it, except `generation`. There is a new one for each
    token. Invariants: `kinds` holds at most `MOST_KINDS`, the oldest first; `strangers` holds the kinds refused since
    the last acceptance that were unknown then; it and `benefit` are spent when they make an end, which `ended` keeps.
    `forbidden` holds keys of `kinds` whose value is False.

    Attributes:
        generation: the token's.
        kinds: whether the API accepted them.
        strangers: see above.
        accepted_at: when the API last accepted a request with this token, for all that is known.
        tell_at: when an acceptance is worth telling the other processes again.
        benefit: the next unknown kind that is refused counts as an end: what was accepted before is not known.
        ended: the token was found to have ended; requests under way with it are refused for that reason.
        here: the kinds that were refused with this very token; `kinds` may be carried over from the one before.
        forbidden: the kinds that were refused before another kind was accepted, and have not been accepted since.
    """

    generation: int
    kinds: dict[str, bool]
    strangers: set[str]
    accepted_at: float = -math.inf
    tell_at: float = -math.inf
    benefit: bool = False
    ended: bool = False
    here: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        generation: int,
        refusals: Refusals | None = None,
        *,
        accepted_at: float = -math.inf,
        benefit: bool = False,
    ) -> Doubt:
        """Begin to doubt, knowing what other processes told about this token."""
        doubt = cls(generation, {}, set(), accepted_at, benefit=benefit)
        if refusals is not None and refusals.generation == generation:
            doubt.kinds = dict.fromkeys((*refusals.kinds, *refusals.forbidden), False)
            doubt.here = set(doubt.kinds)
            doubt.forbidden = set(refusals.forbidden)
        return doubt

    def accepted(self, kind: str, now: float) -> bool:
        """Take note that a request of this kind was accepted; return whether that is worth telling other processes."""
        self.ended = False
        self.strangers.clear()
        self.accepted_at = now
        self._keep(kind, True)
        forbidden = {one for one in self.here if self.kinds.get(one) is False}
        news = now >= self.tell_at or not forbidden <= self.forbidden
        self.forbidden |= forbidden
        if news:
            self.tell_at = now + ACCEPTED_FOR / 2
        return news

    def accepted_elsewhere(self, accepted_for: float, now: float) -> None:
        """Take note that other processes' requests are accepted with this token.

        Args:
            accepted_for: seconds for which that counts.
            now: the time.
        """
        if accepted_for > 0:
            told_at = now + accepted_for - ACCEPTED_FOR
            self.accepted_at = max(self.accepted_at, told_at)
            self.tell_at = max(self.tell_at, told_at + ACCEPTED_FOR / 2)

    def refused(self, kind: str, now: float) -> Literal["ended", "probe", "forbidden"]:
        """Take note that a request of this kind was refused, and say what that means.

        Returns:
            `ended`: the token was good, and is so no longer. `forbidden`: others are accepted with this token.
            `probe`: nothing is known to be accepted with it; a refresh now and then finds out whether the API is back.
        """
        self.here.add(kind)
        if self.ended:
            return "ended"
        known = self.kinds.get(kind)
        others = now < self.accepted_at + ACCEPTED_FOR
        if known is None:
            self.strangers.add(kind)
        many = others and len(self.strangers) >= STRANGERS
        if known or many or (known is None and self.benefit):
            self.ended = True
            self.benefit = False
            self.strangers.clear()
            return "ended"
        self._keep(kind, False)
        return "forbidden" if others or kind in self.forbidden else "probe"

    def refused_kinds(self) -> dict[str, bool]:
        """Return the kinds that were refused last."""
        return {kind: False for kind, accepted in self.kinds.items() if not accepted}

    def is_settled(self) -> bool:
        """Whether every kind that is refused is known to be forbidden: nothing else is in doubt."""
        return all(accepted or kind in self.forbidden for kind, accepted in self.kinds.items())

    def after_fruit(self, kind: str) -> Doubt | None:
        """Return what is left of the doubt when a refreshed token was accepted where the one before was refused.

        The API honours refreshed tokens. What it forbids, it forbids still.

        Args:
            kind: what was accepted.
        """
        forbidden = self.forbidden - {kind}
        if not forbidden:
            return None
        return Doubt(
            self.generation,
            dict.fromkeys(forbidden, False),
            set(),
            tell_at=self.tell_at,
            benefit=True,
            here=self.here & forbidden,
            forbidden=forbidden,
        )

    def _keep(self, kind: str, accepted: bool) -> None:
        self.kinds.pop(kind, None)
        self.kinds[kind] = accepted
        if accepted:
            self.forbidden.discard(kind)
        if len(self.kinds) > MOST_KINDS:
            oldest = next(iter(self.kinds))
            del self.kinds[oldest]
            self.forbidden.discard(oldest)


def told(kinds: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the kinds that other processes are told of: those refused last."""
    return tuple(kind for kind, accepted in kinds.items() if not accepted)[-MOST_KINDS_TOLD:]
