"""One object puts the token on requests, and knows whether a response belongs to a request with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from httpx_refresh._http.present import BEARER
from tests.fakes import both_libraries

pytestmark = both_libraries


@dataclass(frozen=True)
class Credential:
    header: str


TOKEN = Credential("Bearer SECRET-a0")


def presented(http: Any) -> Any:
    request = http.Request("GET", "https://api.test/start")
    BEARER.present(request, TOKEN)
    return request


def test_a_bearer_token_is_written_into_the_authorization_field(http: Any) -> None:
    request = presented(http)
    assert request.headers["Authorization"] == "Bearer SECRET-a0"
    BEARER.present(request, Credential("Bearer SECRET-a1"))
    assert request.headers.get_list("Authorization") == ["Bearer SECRET-a1"]


def test_the_answer_to_the_request_itself_answers_the_token(http: Any) -> None:
    request = presented(http)
    assert BEARER.was_presented(request, TOKEN, http.Response(401, request=request))


@pytest.mark.parametrize(
    "url, header, answers",
    [
        ("https://api.test/goal", "Bearer SECRET-a0", True),
        ("https://API.test:443/goal", "Bearer SECRET-a0", True),
        ("https://api.test/goal", "Bearer another", False),
        ("https://api.test/goal", None, False),
        ("https://other.test/goal", None, False),
        ("https://other.test/goal", "Bearer SECRET-a0", False),
        ("https://api.test:8443/goal", "Bearer SECRET-a0", False),
        ("http://api.test/goal", "Bearer SECRET-a0", False),
    ],
)
def test_the_answer_behind_a_redirect_answers_it_if_the_token_went_along_to_the_same_origin(
    http: Any, url: str, header: str | None, answers: bool
) -> None:
    behind = http.Request("GET", url, headers={} if header is None else {"Authorization": header})
    response = http.Response(401, request=behind)
    assert BEARER.was_presented(presented(http), TOKEN, response) is answers
