from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from httpx_refresh import RefreshUnavailable
from httpx_refresh._oauth.keys import SigningKey
from tests.oauth.pems import KIND_OF, certificate, key_of, pem, public_pem
from tests.oauth.test_frames import check_frames, expanded

pytestmark = pytest.mark.anyio

JWK_KINDS: dict[str, Any] = {"RSA": RSAKey, "other RSA": RSAKey, "Ed25519": OKPKey}
PASSWORD = "s3cr3t-password"


def joserfc_key(kind: str) -> Any:
    return JWK_KINDS.get(kind, ECKey).import_key(pem(kind))


def jwk(kind: str, **more: Any) -> dict[str, Any]:
    return {**joserfc_key(kind).as_dict(private=True), **more}


def verified(token: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a token that a kind's key signed."""
    registry = jws.JWSRegistry(algorithms=list(KIND_OF), strict_check_header=False)
    registry.max_header_length = 100_000
    key = JWK_KINDS.get(kind, ECKey).import_key(public_pem(kind))
    signed = jws.deserialize_compact(token, key, registry=registry)
    return signed.headers(), json.loads(signed.payload)


@pytest.mark.parametrize("algorithm", [name for name in KIND_OF if name != "EdDSA"])
async def test_every_algorithm_signs_what_its_public_key_verifies(algorithm: Any) -> None:
    key = SigningKey(pem(KIND_OF[algorithm]), algorithm=algorithm)
    header, claims = verified(await key.sign({"iss": "é"}), KIND_OF[algorithm])
    assert header == {"alg": algorithm, "typ": "JWT"}
    assert claims == {"iss": "é"}


async def test_the_older_name_of_ed25519_signs_without_a_warning() -> None:
    token = await SigningKey(pem("Ed25519"), algorithm="EdDSA").sign({})
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header["alg"] == "EdDSA"
    first, second = token.rsplit(".", 1)
    key_of("Ed25519").public_key().verify(base64.urlsafe_b64decode(second + "=="), first.encode())


def in_a_file(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "key"
    path.write_text(content)
    return path


GIVEN: dict[str, Callable[[Path], Any]] = {
    "PEM text": lambda _: pem("P-256"),
    "PEM bytes": lambda _: pem("P-256").encode(),
    "PEM of OpenSSL 1": lambda _: key_of("P-256").private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ),
    "PEM of OpenSSH": lambda _: key_of("P-256").private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    ),
    "a JWK": lambda _: jwk("P-256"),
    "a JWK for signatures": lambda _: jwk("P-256", use="sig", key_ops=["sign"], alg="ES256"),
    "a JWK in JSON": lambda _: json.dumps(jwk("P-256")),
    "a path": lambda home: in_a_file(home, pem("P-256")),
    "a path of a JWK": lambda home: in_a_file(home, json.dumps(jwk("P-256"))),
    "a callable": lambda _: lambda: pem("P-256"),
    "a callable of a path": lambda home: lambda: in_a_file(home, pem("P-256")),
    "a callable of a JWK": lambda _: lambda: jwk("P-256"),
}


@pytest.mark.parametrize("given", GIVEN)
async def test_a_key_is_given_in_many_ways(given: str, tmp_path: Path) -> None:
    key = SigningKey(GIVEN[given](tmp_path), algorithm="ES256")
    verified(await key.sign({}), "P-256")
    assert key.thumbprint == joserfc_key("P-256").thumbprint()


@pytest.mark.parametrize("how", ["text", "bytes", "path", "callable"])
async def test_a_password_is_given_in_as_many_ways(how: str, tmp_path: Path) -> None:
    ways: dict[str, Any] = {
        "text": PASSWORD,
        "bytes": PASSWORD.encode(),
        "path": in_a_file(tmp_path, PASSWORD + "\n"),
        "callable": lambda: PASSWORD,
    }
    key = SigningKey(pem("P-256", PASSWORD.encode()), algorithm="ES256", password=ways[how])
    verified(await key.sign({}), "P-256")


async def test_the_key_id_is_the_argument_or_the_jwk_s_own() -> None:
    async def kid(**options: Any) -> Any:
        token = await SigningKey(jwk("P-256", kid="own"), algorithm="ES256", **options).sign({})
        return verified(token, "P-256")[0].get("kid")

    assert await kid() == "own"
    assert await kid(key_id="told") == "told"
    without = SigningKey(pem("P-256"), algorithm="ES256")
    assert "kid" not in verified(await without.sign({}), "P-256")[0]


