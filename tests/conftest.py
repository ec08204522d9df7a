"""The event loops that tests run on, and the servers that they run against."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oauth.pems import certificate
from tests.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["tests.kinds", "tests.services"]

# `--hypothesis-profile` sets how many examples are tried of each property. They are always the same, except
# for `endless`, which tries millions in all, takes hours, and needs `-o faulthandler_timeout=0`.
_PROPERTIES: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}
settings.register_profile("quick", max_examples=50, derandomize=True, **_PROPERTIES)
settings.register_profile("thorough", max_examples=500, derandomize=True, **_PROPERTIES)
settings.register_profile("endless", max_examples=200_000, **_PROPERTIES)
settings.load_profile("quick")

Backend = tuple[str, dict[str, Any]]


def pytest_collection_finish() -> None:
    """Keep what collection made out of later garbage collections, which would look through all of it each time."""
    _draws_one()  # Hypothesis asks gc once who holds its generator, and gc does not see what is frozen.
    gc.collect()
    gc.freeze()


@given(st.none())
def _draws_one(_: None) -> None:
    """A first example: what Hypothesis makes for the first one is there before the freeze."""


@pytest.fixture(scope="session")
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("authorities") / "one.pem"
    path.write_text(certificate("P-384"))
    return str(path)


@pytest.fixture(autouse=True)
def trust_in_one_authority(
    _one_authority: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let each client trust one authority: it takes 30 ms to load all of a machine's. No test needs the Internet."""
    if "packaging" not in request.keywords:  # They install packages.
        monkeypatch.setenv("SSL_CERT_FILE", _one_authority)


# A shell's background jobs ignore SIGINT. Then this process and its children would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # pragma: no cover - only in a background job
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _loop(task_factory: Any) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(task_factory)
    return loop


# New in Python 3.12: a task's first step runs as the task is made.
_EAGER = getattr(asyncio, "eager_task_factory", None)

# anyio's name of the backend, and its options. Tests request those in virtual time.
_BACKENDS: dict[str, Callable[[], Backend]] = {
    "asyncio": lambda: ("asyncio", {"loop_factory": partial(_loop, None)}),
    "asyncio+eager": lambda: ("asyncio", {"loop_factory": partial(_loop, _EAGER)}),
    "asyncio+uvloop": lambda: ("asyncio", {"use_uvloop": True}),
    "trio": lambda: ("trio", {}),
    "asyncio+virtual": lambda: ("asyncio", {"loop_factory": VirtualTimeLoop}),
    "trio+virtual": lambda: ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}),
}


@pytest.fixture(
    scope="module",
    params=[
        "asyncio",
        *(["asyncio+eager"] if _EAGER else []),
        *(["asyncio+uvloop"] if sys.platform != "win32" else []),
        "trio",
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """The event loop of an async test; `@virtual_time` sets others."""
    return _BACKENDS[request.param]()


class _Failures(logging.Handler):
    """Keeps what the library says of a failure of its own, which reaches no caller."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "which it should not" in str(record.msg):
            self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def no_task_of_the_library_fails() -> Iterator[None]:
    """Fail a test in which a task of the library's own raised: nobody else hears of that."""
    failures, logger = _Failures(), logging.getLogger("httpx_refresh")
    logger.addHandler(failures)
    yield
    logger.removeHandler(failures)
    assert failures.messages == []
