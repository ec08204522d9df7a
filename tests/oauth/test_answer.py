"""The meaning of a token endpoint's answer, by status, headers and body."""

from __future__ import annotations

import base64
import gzip
import json
import random
import string
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import pytest

from httpx_refresh import INVALID_GRANT, Refusal, TokenEndpoint, providers
from httpx_refresh._errors import shown
from httpx_refresh._http.bodies import unpacked
from httpx_refresh._oauth import redaction
from httpx_refresh._oauth.answer import RFC6749, Answer, Meaning, Rules, meaning
from httpx_refresh._oauth.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = 1_800_000_000.0
GOOD = {"access_token": "A", "refresh_token": "R", "expires_in": 3600}


def means(
    body: object = b"", status: int = 200, endpoint: TokenEndpoint | None = None, **headers: str
) -> Meaning:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    rules = RFC6749 if endpoint is None else endpoint.rules
    return meaning(Answer(status, named, raw), rules, now=NOW)


# -- by provider -----------------------------------------------------------------------------------


class Row(NamedTuple):
    preset: Callable[..., TokenEndpoint]
    token: object
    dead: tuple[int, object]
    transient: tuple[int, object] = (429, b"")


def _error(code: str, description: str | None = None) -> dict[str, str]:
    return {"error": code} | ({} if description is None else {"error_description": description})


PROVIDERS = {
    "xero": Row(
        providers.xero, {**GOOD, "id_token": "I", "scope": "x"}, (400, _error("invalid_grant"))
    ),
    "quickbooks": Row(
        providers.quickbooks,
        {**GOOD, "x_refresh_token_expires_in": 8_726_400},
        (400, _error("invalid_grant", "Incorrect or invalid refresh token")),
    ),
    "salesforce": Row(
        providers.salesforce,
        {"access_token": "A", "instance_url": "https://acme.my.salesforce.com"},
        (400, _error("invalid_grant", "expired access/refresh token")),
        (400, _error("invalid_grant", "expired authorization code")),
    ),
    "salesforce, two at once": Row(
        providers.salesforce,
        {"access_token": "A", "issued_at": "1800000000000"},
        (400, _error("invalid_grant")),
        (400, _error("invalid_grant", "Token request is already being processed")),
    ),
    "2BA": Row(providers.twoba, GOOD, (400, b"")),
    "2BA, in JSON": Row(providers.twoba, GOOD, (400, _error("invalid_grant"))),
    "HubSpot": Row(providers.hubspot, GOOD, (400, _error("invalid_grant"))),
    "HubSpot, the older words": Row(
        providers.hubspot, GOOD, (400, {"status": "BAD_REFRESH_TOKEN", "message": "missing"})
    ),
    "Google": Row(
        providers.google,
        {"access_token": "A", "expires_in": 3599},
        (400, _error("invalid_grant", "Token has been expired or revoked.")),
    ),
    "Microsoft": Row(
        providers.microsoft,
        GOOD,
        (400, {"error": "invalid_grant", "error_codes": [700082], "trace_id": "t"}),
    ),
    "Atlassian": Row(providers.atlassian, GOOD, (403, _error("unauthorized_client"))),
    "Atlassian, as in the RFC": Row(providers.atlassian, GOOD, (403, _error("invalid_grant"))),
    "Zoho": Row(
        providers.zoho,
        {"access_token": "A", "api_domain": "https://www.zohoapis.com", "expires_in": 3600},
        (200, _error("invalid_code")),
        (400, {"error": "Access Denied", "status": "failure"}),
    ),
    "Slack": Row(
        providers.slack,
        {"ok": True, **GOOD, "expires_in": 43200},
        (200, {"ok": False, "error": "invalid_refresh_token"}),
    ),
    "GitHub": Row(
        providers.github,
        urlencode(
            {**GOOD, "refresh_token_expires_in": 15811200, "scope": "", "token_type": "bearer"}
        ).encode(),
        (200, _error("bad_refresh_token")),
    ),
    "GitHub, form-encoded": Row(
        providers.github,
        GOOD,
        (200, b"error=bad_refresh_token&error_description=It+is+incorrect+or+expired."),
    ),
    "Dropbox": Row(
        providers.dropbox,
        {"access_token": "A", "expires_in": 14400},
        (400, _error("invalid_grant")),
    ),
    "Box": Row(providers.box, GOOD, (400, _error("invalid_grant", "Refresh token has expired"))),
    "Exact Online": Row(
        providers.exact_online,
        {**GOOD, "expires_in": "600"},
        (401, b"Unauthorized Client: Old refresh token used."),
        (400, _error("access_denied", "Rate limit exceeded: access_token not expired")),
    ),
}

