"""The makers of inputs: what they make is varied, is made again from its seed, and what fails is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import settings

from httpx_refresh._challenges import parse as challenges_of
from httpx_refresh._challenges import step_up_of
from httpx_refresh._oauth.answer import Kind, meaning
from httpx_refresh._refresh.record import BadText, Record, parse
from tests import strangers
from tests.strangers import BATCH, Page, answer, header_fields, metadata, read_many, store_text

SEEDS = range(300)


@pytest.mark.parametrize("make", [store_text, strangers.redirect, strangers.toml, strangers.url])
def test_an_input_is_made_again_from_its_seed(make: Callable[[Random], Any]) -> None:
    assert [make(Random(seed)) for seed in SEEDS] == [make(Random(seed)) for seed in SEEDS]


def test_a_third_of_the_store_s_texts_are_records_and_each_note_is_among_them() -> None:
    records: list[Record] = []
    for seed in SEEDS:
        with suppress(BadText):
            records.append(parse(store_text(Random(seed))))
    assert len(SEEDS) * 0.3 < len(records) < len(SEEDS) * 0.9
    notes = ("token", "redeeming", "uncertain", "dead", "revoked", "failed", "refusals", "issued")
    for note in (*notes, "purpose", "asked_claims", "others"):
        assert any(getattr(one, note) for one in records), note


def test_answers_are_of_every_kind_and_challenges_ask_for_every_login() -> None:
    kinds = Counter(meaning(answer(Random(seed)), now=1.8e9).kind for seed in SEEDS)
    assert kinds.keys() == {*get_args(Kind)}
    asked = [step_up_of(challenges_of(header_fields(Random(seed)).noise)) for seed in SEEDS]
    assert len({one.error for one in asked if one}) == 3
    assert any(one and one.claims for one in asked)


def test_as_many_inputs_are_tried_as_the_profile_says_and_those_that_are_given_too() -> None:
    tried: list[str] = []

    @read_many(store_text, "given once")
    def test(text: str) -> None:
        tried.append(text)

    test()
    profile: Any = settings.default
    assert tried[0] == "given once"
    assert profile.max_examples <= len(tried) - 1 < profile.max_examples + BATCH


@pytest.mark.parametrize("make", [store_text, metadata])
def test_what_fails_is_shown_with_the_call_that_makes_it_again(make: Any) -> None:
    @read_many(make)
    def test(one: str | Page) -> None:
        raise AssertionError("no good")

    with pytest.raises(AssertionError) as caught:
        test()
    failed: Any = caught.value  # notes are new in Python 3.11; hypothesis sets them on 3.10, too
    (note,) = (one for one in failed.__notes__ if make.__name__ in one)
    assert f"one = {make.__name__}(Random('0/0')), which is" in note
    first = make(Random("0/0"))
    assert repr(first.body if isinstance(first, Page) else first) in note
