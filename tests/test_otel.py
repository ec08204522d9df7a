"""The metrics and spans of a refresh, with OpenTelemetry's in-memory exporters and an HTTP instrumentation."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import json
import sys
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from httpx_refresh import (
    MemoryStore,
    ReauthorizationRequired,
    RefreshAuth,
    RefreshUnavailable,
    StoreError,
    Token,
    TokenEndpoint,
)
from httpx_refresh._refresh import observers
from httpx_refresh.otel import OpenTelemetry
from httpx_refresh.testing import AuthorizationServer
from tests.fakes import Api, Endpoint, Store, any_write, loop_wall, results, use_loop_time
from tests.refresh.test_events import all_told
from tests.virtual_time import virtual_time

NAME = "httpx_refresh."


class Collected:
    """The SDK with exporters that keep everything."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._reader])
        self.observer = OpenTelemetry(self.meter_provider, self.tracer_provider)

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        return [one for one in self._spans.get_finished_spans() if one.kind is kind]

    def points(self) -> dict[str, list[Any]]:
        """Return the points of each instrument, by its name without the library's prefix."""
        all_told()
        data = json.loads(self._reader.get_metrics_data().to_json())  # type: ignore[union-attr]  # something was recorded
        return {
            metric["name"].removeprefix(NAME): metric["data"]["data_points"]
            for resource in data["resource_metrics"]
            for scope in resource["scope_metrics"]
            for metric in scope["metrics"]
        }

    def units(self) -> dict[str, str]:
        all_told()
        data = json.loads(self._reader.get_metrics_data().to_json())  # type: ignore[union-attr]  # something was recorded
        (resource,) = data["resource_metrics"]
        (scope,) = resource["scope_metrics"]
        return {one["name"]: one["unit"] for one in scope["metrics"]}


def instrumented(server: AuthorizationServer, it: Collected) -> Any:
    transport = AsyncOpenTelemetryTransport(server.transport(), it.tracer_provider)
    return httpx.AsyncClient(transport=transport)


def auth_of(server: AuthorizationServer, it: Collected, **options: Any) -> RefreshAuth:
    endpoint = TokenEndpoint(
        server.token_url,
        server.client_id,
        server.client_secret,
        client=instrumented(server, it),
        origins="any",
    )
    return RefreshAuth(
        endpoint, MemoryStore(json.dumps(server.login())), on_event=it.observer, **options
    )


@pytest.mark.anyio
async def test_the_token_request_s_client_span_is_inside_the_refresh_s_internal_span() -> None:
    it, server = Collected(), AuthorizationServer()
    auth = auth_of(server, it)
    tracer = it.tracer_provider.get_tracer("the application")
    async with instrumented(server, it) as client:
        client.auth = auth
        await client.get(f"{server.api_url}/ping")
        server.expire_access_tokens()
        with tracer.start_as_current_span("a request of the application") as own:
            response = await client.get(f"{server.api_url}/ping")
    assert response.status_code == 200
    (refresh,) = it.spans(SpanKind.INTERNAL)[:1]
    assert refresh.name == "httpx_refresh.refresh"
    assert refresh.parent is None
    assert [link.context for link in refresh.links] == [own.get_span_context()]
    (asked,) = [
        one
        for one in it.spans(SpanKind.CLIENT)
        if one.parent and one.parent.span_id == refresh.context.span_id
    ]
    assert asked.attributes is not None
    assert str(asked.attributes["http.url"]) == server.token_url
    assert dict(refresh.attributes or {}) == {
        "server.address": httpx.URL(server.token_url).host,
        "httpx_refresh.provider": auth._session.facts.name,
        "httpx_refresh.reason": "refused",
    }


@pytest.mark.anyio
async def test_links_are_at_most_128_and_who_joins_late_is_linked_too() -> None:
    it, endpoint = Collected(), Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, on_event=it.observer)
    tracer = it.tracer_provider.get_tracer("the application")
    store.holds = results

    async def request(number: int) -> None:
        with tracer.start_as_current_span(f"request {number}", kind=SpanKind.SERVER):
            await auth.token()

    async with anyio.create_task_group() as group:
        group.start_soon(request, 0)
        await store.gate.arrived()
        for number in range(1, 200):
            group.start_soon(request, number)
        await anyio.wait_all_tasks_blocked()
        store.gate.release()
    (refresh,) = it.spans(SpanKind.INTERNAL)
    assert len(refresh.links) == 128
    assert len({link.context.span_id for link in refresh.links}) == 128


@pytest.mark.anyio
async def test_a_refresh_is_measured_and_a_label_is_in_no_attribute() -> None:
    it, endpoint = Collected(), Endpoint()
    store = Store(endpoint.text(expires_in=3600))
    auth = RefreshAuth(endpoint, store, on_event=it.observer, label="tenant-7")
    async with Api(lambda token: token == "SECRET-a1").client(auth) as client:
        await client.get("/")
    points = it.points()
    (done,) = points["refresh.duration"]
    assert (done["count"], done["attributes"]) == (
        1,
        {"httpx_refresh.provider": "Fake", "httpx_refresh.reason": "refused"},
    )
    assert 0 < done["sum"] < 10
    (replayed,) = points["replays"]
    assert replayed["value"] == 1
    operations = {
        one["attributes"]["httpx_refresh.store.operation"]: one["count"]
        for one in points["store.operation.duration"]
    }
    assert operations == {"load": 2, "replace": 2}
    told = json.dumps(points) + repr(
        [(one.name, one.attributes) for one in it.spans(SpanKind.INTERNAL)]
    )
    assert "tenant-7" not in told
    assert "SECRET" not in told


