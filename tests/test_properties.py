"""Any text in the store and any answer of a token endpoint gives a value or a documented error, within limits.

`--hypothesis-profile` sets the number of examples of each property: see `tests/conftest.py`.
"""

from __future__ import annotations

import json
import logging
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_refresh import INVALID_GRANT, Refusal, Token
from httpx_refresh._http.bodies import unpacked
from httpx_refresh._oauth.answer import Answer, Kind, Rules, meaning, refuses_client
from httpx_refresh._oauth.redaction import redacted
from httpx_refresh._refresh.record import NOTES, BadText, Claim, Dead, Record, merged, parse, write
from tests.strangers import answer, quickly, read_many, store_text

CLAIM = Claim("host:1", "n1", 1000.0, 20.0)

# Half surrogate pairs, too: JSON can hold them.
texts = st.text(st.characters(exclude_categories=()), max_size=30)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**320, -(10**320), 2**53]))
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
tokens_like = st.one_of(
    values, st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
)
names = st.one_of(
    texts,
    st.sampled_from(
        (
            "access_token refresh_token expires_in expires_at expires_in_sec token_type error "
            f"error_description message {NOTES}"
        ).split()
    ),
)
responses = st.dictionaries(names, values, max_size=8).flatmap(
    lambda fields: st.fixed_dictionaries(
        {}, optional={"access_token": tokens_like, "refresh_token": tokens_like}
    ).map(lambda tokens: {**fields, **tokens})
)
notes = st.fixed_dictionaries(
    {},
    optional={
        "generation": st.one_of(st.integers(0, 9), values),
        "revoked": values,
        **{
            name: st.one_of(
                values,
                st.fixed_dictionaries(
                    {},
                    optional={
                        part: st.one_of(texts, numbers, st.none())
                        for part in ("by", "nonce", "since", "refresh_token_sha256", "error")
                    },
                ),
            )
            for name in ("redeeming", "uncertain", "dead")
        },
    },
)
objects = st.one_of(
    responses, st.tuples(responses, notes).map(lambda both: {**both[0], NOTES: both[1]})
)
json_texts = objects.map(lambda fields: json.dumps(fields))
bodies = st.one_of(
    st.binary(max_size=200),
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    json_texts.map(str.encode),
    st.tuples(json_texts, st.sampled_from(["utf-16", "utf-32", "utf-8-sig"])).map(
        lambda both: both[0].encode(both[1])
    ),
    st.tuples(json_texts, st.integers(0, 300)).map(lambda both: both[0][: both[1]].encode()),
    st.integers(1, 3000).map(lambda depth: b'{"access_token":' + b"[" * depth),
    st.lists(st.tuples(names, texts), max_size=8).map(
        lambda pairs: "&".join(f"{name}={text}" for name, text in pairs).encode(
            "utf-8", "surrogatepass"
        )
    ),
)
refusals = st.builds(
    Refusal,
    st.one_of(st.none(), st.integers(200, 599)),
    st.one_of(st.none(), texts),
    st.one_of(st.none(), texts),
)
claims = st.builds(
    Claim,
    texts,
    texts,
    st.floats(0, 1e12),
    st.one_of(st.none(), st.floats(0.001, 300.0)),
    st.one_of(st.none(), texts),
)
deaths = st.builds(
    Dead, texts, st.one_of(st.none(), texts), st.one_of(st.none(), texts), st.floats(0, 1e12)
)


def read(text: str) -> Record | None:
    """Read a text of the store; return None if it is no token, and check that the error does not show it."""
    try:
        return parse(text)
    except BadText as error:
        said = f"{error}"
    assert 0 < len(said) < 200
    return None


@read_many(
    store_text,
    '{"access_token": "A", "expires_at": 1e999}',
    "[" * 100_000,
    '{"access_token": "A", "x": ' + "9" * 5000 + "}",
)
def test_any_text_in_the_store_is_a_record_or_no_token(text: str) -> None:
    with quickly():
        record = read(text)
        if record is None:
            return
        claimed = record._replace(generation=record.next_generation(), redeeming=CLAIM)
        written = write(claimed, rev="v")
        again = read(written)
    assert again is not None
    assert (again.generation, again.redeeming) == (claimed.generation, CLAIM)
    # Not the records: two halves of a pair that a text holds as they are, are read as two, and written as one.
    assert write(again, rev="v") == written


