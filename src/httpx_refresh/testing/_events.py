"""What a test can inspect on a server: its families of tokens, and its events, in order.

Neither a family nor an event holds a token, a code or a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class Family:
    """All tokens that descend from one login.

    `generation` counts the pairs issued after the first; access tokens older than `oldest_good`
    have ended. `asked` holds what the login requested (`acr_values`, `max_age`, `claims` and so on),
    `claims` the claims of the last refresh that had any. Only the server changes a family.
    """

    number: int
    client_id: str
    scope: str
    generation: int = 0
    oldest_good: int = 0
    revoked: bool = False
    asked: Mapping[str, str] = field(default_factory=dict[str, str])
    claims: str | None = None


class TokenEvent(NamedTuple):
    """A request to the token endpoint, recorded when it arrived.

    `generation` is the generation of the refresh token that it used, `issued` that of the pair that
    it got. `outcome` is `issued`, `reissued` (a spent token within the grace), `reused` (a spent
    token, refused), `not served` (a behaviour replaced the answer) or the `error` code.
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
    """A login or a grant without a person began a family of tokens, or something ended it.

    `outcome`: `login`, `grant`, `reuse`, `revocation`, `code reuse` or `next grant`.
    """

    at: float
    family: int
    outcome: str
    kind: str = "family"


Event = TokenEvent | ApiEvent | FamilyEvent
"""What `AuthorizationServer.events` holds."""