provider = pytest.mark.parametrize("row", PROVIDERS.values(), ids=PROVIDERS)


@provider
def test_every_provider_has_its_own_way_of_handing_out_a_token(row: Row) -> None:
    said = means(row.token, endpoint=row.preset("id", "secret"))
    assert said.kind == "token"
    assert said.token is not None
    assert said.token.access_token == "A"


@provider
def test_every_provider_has_its_own_way_of_calling_a_grant_dead(row: Row) -> None:
    status, body = row.dead
    assert means(body, status, row.preset("id", "secret")).kind == "dead"


@provider
def test_what_passes_by_itself_is_busy(row: Row) -> None:
    status, body = row.transient
    assert means(body, status, row.preset("id", "secret")).kind == "busy"


@provider
@pytest.mark.parametrize("error", ["invalid_client", "invalid_scope", "invalid_request"])
def test_a_refused_client_is_not_a_dead_grant(row: Row, error: str) -> None:
    for status in (200, 400, 401, 403):
        assert means(_error(error), status, row.preset("id", "secret")).kind == "refused"


@provider
def test_a_server_in_distress_says_nothing_about_the_grant(row: Row) -> None:
    endpoint = row.preset("id", "secret")
    for status in (500, 502, 504, 520):
        for body in (_error("invalid_grant"), b"<html>invalid_grant</html>", row.dead[1]):
            assert means(body, status, endpoint).kind == "unknown"
    for status in (408, 425, 429):
        assert means(_error("invalid_grant"), status, endpoint).kind == "busy"
    for body in (_error("invalid_grant"), b"", row.dead[1]):
        assert means(body, 503, endpoint, retry_after="7").kind == "unavailable"
    assert means(_error("temporarily_unavailable"), 503, endpoint).kind == "busy"


@provider
def test_a_success_without_a_token_tells_nothing(row: Row) -> None:
    for body in (b"", b"<html></html>", b"null", b"[]", {"access_token": ""}, {"ok": False}):
        assert means(body, 200, row.preset("id", "secret")).kind == "unknown"


# -- by the RFCs, and other answers ------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_an_error_code_counts_with_any_status(status: int) -> None:
    """GitHub and Slack send one with 200, Exact with 401, Auth0 and Atlassian with 403."""
    assert means(_error("invalid_grant"), status).kind == "dead"


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (400, _error("unauthorized_client"), "refused"),
        (400, _error("something_else"), "refused"),
        (401, b"", "refused"),
        (404, b"<h1>Not Found</h1>", "refused"),
        (302, b"", "refused"),
        (400, _error("temporarily_unavailable"), "busy"),
        (200, _error("temporarily_unavailable"), "busy"),
        (400, _error("server_error"), "unknown"),
        (204, b"", "unknown"),
        (200, b'"access_token"', "unknown"),
        (200, b"access_token", "unknown"),
        (200, b"&=&", "unknown"),
        (200, "&".join(f"k{n}=v" for n in range(101)).encode(), "unknown"),
        (200, b"\xff\xfe=\xff", "unknown"),
        (200, {"access_token": 5}, "unknown"),
        (200, {"access_token": "A\r\nX-Evil: 1"}, "unknown"),
        (200, b"[" * 100_000, "unknown"),
        (201, GOOD, "token"),
        (400, GOOD, "refused"),
    ],
)
def test_the_rest_is_told_apart(status: int, body: object, kind: str) -> None:
    assert means(body, status).kind == kind


