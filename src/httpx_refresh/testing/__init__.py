"""An authorization server and the API behind it, for tests: in the process or beside it."""

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