async def test_headers_of_one_token_are_added_and_nothing_that_was_passed_changes() -> None:
    key = SigningKey(pem("P-256"), algorithm="ES256", key_id="k")
    claims, headers = {"a": 1}, {"typ": "at+jwt", "other": "x"}
    header, _ = verified(await key.sign(claims, headers=headers), "P-256")
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": "k", "other": "x"}
    assert (claims, headers) == ({"a": 1}, {"typ": "at+jwt", "other": "x"})


async def test_a_certificate_and_its_chain_are_named_in_the_header() -> None:
    leaf, root = certificate("RSA", "other RSA"), certificate("other RSA")
    key = SigningKey(pem("RSA"), algorithm="PS256", certificate=leaf + root)
    header, _ = verified(await key.sign({}), "RSA")
    encoded = [ssl.PEM_cert_to_DER_cert(one) for one in (leaf, root)]

    def digest(name: str) -> str:
        value = hashlib.new(name, encoded[0]).digest()
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    assert header == {
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": digest("sha256"),
        "x5t": digest("sha1"),
        "x5c": [base64.b64encode(one).decode() for one in encoded],
    }


async def test_what_of_a_certificate_is_sent_can_be_chosen() -> None:
    key = SigningKey(
        pem("RSA"),
        algorithm="PS256",
        certificate=certificate("RSA"),
        certificate_headers=["x5t#S256"],
    )
    header, _ = verified(await key.sign({}), "RSA")
    assert sorted(header) == ["alg", "typ", "x5t#S256"]


# -- rotation ----------------------------------------------------------------------------------------------------


async def test_a_file_that_is_replaced_signs_with_the_new_key_and_certificate(
    tmp_path: Path,
) -> None:
    path, certificate_path = tmp_path / "key", tmp_path / "certificate"

    def rotate(kind: str) -> None:
        path.write_text(pem(kind))
        certificate_path.write_text(certificate(kind))

    rotate("RSA")
    key = SigningKey(path, algorithm="RS256", certificate=certificate_path)
    first, before = await key.sign({}), key.thumbprint
    rotate("other RSA")
    second = await key.sign({})
    assert key.thumbprint != before
    verified(first, "RSA")
    header, _ = verified(second, "other RSA")
    der = ssl.PEM_cert_to_DER_cert(certificate("other RSA"))
    assert header["x5c"] == [base64.b64encode(der).decode()]


async def test_a_callable_is_called_for_each_signature_in_a_thread_and_not_before() -> None:
    called: list[threading.Thread] = []

    def load() -> str:
        called.append(threading.current_thread())
        return pem("P-256")

    key = SigningKey(load, algorithm="ES256")
    assert (called, key.thumbprint) == ([], None)
    await key.sign({})
    await key.sign({})
    assert len(called) == 2
    assert threading.current_thread() not in called


async def test_a_call_that_hangs_does_not_hold_up_the_loop_or_another_key() -> None:
    release = threading.Event()

    def load() -> str:
        release.wait(60)
        return pem("P-256")

    hangs, other = (SigningKey(one, algorithm="ES256") for one in (load, pem("P-256")))
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(hangs.sign, {})
            verified(await other.sign({}), "P-256")
            tasks.cancel_scope.cancel()
    finally:
        release.set()


# -- refused keys ----------------------------------------------------------------------------------------------------

