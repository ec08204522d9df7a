"""The cost of reading a response's body ahead, and that nothing of it is lost."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
from anyio.lowlevel import checkpoint

from httpx_refresh import ExpiryRule
from httpx_refresh._http import bodies
from httpx_refresh._http.bodies import READ_LIMIT, drain
from httpx_refresh._http.challenge import ACCEPTED, EXPIRED, challenge_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

both = pytest.mark.parametrize("library", [httpx, httpx2])


class Body:
    """A body of chunks that come without a wait; it counts the chunks that are taken, and its closes."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.taken = 0
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.taken == len(self.chunks):
            raise StopAsyncIteration
        self.taken += 1
        return self.chunks[self.taken - 1]

    def of(self, library: Any) -> Any:
        outer = self

        class Stream(library.AsyncByteStream):  # type: ignore[misc]  # of either library
            def __aiter__(self) -> AsyncIterator[bytes]:
                return outer

            async def aclose(self) -> None:
                outer.closed += 1

        return Stream()


async def answered(library: Any, body: Body, headers: Mapping[str, str] | None = None) -> Any:
    """Return an unread 401 with this body, as a client returns it."""

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc]  # of either library
        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(401, headers=headers, stream=body.of(library))

    client = library.AsyncClient(transport=Transport())
    return await client.send(client.build_request("GET", "https://api.test/"), stream=True)


async def look(response: Any) -> Any:
    """Return the body of a response that a rule got."""
    seen: list[Any] = []

    def rule(body: Any) -> bool:
        seen.append(body)
        return True

    assert await challenge_of(response, ExpiryRule(rule)) is EXPIRED
    (body,) = seen
    return body


@pytest.mark.anyio
@both
async def test_a_predicate_on_the_response_reads_no_body(library: Any) -> None:
    body = Body(b"{}")
    response = await answered(library, body)
    assert await challenge_of(response, lambda response: response.status_code == 401) is EXPIRED
    assert await challenge_of(response, lambda response: response.status_code == 400) is ACCEPTED
    assert await challenge_of(response, None) is EXPIRED
    assert body.taken == 0


@pytest.mark.anyio
@both
@pytest.mark.parametrize("announced", [{}, {"content-length": "8"}])
async def test_a_body_that_was_looked_into_is_read_as_it_came(
    library: Any, announced: dict[str, str]
) -> None:
    body = Body(b'{"a"', b": 1}")
    response = await answered(library, body, announced)
    assert await look(response) == {"a": 1}
    assert [chunk async for chunk in response.aiter_raw()] == [b'{"a"', b": 1}"]
    assert body.closed == 1
    assert response.elapsed.total_seconds() >= 0


@pytest.mark.anyio
@both
async def test_a_packed_body_is_looked_into_and_left_packed(library: Any) -> None:
    packed = gzip.compress(b'{"a": 1}')
    response = await answered(library, Body(packed), {"content-encoding": "gzip"})
    assert await look(response) == {"a": 1}
    assert await response.aread() == b'{"a": 1}'


@pytest.mark.anyio
@both
async def test_a_bomb_is_not_unpacked_for_a_look(library: Any) -> None:
    bomb = gzip.compress(b" " * 20_000_000 + b"1")
    assert len(bomb) < READ_LIMIT
    response = await answered(library, Body(bomb), {"content-encoding": "gzip"})
    assert await look(response) is None
    await response.aclose()


@pytest.mark.anyio
@both
@pytest.mark.parametrize("length", [str(READ_LIMIT + 1), "9" * 5000, "many", "-1", "5, 5"])
async def test_a_body_that_announces_more_or_nonsense_is_not_touched(
    library: Any, length: str
) -> None:
    body = Body(b"{}")
    assert await look(await answered(library, body, {"content-length": length})) is None
    assert body.taken == 0


@pytest.mark.anyio
@both
async def test_of_a_longer_body_only_the_beginning_is_held_back(library: Any) -> None:
    chunks = [b"x" * 30_000] * 10
    body = Body(*chunks)
    response = await answered(library, body)
    assert await look(response) is None
    assert body.taken == 3
    assert b"".join([chunk async for chunk in response.aiter_raw()]) == b"".join(chunks)


@pytest.mark.anyio
@both
async def test_a_body_of_just_the_limit_is_read_to_its_end_and_closed(library: Any) -> None:
    text = json.dumps("x" * (READ_LIMIT - 2)).encode()
    assert len(text) == READ_LIMIT
    body = Body(text)
    response = await answered(library, body)
    assert await look(response) == "x" * (READ_LIMIT - 2)
    assert body.closed == 1


@pytest.mark.anyio
@both
async def test_a_body_that_breaks_is_none_to_the_rule_however_much_of_it_came(library: Any) -> None:
    class Breaking(Body):
        async def __anext__(self) -> bytes:
            if self.taken == 1:
                raise library.ReadError("broken")
            return await super().__anext__()

    response = await answered(library, Breaking(b'{"error": "expired"}', b""))
    assert await look(response) is None
    with pytest.raises(library.ReadError):
        await response.aread()


@pytest.mark.anyio
@both
async def test_nothing_is_kept_of_a_body_that_was_looked_into(library: Any) -> None:
    before = set(bodies._running)
    response = await answered(library, Body(b"{}"))
    assert await look(response) == {}
    await response.aclose()
    await checkpoint()  # The event loop tells of a task's end in a step of its own.
    assert bodies._running == before


@pytest.mark.anyio
@both
@pytest.mark.parametrize("number", [10, 1000])
async def test_a_longer_body_that_nobody_reads_is_let_go(library: Any, number: int) -> None:
    """Buffered chunks may come without a wait and without an end, so they are not read to the end."""
    body = Body(*[b"x" * 30_000] * number)
    response = await answered(library, body)
    assert await look(response) is None
    await response.aclose()
    assert body.closed == 1
    assert body.taken <= 70


@pytest.mark.anyio
async def test_an_iterator_that_is_no_generator_is_let_go_too() -> None:
    body = Body(b"x", b"x")
    await drain(body)
    assert body.taken == 2


@pytest.mark.anyio
@both
async def test_a_body_that_a_hook_read_is_looked_at(library: Any) -> None:
    response = await answered(library, Body(b'{"a": 1}'))
    await response.aread()
    assert await look(response) == {"a": 1}


@pytest.mark.anyio
@both
async def test_a_body_that_a_hook_streamed_and_did_not_keep_is_none(library: Any) -> None:
    response = await answered(library, Body(b"{}"))
    assert [chunk async for chunk in response.aiter_raw()] == [b"{}"]
    assert await look(response) is None
