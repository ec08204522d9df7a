"""Metrics and spans of OpenTelemetry, from what happens to a token; needs the extra `otel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

try:
    from opentelemetry import context, metrics, trace
except ImportError:
    raise ImportError(
        "httpx_refresh.otel needs opentelemetry-api: pip install 'httpx-refresh[otel]'"
    ) from None

from ._refresh import events
from ._refresh.observers import observer_failed

__all__ = ["OpenTelemetry"]

_NAME = "httpx_refresh"

# In seconds: a refresh takes as long as a request does, and a store's answer a hundredth of that.
_REFRESH = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 60)
_STORE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


_HISTOGRAMS = (
    ("refresh.duration", "How long refreshes took.", _REFRESH),
    ("wait.duration", "How long another process was waited for.", _REFRESH),
    ("store.operation.duration", "How long calls of the store took.", _STORE),
)
_COUNTERS = (
    ("replays", "{request}", "Requests that were sent again with another token."),
    ("adoptions", "{token}", "Tokens that another process had put into the store."),
    ("takeovers", "{claim}", "Claims of processes that had died or hung."),
    ("failures", "{refresh}", "Refreshes that brought no token."),
)


class OpenTelemetry:
    """Makes metrics and spans of what happens to a token: `RefreshAuth(..., on_event=OpenTelemetry())`.

    One object serves any number of tokens. Instruments (s: seconds):

    - `httpx_refresh.refresh.duration` (histogram, s): refreshes made here, those that failed with `error.type`;
    - `httpx_refresh.wait.duration` (histogram, s): waits for another process that held the refresh token;
    - `httpx_refresh.replays` (counter, `{request}`): requests sent again with another token;
    - `httpx_refresh.adoptions` (counter, `{token}`): tokens that another process had put into the store;
    - `httpx_refresh.takeovers` (counter, `{claim}`): claims of processes that had died or hung;
    - `httpx_refresh.failures` (counter, `{refresh}`): refreshes that brought no token, with `error.type`;
    - `httpx_refresh.unsaved` (up-down counter, `{token}`): tokens that are in memory and not in the store;
    - `httpx_refresh.store.operation.duration` (histogram, s): calls of the store, by `httpx_refresh.store.operation`.

    A refresh is a span of kind INTERNAL, `httpx_refresh.refresh`: it is the current one where the token request is
    made, so that an instrumentation of the HTTP client makes its CLIENT span inside it. It is a root, since no
    request owns a refresh; it links to the spans of the requests that wait for it, at most 128.

    Attributes are `server.address` (the token endpoint's host) and `error.type` of the semantic conventions, and
    `httpx_refresh.provider`, `httpx_refresh.reason`. The label is in none of them: it may have any number of values.

    Whatever a provider raises is logged once, and changes nothing else.

    Args:
        meter_provider: makes the meter; the global one if not given.
        tracer_provider: makes the tracer; the global one if not given.

    Source: OpenTelemetry semantic conventions, "General attributes" and "Recording errors".
    """

    def __init__(
        self,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._instruments = _instruments(meter_provider)
        self._tracer: trace.Tracer = trace.NoOpTracer()
        try:
            self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        except Exception as error:
            observer_failed(error)

    def __repr__(self) -> str:
        return "OpenTelemetry()"

    def __call__(self, event: events.Event) -> None:
        """Record an event; what is no instrument's is passed by."""
        about = _about(event)
        match event:
            case events.Refreshed():
                self._add("refresh.duration", event.duration, {**about, **_reason(event)})
            case events.RefreshFailed():
                failed = {**about, **_reason(event), "error.type": event.outcome}
                self._add("failures", 1, failed)
                if event.asked:
                    self._add("refresh.duration", event.duration, failed)
            case events.ClaimWaited():
                self._add("wait.duration", event.duration, about)
            case events.Replayed():
                self._add("replays", 1, about)
            case events.Adopted():
                self._add("adoptions", 1, about)
            case events.ClaimTakenOver():
                self._add("takeovers", 1, about)
            case events.Unsaved() | events.NotShared():
                self._add("unsaved", 1, about)
            case events.Saved():
                self._add("unsaved", -1, about)
            case events.StoreCalled():
                about["httpx_refresh.store.operation"] = event.operation
                if event.outcome is not None:
                    about["error.type"] = event.outcome
                self._add("store.operation.duration", event.duration, about)
            case _:
                pass

    def _add(self, name: str, value: float, attributes: dict[str, str]) -> None:
        record = self._instruments.get(name)
        if record is not None:
            record(value, attributes)

    # -- the span of a refresh ---------------------------------------------------------------------------------

    def waiting(self) -> object:
        """Return the current span's context, to which the refresh's span links; None if there is none."""
        found = trace.get_current_span().get_span_context()
        return found if found.is_valid else None

    def refreshing(
        self, started: events.RefreshStarted, links: Sequence[object]
    ) -> AbstractContextManager[Any]:
        """Return a context in which the refresh's span is the current one."""
        return self._refreshing(started, links)

    @contextmanager
    def _refreshing(
        self, started: events.RefreshStarted, links: Sequence[object]
    ) -> Iterator[Callable[[str], None]]:
        known = len(links)

        def failed(outcome: str) -> None:
            span.set_attribute("error.type", outcome)
            span.set_status(trace.Status(trace.StatusCode.ERROR))

        span = self._tracer.start_span(
            "httpx_refresh.refresh",
            context=context.Context(),
            kind=trace.SpanKind.INTERNAL,
            attributes={**_about(started), **_reason(started)},
            links=[trace.Link(one) for one in links if isinstance(one, trace.SpanContext)],
        )
        with trace.use_span(span, end_on_exit=True, record_exception=False):
            yield failed
            for link in links[known:]:  # Who joined since then.
                if isinstance(link, trace.SpanContext):
                    span.add_link(link)


def _about(event: events.Event) -> dict[str, str]:
    about = {"httpx_refresh.provider": event.provider}
    if event.server is not None:
        about["server.address"] = event.server
    return about


def _reason(event: events.Event) -> dict[str, str]:
    return {} if event.reason is None else {"httpx_refresh.reason": event.reason}


def _instruments(
    provider: metrics.MeterProvider | None,
) -> dict[str, Callable[[float, dict[str, str]], None]]:
    """Return what records a value, by the instrument's name; nothing for those that could not be made."""
    made: dict[str, Callable[[float, dict[str, str]], None]] = {}
    try:
        meter = metrics.get_meter(_NAME, meter_provider=provider)
        for name, description, buckets in _HISTOGRAMS:
            made[name] = meter.create_histogram(
                f"{_NAME}.{name}", "s", description, explicit_bucket_boundaries_advisory=buckets
            ).record
        for name, unit, description in _COUNTERS:
            made[name] = meter.create_counter(f"{_NAME}.{name}", unit, description).add
        made["unsaved"] = meter.create_up_down_counter(
            f"{_NAME}.unsaved", "{token}", "Tokens that are in memory and not in the store."
        ).add
    except Exception as error:  # Of whatever provider it is.
        observer_failed(error)
    return made
