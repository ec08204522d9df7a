"""What refusals by the API mean, and when one is worth a refresh. No I/O, and no clock: moments are arguments."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

from .pauses import pause_after
from .record import AskedClaims, Pause, Refusals

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

FORBIDDEN_FOR = 3600.0
"""Seconds for which a token that was accepted, or came into use, shows that a forbidden kind is refused for what it is.

Without any acceptance for so long the token may have ended, and then a forbidden kind is worth a refresh again.
"""

STRANGERS = 3
"""So many unknown kinds of request refused, and none accepted between, are an early end of the token."""

MOST_KINDS = 128
"""Kinds of request that are remembered in doubt."""

MOST_KINDS_TOLD = 16
"""Kinds of request that are told to other processes."""

LATE_LEARNER = 5.0
"""Seconds after its issue in which an API may not know a token yet."""

LATE = 1.2
"""Seconds after which such a token is sent once more, with jitter."""

NEW = 60.0
"""Seconds after its issue in which a token is not suspected to have ended."""


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
    asked: AskedClaims | None, claims: str, *, generation: int, now: float, nonce: str
) -> AskedClaims:
    """Return the note for a refresh with claims that returned a token, or whose claims were refused.

    The pauses between such refreshes grow like those between early ends: they begin short, and about 30 fit in an hour.

    Args:
        asked: the earlier note.
        claims: the claims as text; equal claims have equal texts.
        generation: the generation of the new token; where there is none, of the one that they were asked for.
        now: epoch seconds.
        nonce: as for `after_refresh`.
    """
    count = 0 if asked is None or now - asked.pause.until > MOST_DOUBT else asked.times
    kept = asked.tried if asked is not None and generation == asked.generation else ()
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
    allowed: Sequence[str] = (),
    generation: int,
    now: float,
    nonce: str,
) -> Refusals | None:
    """Return the note for a request that was accepted with a token that is in doubt.

    Args:
        refusals: the earlier note.
        accepted_for: seconds for which the note still says that requests are accepted.
        forbidden: the kinds of request that this process knows to be forbidden with this token.
        allowed: the kinds that it found accepted.
        generation: the generation of the token that was accepted.
        now: epoch seconds.
        nonce: as for `after_refresh`.
    """
    if refusals is None or not refusals.futile or refusals.generation != generation:
        return refusals
    mine = {*forbidden, *allowed}
    others = [kind for kind in refusals.forbidden if kind not in mine]
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
    but only up to that moment: a token may end later, without a sign. So a kind is forbidden only if another kind was
    accepted after it was refused; until then it is worth a refresh once the last acceptance is too old. A kind may be
    taken for forbidden by mistake, as when one request of it was refused by chance: whoever finds it accepted tells the
    others, and nothing is forbidden for longer than `FORBIDDEN_FOR` without an acceptance.

    Mutable, by the session that owns it, under its lock: all of it, except `generation`. There is a new one for each
    token. Invariants: `kinds` holds at most `MOST_KINDS` once one was added here, the oldest first; `here` at most one
    more. `strangers` holds the kinds refused since the last acceptance that were unknown then, up to `STRANGERS`.
    `benefit` is spent when it makes an end. `ended` lasts until the next acceptance. `forbidden` holds keys of `kinds`
    whose value is False.

    Attributes:
        generation: the token's.
        kinds: whether the API accepted them.
        strangers: see above.
        accepted_at: when the API last accepted a request with this token, for all that is known.
        good_at: when the token was last known to be good: then, or when it came into use.
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
    good_at: float = -math.inf
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
        good_at: float = -math.inf,
        benefit: bool = False,
    ) -> Doubt:
        """Begin to doubt, knowing what other processes told about this token."""
        doubt = cls(generation, {}, set(), accepted_at, good_at, benefit=benefit)
        if refusals is not None and refusals.generation == generation:
            doubt.kinds = dict.fromkeys((*refusals.kinds, *refusals.forbidden), False)
            doubt.here = set(doubt.kinds)
            doubt.forbidden = set(refusals.forbidden)
        return doubt

    def accepted(self, kind: str, now: float) -> bool:
        """Take note that a request of this kind was accepted; return whether that is worth telling other processes."""
        self.ended = False
        self.strangers.clear()
        self.accepted_at = self.good_at = now
        mistaken = kind in self.forbidden
        self._keep(kind, True)
        forbidden = {one for one in self.here if self.kinds.get(one) is False}
        news = now >= self.tell_at or mistaken or not forbidden <= self.forbidden
        self.forbidden |= forbidden
        if news:
            self.tell_at = now + ACCEPTED_FOR / 2
        return news

    def accepted_elsewhere(self, accepted_for: float, now: float) -> None:
        """Take note that other processes' requests are accepted with this token.

        Args:
            accepted_for: seconds for which that counts; 0 if it does no more.
            now: the time.
        """
        told_at = now + accepted_for - ACCEPTED_FOR
        self.accepted_at = max(self.accepted_at, told_at)
        self.tell_at = max(self.tell_at, told_at + ACCEPTED_FOR / 2)
        if accepted_for > 0:
            self.good_at = max(self.good_at, told_at)

    def allowed_elsewhere(self, refusals: Refusals) -> None:
        """Take back what a note of this token that tells of acceptances does not list as forbidden any more.

        A note that is full may leave out what is forbidden. And what is left out by mistake costs a refresh.
        """
        if refusals.accepted is not None and len(refusals.forbidden) < MOST_KINDS_TOLD:
            self.forbidden &= set(refusals.forbidden)

    def refused(self, kind: str, now: float) -> Literal["ended", "probe", "forbidden"]:
        """Take note that a request of this kind was refused, and say what that means.

        Returns:
            `ended`: the token was good, and is so no longer. `forbidden`: others are accepted with this token.
            `probe`: nothing is known to be accepted with it; a refresh now and then finds out whether the API is back.
        """
        self._keep_here(kind)
        if self.ended:
            return "ended"
        known = self.kinds.get(kind)
        others = now < self.accepted_at + ACCEPTED_FOR
        if known is None and len(self.strangers) < STRANGERS:
            self.strangers.add(kind)
        many = others and len(self.strangers) >= STRANGERS
        if known or many or (known is None and self.benefit):
            self.ended = True
            self.benefit = False
            return "ended"
        self._keep(kind, False)
        forbidden = kind in self.forbidden and now < self.good_at + FORBIDDEN_FOR
        return "forbidden" if others or forbidden else "probe"

    def refused_again(self, kind: str) -> None:
        """Take note that a request of this kind was refused with the token before this one, too."""
        self._keep(kind, False)
        self._keep_here(kind)

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
        while len(self.kinds) > MOST_KINDS:
            oldest = next(iter(self.kinds))
            del self.kinds[oldest]
            self.forbidden.discard(oldest)

    def _keep_here(self, kind: str) -> None:
        if len(self.here) >= MOST_KINDS:
            self.here &= self.kinds.keys()
        self.here.add(kind)


def told(kinds: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the kinds that other processes are told of: those refused last."""
    return tuple(kind for kind, accepted in kinds.items() if not accepted)[-MOST_KINDS_TOLD:]


