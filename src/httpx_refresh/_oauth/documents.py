"""Read the JSON documents that servers publish about themselves: bounded, in time, and without redirects.

They are public, and asked for without a secret; but a stranger may have named their address.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from .._errors import RefreshUnavailable
from .answer import Answer, NoAnswer
from .exchange import exchange

if TYPE_CHECKING:
    from .._http.hosts import Hosts
    from .._http.libraries import AsyncClient

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Documents:
    """Reads documents until a deadline.

    Args:
        source: makes the requests, see `exchange`.
        timeout: seconds for all of them.
        hosts: which hosts may be asked; None: all.
    """

    __slots__ = ("_deadline", "_hosts", "_source")

    def __init__(
        self,
        source: AsyncClient | Callable[[], AsyncClient] | None,
        timeout: float,
        *,
        hosts: Hosts | None = None,
    ) -> None:
        self._source = source
        self._hosts = hosts
        self._deadline = anyio.current_time() + timeout

    async def ask(
        self, method: str, url: str, headers: dict[str, str], content: str | None = None
    ) -> Answer | NoAnswer:
        """Make one request in the time that is left.

        Raises:
            ValueError: the host must not be asked.
        """
        if self._hosts is not None:
            self._hosts.check(httpx.URL(url))
        left = max(self._deadline - anyio.current_time(), 0.0)
        return await exchange(self._source, method, url, headers, content, timeout=left)

    async def first(self, urls: Iterable[str], *, of: str) -> dict[str, Any] | None:
        """Return the first JSON object that is served at one of these addresses; None if there is none.

        Args:
            urls: where to look, one after another.
            of: whose document it is, for messages.

        Raises:
            RefreshUnavailable: there was no answer, or a server was not able to give one.
            ValueError: a host must not be asked.
        """
        unable: int | None = None
        for url in urls:
            answer = await self.ask("GET", url, dict(_HEADERS))
            if isinstance(answer, NoAnswer):
                raise RefreshUnavailable(
                    f"The metadata of {of} could not be read ({answer.why}). Try again later.",
                    outcome="not_sent",
                    transient=answer.transient,
                    caused_by=answer.caused_by,
                )
            found = _object(answer)
            if found is not None:
                return found
            if answer.status == 429 or answer.status >= 500:
                unable = answer.status
        if unable is not None:
            raise RefreshUnavailable(
                f"The metadata of {of} could not be read (status {unable}). Try again later.",
                outcome="not_sent",
            )
        return None


def _object(answer: Answer) -> dict[str, Any] | None:
    """Return the JSON object that the answer is, if it is one."""
    if answer.status != 200 or answer.cut:
        return None
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_of(metadata: dict[str, Any], name: str) -> str | None:
    """Return a field that is text, and not empty."""
    value = metadata.get(name)
    return value if isinstance(value, str) and value else None


def list_of(metadata: dict[str, Any], name: str) -> list[str]:
    """Return the texts of a field that is a list; none where it is not."""
    value = metadata.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
