"""What strangers write, made of chance: texts, JSON, answers, URLs, header fields, TOML; and tests that read them.

Hypothesis draws seeds, and of each a batch of inputs is made here. It would take ten times as long to draw every part
of an input by a strategy as it takes to read it. Each maker is a plain function of a `Random`: most of what it returns
is well formed or nearly so, since only that gets past the first line of a reader.
"""

from __future__ import annotations

import base64
import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from random import Random
from typing import Any, TypeVar

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from httpx_refresh._oauth.answer import Answer
from httpx_refresh._refresh.record import NOTES
from httpx_refresh.cli.settings import PRESETS, Settings

_T = TypeVar("_T")

BATCH = 25
"""Inputs that are made of one seed."""

_SHOWN = 20_000  # characters of an input that a failure shows


@dataclass(frozen=True, slots=True)
class _Given:
    """An input that is tried whatever the seeds are."""

    input: Any


def read_many(
    make: Callable[[Random], _T], *always: _T
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of one input, its last argument, a test of as many as the profile of hypothesis says.

    What fails is shown with the call that makes it again.

    Args:
        make: makes an input.
        always: inputs that are tried each time: what was found once, and what is as odd as it may be.
    """

    def around(test: Callable[..., None]) -> Callable[..., None]:
        *fixtures, last = inspect.signature(test).parameters.values()

        @functools.wraps(test)
        def batch(**arguments: Any) -> None:
            drawn = arguments.pop("drawn")
            if isinstance(drawn, _Given):
                test(**arguments, **{last.name: drawn.input})
                return
            for number in range(BATCH):
                seed = f"{drawn}/{number}"
                one: Any = make(Random(seed))
                try:
                    test(**arguments, **{last.name: one})
                except BaseException:
                    # Field by field: a repr hides what may be a secret.
                    shown = (
                        [getattr(one, each.name) for each in fields(one)]
                        if is_dataclass(one)
                        else one
                    )
                    made = f"{last.name} = {make.__name__}(Random({seed!r})), which is\n{shown!r}"
                    note(made[:_SHOWN])
                    raise

        seed = inspect.Parameter("drawn", inspect.Parameter.KEYWORD_ONLY)
        by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in fixtures]
        looked_at: Any = batch  # by pytest for fixtures, and by hypothesis for what it draws
        looked_at.__signature__ = inspect.Signature([*by_name, seed])
        del looked_at.__wrapped__
        tried: Any = given(drawn=st.integers(0, 2**64 - 1))(batch)
        for each in always:
            tried = example(drawn=_Given(each))(tried)
        profile: Any = settings.default
        trying: Callable[..., None] = settings(max_examples=-(-profile.max_examples // BATCH))(
            tried
        )
        return trying

    return around


_LONGEST = 2.0  # seconds of this thread for one input: a hundred times what the slowest takes


@contextmanager
def quickly(most: float = _LONGEST) -> Iterator[None]:
    """Fail if the block takes this thread more seconds than that."""
    before = time.thread_time()
    yield
    assert time.thread_time() - before < most


# -- texts and values ------------------------------------------------------------------------------------------------

_ASCII = "".join(map(chr, range(0x20, 0x7F)))
_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
_CONTROLS = "\0\x07\x08\t\n\r\x1b\x7f\x85\x9b\u2028\u2029\u202e\u200b\ufeff\xad"
_MARKS = (
    "://",
    *"/?#&=@:%+[]\\.;, \"'{}()<>|$~*-_",
    "*.",
    "..",
    "%00",
    "%2e",
    "%0a",
    "%ff",
    "\r\n",
)
_WORDS = (
    *(
        "state",
        "code",
        "error",
        "error_description",
        "iss",
        "scope",
        "realmId",
        "key",
        "table",
        "token",
    ),
    *(
        "https",
        "http",
        "file",
        "redis",
        "unix",
        "rediss",
        "valkey",
        "sqlite",
        "memory",
        "sqlite+aiosqlite",
    ),
    *(
        "postgresql+asyncpg",
        "mariadb+aiomysql",
        "as.test",
        "evil.test",
        "xn--nxasmq6b",
        "xn--nxasmq6bx",
    ),
    *(
        "localhost",
        "127.0.0.1",
        "[::1]",
        "0x7f.1",
        "..",
        "\x1b[2J",
        "\u0130",
        "\ud800",
        "\udc00\ud800",
    ),
    *(
        "invalid_grant",
        "access_denied",
        "insufficient_scope",
        "Bearer",
        "S256",
        "plain",
        "none",
        "true",
        "null",
    ),
)


def chance(rng: Random, percent: float) -> bool:
    return rng.random() * 100 < percent


def _character(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(_ASCII)
    if kind < 0.7:
        return rng.choice(_CONTROLS)
    if kind < 0.8:
        return chr(rng.randrange(0x80, 0x250))
    if kind < 0.87:
        return chr(rng.randrange(0xD800, 0xE000))  # Half a surrogate pair: JSON can hold it.
    return chr(rng.randrange(0x10000 if kind < 0.95 else 0x110000))


def text(rng: Random, most: int = 30) -> str:
    """Return any text: a word, plain ASCII, any characters, nothing, or, rarely, a long one."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(_WORDS)
    if kind < 0.55:
        return "".join(rng.choices(_PLAIN, k=rng.randrange(1, most)))
    if kind < 0.9:
        return "".join([_character(rng) for _ in range(rng.randrange(min(most, 12)))])
    if kind < 0.98:
        return rng.choice(("", " ", "\t\n", "0", "-1", "1e3", "1800000000", "9" * 40))
    return _character(rng) * rng.randrange(1, 3_000)


def number(rng: Random) -> Any:
    kind = rng.random()
    if kind < 0.4:
        return rng.randrange(-2, 10)
    if kind < 0.55:
        return rng.getrandbits(rng.randrange(1, 80)) * rng.choice((1, -1))
    if kind < 0.7:
        return rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 308)
    return rng.choice(
        (
            *(0.0, -0.0, 0.5, 1.8e9, 1_800_003_600, 1.8e12, 1e11, 1e308, 5e-324, 2**53, 2**53 - 1),
            *(300, 300.5, 86_400, 10**320, -(10**320), float("inf"), float("-inf"), float("nan")),
        )
    )