class Verdicts(NamedTuple):
    """What the API said of the credential in use, and what of it need not be asked or told again at once.

    A value: each change makes another one. Only `doubt` is mutable, and its owner changes it where it changes this. All
    moments are monotonic.

    Attributes:
        accepted: the kind of the first request that was accepted with the credential; empty until then.
        listening: whether acceptances matter now: until the first with each credential, and in doubt.
        doubt: which kinds of request were accepted and refused with it; None where nothing is in doubt.
        probe_at: when a refusal may be worth a refresh again although nothing is accepted.
        end_at: when an early end may be worth a refresh again.
        look_at: when the store may be looked at again because of a refusal that is passed on.
        told: the generation of the token whose futile refresh was told to the store.
    """

    accepted: str = ""
    listening: bool = False
    doubt: Doubt | None = None
    probe_at: float = -math.inf
    end_at: float = -math.inf
    look_at: float = -math.inf
    told: int = -1

    def forgotten(self) -> Verdicts:
        """Return what is left of this when a login or a revocation replaced the token: no doubt and no pauses."""
        return self._replace(doubt=None, probe_at=-math.inf, end_at=-math.inf)

    def of_next(
        self,
        generation: int,
        refusals: Refusals | None,
        *,
        refusals_for: float,
        accepted_for: float,
        now: float,
    ) -> Verdicts:
        """Return what is known of a credential that comes into use.

        Only a fruitful refresh ends doubt. Refused kinds are kept; acceptances were of the earlier token.

        Args:
            generation: the credential's.
            refusals: the store's note beside it.
            refusals_for: seconds that are left of the note's pause.
            accepted_for: seconds for which the note says that requests are accepted with this token.
            now: the time.
        """
        before, doubt, probe_at = self.doubt, None, self.probe_at
        futile = 0 if refusals is None else refusals.futile
        if before is not None or futile:
            doubt = Doubt.of(
                generation, refusals, benefit=futile == 1 if before is None else before.benefit
            )
            doubt.good_at = now
            if before is not None:
                doubt.kinds.update(before.refused_kinds())
                doubt.forbidden |= before.forbidden
            if refusals is not None and refusals.generation == generation:
                doubt.accepted_elsewhere(accepted_for, now)
                doubt.allowed_elsewhere(refusals)
        if futile:
            probe_at = now + refusals_for
        return self._replace(accepted="", listening=True, doubt=doubt, probe_at=probe_at)

    def second_try(self, kind: Callable[[], str], *, age: float, early: int) -> float | None:
        """Return after about how many seconds the same token is worth sending once more; None if it is not.

        It is if the API may not know the token yet. And it is if tokens have ended early so often in a row that a
        refusal is likely a fault, which comes and goes.

        Args:
            kind: returns what kind of request it was, see `kind_of`.
            age: seconds since the token's issue.
            early: how many tokens in a row had ended early when this one came.
        """
        if self.accepted and early >= MANY_EARLY_ENDS - 1:
            return 0.0
        if age > LATE_LEARNER:
            return None
        # Where one part of an API has accepted the token, another may not know it yet; the same part does.
        refused_kind, doubt = kind(), self.doubt
        if refused_kind == self.accepted or (doubt is not None and refused_kind in doubt.here):
            return None
        return LATE

    def need(self, kind: Callable[[], str], now: float) -> Need:
        """Take note that the credential was refused, and say what that is worth."""
        verdict = "ended" if self.doubt is None else self.doubt.refused(kind(), now)
        if verdict == "ended" and now >= self.end_at:
            return Need.REFUSED if self.doubt is None else Need.ENDED
        if verdict == "probe" and now >= self.probe_at:
            return Need.PROBE
        return Need.LOOK

    def after_acceptance(
        self, kind: str, now: float, *, after_refusal: bool
    ) -> tuple[Verdicts, bool, bool]:
        """Return what is known after a request was accepted, whether a doubt ended, and whether it is worth telling.

        Args:
            kind: what kind of request it was.
            now: the time.
            after_refusal: it was refused with the token before: that refresh was fruitful.
        """
        doubt, ended, probe_at = self.doubt, False, self.probe_at
        if doubt is not None and after_refusal:
            ended = not doubt.is_settled()
            doubt = doubt.after_fruit(kind)
            probe_at = -math.inf
        news = doubt is not None and doubt.accepted(kind, now)
        after = self._replace(
            accepted=self.accepted or kind,
            listening=doubt is not None,
            doubt=doubt,
            probe_at=probe_at,
        )
        return after, ended, news

    def after_futile(self, generation: int, kind: str, now: float) -> Verdicts:
        """Return what is known after a request was refused with this credential, and with the one before it.

        Args:
            generation: the credential's.
            kind: what kind of request it was.
            now: the time.
        """
        doubt, probe_at = self.doubt, self.probe_at
        if doubt is None:
            doubt = Doubt.of(
                generation, accepted_at=self._accepted_at(now), good_at=now, benefit=True
            )
            probe_at = now + FIRST_DOUBT
        doubt.refused_again(kind)
        return self._replace(listening=True, doubt=doubt, probe_at=probe_at)

    def learnt(
        self,
        generation: int,
        refusals: Refusals,
        *,
        refusals_for: float,
        accepted_for: float,
        now: float,
    ) -> Verdicts:
        """Return what is known after the store's note was read. The caller sets `look_at`.

        Args:
            generation: the generation of the credential in use.
            refusals: the note.
            refusals_for: seconds that are left of its pause.
            accepted_for: seconds for which it says that requests are accepted.
            now: the time.
        """
        doubt, probe_at = self.doubt, self.probe_at
        if refusals.futile and doubt is None:
            doubt = Doubt.of(
                generation,
                refusals,
                accepted_at=self._accepted_at(now),
                good_at=now,
                benefit=bool(self.accepted) or refusals.futile == 1,
            )
        if doubt is not None and refusals.generation == doubt.generation:
            doubt.accepted_elsewhere(accepted_for, now)
            doubt.allowed_elsewhere(refusals)
        if refusals.futile:
            probe_at = max(probe_at, now + refusals_for)
        return self._replace(
            listening=self.listening or doubt is not None,
            doubt=doubt,
            probe_at=probe_at,
            end_at=now + early_left(refusals, refusals_for),
        )

    def forbidden(self) -> tuple[str, ...]:
        """Return the kinds of request that are known to be forbidden with this credential."""
        return () if self.doubt is None else tuple(self.doubt.forbidden)

    def allowed(self) -> tuple[str, ...]:
        """Return the kinds of request that were accepted with this credential while it was in doubt."""
        if self.doubt is None:
            return ()
        return tuple(kind for kind, accepted in self.doubt.kinds.items() if accepted)

    def _accepted_at(self, now: float) -> float:
        """Return when a request was accepted with the credential, where no doubt keeps it.

        The moment of the first acceptance is not kept, for there is one with each token. It is taken for a recent one.
        """
        return now if self.accepted else -math.inf


NOTHING_SAID = Verdicts()
"""Of a credential that has not been used yet; one object for all."""
