"""`WWW-Authenticate`: every challenge is read, also between invalid ones, in linear time."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_refresh._challenges import (
    MOST_CHALLENGES,
    MOST_CLAIMS,
    MOST_READ,
    AuthChallenge,
    StepUp,
    claims_of,
    claims_text,
    parse,
    step_up_of,
    united_claims,
    united_scope,
    without,
)
from tests.strangers import (
    Fields,
    claims_parameter,
    field_of,
    header_fields,
    quickly,
    read_many,
)

CLAIMS = {"access_token": {"nbf": {"essential": True, "value": "1604106651"}}}


def read(*values: str) -> list[tuple[str, dict[str, str] | str]]:
    return [(one.scheme, one.token68 or dict(one.params)) for one in parse(values)]


def bearer(**params: str) -> str:
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in params.items())


@pytest.mark.parametrize(
    "value, found",
    [
        ("Bearer", [("bearer", {})]),
        ("Negotiate, NTLM", [("negotiate", {}), ("ntlm", {})]),
        ('Basic realm="simple"', [("basic", {"realm": "simple"})]),
        # The example of RFC 9110 §11.6.1.
        (
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [
                ("basic", {"realm": "simple"}),
                ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ],
        ),
        # The example of RFC 9470 §3.
        (
            'Bearer error="insufficient_user_authentication",'
            ' error_description="More recent authentication is required", max_age="5"',
            [
                (
                    "bearer",
                    {
                        "error": "insufficient_user_authentication",
                        "error_description": "More recent authentication is required",
                        "max_age": "5",
                    },
                )
            ],
        ),
        (
            "Negotiate oRQwEqADCgEBow==, Bearer error=x",
            [("negotiate", "oRQwEqADCgEBow=="), ("bearer", {"error": "x"})],
        ),
        ("Negotiate YQ==", [("negotiate", "YQ==")]),
        ("BEARER REALM=a , Error = b", [("bearer", {"realm": "a", "error": "b"})]),
        (",, Bearer a=1,,b=2 ,", [("bearer", {"a": "1", "b": "2"})]),
        ('Bearer a="1, Basic b=2"', [("bearer", {"a": "1, Basic b=2"})]),
        ('Bearer a="\\\\", b="\\""', [("bearer", {"a": "\\", "b": '"'})]),
        ('Bearer a=""', [("bearer", {"a": ""})]),
        ("Bearer a=1, a=2", [("bearer", {"a": "1"})]),
        ('Bearer a="1" b="2"', [("bearer", {"a": "1", "b": "2"})]),
        ('Bearer a="é"', [("bearer", {"a": "é"})]),
        # Invalid text is skipped up to the next comma only.
        ("Bearer a=1, /?;, b=2", [("bearer", {"a": "1", "b": "2"})]),
        ("Bearer a=/x y, b=2", [("bearer", {"b": "2"})]),
        ('="x, y", Bearer a=1', [("bearer", {"a": "1"})]),
        ("a=1, Bearer b=2", [("bearer", {"b": "2"})]),
        ('Bearer a=1, b="no end, Basic c=3', [("bearer", {"a": "1"})]),
        ("", []),
    ],
)
def test_a_field_is_read_as_its_grammar_says(value: str, found: list[Any]) -> None:
    assert read(value) == found


def test_several_fields_are_read_one_by_one_and_junk_in_one_spoils_no_other() -> None:
    assert read('Basic realm="no end', "Bearer a=1", "b=2") == [
        ("basic", {}),
        ("bearer", {"a": "1"}),
    ]


@pytest.mark.parametrize(
    "piece",
    [
        '"',
        '\\"',
        '"\\',
        "a=",
        "a",
        "a ",
        "a b",
        ",",
        " ",
        "=",
        'a="\\"',
        "/",
        "a=b ",
        "Bearer a=1,",
    ],
)
def test_128_kib_of_anything_are_read_in_a_moment(piece: str) -> None:
    for text in (
        piece * (MOST_READ // len(piece)),
        f'Bearer a="{piece * (MOST_READ // len(piece))}',
    ):
        began = time.process_time()
        assert len(parse([text])) <= MOST_CHALLENGES
        assert time.process_time() - began < 5.0  # a quadratic parser would take minutes


def test_what_comes_after_so_much_is_not_read() -> None:
    assert parse([" " * MOST_READ, "Bearer a=1"]) == ()
    assert len(parse([" " * (MOST_READ - 10), "Bearer a=1"])) == 1
    assert len(parse(["Bearer," * 10_000])) == MOST_CHALLENGES


WORDS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
TEXTS = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=12)
PARAMS = st.dictionaries(WORDS.map(str.lower), TEXTS, max_size=4)
WRITTEN = st.lists(st.tuples(WORDS, PARAMS), max_size=5)


@given(WRITTEN, st.booleans())
def test_what_is_written_by_the_grammar_is_read_again(
    challenges: list[tuple[str, dict[str, str]]], in_one_field: bool
) -> None:
    values = [field_of(challenges)] if in_one_field else [field_of([one]) for one in challenges]
    found = [(one.scheme, dict(one.params)) for one in parse(values)]
    assert found == [(scheme.lower(), params) for scheme, params in challenges]


@read_many(header_fields, Fields(['a="'], []))
def test_noise_is_read_without_an_error_and_hides_no_challenge_of_another_field(
    fields: Fields,
) -> None:
    with quickly():
        before = parse(fields.noise)
        found = parse([*fields.noise, "", *(field_of([one]) for one in fields.challenges)])
        asked = step_up_of(found)
    assert found[: len(before)] == before
    after = [(one.scheme, dict(one.params)) for one in found[len(before) :]]
    assert after == [(scheme.lower(), params) for scheme, params in fields.challenges]
    for one in before:
        assert one.scheme == one.scheme.lower()
        assert all(name == name.lower() for name in one.params)
    if asked is not None:
        assert asked.error.startswith("insufficient_")
        said = (asked.scope, asked.acr_values, asked.resource_metadata)
        assert all(text is None or (text and text.isprintable()) for text in said)
        assert asked.max_age is None or asked.max_age >= 0
        assert asked.claims is None or claims_of(claims_text(asked.claims)) == asked.claims


# -- the login that is asked for -------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, error",
    [
        ([bearer(error="insufficient_user_authentication")], "insufficient_user_authentication"),
        ([bearer(error="insufficient_claims", claims="e30=")], "insufficient_claims"),
        ([bearer(error="insufficient_scope")], "insufficient_scope"),
        (["DPoP error=insufficient_scope"], "insufficient_scope"),
        (["Basic error=insufficient_scope", "Bearer"], None),
        (["Bearer realm=x", bearer(error="insufficient_scope")], "insufficient_scope"),
        ([bearer(error="invalid_token"), bearer(error="insufficient_scope")], None),
        (
            [bearer(error="invalid_token", scope="a", claims="e30=", acr_values="b", max_age="1")],
            None,
        ),
        ([bearer(scope="a", resource_metadata="https://api.test/m")], None),
        ([bearer(error_description="insufficient_scope")], None),
    ],
)
def test_the_error_of_the_first_bearer_challenge_with_one_says_what_is_asked_for(
    values: list[str], error: str | None
) -> None:
    asked = step_up_of(parse(values))
    assert (asked and asked.error) == error


def test_all_that_is_asked_for_is_read() -> None:
    claims = base64.b64encode(json.dumps(CLAIMS).encode()).decode()
    value = bearer(
        error="insufficient_claims",
        scope=" a  b ",
        claims=claims,
        acr_values="gold silver",
        max_age="300",
        resource_metadata="https://api.test/m",
    )
    assert step_up_of(parse([value])) == StepUp(
        "insufficient_claims", "a b", CLAIMS, "gold silver", 300, "https://api.test/m"
    )


@pytest.mark.parametrize(
    "params",
    [
        {"scope": ""},
        {"max_age": "-1"},
        {"max_age": "soon"},
        {"max_age": "9" * 5000},
        {"acr_values": "a\tb"},
    ],
)
def test_what_cannot_be_meant_is_not_said(params: dict[str, str]) -> None:
    asked = step_up_of([AuthChallenge("bearer", {"error": "insufficient_scope", **params})])
    assert asked == StepUp("insufficient_scope")


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth > 1 else {"a": 1}


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
def test_claims_are_read_in_either_alphabet_with_their_padding_or_without(alphabet: Any) -> None:
    for filler in range(4):
        claims = {"access_token": {"x": {"value": "?>ÿ~" + "." * filler}}}
        text = alphabet(json.dumps(claims, ensure_ascii=False).encode()).decode()
        assert claims_of(text) == claims_of(text.rstrip("=")) == claims
    assert claims_of(json.dumps(CLAIMS)) == CLAIMS


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "e30=",  # {}
        "W10=",  # []
        "MQ==",
        "%%%",
        "ÿÿ",
        "/w==",  # no UTF-8
        "{",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": [-1e999]}',
        '{"a": "\\ud800"}',
        '{"a": ' + "9" * 5000 + "}",
        "[" * 10_000,
        '{"a":' * 3000 + "1" + "}" * 3000,
        json.dumps({"a": "x" * MOST_CLAIMS}),
        json.dumps(nested(17)),
    ],
)
def test_claims_that_cannot_be_meant_are_none(text: str | None) -> None:
    assert claims_of(text) is None


@read_many(claims_parameter)
def test_any_claims_are_read_without_an_error_and_can_be_written_again(text: str) -> None:
    with quickly():
        claims = claims_of(text)
    assert claims is None or claims_of(claims_text(claims)) == claims


def test_equal_claims_are_written_alike_and_are_united_by_their_names() -> None:
    assert claims_text({"b": 1, "a": {"d": 1, "c": 2}}) == '{"a":{"c":2,"d":1},"b":1}'
    capabilities = {"access_token": {"xms_cc": {"values": ["cp1"]}}}
    assert united_claims(capabilities, None, CLAIMS) == {
        "access_token": {**capabilities["access_token"], **CLAIMS["access_token"]}
    }
    assert united_claims({"a": 1}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    assert capabilities == {"access_token": {"xms_cc": {"values": ["cp1"]}}}


def test_scopes_are_united_in_their_order() -> None:
    assert united_scope("a b", None, "c a") == "a b c"
    assert united_scope(None, "") is None


def test_values_that_repeat_the_token_are_left_out() -> None:
    asked = StepUp(
        "insufficient_scope", "a T0KEN", {"a": ["T0KEN"]}, "T0KEN", 5, "https://a.test/?T0KEN"
    )
    assert without(asked, "T0KEN") == StepUp("insufficient_scope", max_age=5)
    assert without(asked, "other") == asked
    quoted = StepUp("insufficient_claims", claims={"a": ['T"0\\KEN']})
    assert without(quoted, 'T"0\\KEN').claims is None