def leaf(rng: Random) -> Any:
    kind = rng.random()
    if kind < 0.15:
        return None
    if kind < 0.3:
        return kind < 0.22
    return number(rng) if kind < 0.6 else text(rng)


def value(rng: Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    kind = rng.random()
    if kind < 0.65 or depth > 4:
        return leaf(rng)
    if kind < 0.82:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 0.99:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    deep = leaf(rng)
    for _ in range(rng.randrange(60)):
        deep = [deep] if chance(rng, 50) else {"a": deep}
    return deep


def spoiled(rng: Random, fields: dict[str, Any]) -> Any:
    """Return an object, most of the time with some of its fields changed or left out, or something else."""
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        kind, name = rng.random(), rng.choice((*fields, "else"))
        if kind < 0.3:
            fields.pop(name, None)
        elif kind < 0.35:
            return value(rng)
        else:
            fields[name] = value(rng)
    return fields


def mutated(rng: Random, written: str) -> str:
    """Return a text with a few changes: cut, doubled, or something else in between."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(written) + 1)
        end = min(len(written), at + rng.randrange(1, 12))
        kind = rng.random()
        if kind < 0.25:
            written = written[:at] + written[end:]
        elif kind < 0.4:
            written = written[:end] + written[at:]
        elif kind < 0.5:
            written = written[:at]
        elif kind < 0.7:
            written = written[:at] + rng.choice(_MARKS) + written[at:]
        elif kind < 0.85:
            written = written[:at] + rng.choice(_WORDS) + written[end:]
        else:
            written = written[:at] + _character(rng) + written[at + 1 :]
    return written


_HERE = "\x00here\x00"  # of a literal that no value stands for
_HERE_IN_JSON = json.dumps(_HERE)
_LITERALS = (
    *("1e999", "-1e999", "9" * 310, "-" + "9" * 400, "9" * 5_000, "0." + "9" * 400, "-0", "1E400"),
    *("nul", "0x10", "01", "NaN", "-Infinity", "'a'", "\\ud800", '"\\ud83d"', '"\\udc00\\ud800"'),
    *("[" * 30 + "]" * 30, '{"a":' * 25 + "1" + "}" * 25, "[" * 3_000, '"\\u0000"', '"a\nb"', "1,"),
)


def json_of(rng: Random, fields: Any) -> str:
    """Return a value as JSON: sometimes with a name twice, or with a literal that no value stands for."""
    raw = isinstance(fields, dict) and bool(fields) and chance(rng, 12)
    if raw:
        fields[rng.choice(tuple(fields))] = _HERE
    kind = rng.random()
    written = (
        json.dumps(fields)
        if kind < 0.7
        else json.dumps(fields, ensure_ascii=False)
        if kind < 0.9
        else json.dumps(fields, indent=rng.choice((0, 1, "\t")))
    )
    if raw:
        # Where characters stand as they are, zeroes do not.
        written = written.replace(_HERE_IN_JSON, rng.choice(_LITERALS))
    if isinstance(fields, dict) and fields and chance(rng, 6):
        twice = {rng.choice(tuple(fields)): value(rng)}
        written = json.dumps(twice)[:-1] + "," + written[1:]
    return mutated(rng, written) if chance(rng, 8) else written


# -- token responses, and what stands in a store ---------------------------------------------------------------------


def secret(rng: Random) -> Any:
    """Return what stands where a token is expected: most of the time one."""
    kind = rng.random()
    if kind < 0.6:
        return "".join(rng.choices(_PLAIN, k=rng.randrange(1, 40)))
    if kind < 0.75:
        return "".join(rng.choices(_ASCII, k=rng.randrange(8)))
    return text(rng) if kind < 0.9 else value(rng)


_TIMES = (
    0,
    1,
    60,
    3600,
    "3600",
    "3600.5",
    3600.5,
    "2030-01-01T00:00:00Z",
    "2030-01-01T00:00",
    "T",
    1.8e9,
    1.9e9,
)
_ERRORS = (
    *(
        "invalid_grant",
        "invalid_client",
        "temporarily_unavailable",
        "server_error",
        "slow_down",
        "",
    ),
    *("interaction_required", "authorization_pending", "INVALID_GRANT", "expired_token"),
)


def time_of(rng: Random) -> Any:
    return rng.choice(_TIMES) if chance(rng, 60) else value(rng)


def token_fields(rng: Random) -> dict[str, Any]:
    """Return the fields of a token response, or of something like one."""
    found: dict[str, Any] = {}
    if chance(rng, 88):
        found["access_token"] = secret(rng)
    if chance(rng, 70):
        found["refresh_token"] = secret(rng)
    for name in ("expires_in", "expires_at", "expires_in_sec"):
        if chance(rng, 35):
            found[name] = time_of(rng)
    if chance(rng, 40):
        found["token_type"] = (
            rng.choice(("Bearer", "bearer", "mac", "")) if chance(rng, 70) else value(rng)
        )
    for name in ("scope", "id_token", "instance_url", "message", "claims"):
        if chance(rng, 8):
            found[name] = text(rng) if chance(rng, 60) else value(rng)
    for _ in range(rng.choice((0, 0, 1, 3))):
        found[text(rng)] = value(rng)
    return found


def refusal_fields(rng: Random) -> dict[str, Any]:
    """Return the fields of an answer that brings no token."""
    found: dict[str, Any] = {}
    kind = rng.random()
    if kind < 0.7:
        found["error"] = rng.choice(_ERRORS)
    elif kind < 0.85:
        found["error"] = spoiled(
            rng, {"status": rng.choice(_ERRORS), "code": value(rng), "message": text(rng)}
        )
    else:
        found["error"] = value(rng)
    for name in ("error_description", "message", "error_uri", "interval", "claims"):
        if chance(rng, 35):
            found[name] = text(rng, 60) if chance(rng, 80) else value(rng)
    return found


def _count(rng: Random) -> Any:
    return rng.randrange(5)


def _pause(rng: Random) -> dict[str, Any]:
    return {"nonce": text(rng), "pause": number(rng), "until": 1.8e9 + rng.randrange(1_000)}


def _claim(rng: Random) -> Any:
    fields = {
        "by": text(rng),
        "nonce": text(rng),
        "since": 1.8e9,
        "for": number(rng),
        "held": rng.choice((None, True, text(rng))),
    }
    return spoiled(rng, fields)


def _dead(rng: Random) -> Any:
    fields: dict[str, Any] = {"refresh_token_sha256": text(rng), "since": 1.8e9, "error": text(rng)}
    return spoiled(rng, {**fields, "error_description": rng.choice((None, text(rng)))})


def _failed(rng: Random) -> Any:
    outcome = rng.choice(("not_sent", "busy", "refused", "unknown"))
    fields = {
        "message": text(rng),
        "outcome": outcome,
        "transient": True,
        "failures": _count(rng),
        **_pause(rng),
    }
    if chance(rng, 40):
        fields |= {"client": text(rng), "person": chance(rng, 50)}
    return spoiled(rng, fields)


def _names(rng: Random) -> list[Any]:
    return [leaf(rng) if chance(rng, 20) else text(rng) for _ in range(rng.randrange(4))]


def _refusals(rng: Random) -> Any:
    fields = {name: _count(rng) for name in ("early", "futile", "generation")} | _pause(rng)
    fields |= {"kinds": _names(rng), "forbidden": _names(rng), "probed": chance(rng, 50)}
    if chance(rng, 50):
        fields["accepted"] = spoiled(rng, _pause(rng))
    return spoiled(rng, fields)


def _asked_claims(rng: Random) -> Any:
    fields = {"tried": _names(rng), "generation": _count(rng), "count": _count(rng), **_pause(rng)}
    return spoiled(rng, fields)


_NOTES: dict[str, Callable[[Random], Any]] = {
    "redeeming": _claim,
    "uncertain": _claim,
    "dead": _dead,
    "failed": lambda rng: [_failed(rng) for _ in range(rng.randrange(12 if chance(rng, 5) else 3))],
    "refusals": _refusals,
    "claims": _asked_claims,
    "revoked": number,
    "issued": time_of,
    "purpose": text,
    "rev": text,
    "empty": lambda rng: chance(rng, 70),
}


def notes(rng: Random) -> Any:
    """Return the notes of this library beside a token, or something like them."""
    found: dict[str, Any] = {}
    if chance(rng, 80):
        found["generation"] = rng.randrange(9) if chance(rng, 85) else value(rng)
    for name, make in _NOTES.items():
        if chance(rng, 6 if name in ("revoked", "empty") else 25):
            found[name] = make(rng) if chance(rng, 90) else value(rng)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        found[text(rng)] = value(rng)
    return found if chance(rng, 96) else value(rng)


def store_text(rng: Random) -> str:
    """Return what may stand in a store: a record, something like one, or anything."""
    kind = rng.random()
    if kind < 0.05:
        return text(rng)
    if kind < 0.1:
        return json_of(rng, value(rng))
    if kind < 0.2:
        return body(rng).decode("latin-1")
    found = token_fields(rng)
    if chance(rng, 80):
        found[NOTES] = notes(rng)
    return json_of(rng, found)


# -- answers of a server ---------------------------------------------------------------------------------------------

_CODECS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "latin-1",
    "utf-16",
    "utf-32",
    "utf-8-sig",
    "utf-16-le",
    "cp1252",
)
_BODIES = (
    b"",
    b"null",
    b"[]",
    b'"access_token"',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"<html>invalid_grant</html>",
    b"\0",
)


def _encoded(rng: Random, written: str) -> bytes:
    codec = "utf-8" if chance(rng, 80) else rng.choice(_CODECS)
    return written.encode(codec, "surrogatepass" if codec.startswith("utf") else "replace")


def _form(rng: Random, fields: dict[str, Any]) -> bytes:
    pairs = [f"{name}={one}" for name, one in fields.items()]
    pairs *= 40 if chance(rng, 3) else 1
    return _encoded(rng, "&".join(pairs))


def body(rng: Random, make: Callable[[Random], dict[str, Any]] | None = None) -> bytes:
    """Return the body of an answer: JSON of such fields, a form, or anything."""
    kind = rng.random()
    if kind < 0.03:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.06:
        return rng.choice(_BODIES)
    if kind < 0.09:
        return _encoded(rng, text(rng, 200))
    if kind < 0.12:
        return b'{"access_token":' + b"[" * rng.randrange(1, 3_000)
    if make is None:
        make = token_fields if chance(rng, 60) else refusal_fields
    found = make(rng)
    if chance(rng, 5):
        found[NOTES] = notes(rng)
    if kind < 0.22:
        return _form(rng, found)
    if kind < 0.25:
        return _encoded(rng, json_of(rng, [found]))
    written = _encoded(rng, json_of(rng, found))
    return written[: rng.randrange(len(written) + 1)] if chance(rng, 4) else written


_WAITS = (
    *(
        "",
        "0",
        "5",
        "  7 ",
        "9" * 30,
        "-1",
        "1.5",
        "\u0665",
        "Wed, 21 Oct 2065 07:28:00 GMT",
        "soon",
    ),
    *(
        "Wed, 21 Oct 2015 07:28:00 -0000",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
    ),
)
_STATUSES = (200, 200, 200, 201, 204, 302, 400, 400, 401, 403, 408, 425, 429, 500, 502, 503)


def status(rng: Random) -> int:
    return rng.choice(_STATUSES) if chance(rng, 90) else rng.randrange(100, 600)


def retry_after(rng: Random) -> str:
    wait = rng.choice(_WAITS) if chance(rng, 80) else text(rng)
    return mutated(rng, wait) if chance(rng, 10) else wait


def answer(rng: Random) -> Answer:
    """Return any answer of a token endpoint."""
    headers = {"retry-after": retry_after(rng)} if chance(rng, 40) else {}
    return Answer(status(rng), headers, body(rng), cut=chance(rng, 2))


# -- URLs ------------------------------------------------------------------------------------------------------------

_SCHEMES = (
    "https",
    "https",
    "https",
    "http",
    "HTTPS",
    "wss",
    "ftp",
    "file",
    "",
    "javascript",
    "redis",
)
_HOSTS = (
    *(
        "as.test",
        "as.test",
        "api.as.test",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "a.as.test.",
        "[fe80::1%25eth0]",
    ),
    *(
        "\uff21\uff33.test",
        "0x7f.1",
        "2130706433",
        "169.254.169.254",
        "as.test\\.evil.test",
        "evil.test#.as.test",
    ),
    *(
        "xn--nxasmq6b",
        "xn--nxasmq6bx.as.test",
        "xn--",
        "*.as.test",
        "as_.test",
        "[::ffff:127.0.0.1]",
        "a..test",
        "",
    ),
)
_USERS = ("", "", "", "", "u@", "u:p@", "@", "as.test@", "u%40:p%3A@")
_PORTS = ("", "", "", "", ":443", ":0", ":99999", ":x", ":", ":-1", ":8080", ":\u0661")


def pieces(rng: Random) -> str:
    """Return words and marks of URLs in any order."""
    return "".join(
        [
            rng.choice(_MARKS)
            if chance(rng, 45)
            else rng.choice(_WORDS)
            if chance(rng, 70)
            else text(rng)
            for _ in range(rng.randrange(12))
        ]
    )


def url(rng: Random) -> str:
    """Return a URL, or something like one."""
    kind = rng.random()
    if kind < 0.08:
        return pieces(rng)
    if kind < 0.1:
        return text(rng)
    host = rng.choice(_HOSTS) if chance(rng, 90) else pieces(rng)
    path = "" if chance(rng, 40) else "/" + (pieces(rng) if chance(rng, 50) else "token")
    written = f"{rng.choice(_SCHEMES)}://{rng.choice(_USERS)}{host}{rng.choice(_PORTS)}{path}"
    return mutated(rng, written) if chance(rng, 15) else written


def home(rng: Random) -> Any:
    """Return what stands in a store as the `instance_url` of a token."""
    if chance(rng, 10):
        return value(rng)
    host = rng.choice(("as.test", "acme.as.test", "a.b.as.test"))
    return url(rng) if chance(rng, 60) else mutated(rng, f"https://{host}")


def origin_and_url(rng: Random) -> tuple[str, str]:
    """Return what is named as an origin, and the URL of a request, the host of which is often alike."""
    host = rng.choice(_HOSTS)
    allowed = f"{rng.choice(_SCHEMES)}://{rng.choice(('', '', '*.'))}{host}{rng.choice(_PORTS)}"
    allowed = url(rng) if chance(rng, 15) else mutated(rng, allowed) if chance(rng, 20) else allowed
    if chance(rng, 40):
        return allowed, url(rng)
    asked = (
        allowed.replace("*.", rng.choice(("", "a.", "a.b.", "evil.test/", "evil.test\\."))) + "/x"
    )
    return allowed, mutated(rng, asked) if chance(rng, 40) else asked


_STORES = (
    *(
        "file:token.json",
        "file:///var/lib/a.json",
        "file://localhost/a",
        "file:~/a",
        "file:%00",
        "file:a%3Fb",
    ),
    *(
        "redis://h/0?key=a",
        "rediss://u:p@h:6380/1?key=a&ssl_cert_reqs=none",
        "unix:///run/r.sock?key=a&db=1",
    ),
    *(
        "valkey://h?key=a",
        "redis://h/x?key=a",
        "redis://h/0?key=a&socket_timeout=x",
        "redis://[::1]:1/0?key=a",
    ),
    *(
        "sqlite+aiosqlite:///a.db?key=a&table=t",
        "sqlite+aiosqlite://?key=a",
        "sqlite+aiosqlite:///:memory:?key=a",
    ),
    *(
        "postgresql+asyncpg://u:p@h:5432/db?key=a&ssl=verify-full",
        "postgresql://h/db?key=a",
        "sqlite:///a?key=a",
    ),
    *(
        "mariadb+aiomysql://u@h/db?key=a&charset=utf8",
        "postgresql+asyncpg://u:p%40@h/db?key=a&table=x%20y",
    ),
    *(
        "memory:",
        "memory:x?y",
        "token.json",
        "C:\\token.json",
        "/var/a.json",
        "c:/a",
        "nosuch://h?key=a",
        "?key=a",
    ),
)


def store_url(rng: Random) -> str:
    """Return what somebody gives as the URL of a store."""
    kind = rng.random()
    if kind < 0.15:
        return url(rng)
    if kind < 0.2:
        return pieces(rng)
    written = rng.choice(_STORES)
    if kind < 0.4:
        names = ("key", "table", "ssl", "db", "password", text(rng))
        written += "".join(
            [f"&{rng.choice(names)}={text(rng)}" for _ in range(rng.randrange(1, 4))]
        )
    return mutated(rng, written) if kind < 0.85 else written


def listening_address(rng: Random) -> str:
    """Return what somebody gives as the address of the redirect of a login."""
    kind = rng.random()
    if kind < 0.3:
        return url(rng)
    if kind < 0.4:
        return pieces(rng)
    host = rng.choice(("127.0.0.1", "localhost", "[::1]", "as.test", text(rng)))
    port = rng.choice(("", ":0", ":80", ":8080", ":65535", ":65536", ":x", ":-1"))
    written = f"http://{host}{port}/{rng.choice(('', 'callback', text(rng)))}"
    return mutated(rng, written) if kind < 0.8 else written


# -- sealed texts ----------------------------------------------------------------------------------------------------


def sealed_part(part: Any) -> str:
    """Return a JSON value as a part of a compact serialization (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def sealed(rng: Random) -> str:
    """Return what a writer without the key puts in the place of an encrypted text."""
    kind = rng.random()
    if kind < 0.2:
        return text(rng)
    if kind < 0.4:
        parts = [sealed_part(value(rng)) if chance(rng, 70) else text(rng) for _ in range(5)]
        return ".".join(parts[: rng.randrange(1, 6)])
    header = spoiled(rng, {"alg": "dir", "enc": "A256GCM"})
    if isinstance(header, dict):
        for name in ("kid", "slot", "zip", "crit", "b64", "jwk", "p2c"):
            if chance(rng, 25):
                header[name] = value(rng)
        if chance(rng, 20):
            header["zip"] = "DEF"
    rest = [_urlsafe(rng) for _ in range(4)]
    written = ".".join([sealed_part(header), *rest])
    return mutated(rng, written) if chance(rng, 20) else written


def _urlsafe(rng: Random) -> str:
    return (
        base64.urlsafe_b64encode(rng.randbytes(rng.choice((0, 1, 12, 16, 40)))).decode().rstrip("=")
    )


# -- bytes on a socket -----------------------------------------------------------------------------------------------


def _line(rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.2:
        return rng.randbytes(rng.randrange(30))
    if kind < 0.4:
        return text(rng).encode("utf-8", "surrogatepass")
    if kind < 0.7:
        return f"GET /{pieces(rng)} HTTP/1.1".encode("utf-8", "surrogatepass")
    return rng.choice(
        (
            *(b"Host: 127.0.0.1:80", b"Host:", b"Content-Length: 1e9", b"GET / HTTP/1.1"),
            *(b"Transfer-Encoding: chunked", b"GET /callback?state=st4te2&code=c HTTP/1.1"),
        )
    )


def requests(rng: Random) -> list[bytes]:
    """Return what a client of the server of a login sends, in pieces; it does not know the state."""
    return [
        rng.randbytes(rng.randrange(200))
        if chance(rng, 20)
        else b"\r\n".join([_line(rng) for _ in range(rng.randrange(8))]) + b"\r\n\r\n"
        for _ in range(rng.randrange(4))
    ]


# -- metadata, and other documents of a server -----------------------------------------------------------------------

ISSUER = "https://as.test"
_ENDPOINTS = (
    *(
        "token_endpoint",
        "authorization_endpoint",
        "device_authorization_endpoint",
        "revocation_endpoint",
    ),
    *("registration_endpoint", "jwks_uri"),
)
_LISTS: dict[str, tuple[str, ...]] = {
    "token_endpoint_auth_methods_supported": (
        *(
            "none",
            "client_secret_basic",
            "client_secret_post",
            "client_secret_jwt",
            "private_key_jwt",
        ),
        "tls_client_auth",
    ),
    "code_challenge_methods_supported": ("S256", "plain", "s256"),
    "scopes_supported": ("a", "b"),
    "response_types_supported": ("code", "token"),
    "grant_types_supported": ("refresh_token", "authorization_code"),
}


def _endpoint(rng: Random, name: str) -> Any:
    kind = rng.random()
    if kind < 0.5:
        return f"{ISSUER}/{name}"
    return url(rng) if kind < 0.92 else value(rng)


def metadata_fields(rng: Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if chance(rng, 98):
        found["issuer"] = ISSUER if chance(rng, 94) else value(rng)
    for name in _ENDPOINTS:
        if chance(rng, 90 if name == "token_endpoint" else 50):
            found[name] = _endpoint(rng, name)
    for name, words in _LISTS.items():
        if chance(rng, 50):
            some = [
                rng.choice(words) if chance(rng, 85) else leaf(rng) for _ in range(rng.randrange(4))
            ]
            found[name] = some if chance(rng, 90) else value(rng)
    if chance(rng, 50):
        found["authorization_response_iss_parameter_supported"] = leaf(rng)
    if chance(rng, 10):
        found["mtls_endpoint_aliases"] = spoiled(
            rng, {name: _endpoint(rng, name) for name in _ENDPOINTS[:3]}
        )
    return found


@dataclass(frozen=True)
class Page:
    """What a server answers with that is asked for its metadata."""

    status: int
    body: bytes
    secret: str | None = None


def metadata(rng: Random) -> Page:
    """Return a page that says what a server is, or something like one."""
    return Page(
        200 if chance(rng, 95) else status(rng),
        body(rng, metadata_fields),
        rng.choice((None, "secret")),
    )


def device_fields(rng: Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("device_code", "user_code"):
        if chance(rng, 92):
            found[name] = secret(rng)
    for name in ("verification_uri", "verification_uri_complete", "verification_url"):
        if chance(rng, 80 if name == "verification_uri" else 40):
            found[name] = (
                "https://as.test/device"
                if chance(rng, 50)
                else url(rng)
                if chance(rng, 85)
                else value(rng)
            )
    for name in ("expires_in", "interval"):
        if chance(rng, 70):
            found[name] = time_of(rng)
    if chance(rng, 6):
        found["error"] = value(rng)
    return found


def device_answer(rng: Random) -> Page:
    """Return an answer to a device authorization request."""
    return Page(200 if chance(rng, 85) else rng.choice((400, 500)), body(rng, device_fields))


# -- redirects -------------------------------------------------------------------------------------------------------

STATE = "st4te"
_PLACES = (
    "",
    "?",
    "http://127.0.0.1/?",
    "http://127.0.0.1/cb?",
    "http://[?",
    "http://127.0.0.1/#",
    "cb?x#?",
    " ",
)
_FIELD_NAMES = ("state", "code", "error", "error_description", "iss", "realmId")
_FIELDS: dict[str, tuple[str, ...]] = {
    "state": (STATE,),
    "code": ("c0de", "c%20d", "%C3%A9", ""),
    "error": ("access_denied", "server_error", ""),
    "error_description": ("no", "%1b[2J", "%0d%0a", "x" * 900),
    "iss": (ISSUER, ISSUER + "/", "https://evil.test"),
    "realmId": ("123", "%1b]0;x%07", "x" * 900, ""),
}
_OFTEN = {"state": 94, "code": 85, "iss": 70, "error": 25, "error_description": 25, "realmId": 60}


def redirect(rng: Random) -> str | dict[str, str]:
    """Return what a browser brings back from a login, as a URL or as its parameters, or something else."""
    kind = rng.random()
    if kind < 0.05:
        return url(rng)
    if kind < 0.06:
        return "http://127.0.0.1/?" + "a=1&" * rng.randrange(1, 300)
    pairs = [
        (name, rng.choice(_FIELDS[name]) if chance(rng, 90) else text(rng))
        for name, percent in _OFTEN.items()
        if chance(rng, percent)
    ]
    pairs += [
        (rng.choice(_FIELD_NAMES) if chance(rng, 30) else text(rng), text(rng))
        for _ in range(rng.choice((0, 0, 0, 1, 2)))
    ]
    rng.shuffle(pairs)
    if kind < 0.4:
        return dict(pairs)
    written = rng.choice(_PLACES) + "&".join([f"{name}={one}" for name, one in pairs])
    return mutated(rng, written) if chance(rng, 20) else written


# -- challenges ------------------------------------------------------------------------------------------------------

_TOKEN_CHARACTERS = "abcXYZ019!#$%&'*+-.^_`|~"  # RFC 9110 §5.6.2
_LATIN = "".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100))))
_NOISE = 'ab=",\\ \t/:Bearer'
_ASKED = (
    "insufficient_scope",
    "insufficient_user_authentication",
    "insufficient_claims",
    "invalid_token",
)

Written = list[tuple[str, dict[str, str]]]


def claims_parameter(rng: Random) -> str:
    """Return what stands in a `claims` parameter: JSON, as it is or in base64, or something else."""
    kind = rng.random()
    if kind < 0.1:
        return text(rng)
    fields = (
        value(rng)
        if kind < 0.4
        else {"access_token": {"nbf": spoiled(rng, {"essential": True, "value": "1"})}}
    )
    written = json_of(rng, fields)
    if kind < 0.6:
        return written
    packed = base64.b64encode(
        written.encode("utf-8", "surrogatepass" if kind < 0.65 else "replace")
    )
    packed = packed.translate(bytes.maketrans(b"+/", b"-_")) if kind < 0.8 else packed
    coded = packed.decode()
    coded = coded.rstrip("=") if chance(rng, 50) else coded
    return mutated(rng, coded) if chance(rng, 15) else coded


_PARAMS: dict[str, Callable[[Random], str]] = {
    "realm": text,
    "scope": lambda rng: (
        rng.choice(("a b", " a  b ", "", "a\tb")) if chance(rng, 70) else text(rng)
    ),
    "claims": claims_parameter,
    "acr_values": lambda rng: (
        rng.choice(("gold silver", "", "x")) if chance(rng, 70) else text(rng)
    ),
    "max_age": lambda rng: (
        rng.choice(("300", "0", "-1", "9" * 11, "\u0665")) if chance(rng, 80) else text(rng)
    ),
    "resource_metadata": url,
    "error_description": text,
}


def _quoted(written: str) -> str:
    return '"' + written.replace("\\", "\\\\").replace('"', '\\"') + '"'


def field_of(challenges: Written) -> str:
    """Write challenges as RFC 9110 §11.6.1 has them."""
    return ", ".join(
        [
            scheme
            + " " * bool(params)
            + ", ".join([f"{name}={_quoted(one)}" for name, one in params.items()])
            for scheme, params in challenges
        ]
    )


def _word(rng: Random) -> str:
    return "".join(rng.choices(_TOKEN_CHARACTERS, k=rng.randrange(1, 8)))


def challenges(rng: Random) -> Written:
    """Return challenges: their schemes and parameters, the names of which are in lower case."""
    return [
        (
            rng.choice(("Bearer", "bearer", "DPoP", "Basic")) if chance(rng, 50) else _word(rng),
            {
                _word(rng).lower(): "".join(rng.choices(_LATIN, k=rng.randrange(12)))
                for _ in range(rng.randrange(4))
            },
        )
        for _ in range(rng.randrange(5))
    ]


def asked(rng: Random) -> str:
    """Return a challenge that asks for another login, or nearly so."""
    params = {"error": rng.choice(_ASKED) if chance(rng, 92) else text(rng)}
    params |= {name: make(rng) for name, make in _PARAMS.items() if chance(rng, 45)}
    items = [*params.items()]
    rng.shuffle(items)
    return field_of([(rng.choice(("Bearer", "BEARER", "DPoP", "Basic")), dict(items))])


def _noise(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return "".join(rng.choices(_NOISE, k=rng.randrange(40)))
    if kind < 0.4:
        return text(rng)
    if kind < 0.5:
        return rng.choice(
            ("Negotiate oRQwEqADCgEBow==", "NTLM", "a=1", ",,", 'Bearer a="1" b=2', '"')
        )
    written = asked(rng) if kind < 0.85 else field_of(challenges(rng))
    return mutated(rng, written) if chance(rng, 60) else written


@dataclass(frozen=True)
class Fields:
    """Header fields that nobody can vouch for, and challenges that stand in further ones."""

    noise: Sequence[str]
    challenges: Written


def header_fields(rng: Random) -> Fields:
    """Return the values of the `WWW-Authenticate` fields of a response."""
    return Fields([_noise(rng) for _ in range(rng.randrange(4))], challenges(rng))


# -- configuration ---------------------------------------------------------------------------------------------------

_SETTINGS = tuple(one.name for one in fields(Settings) if one.name != "name")
_TABLES = (*PRESETS, "own", "google_service_account", "a.b", '"x y"', "")
_TOML = (
    *(
        "true",
        "[1, 2]",
        "{a = 1}",
        "1979-05-27",
        "1979-05-27T07:32:00Z",
        "'''",
        '"""',
        "inf",
        "nan",
        "-0",
    ),
    *(
        "0x" + "f" * 5_000,
        "9" * 5_000,
        "1e999",
        "'a'",
        '"\\ud800"',
        '"""\na\n"""',
        "",
        "[" * 2_000,
        "{a=" * 200,
    ),
)
_PLACES_OF_PARAMS = (
    '{ env = "A" }',
    '{ file = "a" }',
    '{ env = "A", file = "a" }',
    "{}",
    "{ env = 1 }",
    '"text"',
    "5",
)


def _toml_value(rng: Random, name: str) -> str:
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(_TOML)
    if kind < 0.18:
        return str(number(rng))
    if kind < 0.2:
        return pieces(rng)
    if name == "port":
        return str(rng.randrange(70_000))
    if name == "pkce":
        return rng.choice(("true", "false"))
    if name == "params":
        return (
            "{ "
            + ", ".join(
                [f"a{n} = {rng.choice(_PLACES_OF_PARAMS)}" for n in range(rng.randrange(3))]
            )
            + " }"
        )
    if name == "provider":
        return json.dumps(rng.choice(tuple(PRESETS)))
    if name == "grant":
        return rng.choice(('"client_credentials"', '"jwt-bearer"', '"installation"', '"x"'))
    if name == "store":
        return json.dumps(store_url(rng))
    return json.dumps(text(rng), ensure_ascii=chance(rng, 50))


def toml(rng: Random) -> str:
    """Return a configuration file, or something like one."""
    kind = rng.random()
    if kind < 0.04:
        return text(rng)
    if kind < 0.08:
        return pieces(rng)
    if kind < 0.1:
        return "x = " + rng.choice(("[", "{a=", "a.")) * rng.randrange(1, 5_000)
    lines = [f"{text(rng)} = 1"] if chance(rng, 3) else []
    for table in rng.sample(_TABLES, rng.randrange(1, 4)):
        lines.append(f"[{table}]")
        keys = rng.sample(_SETTINGS, rng.randrange(6))
        if chance(rng, 10):
            keys.append(text(rng) if chance(rng, 50) else rng.choice(_SETTINGS))
        lines += [f"{key} = {_toml_value(rng, key)}" for key in keys]
        if chance(rng, 8):
            lines.append(f"[{table}.params]\na = {rng.choice(_PLACES_OF_PARAMS)}")
    written = "\n".join(lines)
    return mutated(rng, written) if chance(rng, 20) else written
