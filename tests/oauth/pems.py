"""Keys and certificates for the tests, made once."""

from __future__ import annotations

import datetime
import ipaddress
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

_MAKERS: dict[str, Any] = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "other RSA": lambda: rsa.generate_private_key(65537, 2048),
    "short RSA": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - on purpose
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "DSA": lambda: dsa.generate_private_key(2048),
}

KIND_OF = {
    **{f"{family}{size}": "RSA" for family in ("RS", "PS") for size in (256, 384, 512)},
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "Ed25519": "Ed25519",
    "EdDSA": "Ed25519",
}
"""The kind of key that each algorithm takes."""

_LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@cache
def key_of(kind: str) -> Any:
    """Return the private key of a kind."""
    return _MAKERS[kind]()


def pem(kind: str, password: bytes | None = None) -> str:
    """Return a private key in PEM."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return str(
        key_of(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), encoding="ascii"
    )


def public_pem(kind: str) -> str:
    """Return its public key in PEM."""
    encoded = (
        key_of(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return str(encoded, encoding="ascii")


@cache
def certificate(kind: str, issuer: str | None = None) -> str:
    """Return a certificate of a key in PEM, signed by itself or by another kind's key."""
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (kind, issuer or kind)
    ]
    now = datetime.datetime.now(datetime.timezone.utc)
    signer, public = key_of(issuer or kind), key_of(kind).public_key()
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_LOOPBACK]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, digest)
    )
    return str(made.public_bytes(Encoding.PEM), encoding="ascii")