@read_many(
    answer,
    Answer(200, {}, b'{"access_token": "A", "expires_in": 1e999}'),
    Answer(200, {}, b'{"access_token": "A", "x": ' + b"[" * 1_000_000),
    Answer(200, {}, b'{"access_token": "A", "x": ' + b"[" * 1_000 + b"]" * 1_000 + b"}"),
)
def test_any_answer_means_one_of_six_things(answer: Answer) -> None:
    with quickly():
        said = meaning(answer, now=1_800_000_000.0)
        assert refuses_client(answer) in (True, False)
    assert said.kind in get_args(Kind)
    assert (said.token is not None) == (said.kind == "token")
    assert said.retry_after is None or 0 <= said.retry_after <= 86_400
    if said.token is not None:
        assert 200 <= answer.status < 300
        assert said.token.access_token.isascii()
        assert said.token.access_token.isprintable()
        again = read(write(Record(None, said.token, 1), rev="v"))
        assert again is not None
        assert again.token is not None
        assert again.token.expires_at == said.token.expires_at
        assert {**again.token.extra, NOTES: 0} == {**said.token.extra, NOTES: 0}


@given(
    bodies, st.integers(100, 599), st.lists(refusals, max_size=3), st.lists(refusals, max_size=3)
)
def test_rules_never_make_a_token_of_a_refusal_or_a_verdict_of_an_outage(
    body: bytes, status: int, dead: list[Refusal], transient: list[Refusal]
) -> None:
    rules = Rules(dead=(INVALID_GRANT, *dead), transient=tuple(transient))
    said = meaning(Answer(status, {}, body), rules, now=1_800_000_000.0)
    plain = meaning(Answer(status, {}, body), now=1_800_000_000.0)
    assert (said.kind == "token") == (plain.kind == "token")
    assert status < 500 or said.kind in ("busy", "unavailable", "unknown")


@given(st.one_of(responses, values))
def test_any_token_response_is_a_token_or_a_type_or_value_error(response: Any) -> None:
    try:
        token = Token.from_response(response)
    except (TypeError, ValueError) as error:
        token, said = None, f"{error}"
    else:
        said = repr(token)
    assert token is not None or any(
        word in said for word in ("access_token", "refresh_token", "mapping")
    )
    assert token is None or token.access_token.isprintable()


@given(
    st.builds(
        Token,
        st.just("A"),
        st.one_of(st.none(), texts.filter(bool)),
        st.one_of(st.none(), st.floats(1, 1e11)),
        texts,
        objects,
    ),
    st.integers(0, 2**53 - 1),
    st.one_of(st.none(), claims),
    st.one_of(st.none(), claims),
    st.one_of(st.none(), deaths),
)
def test_a_record_that_is_written_reads_the_same(
    token: Token,
    generation: int,
    redeeming: Claim | None,
    uncertain: Claim | None,
    dead: Dead | None,
) -> None:
    text = write(Record(None, token, generation, redeeming, uncertain, dead), rev="v")
    record = parse(text)
    assert (record.generation, record.redeeming, record.uncertain) == (
        generation,
        redeeming,
        uncertain,
    )
    assert record.dead == dead
    assert record.token is not None
    assert record.token.access_token == "A"
    assert record.token.refresh_token == token.refresh_token
    assert record.token.expires_at == token.expires_at
    assert set(record.token.extra) <= set(token.extra)
    later = merged(record.token, Token("B"), now=1.0)
    assert later.refresh_token == token.refresh_token
    first = write(Record(None, later, 1), rev="v")
    assert write(parse(first), rev="v") == first


@given(texts, st.lists(texts, max_size=3), st.integers(1, 300))
def test_what_is_shown_of_a_server_is_short_and_in_one_line(
    text: str, secrets: list[str], most: int
) -> None:
    shown = redacted(text, secrets, most)
    assert shown is not None
    assert len(shown) <= most
    assert shown.isprintable()
    for secret in secrets:
        assert len(secret) < 4 or secret not in shown


@given(st.binary(max_size=300), st.one_of(texts, st.sampled_from(["gzip", "deflate"])))
def test_whatever_is_unpacked_is_within_its_bounds(body: bytes, encoding: str) -> None:
    out = unpacked(body, encoding, 100)
    assert out is None or len(out) <= 101


def test_what_json_cannot_carry_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """A token that an endpoint of somebody's own made is never lost for what it has beside it."""
    deep: Any = 1
    for _ in range(2000):
        deep = (deep,)
    extra: dict[Any, Any] = {"deep": deep, "set": {1}, "nan": float("nan"), 5: "x", "ok": (1,)}
    with caplog.at_level(logging.WARNING, "httpx_refresh"):
        record = parse(write(Record(None, Token("A", "R", extra=extra), 1), rev="v"))
    assert record.token == Token("A", "R", extra={"ok": [1]})
    assert "'deep', 'set', 'nan', 5" in caplog.text
