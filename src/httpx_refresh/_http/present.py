"""How a request carries a credential, and whether a response answers a request that carried it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .origins import origin_of

if TYPE_CHECKING:
    from .libraries import Request, Response


class Credential(Protocol):
    """A credential that a request can carry."""

    @property
    def header(self) -> str:
        """The value of the `Authorization` field, computed once for each token."""
        ...


class Presenter(Protocol):
    """Puts a credential on requests, and recognises it there. No other code does."""

    def present(self, request: Request, credential: Credential) -> None:
        """Make `request` carry `credential` instead of an earlier one."""
        ...

    def was_presented(self, request: Request, credential: Credential, response: Response) -> bool:
        """Return whether `response` answers a request that carried `credential`, sent as `request`."""
        ...


class Bearer:
    """Presents a bearer token in the `Authorization` field (RFC 6750 §2.1)."""

    __slots__ = ()

    def present(self, request: Request, credential: Credential) -> None:
        """Set the field."""
        request.headers["Authorization"] = credential.header

    def was_presented(self, request: Request, credential: Credential, response: Response) -> bool:
        """Return whether the request that was answered had the field.

        A redirect to another origin drops it: that origin never saw the token, so its 401 says nothing about it.
        """
        answered = response.request
        return answered is request or (
            origin_of(answered.url) == origin_of(request.url)
            and answered.headers.get("Authorization") == credential.header
        )


BEARER = Bearer()
