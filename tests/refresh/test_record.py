"""The text in the store: whatever is in it, it is read or refused; what is written is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_refresh._refresh.record import (
    BadText,
    Claim,
    Dead,
    Record,
    decide,
    fingerprint,
    merged,
    parse,
    revoked,
    write,
)
from httpx_refresh._token import Token

CLAIM = Claim("host:1", "n1", 1000.0)
DEAD = Dead(fingerprint("r"), "invalid_grant", None, 1000.0)
HELD = Token("a", "r", 2000.0, extra={"id_token": "kept", "expires_in": 60})


def test_an_empty_slot_holds_no_token() -> None:
    assert parse(None) == Record(None)


def test_a_file_as_other_tools_leave_it_is_read() -> None:
    record = parse('{"access_token": "a", "refresh_token": "r", "expires_in": 60, "x": 1}')
    assert record.token == Token("a", "r", extra={"expires_in": 60, "x": 1})
    assert (record.generation, record.redeeming, record.uncertain) == (0, None, None)
    assert (record.dead, record.revoked) == (None, False)


@pytest.mark.parametrize(
    "field, value, read",
    [
        ("refresh_token", "", None),
        ("refresh_token", None, None),
        ("expires_at", "1800000000", 1.8e9),
        ("expires_at", "2030-01-01", None),
        ("expires_at", 1.8e12, None),
        ("expires_at", -5, None),
        ("expires_at", True, None),
        ("expires_at", float("nan"), None),
        ("token_type", None, "Bearer"),
        ("token_type", "mac", "mac"),
    ],
)
def test_an_odd_field_is_read_for_what_it_can_mean(field: str, value: Any, read: Any) -> None:
    token = parse(json.dumps({"access_token": "a", field: value})).token
    assert getattr(token, field) == read


@pytest.mark.parametrize(
    "notes",
    [
        [],
        "x",
        None,
        {"generation": -1},
        {"generation": 1.5},
        {"generation": True},
        {"generation": "1"},
        {"redeeming": 5},
        {"redeeming": {"by": "x"}},
        {"redeeming": {"by": "x", "nonce": 5, "since": 1}},
        {"redeeming": {"by": "x", "nonce": "n", "since": "1"}},
        {"redeeming": {"by": "x", "nonce": "n", "since": True}},
        {"redeeming": {"by": "x", "nonce": "n", "since": float("inf")}},
        {"redeeming": {"by": "x", "nonce": "n", "since": 10**400}},
        {"uncertain": []},
        {"dead": 5},
        {"dead": {"since": 1}},
        {"dead": {"refresh_token_sha256": "x", "since": None}},
        {"dead": {"refresh_token_sha256": "x", "since": 1, "error": 5}},
        {"dead": {"refresh_token_sha256": "x", "since": 1, "error_description": 5}},
    ],
)
def test_notes_that_this_library_did_not_write_are_refused(notes: Any) -> None:
    with pytest.raises(BadText):
        parse(json.dumps({"access_token": "a", "httpx_refresh": notes}))


@pytest.mark.parametrize("notes", ["redeeming", "uncertain", "dead"])
def test_a_note_that_is_null_is_none(notes: str) -> None:
    record = parse(json.dumps({"access_token": "a", "httpx_refresh": {notes: None}}))
    assert getattr(record, notes) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_notes = st.dictionaries(
    st.sampled_from(["generation", "redeeming", "uncertain", "dead", "revoked", "by", "since"]),
    _json,
)
_fields = st.dictionaries(
    st.sampled_from(
        ["access_token", "refresh_token", "expires_at", "token_type", "expires_in", "scope"]
    ),
    _json | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)


@given(
    st.text()
    | st.builds(json.dumps, _json)
    | st.builds(lambda f, n: json.dumps({**f, "httpx_refresh": n}), _fields, _notes | _json)
)
def test_any_text_is_read_or_refused_and_what_is_read_is_written_and_read_again(text: str) -> None:
    try:
        record = parse(text)
    except BadText:
        return
    if record.token is None:
        assert record.revoked
        return
    again = parse(
        write(
            record.token,
            record.generation + 1,
            redeeming=CLAIM,
            uncertain=record.uncertain,
            dead=record.dead,
        )
    )
    assert again.token is not None
    assert again.token.access_token == record.token.access_token
    assert again.token.refresh_token == record.token.refresh_token
    assert again.token.expires_at == record.token.expires_at
    assert set(again.token.extra) == set(record.token.extra)
    assert again.generation == record.generation + 1
    assert (again.redeeming, again.uncertain, again.dead) == (CLAIM, record.uncertain, record.dead)


def test_a_generation_that_cannot_be_counted_on_is_refused() -> None:
    # Python reads no more than 4,300 digits; one more generation must still be writable.
    text = json.dumps({"access_token": "a", "httpx_refresh": {"generation": 0}})
    with pytest.raises(BadText, match="generation"):
        parse(text.replace('"generation": 0', '"generation": ' + "9" * 4300))


def test_what_is_written_is_read_back_whole() -> None:
    text = write(HELD, 3, redeeming=CLAIM, uncertain=Claim("b", "n2", 1.5), dead=DEAD)
    record = parse(text)
    assert record == Record(text, HELD, 3, CLAIM, Claim("b", "n2", 1.5), DEAD)


def test_extra_fields_never_stand_for_the_token_s_own_nor_for_the_notes() -> None:
    token = Token("a", extra={"access_token": "x", "refresh_token": "y", "httpx_refresh": {}})
    record = parse(write(token, 1))
    assert record.token == Token("a")
    assert record.generation == 1


def test_a_refresh_keeps_what_was_not_sent_again_but_for_the_lifetime() -> None:
    new = merged(HELD, Token("b", extra={"scope": "s"}), now=0.0)
    assert new == Token("b", "r", None, extra={"id_token": "kept", "scope": "s"})
    new = merged(HELD, Token("b", "r2", 100.0, extra={"expires_in": 7, "id_token": "n"}), now=40.0)
    assert new == Token("b", "r2", 100.0, extra={"id_token": "n", "expires_in": 7})


@pytest.mark.parametrize("expires_at, life", [(100.0, 60.0), (40.0, None), (None, None)])
def test_a_lifetime_that_is_not_named_is_told_from_the_end(
    expires_at: float | None, life: float | None
) -> None:
    assert merged(HELD, Token("b", None, expires_at), now=40.0).extra.get("expires_in") == life


def test_a_revoked_slot_holds_no_token_and_outlives_a_refresh_under_way() -> None:
    record = parse(write(HELD, 3))
    gone = parse(revoked(record, since=5.0))
    assert (gone.token, gone.generation, gone.revoked) == (None, 4, True)
    assert not gone.same_base(record)
    assert not record.same_base(gone)


@pytest.mark.parametrize(
    "other, same",
    [
        (parse(write(HELD, 3, redeeming=CLAIM, dead=DEAD)), True),
        (parse(write(HELD, 4)), False),
        (parse(write(Token("b", "r"), 3)), False),
        (parse(write(Token("a", "r2"), 3)), False),
    ],
)
def test_claims_and_latches_are_no_new_base(other: Record, same: bool) -> None:
    assert parse(write(HELD, 3)).same_base(other) is same


def test_a_latch_holds_for_the_refresh_token_that_was_refused_and_for_no_other() -> None:
    assert parse(write(HELD, 1, dead=DEAD)).is_dead()
    assert not parse(write(Token("a", "other"), 1, dead=DEAD)).is_dead()
    assert not parse(write(Token("a"), 1, dead=DEAD)).is_dead()
    assert not parse(write(HELD, 1)).is_dead()
    assert not Record(None, dead=DEAD).is_dead()


def test_a_refresh_token_of_any_text_has_a_fingerprint() -> None:
    assert fingerprint("\ud800") != fingerprint("\ud801")


_PAST, _AHEAD = Token("a", "r", 900.0), Token("a", "r", 1100.0)


@pytest.mark.parametrize(
    "record, stale, abandoned, step",
    [
        (Record(None), None, False, "none"),
        (Record("x", _AHEAD), None, False, "adopt"),
        (Record("x", _AHEAD), "other", False, "adopt"),
        (Record("x", _AHEAD, redeeming=CLAIM), None, False, "adopt"),
        (Record("x", _AHEAD, dead=DEAD), None, False, "adopt"),
        (Record("x", Token("a")), None, False, "adopt"),
        (Record("x", _AHEAD), "a", False, "spend"),
        (Record("x", _PAST), None, False, "spend"),
        (Record("x", Token("a", "r", 1000.0)), None, False, "spend"),
        (Record("x", _PAST, uncertain=CLAIM), None, False, "spend"),
        (Record("x", Token("a", None, 900.0)), None, False, "no_refresh_token"),
        (Record("x", Token("a")), "a", False, "no_refresh_token"),
        (Record("x", _PAST, dead=DEAD), None, False, "dead"),
        (Record("x", _PAST, redeeming=CLAIM, dead=DEAD), None, False, "dead"),
        (Record("x", _PAST, redeeming=CLAIM), None, False, "wait"),
        (Record("x", _PAST, redeeming=CLAIM), None, True, "spend"),
    ],
)
def test_each_text_calls_for_one_step(
    record: Record, stale: str | None, abandoned: bool, step: str
) -> None:
    assert decide(record, stale=stale, now=1000.0, abandoned=abandoned) == step
