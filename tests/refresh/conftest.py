"""The clock of the protocol's tests."""

from __future__ import annotations

import pytest

from tests.fakes import use_loop_time


@pytest.fixture
def loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library tell the time by the event loop, whose time may be virtual."""
    use_loop_time(monkeypatch)