SECRET = "s3cr3t"  # the text that `check_frames` searches for


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BAD: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "text that is no key": ("no private key in PEM; a path", lambda _: {"key": SECRET}),
    "empty text": ("no private key in PEM", lambda _: {"key": ""}),
    "half a surrogate pair": ("no private key", lambda _: {"key": SECRET + "\ud800"}),
    "a PEM that is cut off": (
        "damaged",
        lambda _: {"key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}"},
    ),
    "a damaged PEM": (
        "damaged",
        lambda _: {"key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}AA\n-----END PRIVATE KEY-----\n"},
    ),
    "a public key": ("must be a private key", lambda _: {"key": public_pem("P-256")}),
    "a certificate as key": ("must be a private key", lambda _: {"key": certificate("RSA")}),
    "an RSA key for ES256": ("wrong kind: ES256 needs an EC", lambda _: {"key": pem("RSA")}),
    "another curve": ("needs an EC key on the curve P-256", lambda _: {"key": pem("P-384")}),
    "an EC key for RS256": (
        "wrong kind: RS256 needs an RSA key",
        lambda _: {"key": pem("P-256"), "algorithm": "RS256"},
    ),
    "an EC key for Ed25519": (
        "needs an Ed25519 key",
        lambda _: {"key": pem("P-256"), "algorithm": "Ed25519"},
    ),
    "an Ed448 key": (
        "needs an Ed25519 key",
        lambda _: {"key": pem("Ed448"), "algorithm": "Ed25519"},
    ),
    "a DSA key": ("wrong kind", lambda _: {"key": pem("DSA"), "algorithm": "RS256"}),
    "a short RSA key": (
        "1024 bits; it must have 2048",
        lambda _: {"key": pem("short RSA"), "algorithm": "PS256"},
    ),
    "a public JWK": (
        "this JWK is a public one",
        lambda _: {"key": joserfc_key("P-256").as_dict(private=False)},
    ),
    "a shared secret as JWK": (
        "kty RSA, EC or OKP",
        lambda _: {"key": {"kty": "oct", "k": SECRET}},
    ),
    "a JWK without a kind": ("kty RSA, EC or OKP", lambda _: {"key": {"d": SECRET}}),
    "a JWK whose numbers are none": (
        "no JWK of a private key",
        lambda _: {"key": {**jwk("P-256"), "d": SECRET}},
    ),
    "a JWK of wrong types": (
        "no JWK of a private key",
        lambda _: {"key": {**jwk("P-256"), "x": [SECRET]}},
    ),
    "JSON that is none": ("it is not JSON", lambda _: {"key": "{" + SECRET}),
    "deep JSON": ("it is not JSON|kty", lambda _: {"key": '{"a":' + "[" * 99_999}),
    "a JWK with a password": (
        "password is for an encrypted PEM",
        lambda _: {"key": jwk("P-256"), "password": SECRET},
    ),
    "a wrong password": (
        "the password is wrong",
        lambda _: {"key": pem("P-256", PASSWORD.encode()), "password": SECRET},
    ),
    "no password": (
        "encrypted, and no password",
        lambda _: {"key": pem("P-256", PASSWORD.encode())},
    ),
    "a password for nothing": (
        "not encrypted, and a password",
        lambda _: {"key": pem("P-256"), "password": SECRET},
    ),
    "an empty password": (
        "password must not be empty",
        lambda _: {"key": pem("P-256", PASSWORD.encode()), "password": ""},
    ),
    "a file that is gone": ("No such file", lambda home: {"key": home / "gone"}),
    "a folder": ("cannot be read: Is a directory", lambda home: {"key": home}),
    "a path with a zero byte": ("cannot be read: ValueError", lambda _: {"key": Path("a\0b")}),
    "a file of another kind": (
        "no private key",
        lambda home: {"key": write(home / "key", SECRET.encode() + b"\xff\x00")},
    ),
    "a file too large": (
        "more than 1 MiB",
        lambda home: {"key": write(home / "key", b" " * 1_048_577)},
    ),
    "a password's file that is gone": (
        "passed as password cannot be read: No such file",
        lambda home: {"key": pem("P-256", PASSWORD.encode()), "password": home / "gone"},
    ),
    "a certificate of another key": (
        "certificate does not match key",
        lambda _: {
            "key": pem("RSA"),
            "algorithm": "RS256",
            "certificate": certificate("other RSA"),
        },
    ),
    "a certificate that is none": (
        "certificate holds no certificate in PEM; a path",
        lambda _: {"key": pem("P-256"), "certificate": SECRET},
    ),
    "a certificate that is damaged": (
        "certificate holds no certificate in PEM(?!;)",
        lambda _: {
            "key": pem("P-256"),
            "certificate": f"-----BEGIN CERTIFICATE-----\n{SECRET}AA\n-----END CERTIFICATE-----\n",
        },
    ),
    "a certificate's file that is gone": (
        "passed as certificate cannot be read",
        lambda home: {"key": pem("P-256"), "certificate": home / "gone"},
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_key_is_refused_at_once_without_a_word_of_it(bad: str, tmp_path: Path) -> None:
    said, made = BAD[bad]
    options = made(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        SigningKey(options.pop("key"), **{"algorithm": "ES256", **options})
    check_frames(caught.value)
    no_secret_of(options, caught.value)


@pytest.mark.parametrize("bad", BAD)
async def test_what_a_callable_returns_is_refused_when_it_is_needed(
    bad: str, tmp_path: Path
) -> None:
    said, made = BAD[bad]
    options = made(tmp_path)
    material = options.pop("key")
    key = SigningKey(lambda: material, **{"algorithm": "ES256", **options})
    with pytest.raises(RefreshUnavailable, match=said) as caught:
        await key.sign({"jti": SECRET})
    assert caught.value.outcome == "not_sent"
    check_frames(caught.value)
    no_secret_of(options, caught.value)
    assert SECRET not in f"{key!r} {expanded(vars(type(key)))}"


def no_secret_of(options: dict[str, Any], error: BaseException) -> None:
    """Check that neither a PEM nor a JWK is in a text or a frame, as `check_frames` does."""
    frame = error.__traceback__
    shown = f"{error} {getattr(error, 'caused_by', '')} {getattr(error, '__notes__', '')}"
    while frame is not None:
        if "/tests/" not in frame.tb_frame.f_code.co_filename:
            shown += expanded(dict(frame.tb_frame.f_locals))
        frame = frame.tb_next
    assert "BEGIN" not in shown
    assert PASSWORD not in shown
    assert "'d'" not in shown.replace("no 'd'", "")


@pytest.mark.parametrize(
    "kind, said, argument",
    [
        (TypeError, "key must be a private key in PEM", {"key": 5}),
        (TypeError, "key must be", {"key": None}),
        (TypeError, "key must be", {"key": str}),
        (TypeError, "password must be text or bytes", {"password": 5}),
        (TypeError, "certificate must be text or bytes", {"certificate": 5}),
        (ValueError, "algorithm must be one of RS256", {"algorithm": "HS256"}),
        (ValueError, "algorithm must be one of", {"algorithm": "none"}),
        (ValueError, "key_id must be", {"key_id": ""}),
        (ValueError, "key_id must be", {"key_id": 5}),
        (ValueError, "certificate_headers must be some of", {"certificate_headers": ["x5u"]}),
        (ValueError, "certificate_headers must be some of", {"certificate_headers": "x5t"}),
    ],
)
def test_arguments_that_cannot_be_meant(
    kind: type[Exception], said: str, argument: dict[str, Any]
) -> None:
    options = {"key": pem("P-256"), "algorithm": "ES256", **argument}
    with pytest.raises(kind, match=said):
        SigningKey(options.pop("key"), **options)


async def test_an_async_callable_is_refused_for_a_thread_calls_it() -> None:
    async def load() -> str:
        raise AssertionError("it is not called")

    with pytest.raises(TypeError, match="must not be an async callable"):
        SigningKey(load, algorithm="ES256")  # type: ignore[arg-type]  # on purpose
    hidden: Any = lambda: load()  # noqa: E731 - an async callable that does not look like one
    with pytest.raises(RefreshUnavailable, match="passed as key is async"):
        await SigningKey(hidden, algorithm="ES256").sign({})


@pytest.mark.parametrize("returned", [5, None, "", b"", {}])
async def test_a_callable_that_returns_no_key(returned: Any) -> None:
    key = SigningKey(lambda: returned, algorithm="ES256")
    with pytest.raises(RefreshUnavailable, match="key") as caught:
        await key.sign({})
    assert caught.value.outcome == "not_sent"


async def test_a_callable_that_raises_is_named_by_its_argument_and_says_nothing_more() -> None:
    def load() -> str:
        raise LookupError(f"no {SECRET}")

    with pytest.raises(
        RefreshUnavailable, match="passed as assertion_key raised LookupE"
    ) as caught:
        await SigningKey(load, algorithm="ES256", argument="assertion_key").sign({"jti": SECRET})
    assert caught.value.caused_by is not None
    assert caught.value.caused_by.startswith("LookupError (")
    check_frames(caught.value)


async def test_a_file_that_goes_later_and_comes_back(tmp_path: Path) -> None:
    path = in_a_file(tmp_path, pem("P-256"))
    key = SigningKey(path, algorithm="ES256")
    path.unlink()
    with pytest.raises(RefreshUnavailable, match="passed as key cannot be read") as caught:
        await key.sign({})
    assert caught.value.transient
    in_a_file(tmp_path, pem("P-256"))
    verified(await key.sign({}), "P-256")


async def test_claims_that_are_no_json_are_an_error_before_anything_is_sent() -> None:
    with pytest.raises(RefreshUnavailable, match="signing with key failed with") as caught:
        await SigningKey(pem("P-256"), algorithm="ES256").sign({"a": float("nan"), "b": SECRET})
    assert caught.value.outcome == "not_sent"
    check_frames(caught.value)
