"""The text in the store: any text is read or refused, and a written record is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from httpx_refresh._refresh.record import (
    AskedClaims,
    BadText,
    Claim,
    Dead,
    Failed,
    Pause,
    Record,
    Refusals,
    fingerprint,
    merged,
    parse,
    with_token,
    without_token,
    write,
)
from httpx_refresh._refresh.refusals import Need
from httpx_refresh._refresh.renewal import Step, decide
from httpx_refresh._refresh.slot import View
from httpx_refresh._refresh.source import Facts, purpose_of
from httpx_refresh._token import Token

CLAIM = Claim("host:1", "n1", 1000.0, 20.0)
DEAD = Dead(fingerprint("r"), "invalid_grant", None, 1000.0)
HELD = Token("a", "r", 2000.0, extra={"id_token": "kept", "expires_in": 60})
PAUSE = Pause("p1", 30.0, 1030.0)
FAILED = Failed("no answer", "unknown", False, 2, PAUSE)
REFUSALS = Refusals(
    2, 1, ("k1", "k2"), 3, PAUSE, accepted=Pause("a", 300.0, 1300.0), forbidden=("k1",), probed=True
)
FACTS = Facts("x")
SERVICE = Facts("x", refreshes=False, starts=True, repeatable=True, purpose="reports")
BOTH = Facts("x", refreshes=True, starts=True, repeatable=True, purpose="reports")
LOGIN = Facts("x", purpose="reports")


def written(token: Token | None = HELD, generation: int = 3, **notes: Any) -> Record:
    """Write a record, and read it."""
    return parse(write(Record(None, token, generation, **notes), rev="v1"))


def test_an_empty_slot_holds_no_token() -> None:
    assert parse(None) == Record(None)


def test_a_file_as_other_tools_leave_it_is_read() -> None:
    record = parse('{"access_token": "a", "refresh_token": "r", "expires_in": 60, "x": 1}')
    assert record.token == Token("a", "r", extra={"expires_in": 60, "x": 1})
    assert (record.generation, record.redeeming, record.uncertain) == (0, None, None)
    assert (record.dead, record.revoked) == (None, None)
    assert (record.failed, record.refusals) == ((), None)


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


@pytest.mark.parametrize(
    "given, read",
    [
        (20, 20.0),
        (0.5, 0.5),
        (300, 300.0),
        (301, None),
        (1e300, None),
        (0, None),
        (-5, None),
        (True, None),
        (10**400, None),
        (float("nan"), None),
        (float("inf"), None),
        ([], None),
        (None, None),
    ],
)
def test_a_claim_s_time_is_read_as_positive_and_at_most_five_minutes(
    given: Any, read: float | None
) -> None:
    note = {"by": "x", "nonce": "n", "since": 1.0, "for": given, "held": True}
    record = parse(json.dumps({"access_token": "a", "httpx_refresh": {"redeeming": note}}))
    assert record.redeeming == Claim("x", "n", 1.0, read, held=None)


_PAUSE = {"nonce": "p", "pause": 5.0, "until": 1005.0}
_FAILED = {"message": "m", "outcome": "busy", "transient": True, "failures": 1, **_PAUSE}
_REFUSALS = {"early": 1, "futile": 2, "kinds": ["k", 5], "generation": 7, **_PAUSE}
_CLAIMS = {"tried": ["c", 5], "generation": 7, "count": 1, **_PAUSE}


@pytest.mark.parametrize(
    "name, note, odd",
    [
        ("failed", _FAILED, {"message": 5}),
        ("failed", _FAILED, {"outcome": "maybe"}),
        ("failed", _FAILED, {"outcome": []}),
        ("failed", _FAILED, {"failures": -1}),
        ("failed", _FAILED, {"failures": 1.5}),
        ("failed", _FAILED, {"client": 5}),
        ("failed", _FAILED, {"nonce": 5}),
        ("failed", _FAILED, {"pause": "5"}),
        ("failed", _FAILED, {"until": None}),
        ("refusals", _REFUSALS, {"early": "1"}),
        ("refusals", _REFUSALS, {"futile": None}),
        ("refusals", _REFUSALS, {"generation": True}),
        ("refusals", _REFUSALS, {"kinds": {}}),
        ("refusals", _REFUSALS, {"nonce": None}),
        ("refusals", _REFUSALS, {"forbidden": "k"}),
        ("claims", _CLAIMS, {"count": -1}),
        ("claims", _CLAIMS, {"generation": None}),
        ("claims", _CLAIMS, {"tried": "c"}),
        ("claims", _CLAIMS, {"until": "x"}),
    ],
)
def test_a_pause_that_cannot_be_read_is_none_and_the_token_stays_readable(
    name: str, note: dict[str, Any], odd: dict[str, Any]
) -> None:
    def read(value: Any) -> Record:
        listed = [value] if name == "failed" else value
        record = parse(json.dumps({"access_token": "a", "httpx_refresh": {name: listed}}))
        assert record.token == Token("a")
        return record

    kept = "asked_claims" if name == "claims" else name
    assert getattr(read(note), kept)
    values: list[Any] = [{**note, **odd}, 5, None, []]
    for broken in values:
        assert not getattr(read(broken), kept)


def test_of_the_clients_that_were_refused_eight_are_read() -> None:
    notes = [{**_FAILED, "client": f"c{number}"} for number in range(9)]
    record = parse(json.dumps({"access_token": "a", "httpx_refresh": {"failed": [5, *notes]}}))
    assert [one.client for one in record.failed] == [f"c{number}" for number in range(7)]
    assert parse(json.dumps({"access_token": "a", "httpx_refresh": {"failed": 5}})).failed == ()


def test_a_pause_is_read_as_five_minutes_at_most_and_not_negative() -> None:
    for told, read in ((1e9, 300.0), (-1, 0.0), (12, 12.0)):
        note = {**_FAILED, "pause": told}
        text = json.dumps({"access_token": "a", "httpx_refresh": {"failed": [note]}})
        (failed,) = parse(text).failed
        assert failed.pause.seconds == read


def test_of_the_kinds_that_were_refused_those_that_are_names_are_read() -> None:
    record = parse(json.dumps({"access_token": "a", "httpx_refresh": {"refusals": _REFUSALS}}))
    assert record.refusals == Refusals(1, 2, ("k",), 7, Pause("p", 5.0, 1005.0))


def test_a_generation_that_cannot_be_counted_on_is_refused() -> None:
    # Python reads at most 4,300 digits; the next generation must still be writable.
    text = json.dumps({"access_token": "a", "httpx_refresh": {"generation": 0}})
    with pytest.raises(BadText, match="generation"):
        parse(text.replace('"generation": 0', '"generation": ' + "9" * 4300))


def test_past_the_last_generation_that_json_can_count_to_it_begins_anew() -> None:
    assert Record(None, HELD, 2**53 - 1).next_generation() == 1
    assert Record(None, HELD, 2**53 - 2).next_generation() == 2**53 - 1


def test_what_is_written_is_read_back_whole() -> None:
    notes: dict[str, Any] = {
        "redeeming": CLAIM,
        "uncertain": Claim("b", "n2", 1.5),
        "dead": DEAD,
        "failed": (FAILED, FAILED._replace(client="c1")),
        "refusals": REFUSALS,
        "issued": 900.5,
        "purpose": "reports",
        "asked_claims": AskedClaims(("c1", "c2"), 3, 2, PAUSE),
        "others": {"later": 1},
    }
    record = written(**notes)
    assert record == Record(record.text, HELD, 3, **notes)
    default = Record(None)
    same = {name for name in Record._fields if getattr(record, name) == getattr(default, name)}
    assert same == {"revoked"}  # Beside that, no token stands.
    assert written(None, revoked=5.5) == Record(
        written(None, revoked=5.5).text, None, 3, revoked=5.5
    )
    claimed = written(
        redeeming=Claim("b", "n", 1.5, 300.0, held="machine"),
        failed=(FAILED._replace(client="c1", transient=True, outcome="refused"),),
    )
    assert claimed.redeeming == Claim("b", "n", 1.5, 300.0, held="machine")
    assert claimed.failed == (Failed("no answer", "refused", True, 2, PAUSE, "c1"),)


def test_a_revision_makes_two_texts_of_one_record() -> None:
    record = Record(None, HELD, 3)
    assert write(record, rev="v1") != write(record, rev="v2")
    assert parse(write(record, rev="v1"))._replace(text=None) == record


def test_notes_of_another_version_are_carried_along_and_a_login_keeps_them() -> None:
    text = json.dumps(
        {"access_token": "a", "httpx_refresh": {"generation": 1, "later": {"x": [1]}, "rev": "v0"}}
    )
    record = parse(text)
    assert record.others == {"later": {"x": [1]}}
    for other in (record, with_token(record, HELD), without_token(record, since=5.0)):
        notes = json.loads(write(other, rev="v1"))["httpx_refresh"]
        assert (notes["later"], notes["rev"]) == ({"x": [1]}, "v1")


def test_extra_fields_never_stand_for_the_token_s_own_nor_for_the_notes() -> None:
    token = Token("a", extra={"access_token": "x", "refresh_token": "y", "httpx_refresh": {}})
    record = written(token, 1)
    assert record.token == Token("a")
    assert record.generation == 1


def test_a_refresh_keeps_what_was_not_sent_again_but_for_the_lifetime() -> None:
    new = merged(HELD, Token("b", extra={"scope": "s"}), now=0.0)
    assert new == Token("b", "r", None, extra={"id_token": "kept", "scope": "s"})
    new = merged(HELD, Token("b", "r2", 100.0, extra={"expires_in": 7, "id_token": "n"}), now=40.0)
    assert new == Token("b", "r2", 100.0, extra={"id_token": "n", "expires_in": 7})


@pytest.mark.parametrize("expires_at, life", [(100.0, 60.0), (None, None)])
def test_a_lifetime_that_is_not_named_is_told_from_the_end(
    expires_at: float | None, life: float | None
) -> None:
    assert merged(HELD, Token("b", None, expires_at), now=40.0).extra.get("expires_in") == life


@pytest.mark.parametrize("expires_at", [40.0, 39.9, 1.0])
def test_a_token_that_has_expired_on_its_arrival_is_one_of_unknown_lifetime(
    expires_at: float,
) -> None:
    new = Token("b", "r2", expires_at, extra={"expires_in": 60, "expires_in_sec": 60, "scope": "s"})
    assert merged(HELD, new, now=40.0) == Token(
        "b", "r2", None, extra={"id_token": "kept", "scope": "s"}
    )


def test_a_token_is_kept_when_what_comes_beside_it_is_too_much_to_be_saved() -> None:
    much, odd = {"x": "y" * 140_000}, {"x": {(1,): 2}}
    assert merged(HELD, Token("b", extra=much), now=0.0).extra == {}
    assert merged(HELD, Token("b", extra=odd), now=0.0).extra == {}
    held = Token("a", "r", extra=much)
    assert merged(held, Token("b", extra={"scope": "s"}), now=0.0).extra == {"scope": "s"}
    assert merged(held, Token("b"), now=0.0) == Token("b", "r")


def test_a_revoked_slot_holds_no_token_and_outlives_a_refresh_under_way() -> None:
    record = written()
    gone = parse(write(without_token(record, since=5.0), rev="v1"))
    assert (gone.token, gone.generation, gone.revoked) == (None, 4, 5.0)
    assert not gone.same_base(record)
    assert not record.same_base(gone)


@pytest.mark.parametrize("value, read", [(5, 5.0), (True, 0.0), (None, None), ("x", 0.0)])
def test_a_revoked_note_holds_whatever_it_says(value: Any, read: float | None) -> None:
    text = json.dumps({"access_token": "a", "httpx_refresh": {"revoked": value}})
    record = parse(text)
    assert record.revoked == read
    assert (record.token is None) is (read is not None)


@pytest.mark.parametrize(
    "other, same",
    [
        (written(redeeming=CLAIM, dead=DEAD, failed=(FAILED,), refusals=REFUSALS), True),
        (written(HELD, 4), False),
        (written(Token("b", "r")), False),
        (written(Token("a", "r2")), False),
    ],
)
def test_claims_and_other_notes_are_no_new_base(other: Record, same: bool) -> None:
    assert written().same_base(other) is same


def test_a_latch_holds_for_the_refresh_token_that_was_refused_and_for_no_other() -> None:
    assert written(dead=DEAD).is_dead()
    assert not written(Token("a", "other"), dead=DEAD).is_dead()
    assert not written(Token("a"), dead=DEAD).is_dead()
    assert not written().is_dead()
    assert not Record(None, dead=DEAD).is_dead()


def test_a_refresh_token_of_any_text_has_a_fingerprint() -> None:
    assert fingerprint("\ud800") != fingerprint("\ud801")


# -- what follows from a text ----------------------------------------------------------------------

_PAST, _AHEAD = Token("a", "r", 900.0), Token("a", "r", 1100.0)
_A = Token("a")


def _view(
    token: Token | None,
    claim: Any = "none",
    failed: tuple[tuple[Failed, float], ...] = (),
    refusals_for: float = 0.0,
    **notes: Any,
) -> View:
    record = Record("x", token, failed=tuple(one for one, _ in failed), **notes)
    return View(record, claim, failed=failed, refusals_for=refusals_for)


@pytest.mark.parametrize(
    "view, stale, step",
    [
        (_view(None), None, "none"),
        (_view(_AHEAD), None, "adopt"),
        (_view(_AHEAD), Token("other"), "adopt"),
        (_view(_AHEAD, "standing", redeeming=CLAIM), None, "adopt"),
        (_view(_AHEAD, dead=DEAD), None, "adopt"),
        (_view(_AHEAD, failed=((FAILED, 9.0),)), None, "adopt"),
        (_view(_A), None, "adopt"),
        (_view(_AHEAD), _A, "spend"),
        (_view(_PAST), None, "spend"),
        (_view(Token("a", "r", 1000.0)), None, "spend"),
        (_view(_PAST, uncertain=CLAIM), None, "spend"),
        (_view(Token("a", None, 900.0)), None, "no_refresh_token"),
        (_view(_A), _A, "no_refresh_token"),
        (_view(_PAST, dead=DEAD), None, "dead"),
        (_view(_PAST, "standing", redeeming=CLAIM, dead=DEAD), None, "dead"),
        (_view(_PAST, "standing", redeeming=CLAIM), None, "wait"),
        (_view(_PAST, "abandoned", redeeming=CLAIM), None, "spend"),
        (_view(_PAST, failed=((FAILED, 0.0),)), None, "spend"),
        (_view(_PAST, failed=((FAILED, 9.0),)), None, "pause"),
        (_view(_PAST, refusals=REFUSALS, refusals_for=9.0), None, "spend"),
    ],
)
def test_each_text_calls_for_one_step(view: View, stale: Token | None, step: Step) -> None:
    assert (
        decide(view, stale=stale, need=Need.RESULT, forced=False, facts=FACTS, now=1000.0) == step
    )


@pytest.mark.parametrize(
    "client, mine, step",
    [
        (None, None, "pause"),
        (None, "c1", "pause"),
        ("c1", "c1", "pause"),
        ("c1", "c2", "spend"),
        ("c1", None, "spend"),
    ],
)
def test_a_refusal_of_the_client_binds_those_with_the_same_credentials(
    client: str | None, mine: str | None, step: Step
) -> None:
    view = _view(_PAST, failed=((FAILED._replace(client=client), 9.0),))

    def said(*, forced: bool) -> Step:
        return decide(
            view,
            stale=None,
            need=Need.RESULT,
            forced=forced,
            facts=Facts("x", client_fingerprint=mine),
            now=1000.0,
        )

    assert said(forced=False) == step
    assert said(forced=True) == "spend"


@pytest.mark.parametrize(
    "need, early, futile, left, step",
    [
        # Before a first refusal leads to a refresh, the notes on refusals are read.
        (Need.REFUSED, 0, 1, 0.0, "pass_on"),
        (Need.REFUSED, 1, 0, 6.4, "spend"),
        (Need.REFUSED, 14, 0, 0.0, "spend"),
        (Need.REFUSED, 14, 0, 4.9, "soon"),
        (Need.REFUSED, 14, 0, 6.0, "soon"),
        (Need.REFUSED, 14, 0, 6.2, "pass_on"),
        (Need.PROBE, 0, 1, 0.0, "spend"),
        (Need.PROBE, 0, 1, 0.1, "pass_on"),
        (Need.PROBE, 14, 0, 4.0, "pass_on"),
        (Need.ENDED, 0, 3, 90.0, "spend"),
        # The pause for early ends is the shorter one here.
        (Need.ENDED, 14, 3, 113.5, "spend"),
        (Need.ENDED, 14, 3, 118.0, "soon"),
        (Need.ENDED, 14, 3, 120.0, "pass_on"),
        (Need.RESULT, 9, 9, 9.0, "spend"),
        (Need.AHEAD, 9, 9, 9.0, "spend"),
    ],
)
def test_why_a_token_is_wanted_says_whether_a_pause_for_refusals_binds(
    need: Need, early: int, futile: int, left: float, step: Step
) -> None:
    # Fourteen early ends make a pause of 6.5 s, three futile refreshes one of two minutes.
    pause = Pause("p1", 120.0 if futile else 0.05 * 1.5**12, 1120.0)
    view = _view(_AHEAD, refusals=Refusals(early, futile, (), 3, pause), refusals_for=left)
    assert decide(view, stale=_A, need=need, forced=False, facts=FACTS, now=1000.0) == step
    assert decide(view, stale=_A, need=need, forced=True, facts=FACTS, now=1000.0) == "spend"


def test_a_probe_waits_for_as_long_as_others_are_accepted_with_the_token() -> None:
    view = _view(_AHEAD, refusals=REFUSALS)
    accepted = replace(view, accepted_for=0.1)
    steps = [
        decide(one, stale=_A, need=Need.PROBE, forced=False, facts=FACTS, now=1000.0)
        for one in (accepted, view)
    ]
    assert steps == ["pass_on", "spend"]


@pytest.mark.parametrize(
    "view, facts, step",
    [
        # With an empty slot, sources that can start without a token begin.
        (_view(None), SERVICE, "spend"),
        (_view(None, "standing", redeeming=CLAIM), SERVICE, "wait"),
        (_view(None, "abandoned", redeeming=CLAIM), SERVICE, "spend"),
        (_view(None, failed=((FAILED, 9.0),)), SERVICE, "pause"),
        (_view(None, revoked=900.0), SERVICE, "spend"),
        (_view(None), LOGIN, "none"),
        (_view(_AHEAD), SERVICE, "adopt"),
        (_view(Token("a", None, 900.0)), SERVICE, "spend"),
        (_view(_PAST, dead=DEAD), BOTH, "spend"),
        # A token without a purpose is adopted, as is one with the same purpose.
        (_view(_AHEAD, purpose="reports"), SERVICE, "adopt"),
        (_view(_AHEAD, purpose="reports"), LOGIN, "adopt"),
        (_view(_AHEAD, purpose="mail"), FACTS, "adopt"),
        # A service requests another token, even if that one is valid; a login is never spent for another purpose.
        (_view(Token("a", None, 2000.0), purpose="mail"), SERVICE, "spend"),
        (
            _view(Token("a", None, 2000.0), "standing", redeeming=CLAIM, purpose="mail"),
            SERVICE,
            "wait",
        ),
        (_view(_AHEAD, purpose="mail"), BOTH, "spend"),
        (_view(_AHEAD, purpose="mail"), LOGIN, "for_another"),
        (_view(Token("a", None, 2000.0), purpose="mail"), LOGIN, "for_another"),
        # A service's token never replaces a login's.
        (_view(_AHEAD, purpose="mail"), SERVICE, "for_another"),
    ],
)
def test_a_source_that_can_start_needs_no_text_and_goes_on_with_none_for_something_else(
    view: View, facts: Facts, step: Step
) -> None:
    assert decide(view, stale=None, need=Need.RESULT, forced=False, facts=facts, now=1000.0) == step


@pytest.mark.parametrize(
    "view, step",
    [
        (_view(_AHEAD), "spend"),
        (_view(_AHEAD, "standing", redeeming=CLAIM), "wait"),
        # The token in use is good: for claims that no refresh brings, a person has to log in.
        (_view(None), "pass_on"),
        (_view(_A), "pass_on"),
        (_view(_AHEAD, dead=DEAD), "pass_on"),
    ],
)
def test_claims_are_refreshed_for_where_that_can_be_and_else_passed_on(
    view: View, step: Step
) -> None:
    claims = '{"access_token": {}}'
    options: dict[str, Any] = {"need": Need.CLAIMS, "forced": False, "facts": FACTS, "now": 1000.0}
    assert decide(view, stale=_A, claims=claims, **options) == step


def test_a_pause_for_claims_binds_those_who_ask_for_claims_and_nobody_else() -> None:
    asked = AskedClaims((), 0, 1, PAUSE)
    view = replace(_view(_AHEAD, asked_claims=asked), claims_for=0.1)
    options: dict[str, Any] = {"forced": False, "facts": FACTS, "now": 1000.0}
    assert decide(view, stale=_A, need=Need.CLAIMS, claims="{}", **options) == "pass_on"
    assert decide(view, stale=_A, need=Need.RESULT, **options) == "spend"
    view = replace(view, claims_for=0.0)
    assert decide(view, stale=_A, need=Need.CLAIMS, claims="{}", **options) == "spend"


def test_a_slot_in_which_no_token_was_yet_is_written_and_read() -> None:
    record = written(None, 0, redeeming=CLAIM)
    assert (record.token, record.redeeming, record.revoked) == (None, CLAIM, None)
    assert record.same_base(Record(None))
    assert not record.same_base(Record(None, revoked=1.0))
    assert not record.same_base(written())
    assert not written().same_base(record)


def test_a_text_without_a_token_that_is_not_known_to_be_empty_is_damaged() -> None:
    with pytest.raises(BadText, match="no access_token"):
        parse('{"httpx_refresh": {"generation": 0, "rev": "v1"}}')


def test_what_a_token_is_for_goes_with_it_through_a_claim_and_is_replaced_by_a_login() -> None:
    record = written(purpose="reports", redeeming=CLAIM)
    assert record.purpose == "reports"
    assert parse(write(record._replace(redeeming=None), rev="v2")).purpose == "reports"
    assert with_token(record, HELD, "mail").purpose == "mail"
    assert with_token(record, HELD).purpose is None
    assert without_token(record, since=1.0).purpose is None


@pytest.mark.parametrize("value", [7, "", None, ["reports"], {}])
def test_a_purpose_that_is_none_is_as_good_as_none(value: object) -> None:
    text = json.dumps({"access_token": "a", "httpx_refresh": {"purpose": value}})
    assert parse(text).purpose is None


def test_a_failure_that_needs_a_person_is_remembered_as_one() -> None:
    failed = FAILED._replace(person=True)
    assert written(failed=(failed,)).failed == (failed,)


def test_what_is_obtained_from_nothing_keeps_nothing_of_what_was_held() -> None:
    assert merged(None, Token("b"), now=1.0) == Token("b")
    assert merged(HELD, Token("b"), now=1.0).refresh_token == "r"


def test_a_purpose_tells_apart_all_that_is_asked_for_and_shows_no_key_and_no_person() -> None:
    url = "https://auth.test/token?key=SECRET"
    said = purpose_of("client_credentials", url, "me", scope="b a", audience="x")
    assert said.startswith(
        "client_credentials at https://auth.test/token, client me, audience x, scope a b ["
    )
    assert said == purpose_of(
        "client_credentials", url, "me", audience="x", scope="a b", subject=None
    )
    others = [
        purpose_of("jwt-bearer", url, "me", scope="a b", audience="x"),
        purpose_of(
            "client_credentials",
            "https://auth.test/token?key=other",
            "me",
            scope="a b",
            audience="x",
        ),
        purpose_of("client_credentials", url, None, scope="a b", audience="x"),
        purpose_of("client_credentials", url, "me", scope="a", audience="x"),
        purpose_of("client_credentials", url, "me", scope="a b", resource="x"),
        purpose_of(
            "client_credentials", url, "me", scope="a b", audience="x", subject="ann@example.com"
        ),
    ]
    assert len({said, *others}) == 7
    assert not any("SECRET" in one or "ann" in one for one in others)
    long = purpose_of("g", url, "me", scope="a\n" + "b" * 5000)
    assert len(long) < 300
    assert long.isprintable()


def test_a_record_shows_its_generation_and_no_text() -> None:
    shown = repr(written(Token("secret-access", "secret-refresh"), 7))
    assert "generation 7" in shown
    assert "secret" not in shown
