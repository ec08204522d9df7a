"""Tasks that no caller owns: what they raise is said, and ends nothing else."""

from __future__ import annotations

import anyio
import pytest

from httpx_refresh._refresh.flight import Flight, Landing
from httpx_refresh._refresh.host import Beside, spawn
from httpx_refresh._refresh.refusals import Need
from httpx_refresh._token import Token
from tests.virtual_time import virtual_time

pytestmark = [pytest.mark.anyio, virtual_time]


@pytest.fixture(autouse=True)
def no_task_of_the_library_fails() -> None:
    """Let tasks fail here: that is what is tried."""


def nothing() -> None:
    """Do nothing."""


class Unheard(BaseException):
    """What no `except Exception` sees."""


@pytest.mark.parametrize("kind", [ValueError, SystemExit, Unheard])
async def test_what_a_task_of_the_library_raises_is_logged_by_its_name_and_ends_no_run(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise kind("SECRET")

    spawn(fails, ending=nothing)
    await anyio.sleep(1)
    (said,) = caplog.messages
    assert "failed, which it should not" in said
    assert kind.__name__ in said
    assert "SECRET" not in said


async def test_a_ctrl_c_in_a_call_beside_the_work_reaches_the_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presses: list[None] = []
    monkeypatch.setattr("_thread.interrupt_main", lambda: presses.append(None))

    async def pressed() -> None:
        raise KeyboardInterrupt

    ends: list[None] = []
    call = Beside(pressed, lambda: ends.append(None))
    await anyio.sleep(1)
    assert (presses, ends, call.done.is_set()) == ([None], [None], True)
    assert "KeyboardInterrupt" in str(call.failed)


# -- flights ----------------------------------------------------------------------------------------------------------

NEW = Landing(Need.RESULT, Token("new"), spent=True)
NOTHING = Landing(Need.RESULT, passed_on=True)


async def test_the_first_landing_of_a_flight_counts() -> None:
    flight = Flight(object(), None, need=Need.RESULT)
    flight.land(NEW)
    flight.land(NOTHING)
    assert flight.landing is NEW


@pytest.mark.parametrize(
    "landing, claims, serves",
    [
        (NOTHING, "{}", False),
        (NOTHING, None, True),
        (NEW, "{}", True),
        (NEW, None, True),
    ],
)
async def test_who_asks_for_claims_is_served_by_a_token_or_by_an_answer_for_these_claims(
    landing: Landing, claims: str | None, serves: bool
) -> None:
    flight = Flight(object(), None, need=Need.RESULT)
    assert flight.serves(landing, None, Need.RESULT, forced=False, claims=claims) is serves