@virtual_time
@pytest.mark.anyio
async def test_failures_waits_takeovers_adoptions_and_unsaved_tokens_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_loop_time(monkeypatch)
    it, endpoint = Collected(), Endpoint(clock=loop_wall)
    claim = {"by": "elsewhere:1", "nonce": "n1", "since": loop_wall(), "for": 1.0}
    store = Store(endpoint.text(expires_in=-1, redeeming=claim))
    auth = RefreshAuth(endpoint, store, on_event=it.observer)
    other = RefreshAuth(endpoint, store)
    endpoint.script.append(RefreshUnavailable("down", outcome="unknown"))
    with pytest.raises(RefreshUnavailable):
        await auth.token()
    failures = iter(range(2))
    store.fails = lambda record: results(record) and next(failures, None) is not None
    await anyio.sleep(60)
    await auth.token()
    assert [one["value"] for one in it.points()["unsaved"]] == [1]
    await anyio.sleep(60)
    await other.refresh()
    await auth.refresh(refused=await auth.token())
    points = it.points()
    assert [one["value"] for one in points["unsaved"]] == [0]
    (failed,) = points["failures"]
    assert (failed["value"], failed["attributes"]["error.type"]) == (1, "unknown")
    assert [one["value"] for one in points["takeovers"]] == [1]
    assert [one["value"] for one in points["adoptions"]] == [1]
    (waited,) = points["wait.duration"]
    assert 1.4 < waited["sum"] < 3
    failing = [
        one for one in points["store.operation.duration"] if "error.type" in one["attributes"]
    ]
    assert [one["attributes"]["error.type"] for one in failing] == ["OSError"]
    spans = it.spans(SpanKind.INTERNAL)
    assert [one.status.status_code for one in spans] == [StatusCode.ERROR, StatusCode.UNSET]
    assert (spans[0].attributes or {})["error.type"] == "unknown"
    assert not spans[0].events
    assert it.units() == {
        f"{NAME}refresh.duration": "s",
        f"{NAME}wait.duration": "s",
        f"{NAME}adoptions": "{token}",
        f"{NAME}takeovers": "{claim}",
        f"{NAME}failures": "{refresh}",
        f"{NAME}unsaved": "{token}",
        f"{NAME}store.operation.duration": "s",
    }


@pytest.mark.anyio
async def test_a_grant_that_ended_is_an_error_of_its_span() -> None:
    it, endpoint = Collected(), Endpoint()
    endpoint.always = ReauthorizationRequired("no longer", error="invalid_grant")
    auth = RefreshAuth(endpoint, Store(endpoint.text(expires_in=-1)), on_event=it.observer)
    with pytest.raises(ReauthorizationRequired):
        await auth.token()
    (span,) = it.spans(SpanKind.INTERNAL)
    assert (span.attributes or {})["error.type"] == "login_required"
    assert span.status.status_code is StatusCode.ERROR


class _Fails:
    """A provider whose every call raises, at once or when something is recorded."""

    def __init__(self, after: int) -> None:
        self._after = after

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self._after == 0:
                raise RuntimeError("no instruments")
            return _Fails(self._after - 1)

        return call


@pytest.mark.anyio
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_providers_that_fail_are_logged_and_tokens_go_on(
    after: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "_failed", set())
    fails: Any = _Fails(after)
    endpoint = Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, on_event=OpenTelemetry(fails, fails))
    for _ in range(3):
        assert isinstance(await auth.refresh(), Token)
    all_told()
    said = [one for one in caplog.messages if "observer" in one]
    assert len(said) == len(set(said))
    assert 1 <= len(said) <= 4


def test_without_the_extra_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.delitem(sys.modules, "httpx_refresh.otel")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'httpx-refresh\[otel\]'"):
        importlib.import_module("httpx_refresh.otel")


@pytest.mark.anyio
async def test_a_failure_before_anything_was_asked_is_counted_and_has_no_duration() -> None:
    it, endpoint = Collected(), Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    store.fails = any_write
    with pytest.raises(StoreError):
        await RefreshAuth(endpoint, store, on_event=it.observer).token()
    points = it.points()
    assert [one["value"] for one in points["failures"]] == [1]
    assert "refresh.duration" not in points


@pytest.mark.anyio
async def test_what_other_tracers_link_is_no_link_of_opentelemetry_s() -> None:
    class Other:
        """A tracer of another make."""

        def __call__(self, event: object) -> None:
            """Look away."""

        def waiting(self) -> object:
            return "a link"

        def refreshing(self, started: object, links: object) -> Any:
            return contextlib.nullcontext(lambda outcome: None)

    it, endpoint = Collected(), Endpoint()
    store = Store(endpoint.text(expires_in=-1))
    auth = RefreshAuth(endpoint, store, on_event=[it.observer, Other()])
    tracer = it.tracer_provider.get_tracer("the application")
    store.holds = results

    async def request() -> None:
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            await auth.token()

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await store.gate.arrived()
        group.start_soon(request)
        await anyio.wait_all_tasks_blocked()
        store.gate.release()
    (refresh,) = it.spans(SpanKind.INTERNAL)
    assert len(refresh.links) == 2


def test_an_observer_shows_its_kind_and_no_provider() -> None:
    assert repr(Collected().observer) == "OpenTelemetry()"
