"""Who is told what happened: the log at once, and each callback of the user's in a thread, in order.

A callback may raise, block forever, or call this library. It never runs on the thread that a refresh runs on, so that
none of this costs a refresh its claim, or an event loop its time.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import anyio

from .._errors import cause_of
from .._threads import waker

if TYPE_CHECKING:
    from .events import Event, RefreshStarted

# Events are imported where one is told: importing the library stays fast.

logger = logging.getLogger("httpx_refresh")

Observer: TypeAlias = "Callable[[Event], object]"
"""What `on_event` takes. It may have the methods of `Tracer`, too."""

_E = TypeVar("_E", bound="Event")

MOST_LINKS = 128
"""So many waiting requests are told to a tracer."""

_MOST_KEPT = 1000  # events that wait for one callback; those that come then are dropped
_MOST_THREADS = 16  # callbacks that run at once
_IDLE = 5.0  # seconds that a thread waits for its next event
_PROMPT = 0.1  # seconds for which those who wait for a refresh also wait for the callbacks
_AT_EXIT = 1.0  # seconds for which the end of the interpreter waits for them


class Tracer(Protocol):
    """What an observer may have in addition, to be there while the refresh token is sent.

    These two are called where it happens, on the event loop, and must not wait. What they raise is logged once.
    """

    def waiting(self) -> object:
        """Return what stands for the request that begins to wait for a refresh; called in its context."""
        ...

    def refreshing(
        self, started: RefreshStarted, links: Sequence[object]
    ) -> AbstractContextManager[Callable[[str], object]]:
        """Return a context that is entered by the task that sends the refresh token, and left once the end is saved.

        `links` are the answers of `waiting`, at most `MOST_LINKS`; it grows while requests join. What entering the
        context returns is called, before it is left, with the outcome if there is no new token.
        """
        ...


def checked_observers(on_event: object) -> tuple[Observer, ...]:
    """Return the callbacks that `on_event` names: None, one, or several.

    Raises:
        TypeError: one of them cannot be called, is a class, or is a coroutine function.
    """
    if on_event is None:
        return ()
    if callable(on_event) or not isinstance(on_event, Iterable) or isinstance(on_event, str):
        on_event = (on_event,)
    found = []
    for one in on_event:
        if not callable(one) or isinstance(one, type):
            what = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
            raise TypeError(f"on_event must be a callable, or several; not {what}")
        for function in (one, type(one).__call__):
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(
                    "on_event must not be a coroutine function: it is called in a thread of the library. To "
                    "await something, hand the event to your event loop with loop.call_soon_threadsafe"
                )
        found.append(one)
    return tuple(found)


class Observers:
    """Tells of one token: fills in whose it is, writes the log, and posts to each callback.

    Mutable:
        generation: the token's in use, for events that name none; set by the session.
        _store_name: known once it was first needed.

    Attributes:
        listening: whether there is any callback beside the log.
        tracing: whether one of them is a `Tracer`, too.
    """

    __slots__ = (
        "_boxes",
        "_label",
        "_provider",
        "_server",
        "_store",
        "_store_name",
        "_tracers",
        "generation",
        "listening",
        "tracing",
    )

    def __init__(
        self,
        observers: Sequence[Observer] = (),
        *,
        source: object,
        provider: str,
        store: object,
        label: str | None,
    ) -> None:
        self._boxes = tuple(map(_box_of, observers))
        self._tracers: tuple[Any, ...] = tuple(
            one for one in observers if callable(getattr(one, "refreshing", None))
        )
        self.listening = bool(self._boxes)
        self.tracing = bool(self._tracers)
        self.generation: int | None = None
        self._label = label
        self._provider = provider
        self._server = _host_of(source) if observers else None
        self._store = store
        self._store_name: str | None = None

    def hears(self) -> bool:
        """Whether anybody is told of what is no trouble: else such an event need not be made."""
        return self.listening or logger.isEnabledFor(logging.INFO)

    def emit(self, event: Event) -> None:
        """Tell everybody; one that fails changes nothing."""
        from . import events

        try:
            # A failure's level depends on its reason as well: then the logger itself decides.
            logs = isinstance(event, events.RefreshFailed) or logger.isEnabledFor(
                events.LOG[type(event)][0]
            )
            if not (logs or self._boxes):
                return
            event = self._filled(event)
            for box in self._boxes:
                box.post(event)
            if logs:
                events.write_log(event)
        except Exception as error:
            observer_failed(error)

    def _filled(self, event: _E) -> _E:
        """Return the event with what all events of this token have."""
        if self._store_name is None:
            self._store_name = repr(self._store)
        return replace(
            event,
            provider=self._provider,
            store=self._store_name,
            label=self._label,
            server=self._server,
            generation=self.generation if event.generation is None else event.generation,
        )

    async def told(self) -> None:
        """Wait until the callbacks have been told what happened so far; not for those that block.

        So a caller that waits for a refresh finds that its callbacks were called, in a test or where they count.
        """
        for box in self._boxes:
            await box.emptied()

    def waiting(self, links: list[object]) -> None:
        """Add what stands for the request that begins to wait."""
        for tracer in self._tracers:
            if len(links) >= MOST_LINKS:
                return
            try:
                link = tracer.waiting()
            except Exception as error:
                observer_failed(error)
            else:
                if link is not None:
                    links.append(link)

    def refreshing(
        self, started: RefreshStarted, links: Sequence[object]
    ) -> AbstractContextManager[Callable[[str], object]]:
        """Return the context in which the refresh token is sent."""
        try:
            started = self._filled(started)
        except Exception as error:  # The store's own name may not be had.
            observer_failed(error)
        return _Refreshing(self._tracers, started, links)


class _Refreshing:
    """The contexts of the tracers, of which none can fail a refresh. It is entered and left once, by one task."""

    def __init__(
        self, tracers: Sequence[Tracer], started: RefreshStarted, links: Sequence[object]
    ) -> None:
        self._tracers = tracers
        self._started = started
        self._links = links
        self._entered: list[AbstractContextManager[Any]] = []
        self._failed: list[Callable[[str], object]] = []

    def __enter__(self) -> Callable[[str], None]:
        for tracer in self._tracers:
            try:
                context = tracer.refreshing(self._started, self._links)
                self._failed.append(context.__enter__())
            except Exception as error:
                observer_failed(error)
            else:
                self._entered.append(context)
        return self.failed

    def failed(self, outcome: str) -> None:
        """Tell that there is no new token."""
        for one in self._failed:
            try:
                one(outcome)
            except Exception as error:
                observer_failed(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.failed(kind.__name__)
        while self._entered:
            try:
                # Without the error: its frames are not for anybody else's eyes.
                self._entered.pop().__exit__(None, None, None)
            except Exception as failed:
                observer_failed(failed)


def _host_of(source: object) -> str | None:
    url = getattr(source, "url", None)
    if not isinstance(url, str):
        return None
    with suppress(ValueError):
        return urlsplit(url).hostname
    return None


# -- callbacks in threads --------------------------------------------------------------------------------------


class _Mark:
    """Stands among the events: the task that posted it is woken when all events before it were delivered."""

    __slots__ = ("wake",)

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake


class _Box:
    """The events that wait for one callback; every token with this callback posts here.

    Mutable, under the lock of `_Post`:
        _kept: the events that wait, in their order; at most `_MOST_KEPT`, and some marks.
        serving: a thread empties it, or will. Invariant: it is, whenever `_kept` holds something.
        late: somebody waited for it in vain; nobody does until it is empty again.
        _post: whose lock that is. Another one after a fork: what is kept is the parent's then.
    """

    __slots__ = ("__weakref__", "_kept", "_post", "_told", "callback", "late", "serving")

    def __init__(self, callback: Observer) -> None:
        self.callback = callback
        self._begin(_post)

    def _begin(self, post: _Post) -> None:
        self._post = post
        self._kept: deque[Event | _Mark] = deque()
        self.serving = False
        self.late = False
        self._told: set[str] = set()

    def post(self, item: Event | _Mark) -> bool:
        """Keep an event for the callback; return whether it was."""
        if self._post is not _post:
            self._begin(_post)
        with self._post.changed:
            full = len(self._kept) >= _MOST_KEPT
            if not full:
                self._kept.append(item)
                if not self.serving:
                    self.serving = True
                    self._post.serve(self)
        if full:
            self._say_once(
                "cannot keep up: {} events wait for it, and more are dropped", _MOST_KEPT
            )
        return not full

    async def emptied(self) -> None:
        """Wait, for a moment, until all that was posted so far was delivered."""
        if self.late or not self.serving:
            return
        done = anyio.Event()
        if not self.post(_Mark(waker(done.set))):
            return
        with anyio.move_on_after(_PROMPT):
            await done.wait()
        if not done.is_set():
            self.late = True
            self._say_once("has not returned within {:g} s. Nobody waits for it any more", _PROMPT)

    def take(self) -> Event | _Mark | None:
        """Return the next event, for the thread that empties the box; None if there is none."""
        with self._post.changed:
            if self._kept:
                return self._kept.popleft()
            self.serving = self.late = False
            self._post.emptied()
            return None

    def deliver(self, item: Event | _Mark) -> None:
        """Call the callback; what it raises is logged once."""
        try:
            if isinstance(item, _Mark):
                with suppress(RuntimeError):  # Its event loop has ended.
                    item.wake()
                return
            answer = self.callback(item)
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("a callback of on_event returned a coroutine, which nobody awaits")
        except BaseException as error:  # SystemExit, too: it would end a thread of ours.
            observer_failed(error)

    def _say_once(self, what: str, value: float) -> None:
        if what not in self._told:
            self._told.add(what)
            with suppress(Exception):
                name = getattr(self.callback, "__qualname__", type(self.callback).__name__)
                logger.warning("the observer of events %s %s", name, what.format(value))


class _Post:
    """The threads of a process that call callbacks.

    Mutable, under the lock of `changed`:
        _ready: boxes that no thread has taken yet. Each is `serving`.
        _threads, _idle: how many threads there are, and how many of them wait for a box.
        _serving: how many boxes are `serving`.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._ready: deque[_Box] = deque()
        self._threads = 0
        self._idle = 0
        self._serving = 0
        self._drains = False

    def serve(self, box: _Box) -> None:
        """Have a thread empty this box. Called with the lock."""
        self._serving += 1
        self._ready.append(box)
        if self._idle >= len(self._ready):
            self.changed.notify_all()
        elif self._threads < _MOST_THREADS:
            if not self._drains:
                self._drains = True
                atexit.register(self._drain)
            thread = threading.Thread(target=self._work, name="httpx-refresh events", daemon=True)
            with suppress(RuntimeError):  # The interpreter is ending, or there are no more threads.
                thread.start()
                self._threads += 1

    def emptied(self) -> None:
        """Take note that a box is empty. Called with the lock."""
        self._serving -= 1
        if not self._serving:
            self.changed.notify_all()

    def _work(self) -> None:
        while (box := self._next()) is not None:
            while (item := box.take()) is not None:
                box.deliver(item)
                del item  # A thread that waits keeps nothing.
            del box

    def _next(self) -> _Box | None:
        with self.changed:
            self._idle += 1
            try:
                if self.changed.wait_for(lambda: bool(self._ready), _IDLE):
                    return self._ready.popleft()
                self._threads -= 1
                return None
            finally:
                self._idle -= 1

    def _drain(self) -> None:
        """Let what happened last be told before the interpreter ends."""
        if self is not _post:
            return  # A forked child's parent's.
        with self.changed:
            self.changed.wait_for(lambda: not self._serving, _AT_EXIT)


_post = _Post()

_boxes: WeakValueDictionary[tuple[object, ...], _Box] = WeakValueDictionary()
_making = threading.Lock()


def _box_of(callback: Observer) -> _Box:
    """Return the one box of this callback: it is called by one thread at a time, whatever it is told of."""
    bound = getattr(callback, "__self__", None)
    # Bound methods are other objects each time; the box keeps what the numbers stand for.
    key = (id(callback),) if bound is None else (id(bound), getattr(callback, "__name__", None))
    with _making:
        box = _boxes.get(key)
        if box is None:
            box = _boxes[key] = _Box(callback)
        return box


def _begin_again() -> None:
    """Drop what is the parent's: in a forked child no thread of ours runs."""
    global _post, _making
    _post = _Post()
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # nothing forks on Windows
    os.register_at_fork(after_in_child=_begin_again)


_failed: set[str] = set()


def observer_failed(error: BaseException) -> None:
    """Say once of each kind of failure that an observer failed; whatever it is, the refresh goes on."""
    cause = cause_of(error)
    if cause not in _failed and len(_failed) < 100:
        _failed.add(cause)
        with suppress(Exception):
            logger.error("an observer of events failed: %s", cause)
