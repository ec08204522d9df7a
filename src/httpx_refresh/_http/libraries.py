"""The HTTP libraries of this process: httpx, and httpx2 if it is installed. One auth object serves clients of both."""

from __future__ import annotations

import importlib.util
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpx

LIBRARIES: tuple[Any, ...] = (httpx,)
if importlib.util.find_spec("httpx2") is not None:
    import httpx2

    LIBRARIES = (httpx, httpx2)


def _each(*names: str) -> tuple[Any, ...]:
    return tuple(getattr(library, name) for library in LIBRARIES for name in names)


if TYPE_CHECKING:
    import httpx2

    Request = httpx.Request | httpx2.Request
    Response = httpx.Response | httpx2.Response
    URL = httpx.URL | httpx2.URL
    AsyncClient = httpx.AsyncClient | httpx2.AsyncClient

    class AuthBase(httpx.Auth, httpx2.Auth):  # type: ignore[misc]  # their request types differ by design
        """The `Auth` of every library that is installed."""

    class StreamBase(httpx.AsyncByteStream, httpx2.AsyncByteStream):
        """The `AsyncByteStream` of every library that is installed."""

    class BlockingStreamBase(httpx.SyncByteStream, httpx2.SyncByteStream):
        """The `SyncByteStream` of every library that is installed."""
else:
    AuthBase = type("AuthBase", _each("Auth"), {"__slots__": ()})
    StreamBase = type("StreamBase", _each("AsyncByteStream"), {"__slots__": ()})
    BlockingStreamBase = type("BlockingStreamBase", _each("SyncByteStream"), {"__slots__": ()})

ASYNC_STREAMS: tuple[type, ...] = _each("AsyncByteStream")
"""Bodies that an async client can send."""

BLOCKING_STREAMS: tuple[type, ...] = _each("SyncByteStream")
"""Bodies that a sync client can send."""

BYTE_STREAMS: tuple[type, ...] = _each("ByteStream")
"""Bodies held in memory: they can be sent any number of times."""

NOT_SENT: tuple[type[Exception], ...] = _each(
    "ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"
)
"""The errors that a client raises before a byte of the request was sent."""

REQUEST_ERRORS: tuple[type[Exception], ...] = _each("RequestError")
"""All errors that a client raises when an exchange fails."""

STATUS_ERRORS: tuple[type[Exception], ...] = _each("HTTPStatusError")
"""The errors that `raise_for_status` raises."""

asking: ContextVar[type[Any] | None] = ContextVar("httpx_refresh_asking", default=None)
"""The class of the request that needs a token in this context, which tells its library; None if there is none."""


def library_asking() -> Any:
    """Return the library whose client needs a token in this context; httpx if none does."""
    asked = asking.get()
    if asked is not None:
        for library in LIBRARIES:
            if issubclass(asked, library.Request):
                return library
    return httpx