def test_what_was_cut_off_is_not_read() -> None:
    whole = json.dumps(GOOD).encode()
    assert meaning(Answer(200, {}, whole, cut=True), now=NOW).kind == "unknown"


def test_a_token_is_taken_although_an_error_stands_beside_it() -> None:
    assert means({**GOOD, "error": "invalid_grant"}).kind == "token"


@pytest.mark.parametrize(
    "error, code, description",
    [
        (_error("invalid_grant", "words"), "invalid_grant", "words"),
        ({"error": {"status": "UNAUTHENTICATED", "message": "m"}}, "UNAUTHENTICATED", "m"),
        ({"error": {"code": "InvalidAuthenticationToken"}}, "InvalidAuthenticationToken", None),
        ({"error": {"code": 401}, "message": "top"}, None, "top"),
        ({"error": 5, "error_description": ["x"]}, None, None),
        ({"error": "", "error_description": ""}, None, None),
    ],
)
def test_the_error_and_the_words_are_found_where_servers_put_them(
    error: object, code: str | None, description: str | None
) -> None:
    said = means(error, 400)
    assert (said.error, said.error_description) == (code, description)


def test_words_are_found_although_the_body_escapes_them() -> None:
    rule = Refusal(text="Café fermé")
    escaped = b'{"error": "x", "error_description": "CAF\\u00c9 FERM\\u00c9"}'
    assert meaning(Answer(400, {}, escaped), Rules(dead=(rule,)), now=NOW).kind == "dead"


def test_a_rule_of_a_status_alone_is_for_answers_without_a_code() -> None:
    rule = Refusal(status=400)
    assert rule.matches(400, None, "")
    assert not rule.matches(401, None, "")
    assert not rule.matches(400, "invalid_client", "")
    assert not Refusal().matches(400, None, "anything")


# -- the token ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent, lifetime",
    [
        (3600, 3600.0),
        (3599.5, 3599.5),
        ("3600", 3600.0),
        ("3600.0", 3600.0),
        (None, None),
        (-5, None),
        (0, None),
        (True, None),
        ("soon", None),
        ([3600], None),
        ({}, None),
        (1e300, None),
        ("9" * 500, None),
    ],
)
def test_a_lifetime_is_believed_if_it_is_one(sent: object, lifetime: float | None) -> None:
    token = means({**GOOD, "expires_in": sent}).token
    assert token is not None
    assert token.refresh_token == "R"
    assert token.expires_at == (None if lifetime is None else NOW + lifetime)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_a_number_that_is_none_loses_no_token(number: str) -> None:
    """Python refuses to read 5,000 digits; the others are not valid JSON, and are read all the same."""
    token = means(
        f'{{"access_token": "A", "expires_in": {number}, "deep": [{number}]}}'.encode()
    ).token
    assert token is not None
    assert token.expires_at is None
    json.dumps(dict(token.extra), allow_nan=False)


def test_milliseconds_beside_seconds_are_known_for_what_they_are() -> None:
    """Zoho sends both."""
    token = means({**GOOD, "expires_in": 3_600_000, "expires_in_sec": 3600}).token
    assert token is not None
    assert token.expires_at == NOW + 3600


@pytest.mark.parametrize(
    "fields, expires_at",
    [
        ({"expires_at": 5.0}, None),
        ({"expires_at": NOW + 9}, NOW + 9),
        ({"expires_at": NOW - 9, "expires_in": 60}, NOW + 60),
        ({"expires_at": "2027-01-01", "expires_in": 60}, NOW + 60),
    ],
)
def test_a_moment_by_the_servers_clock_is_believed_last(
    fields: dict[str, Any], expires_at: float | None
) -> None:
    """A time in the past would make each request refresh."""
    token = means({"access_token": "A", **fields}).token
    assert token is not None
    assert token.expires_at == expires_at


