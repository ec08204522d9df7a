"""Private keys that sign JSON Web Tokens (RFC 7515, RFC 7518): read before each use, so that they can be rotated.

cryptography reads keys and certificates, and joserfc signs. This module knows neither requests nor claims.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from .._errors import frameless
from .._threads import run_blocking
from .material import Text, Unusable, checked_source, is_called, is_fixed, not_sent, read

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
]
"""The signature algorithm (RFC 7518 §3.1, RFC 9864). `EdDSA` is the older name of `Ed25519` (RFC 8037 §3.1)."""

CertificateHeader = Literal["x5t#S256", "x5t", "x5c"]
"""What the header holds of a certificate: its SHA-256 or SHA-1 digest, or it and its chain (RFC 7515 §4.1.6-8)."""

KeyMaterial: TypeAlias = "str | bytes | Mapping[str, Any] | os.PathLike[str]"
"""A private key: PEM, a JWK (RFC 7517), the JSON key of a Google service account, or the path of a file with one."""

KeySource: TypeAlias = "KeyMaterial | Callable[[], KeyMaterial]"
"""A private key, or a callable that returns one. A path and a callable are read before each use."""

_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(slots=True, eq=False)
class _Key:
    """A key that was read: joserfc's key, its thumbprint (RFC 7638), its `kid`, and its certificate's header fields."""

    signer: Any = field(repr=False)
    thumbprint: str
    kid: str | None
    certificate: Mapping[str, Any] = field(repr=False)


class SigningKey:
    """Signs JSON Web Tokens with a private key.

    Mutable: `_last`, the key that was read last; None before the first call of a callable. Threads that sign replace
    it as a whole; it does not matter whose key is kept.

    Args:
        key: PEM text or bytes; a JWK (RFC 7517) as a mapping or in JSON; the JSON key of a Google service account,
            which holds a PEM and the key's name; the path (`os.PathLike`) of a file with one of these; or a callable
            that returns any of these. Files and callables are read before each use, in a thread of the library.
        algorithm: see `Algorithm`.
        password: the password of an encrypted PEM: text, bytes, a path or a callable.
        key_id: the `kid` of the header; None: the JWK's own, if it has one.
        certificate: the certificate of this key, followed by its chain if there is one, in PEM: text, bytes, a path
            or a callable.
        certificate_headers: what the header of each token holds of the certificate.
        argument: the name of `key` in messages.

    Raises:
        TypeError, ValueError: an argument is invalid: no key, a key of another kind than the algorithm's, a wrong
            password, a missing file, a certificate of another key. The result of a callable is checked when it is
            needed.
    """

    __slots__ = (
        "_argument",
        "_certificate",
        "_certificate_headers",
        "_last",
        "_password",
        "_source",
        "algorithm",
        "key_id",
    )

    @frameless
    def __init__(
        self,
        key: KeySource,
        *,
        algorithm: Algorithm = "RS256",
        password: Text | None = None,
        key_id: str | None = None,
        certificate: Text | None = None,
        certificate_headers: Collection[CertificateHeader] = get_args(CertificateHeader),
        argument: str = "key",
    ) -> None:
        if algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm must be one of {', '.join(get_args(Algorithm))}")
        if not (key_id is None or (isinstance(key_id, str) and key_id)):
            raise ValueError("key_id must be a str that is not empty, or None")
        unknown = [one for one in certificate_headers if one not in get_args(CertificateHeader)]
        if unknown or isinstance(certificate_headers, str):
            raise ValueError(
                f"certificate_headers must be some of {', '.join(get_args(CertificateHeader))}"
            )
        self._argument = argument
        self._source = checked_source(
            key, argument, (str, bytes, Mapping), "a private key in PEM, a JWK"
        )
        self._password = _checked_text(password, "password")
        self._certificate = _checked_text(certificate, "certificate")
        self._certificate_headers = tuple(certificate_headers)
        self.algorithm: Algorithm = algorithm
        self.key_id = key_id
        self._last: _Key | None = None
        if not any(map(is_called, (key, password, certificate))):
            try:
                self._read()
            except Unusable as error:
                raise ValueError(str(error)) from None

    def __repr__(self) -> str:
        return f"SigningKey(algorithm={self.algorithm!r}, key_id={self.key_id!r})"

    @property
    def thumbprint(self) -> str | None:
        """The thumbprint of the public key (RFC 7638) that was read last; None if a callable was not called yet."""
        return None if self._last is None else self._last.thumbprint

    @frameless
    async def sign(self, claims: Mapping[str, Any], *, headers: Mapping[str, Any] = {}) -> str:
        """Return a signed token (RFC 7515 §3.1). The key is read and used in a thread of the library.

        Args:
            claims: all claims of the token; nothing is added.
            headers: further header parameters besides `alg`, `typ`, `kid` and the certificate's.

        Raises:
            RefreshUnavailable: the key cannot be read or used now; its outcome is `not_sent`.
        """
        try:
            return await run_blocking(self.sign_here, dict(claims), dict(headers), group=self)
        except Exception as error:
            raise not_sent(error, f"signing with {self._argument}") from None

    def sign_here(self, claims: Mapping[str, Any], headers: Mapping[str, Any]) -> str:
        """Return a signed token, as `sign` does, in this thread; the call may block.

        Raises:
            Unusable: the key cannot be read or used now.
        """
        from joserfc import jws

        key = self._read()
        kid = self.key_id or key.kid
        header = {"typ": "JWT", "alg": self.algorithm, **key.certificate, **headers}
        if kid is not None:
            header.setdefault("kid", kid)
        text = json.dumps(claims, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return jws.serialize_compact(header, text, key.signer, registry=_registry())

    def _read(self) -> _Key:
        """Read the key, and check that it can sign. A fixed key is read once."""
        last = self._last
        parts = (self._source, self._password, self._certificate)
        if last is not None and all(map(is_fixed, parts)):
            return last
        private, kid = self._private()
        signer = _signer(private, self.algorithm, self._argument)
        self._last = key = _Key(
            signer, signer.thumbprint(), kid, self._read_certificate(private.public_key())
        )
        return key

    def _private(self) -> tuple[Any, str | None]:
        """Return cryptography's private key, and the `kid` of a JWK that has one."""
        value = read(self._source, self._argument)
        if isinstance(value, str):
            value = value.encode("utf-8", "replace")
        if isinstance(value, bytes) and value.lstrip()[:1] == b"{":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise Unusable(f"{self._argument} is not a JWK: it is not JSON") from None
        kid: str | None = None
        if isinstance(value, Mapping):
            if "kty" in value or not isinstance(value.get("private_key"), str):
                if self._password is not None:
                    raise Unusable(
                        f"password is for an encrypted PEM, and {self._argument} is a JWK"
                    )
                return _from_jwk(dict(value), self._argument)
            kid = _name(value.get("private_key_id"))
            value = value["private_key"].encode("utf-8", "replace")
        if not isinstance(value, bytes):
            raise Unusable(
                f"{self._argument} must be a private key in PEM or a JWK, not {type(value).__name__}"
            )
        return private_key(value, read_password(self._password), self._argument), kid

    def _read_certificate(self, public: Any) -> dict[str, Any]:
        if self._certificate is None:
            return {}
        chain = read_certificates(self._certificate, "certificate")
        check_pair(chain, public, "certificate", self._argument)
        from cryptography.hazmat.primitives.serialization import Encoding

        encoded = [one.public_bytes(Encoding.DER) for one in chain]
        values = {
            "x5t#S256": _base64url(hashlib.sha256(encoded[0]).digest()),
            "x5t": _base64url(hashlib.sha1(encoded[0], usedforsecurity=False).digest()),
            "x5c": [base64.b64encode(one).decode() for one in encoded],
        }
        return {name: values[name] for name in self._certificate_headers}


