"""An authorization server and the API behind it, for tests, in the test's process or in one of its own.

A token endpoint that cannot be reached, or that answers 429 or 503, is asked again until `refresh_timeout` is over (20
seconds by default). In a test of an outage pass a short one, as in `RefreshAuth(endpoint, store, refresh_timeout=0.5)`.
"""

from __future__ import annotations

from ._behaviour import Answer, Behaviour, LostAnswer, LostRequest, Outage
from ._events import ApiEvent, Event, Family, FamilyEvent, TokenEvent
from ._process import RunningServer, running_server
from ._server import AuthorizationServer
from ._settings import Settings
from ._store import BrokenPromise, check_store
from ._wire import Call, Challenge, Gate

__all__ = [
    "Answer",
    "ApiEvent",
    "AuthorizationServer",
    "Behaviour",
    "BrokenPromise",
    "Call",
    "Challenge",
    "Event",
    "Family",
    "FamilyEvent",
    "Gate",
    "LostAnswer",
    "LostRequest",
    "Outage",
    "RunningServer",
    "Settings",
    "TokenEvent",
    "check_store",
    "running_server",
]