@pytest.mark.parametrize("refresh_token", [None, "", 5, [], {}])
def test_a_refresh_token_that_is_none_is_left_out(refresh_token: object) -> None:
    token = means({"access_token": "A", "refresh_token": refresh_token}).token
    assert token is not None
    assert token.refresh_token is None


def test_other_fields_are_kept_but_for_those_too_deep_to_be_written() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = {"in": [deep]}
    shallow = {"a": [{"b": [1, "2", None]}]}
    token = means({**GOOD, "scope": "x y", "shallow": shallow, "deep": deep}).token
    assert token is not None
    assert token.extra == {"expires_in": 3600, "scope": "x y", "shallow": shallow}


def test_an_answer_that_is_too_large_loses_what_is_beside_its_tokens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The largest fields go first, because fields that an API needs with a token are short."""
    big = {f"junk{n}": "x" * 20_000 for n in range(40)}
    tokens = {"access_token": "A" * 100_000, "refresh_token": "R" * 100_000}
    token = means({"evil\x1b\n": "x" * 70_000, **big, **tokens, "scope": "a b"}).token
    assert token is not None
    assert len(token.access_token) == len(token.refresh_token or "") == 100_000
    assert list(token.extra) == ["junk0", "junk1", "junk2", "scope"]
    assert len(json.dumps(dict(token.extra))) <= 65_536
    (record,) = caplog.records
    assert "too large: 'evil\\x1b\\n', 'junk3', " in record.message
    assert record.message.isprintable()
    assert len(record.message) < 2000


def test_what_is_beside_a_token_is_kept_whole_up_to_64_kib() -> None:
    token = means({**GOOD, "id_token": "x" * 65_000}).token
    assert token is not None
    assert len(token.extra["id_token"]) == 65_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_an_answer_in_another_encoding_loses_no_token(encoding: str) -> None:
    body = '{"access_token": "A", "name": "Zoë"}'.encode(encoding)
    token = means(body).token
    assert token is not None
    assert token.extra["name"] == "Zoë"


# -- when to ask again --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, wait",
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("99999999999999999999", 86_400.0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
        ("Fri Jan 15 08:00:30 2027", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 2087 08:00:00 GMT", 86_400.0),
        ("Fri, 15 Jan 2027 08:00:30", 30.0),
        ("", None),
        ("-5", None),
        ("7.5", None),
        ("later", None),
        ("٣", None),
        ("Mon, 01 Jan 99999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2027 00:00:00 +99999999999999", None),
        ("7, 8", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, wait: float | None) -> None:
    """RFC 9110 §10.2.3 and §5.6.7: three forms of a date."""
    said = means(b"", 503, retry_after=value)
    assert said.retry_after == wait


# -- encoded bodies, and messages that are shown --------------------------------------------------------


def test_what_cannot_be_unpacked_is_none() -> None:
    assert unpacked(b"not packed", "gzip", 10) is None
    assert unpacked(b"packed by another", "br", 10) is None
    assert unpacked(b"as it is", " Identity ", 10) == b"as it is"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_no_more_is_unpacked_than_is_asked_for(encoding: str) -> None:
    body = b" " * 1_000_000
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    assert unpacked(packed, encoding, 100) == b" " * 101
    assert unpacked(packed, encoding, 1_000_000) == body


SECRET = 'r3fresh/t0ken+with"odd&=<ends>==é'


@pytest.mark.parametrize("most", [40, 300])
@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        SECRET[:12],
        SECRET[9:],
        json.dumps(SECRET),
        json.dumps(json.dumps(SECRET)),
        urlencode({"refresh_token": SECRET}),
        urlencode({"refresh_token": SECRET}).lower(),
        "r3fresh%2ft0ken%2bwith",
        "r3fresh/t0ken+with&quot;odd&amp;=&lt;ends&gt;==é",
        f"Bad token: {SECRET * 50}",
    ],
)
def test_no_form_of_a_secret_is_shown(echo: str, most: int) -> None:
    shown = redacted(f"The token {echo} is wrong", [SECRET, ""], most)
    assert shown is not None
    assert shown.startswith(("The token ", "***"))
    assert "***" in shown
    assert len(shown) <= most
    for piece in ("r3fresh", "t0ken+with", "t0ken%2", "ends>="):
        assert piece not in shown


@pytest.mark.parametrize("client_id", ["id", "the id", "a-client", "a-client-2"])
def test_the_credentials_of_http_basic_are_not_shown(client_id: str) -> None:
    """The place of the secret in the base64 depends on the length of the client id."""
    secret = "correct-horse-battery-staple?"
    for packed in (base64.b64encode, base64.urlsafe_b64encode):
        echo = packed(f"{client_id}:{secret}".encode()).decode()
        shown = redacted(f"unknown credentials {echo}", [secret], 300)
        assert shown is not None
        for start in range(len(client_id) + 3, len(echo) - 12):
            assert echo[start : start + 9] not in shown


def test_a_signed_assertion_is_not_shown() -> None:
    shown = redacted("bad eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpZCJ9.c2lnbmF0dXJl here", [], 300)
    assert shown == "bad *** here"


def test_short_secrets_and_odd_characters_are_not_shown_either() -> None:
    assert redacted("a\tb\n\x1b[31m\ud800 pw1 end", ["pw1"], 300) == "a b  [31m  *** end"
    assert redacted(None, ["x"], 10) is None
    assert redacted("0123456789", [], 5) == "0123…"


def test_a_secret_of_a_letter_shreds_no_words() -> None:
    said = "a bad client secret was used: a"
    assert redacted(said, ["a", "e", "se"], 300) == "*** bad client secret was used: ***"
    assert redacted("key=pw1;", ["pw1"], 300) == "key=***;"


@pytest.mark.parametrize("where", [0, 1, 7, 100_003, 200_001])
def test_a_secret_of_256_kib_is_hidden_with_little_work(
    where: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying all forms of such a secret would block the event loop for more than a second."""
    gone_through: list[int] = []
    found = redaction._found

    def counted(text: str, form: str) -> Iterator[tuple[int, int]]:
        gone_through.append(len(form))
        return found(text, form)

    monkeypatch.setattr(redaction, "_found", counted)
    numbers = random.Random(7)
    alphabet = string.ascii_letters + string.digits + "/+=%&"
    secret = "".join(numbers.choices(alphabet, k=262_144))
    piece = secret[where : where + 40]
    shown = redacted(f"The token ({piece}) is wrong " * 10, [secret], 300)
    assert shown is not None
    assert shown.startswith("The token (***) is wrong")
    assert not any(piece[at : at + 15] in shown for at in range(26))
    assert sum(gone_through) < 2 * len(secret)


def test_what_is_no_secret_is_shown_in_one_line_without_controls() -> None:
    assert shown("a\x1b[2J\r\n\u202eb", 300) == "a [2J   b"
    assert shown("0123456789", 5) == "0123…"


def test_the_rule_of_the_rfc_is_the_default() -> None:
    assert INVALID_GRANT.error == "invalid_grant"
    assert means(_error("invalid_grant"), 400).kind == "dead"
    assert means(_error("Invalid_Grant"), 400).kind == "refused"


def test_what_an_answer_means_shows_neither_token_nor_words() -> None:
    shown = repr([means(GOOD | {"access_token": "SECRET"}), means(_error("x", "SECRET"), 400)])
    assert "token" in shown
    assert "SECRET" not in shown