def _checked_text(source: Any, argument: str) -> Any:
    if source is None:
        return None
    return checked_source(source, argument, (str, bytes), "text or bytes")


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _registry() -> Any:
    """Return joserfc's registry, with all algorithms of this module and any header parameter allowed.

    Its own `get_alg` warns about `EdDSA`, but most servers know that name and not yet `Ed25519`.
    """
    from joserfc.jws import JWSRegistry

    class Registry(JWSRegistry):
        def get_alg(self, name: str) -> Any:
            return self.algorithms[name]

    return Registry(strict_check_header=False)


# -- reading -----------------------------------------------------------------------------------------------------------


def read_password(source: Any) -> bytes | None:
    """Return the current password, without the line end of a file.

    Raises:
        Unusable: it cannot be read, or is empty.
    """
    if source is None:
        return None
    value = read(source, "password")
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    if not isinstance(value, bytes):
        raise Unusable(f"password must be text or bytes, not {type(value).__name__}")
    if not is_fixed(source):
        value = value.rstrip(b"\r\n")
    if not value:
        raise Unusable("password must not be empty")
    return value


def private_key(pem: bytes, password: bytes | None, argument: str) -> Any:
    """Return cryptography's private key from a PEM.

    Raises:
        Unusable: the PEM holds no private key, or the password is wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_ssh_private_key,
    )

    if b"-----BEGIN" not in pem:
        raise Unusable(
            f"{argument} is no private key in PEM; a path is given as pathlib.Path, not as text"
        )
    if b"PRIVATE KEY-----" not in pem:
        raise Unusable(
            f"{argument} must be a private key, and this PEM holds none (a public key, or a certificate?)"
        )
    load = load_ssh_private_key if b"-----BEGIN OPENSSH" in pem else load_pem_private_key
    try:
        return load(pem, password)
    except (
        TypeError
    ):  # cryptography raises it if a password is missing, or was given for an unencrypted key.
        raise Unusable(
            f"{argument} is not encrypted, and a password was given"
            if password is not None
            else f"{argument} is encrypted, and no password was given"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable(
            f"{argument} cannot be decrypted: the password is wrong, or the PEM is damaged"
            if password is not None
            else f"{argument} is no private key in PEM: it is damaged, or of an unknown kind"
        ) from None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _from_jwk(jwk: dict[str, Any], argument: str) -> tuple[Any, str | None]:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(str(jwk.get("kty")))
    if kind is None:
        raise Unusable(f"{argument} must be a JWK of kty RSA, EC or OKP")
    if "d" not in jwk:
        raise Unusable(f"{argument} must be a private key, and this JWK is a public one: no 'd'")
    try:
        # Without the fields that restrict its use: those are for choosing among several keys.
        bare = {name: value for name, value in jwk.items() if name in kind.value_registry}
        private = kind.import_key({"kty": jwk["kty"], **bare}).private_key
    except (
        Exception
    ) as error:  # joserfc and cryptography raise various errors for numbers that are no key.
        raise Unusable(f"{argument} is no JWK of a private key: {type(error).__name__}") from None
    return private, _name(jwk.get("kid"))


def _signer(private: Any, algorithm: Algorithm, argument: str) -> Any:
    """Return joserfc's key if its kind is the algorithm's."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kind: Any
    if algorithm in _CURVES:
        curve = _CURVES[algorithm]
        fits = isinstance(private, EllipticCurvePrivateKey) and private.curve.name == curve
        kind, needed = ECKey, f"an EC key on the curve {_NAMES[curve]}"
    elif algorithm in ("Ed25519", "EdDSA"):
        fits = isinstance(private, Ed25519PrivateKey)
        kind, needed = OKPKey, "an Ed25519 key"
    else:
        fits = isinstance(private, RSAPrivateKey)
        kind, needed = RSAKey, "an RSA key"
    if not fits:
        raise Unusable(f"{argument} is of the wrong kind: {algorithm} needs {needed}")
    if isinstance(private, RSAPrivateKey) and private.key_size < 2048:
        raise Unusable(
            f"{argument} is an RSA key of {private.key_size} bits; it must have 2048 or more (RFC 7518 §3.3)"
        )
    # Not from PEM again: an RSA key is checked when it is loaded, which takes ten milliseconds and more.
    return kind.import_key(private)


def read_certificates(source: Any, argument: str) -> list[Any]:
    """Return the certificates of the current PEM; the key's own comes first.

    Raises:
        Unusable: the PEM holds no certificate, or cannot be read.
    """
    from cryptography.x509 import load_pem_x509_certificates

    value = read(source, argument)
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    if not isinstance(value, bytes):
        raise Unusable(f"{argument} must be in PEM, not {type(value).__name__}")
    try:
        return load_pem_x509_certificates(value)
    except ValueError:
        hint = "" if b"-----BEGIN" in value else "; a path is given as pathlib.Path, not as text"
        raise Unusable(f"{argument} holds no certificate in PEM{hint}") from None


def check_pair(chain: list[Any], public: Any, certificate: str, key: str) -> None:
    """Raise Unusable if the first certificate is not for this public key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def encoded(one: Any) -> Any:
        return one.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    if encoded(chain[0].public_key()) != encoded(public):
        raise Unusable(
            f"{certificate} does not match {key}: its first certificate is of another key"
        )
