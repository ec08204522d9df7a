"""Token: a token endpoint's answer, and its expiry."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from httpx_refresh import Token


def test_a_token_response_becomes_a_token_that_expires_from_now_on() -> None:
    before = time.time()
    token = Token.from_response(
        {
            "access_token": "a",
            "token_type": "bearer",
            "expires_in": 60,
            "refresh_token": "r",
            "scope": "s",
        }
    )
    assert token.expires_at is not None
    assert before + 60 <= token.expires_at <= time.time() + 60
    assert (token.access_token, token.refresh_token, token.token_type) == ("a", "r", "bearer")
    assert token.extra == {"expires_in": 60, "scope": "s"}


@pytest.mark.parametrize(
    "fields, seconds",
    [
        ({"expires_in": "3600"}, 3600),
        ({"expires_in": 59.5}, 59.5),
        ({"expires_in": 3_600_000, "expires_in_sec": 3600}, 3600),
        ({}, None),
        ({"expires_in": None}, None),
        ({"expires_in": True}, None),
        ({"expires_in": [3600]}, None),
        ({"expires_in": "soon"}, None),
        ({"expires_in": "9" * 33}, None),
        ({"expires_in": 0}, None),
        ({"expires_in": -1}, None),
        ({"expires_in": 1e300}, None),
        ({"expires_in": 10**400}, None),
        ({"expires_in": float("nan")}, None),
        ({"expires_in": float("inf")}, None),
    ],
)
def test_a_lifetime_is_read_where_it_is_credible(
    fields: dict[str, Any], seconds: float | None
) -> None:
    token = Token.from_response({"access_token": "a", **fields})
    if seconds is None:
        assert token.expires_at is None
    else:
        assert token.expires_at == pytest.approx(time.time() + seconds, abs=5)


def test_expires_at_goes_before_expires_in() -> None:
    token = Token.from_response({"access_token": "a", "expires_at": 1.8e9, "expires_in": 60})
    assert token.expires_at == 1.8e9


@pytest.mark.parametrize("value", [None, 5, ""])
def test_a_token_type_that_says_nothing_is_bearer(value: Any) -> None:
    assert Token.from_response({"access_token": "a", "token_type": value}).token_type == "Bearer"


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_refresh_token_is_none(value: Any) -> None:
    assert Token.from_response({"access_token": "a", "refresh_token": value}).refresh_token is None


@pytest.mark.parametrize(
    "response, error",
    [
        ("SECRET", TypeError),
        ([("access_token", "SECRET")], TypeError),
        ({}, ValueError),
        ({"access_token": None}, TypeError),
        ({"access_token": 5}, TypeError),
        ({"access_token": ""}, ValueError),
        ({"access_token": "SECRET\r\nX: y"}, ValueError),
        ({"access_token": "SECRET\0"}, ValueError),
        ({"access_token": " SECRET"}, ValueError),
        ({"access_token": "SECRET "}, ValueError),
        ({"access_token": "SECR\u00c9T"}, ValueError),
        ({"access_token": "a", "refresh_token": 5}, TypeError),
    ],
)
def test_a_response_without_a_token_that_fits_a_header_is_refused_and_not_shown(
    response: Any, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        Token.from_response(response)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "fields, error",
    [
        ({"refresh_token": ""}, ValueError),
        ({"refresh_token": b"r"}, TypeError),
        ({"expires_at": -1.0}, ValueError),
        ({"expires_at": 1.8e12}, ValueError),
        ({"expires_at": float("nan")}, ValueError),
        ({"expires_at": "1800000000"}, ValueError),
        ({"expires_at": True}, ValueError),
        ({"token_type": None}, TypeError),
        ({"extra": [1]}, TypeError),
    ],
)
def test_a_field_of_another_kind_is_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Token("a", **fields)


def test_a_blank_inside_and_every_visible_character_fit_a_header() -> None:
    text = "".join(map(chr, range(0x20, 0x7F))).strip()
    assert Token(f"{text} {text}").access_token == f"{text} {text}"


def test_the_repr_shows_no_secret_and_which_fields_there_are() -> None:
    token = Token("SECRET-a", "SECRET-r", 1.8e9, extra={"id_token": "SECRET-i", "scope": "SECRET"})
    assert repr(token) == (
        "Token(access_token='***', refresh_token='***', expires_at=1800000000.0, "
        "token_type='Bearer', extra=<id_token, scope>)"
    )
    assert "refresh_token=None" in repr(Token("SECRET-a"))
    assert "SECRET" not in str(token) + f"{token}" + repr([token])


def test_the_repr_shows_a_servers_words_in_one_line_bounded() -> None:
    names = {"\x1b[2J": 1, "a\nb": 2, **{f"field{number}": 3 for number in range(1000)}}
    shown = repr(Token("A", extra=names))
    assert shown.isprintable()
    assert len(shown) < 500


def test_a_token_cannot_be_changed_and_can_be_a_key() -> None:
    token = Token("a", extra={"scope": ["s"]})
    with pytest.raises(dataclasses.FrozenInstanceError):
        token.access_token = "b"  # type: ignore[misc]  # frozen, and so it raises
    assert {token: 1}[Token("a", extra={"scope": ["s"]})] == 1
