"""What happened at the server, in order. No event holds a token, a code or a secret."""

from __future__ import annotations

from typing import NamedTuple


class TokenEvent(NamedTuple):
    """A request to the token endpoint, noted when it arrived.

    `generation` is that of the refresh token it spent, `issued` that of the pair it got. `outcome`
    is `issued`, `reissued` (a spent token within the grace), `reused` (a spent token, refused),
    `not served` (a behaviour took its place) or the `error` code.
    """

    at: float
    grant_type: str
    client_id: str | None
    family: int | None
    generation: int | None
    issued: int | None
    outcome: str
    behaviour: str | None
    kind: str = "token"


class ApiEvent(NamedTuple):
    """A request to the API.

    `outcome`: `accepted`, `missing`, `unknown`, `expired`, `revoked` or `not served`.
    """

    at: float
    method: str
    host: str
    path: str
    family: int | None
    generation: int | None
    outcome: str
    behaviour: str | None
    kind: str = "api"


class FamilyEvent(NamedTuple):
    """A login began a family of tokens, or something ended it.

    `outcome`: `login`, `reuse`, `revocation` or `code reuse`.
    """

    at: float
    family: int
    outcome: str
    kind: str = "family"


Event = TokenEvent | ApiEvent | FamilyEvent
