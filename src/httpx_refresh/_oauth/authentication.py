"""How a client proves to an authorization server who it is (RFC 6749 §2.3, RFC 7521, RFC 7523, RFC 8705).

Each way makes what one request carries. It makes no request, and knows neither grant nor server.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast, get_args
from urllib.parse import quote_plus

from .._errors import cause_of, frameless
from .._http.libraries import library_asking
from .._threads import run_blocking
from .keys import (
    Algorithm,
    CertificateHeader,
    KeySource,
    SigningKey,
    check_pair,
    private_key,
    read_certificates,
    read_password,
)
from .material import Secret, Text, Unusable, checked_source, is_called, read
from .settings import audience as checked_audience
from .settings import is_sendable, seconds
from .settings import scheme as checked_scheme

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""The `client_assertion_type` of a JSON Web Token (RFC 7523 §2.2)."""

Method = Literal[
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none",
]
"""A way to authenticate, as RFC 7591 §2 and OpenID Connect Core 1.0 §9 name it."""

SecretAlgorithm = Literal["HS256", "HS384", "HS512"]

_LEAST_SECRET = (
    14  # bytes of a secret that signs: 112 bits (NIST SP 800-131A); RFC 7518 §3.2 asks for more
)


class Asked(NamedTuple):
    """Whom a request is for.

    Attributes:
        client_id: who asks; None where the grant names the client.
        audience: what an assertion is for: the issuer where it is known, else the token endpoint (RFC 7523 §3).
        now: when it is made, by the server's clock as far as that is known; epoch seconds.
    """

    client_id: str | None
    audience: str
    now: float


@dataclass(slots=True, eq=False)
class Proof:
    """What one request carries.

    Attributes:
        headers: of the request.
        params: of its body.
        secrets: what of it must not be shown.
        ssl_context: what its connection is made with, if not with the usual.
        dated: whether it is good only around the moment that was asked for.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    ssl_context: ssl.SSLContext | None = None
    dated: bool = False


class ClientAuth(Protocol):
    """How a client authenticates: one of `httpx_refresh.client_auth`."""

    @property
    def method(self) -> str:
        """The name of the method (RFC 7591 §2, RFC 8705 §2)."""
        ...

    @property
    def identity(self) -> str:
        """What tells these credentials from others of the same client, as they were read last."""
        ...

    async def prove(self, asked: Asked) -> Proof:
        """Return what one request carries; raise `Unusable` if there are no credentials now."""
        ...


class Public:
    """A client without credentials says who it is (RFC 6749 §3.2.1)."""

    method = "none"
    identity = ""
    is_ready = True

    async def prove(self, asked: Asked) -> Proof:
        """Return the client's id, if it has one."""
        return Proof(params={} if asked.client_id is None else {"client_id": asked.client_id})


# -- with a secret -----------------------------------------------------------------------------------------------------


class _WithSecret:
    """What the three ways with a secret have in common. Nothing of them changes but `Secret.last`.

    Attributes:
        is_ready: whether `prove` waits for nothing.
    """

    def __init__(self, secret: Text | None) -> None:
        self._secret = None if secret is None else Secret(secret, "client_secret")
        self.is_ready: bool = self._secret is not None and self._secret.is_fixed

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def has_secret(self) -> bool:
        """Whether it has a secret of its own; else it takes the endpoint's."""
        return self._secret is not None

    @property
    def identity(self) -> str:
        """The secret as it was read last."""
        return (self._secret.last if self._secret else None) or ""

    def with_secret(self, secret: Text) -> Any:
        """Return a copy with this secret."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        _WithSecret.__init__(other, secret)
        return other

    async def _get(self) -> str:
        if self._secret is None:
            raise AssertionError("the endpoint's secret was not passed on")
        return await self._secret.get()


class ClientSecretBasic(_WithSecret):
    """Send id and secret in the `Authorization` header (RFC 6749 §2.3.1).

    Args:
        secret: the client's secret; a path, or a callable that returns it, is read before each token request. None:
            the endpoint's `client_secret`.
        form_encoded: whether id and secret are form-urlencoded first, as RFC 6749 §2.3.1 has it. False for servers
            that do not decode them, of which Authlib's is one: it matters for secrets with other characters than
            letters, digits, `-`, `.`, `_` and `~`.
        client_id_in_body: whether the id is in the body as well, as servers of the MCP SDK want it.
        secret_as_user: whether the secret is the user, with no password, and the id is not sent, as Stripe wants it.
        scheme: the word before them in the header, for servers that want another one, as Workday does (`ID`).

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    method = "client_secret_basic"

    @frameless
    def __init__(
        self,
        secret: Text | None = None,
        *,
        form_encoded: bool = True,
        client_id_in_body: bool = False,
        secret_as_user: bool = False,
        scheme: str = "Basic",
    ) -> None:
        super().__init__(secret)
        self.form_encoded = form_encoded
        self.client_id_in_body = client_id_in_body
        self.secret_as_user = secret_as_user
        self.scheme: str = checked_scheme(scheme, "scheme")

    async def prove(self, asked: Asked) -> Proof:
        """Return the header."""
        client_id, secret = asked.client_id or "", await self._get()
        pair = [secret, ""] if self.secret_as_user else [client_id, secret]
        if self.form_encoded:
            pair = [quote_plus(one) for one in pair]
        header = f"{self.scheme} " + base64.b64encode(":".join(pair).encode()).decode()
        return Proof(
            {"Authorization": header},
            {"client_id": client_id} if self.client_id_in_body else {},
            secrets=(secret,),
        )


class ClientSecretPost(_WithSecret):
    """Send id and secret in the body (RFC 6749 §2.3.1).

    Args:
        secret: the client's secret; a path, or a callable that returns it, is read before each token request. None:
            the endpoint's `client_secret`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    method = "client_secret_post"

    @frameless
    def __init__(self, secret: Text | None = None) -> None:
        super().__init__(secret)

    async def prove(self, asked: Asked) -> Proof:
        """Return the parameters."""
        secret = await self._get()
        return Proof(
            params={"client_id": asked.client_id or "", "client_secret": secret}, secrets=(secret,)
        )


class ClientSecretJWT(_WithSecret):
    """Sign an assertion with the client's secret (RFC 7523, OpenID Connect Core 1.0 §9), which is not sent.

    Args:
        secret: the client's secret; a path, or a callable that returns it, is read before each token request. None:
            the endpoint's `client_secret`.
        algorithm: how it signs (RFC 7518 §3.2).
        audience: what the assertion is for. None: the server's issuer where it is known, else its token endpoint.
        lifetime: seconds that an assertion is good for.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    method = "client_secret_jwt"

    @frameless
    def __init__(
        self,
        secret: Text | None = None,
        *,
        algorithm: SecretAlgorithm = "HS256",
        audience: str | None = None,
        lifetime: float = 60,
    ) -> None:
        super().__init__(secret)
        if algorithm not in get_args(SecretAlgorithm):
            raise ValueError(f"algorithm must be one of {', '.join(get_args(SecretAlgorithm))}")
        self.algorithm = algorithm
        self.audience: str | None = checked_audience(audience, "audience")
        self.lifetime: float = _checked_lifetime(lifetime)
        if self._secret is not None and self._secret.last is not None:
            _check_length(self._secret.last)

    def with_secret(self, secret: Text) -> Any:
        """Return a copy with this secret."""
        other = super().with_secret(secret)
        if other.identity:
            _check_length(other.identity)
        return other

    async def prove(self, asked: Asked) -> Proof:
        """Return a new assertion."""
        secret = await self._get()
        claims = _claims(asked, self.audience, self.lifetime)
        assertion = await run_blocking(
            _signed_with_secret, secret, self.algorithm, claims, group=self
        )
        return _asserted(assertion, JWT_BEARER, asked, secret, dated=True)


def _check_length(secret: str) -> None:
    if len(secret.encode()) < _LEAST_SECRET:
        raise Unusable(
            f"client_secret is too short to sign with: it has fewer than {_LEAST_SECRET} bytes"
        )


def _signed_with_secret(secret: str, algorithm: str, claims: dict[str, Any]) -> str:
    from joserfc import jwt
    from joserfc.jwk import OctKey

    _check_length(secret)
    key = OctKey.import_key({"kty": "oct", "k": _base64url(secret.encode())})
    return jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


# -- with an assertion -------------------------------------------------------------------------------------------------


class PrivateKeyJWT:
    """Sign an assertion with a private key, whose public key the server knows (RFC 7523, OpenID Connect Core 1.0 §9).

    For Microsoft Entra ID: `PrivateKeyJWT(Path("key.pem"), algorithm="PS256", certificate=Path("cert.pem"))`.

    Args:
        key: PEM text or bytes; a JWK as a mapping or in JSON; a path (`pathlib.Path`) of a file with one of these; or
            a callable that returns one of all these. Files and callables are read before each token request, in a
            thread of the library.
        algorithm: how it signs (RFC 7518 §3.1, RFC 9864).
        key_id: the `kid` that the server knows the key by; None: the JWK's own, if it has one.
        certificate: the key's certificate, and the chain above it, in PEM: text, bytes, a path or a callable.
        certificate_headers: what of it stands in the assertion's header (RFC 7515 §4.1.6-8). A server that bounds
            headers, as Authlib's does at 512 bytes, needs `["x5t#S256"]`.
        password: of an encrypted PEM: text, bytes, a path or a callable.
        audience: what the assertion is for. None: what the provider is known to want, else the server's issuer where
            it is known, else its token endpoint.
        lifetime: seconds that an assertion is good for.

    Raises:
        TypeError, ValueError: an argument is invalid: no key, one of another kind than the algorithm's, a wrong
            password, a missing file, a certificate of another key.

    Sources: learn.microsoft.com/entra/identity-platform/certificate-credentials (PS256, `x5t#S256`).
    """

    method = "private_key_jwt"

    @frameless
    def __init__(
        self,
        key: KeySource,
        *,
        algorithm: Algorithm,
        key_id: str | None = None,
        certificate: Text | None = None,
        certificate_headers: Collection[CertificateHeader] = get_args(CertificateHeader),
        password: Text | None = None,
        audience: str | None = None,
        lifetime: float = 60,
    ) -> None:
        self._key = SigningKey(
            key,
            algorithm=algorithm,
            password=password,
            key_id=key_id,
            certificate=certificate,
            certificate_headers=certificate_headers,
        )
        self.audience: str | None = checked_audience(audience, "audience")
        self.lifetime: float = _checked_lifetime(lifetime)

    @classmethod
    def of_secret(cls, client_secret: Any) -> PrivateKeyJWT:
        """Return what signs with a key that was passed as the client's secret: RS256, since nothing else was said."""
        made = cls.__new__(cls)
        made._key = SigningKey(client_secret, algorithm="RS256", argument="client_secret")
        made.audience, made.lifetime = None, 60
        return made

    def __repr__(self) -> str:
        return f"PrivateKeyJWT(algorithm={self._key.algorithm!r}, key_id={self._key.key_id!r})"

    @property
    def identity(self) -> str:
        """The thumbprint of the public key (RFC 7638) as it was read last."""
        return self._key.thumbprint or ""

    async def prove(self, asked: Asked) -> Proof:
        """Return a new assertion."""
        claims = _claims(asked, self.audience, self.lifetime)
        assertion = await run_blocking(self._key.sign_here, claims, {}, group=self._key)
        return _asserted(assertion, JWT_BEARER, asked, dated=True)


AssertionSource: TypeAlias = "os.PathLike[str] | Callable[[], str] | Callable[[], Awaitable[str]]"


class ClientAssertion:
    """Send an assertion that somebody else made (RFC 7521 §4.2): a workload identity, a KMS, an HSM.

    Args:
        source: a callable that returns an assertion, or an async one; it is called before each token request, the
            former in a thread of the library. Or a path of a file that holds one, such as the projected token of a
            Kubernetes service account, which is read as often.
        assertion_type: the `client_assertion_type`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    method = "private_key_jwt"
    identity = ""

    @frameless
    def __init__(self, source: AssertionSource, *, assertion_type: str = JWT_BEARER) -> None:
        is_plain = isinstance(source, (str, bytes, type))
        if is_plain or not (callable(source) or isinstance(source, os.PathLike)):
            raise TypeError(
                "an assertion is good once: pass a callable that returns a new one, sync or async, or a path "
                "(pathlib.Path) of a file that is kept new"
            )
        if not (isinstance(assertion_type, str) and assertion_type):
            raise ValueError("assertion_type must be a str that is not empty")
        self._source = source
        self._file = Secret(source, "assertion") if isinstance(source, os.PathLike) else None
        self.assertion_type = assertion_type

    def __repr__(self) -> str:
        return "ClientAssertion()"

    async def prove(self, asked: Asked) -> Proof:
        """Return the assertion as it is now."""
        if self._file is not None:
            value: Any = await self._file.get()
        else:
            value = await self._called(cast("Callable[[], Any]", self._source))
        if not (isinstance(value, str) and value and is_sendable(value)):
            raise Unusable(
                "the callable passed to ClientAssertion must return a text that is not empty, not "
                f"{type(value).__name__}"
            )
        return _asserted(value, self.assertion_type, asked, value)

    async def _called(self, source: Callable[[], Any]) -> Any:
        try:
            if _is_async(source):
                return await source()
            return await run_blocking(source, group=self)
        except Exception as error:
            raise Unusable(
                f"the callable passed to ClientAssertion raised {type(error).__name__}",
                caused_by=cause_of(error),
            ) from None


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose calls are async
    )


def _checked_lifetime(lifetime: float) -> float:
    if not seconds("lifetime", lifetime) >= 1:
        raise ValueError("lifetime must be a second or more")
    return lifetime


def _claims(asked: Asked, audience: str | None, lifetime: float) -> dict[str, Any]:
    """Return the claims of a new assertion (RFC 7523 §3): each has an id of its own, and is good once."""
    now = int(asked.now)
    return {
        "iss": asked.client_id,
        "sub": asked.client_id,
        "aud": audience or asked.audience,
        "jti": secrets.token_urlsafe(24),
        "iat": now,
        "exp": now + int(lifetime),
    }


def _asserted(assertion: str, kind: str, asked: Asked, *hidden: str, dated: bool = False) -> Proof:
    params = {"client_assertion_type": kind, "client_assertion": assertion}
    if asked.client_id is not None:
        # RFC 7521 §4.2: it may be left out, and Microsoft wants it.
        params["client_id"] = asked.client_id
    return Proof(params=params, secrets=(assertion, *hidden), dated=dated)


# -- with a certificate ------------------------------------------------------------------------------------------------


class MutualTLS:
    """Authenticate the connection with a certificate (RFC 8705): one of an authority, or a self-signed one.

    Not together with `client=`: the library makes the connections. `discover` takes the server's
    `mtls_endpoint_aliases`.

    Args:
        certificate: the certificate, and the chain above it, in PEM: text, bytes, a path or a callable.
        key: its private key in PEM: text, bytes, a path or a callable. All of these are read before each token
            request.
        password: of an encrypted key: text, bytes, a path or a callable.
        ca_certificates: what the server's certificate is checked against instead of the usual authorities, in PEM:
            text, bytes, a path or a callable.

    Raises:
        TypeError, ValueError: an argument is invalid: no certificate, one of another key, a wrong password, a
            missing file.
    """

    method = "tls_client_auth"

    @frameless
    def __init__(
        self,
        certificate: Text,
        key: Text,
        password: Text | None = None,
        *,
        ca_certificates: Text | None = None,
    ) -> None:
        parts = {"certificate": certificate, "key": key}
        parts.update(
            {
                name: one
                for name, one in (("password", password), ("ca_certificates", ca_certificates))
                if one is not None
            }
        )
        for name, one in parts.items():
            words = "text or bytes" if name == "password" else "PEM text or bytes"
            checked_source(one, name, (str, bytes), words)
        self._certificate = certificate
        self._key = key
        self._password = password
        self._ca_certificates = ca_certificates
        self._last: str | None = None
        if not any(map(is_called, parts.values())):
            try:
                self._read()
            except Unusable as error:
                raise ValueError(str(error)) from None

    def __repr__(self) -> str:
        return "MutualTLS()"

    @property
    def identity(self) -> str:
        """The SHA-256 thumbprint of the certificate (RFC 8705 §3.1) as it was read last."""
        return self._last or ""

    async def prove(self, asked: Asked) -> Proof:
        """Return the client's id, and what the connection is made with."""
        context = await run_blocking(self._context, group=self)
        params = {} if asked.client_id is None else {"client_id": asked.client_id}
        return Proof(params=params, ssl_context=context)

    def _read(self) -> tuple[list[Any], Any]:
        """Return certificates and private key as they are now, if they belong together."""
        from cryptography.hazmat.primitives.serialization import Encoding

        chain = read_certificates(self._certificate, "certificate")
        pem = read(self._key, "key")
        if isinstance(pem, str):
            pem = pem.encode("utf-8", "replace")
        if not isinstance(pem, bytes):
            raise Unusable(f"key must be a private key in PEM, not {type(pem).__name__}")
        private = private_key(pem, read_password(self._password), "key")
        check_pair(chain, private.public_key(), "certificate", "key")
        if self._ca_certificates is not None:
            read_certificates(self._ca_certificates, "ca_certificates")
        self._last = _base64url(hashlib.sha256(chain[0].public_bytes(Encoding.DER)).digest())
        return chain, private

    def _context(self) -> ssl.SSLContext:
        """Return what the connection is made with.

        The standard library reads keys from files only: the file is this process's own, encrypted with a password
        that nobody learns, and gone at once.
        """
        import tempfile  # Not at the top: importing the library stays fast.

        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            PrivateFormat,
        )

        chain, private = self._read()
        if self._ca_certificates is None:
            context: ssl.SSLContext = library_asking().create_ssl_context()
        else:
            known = read_certificates(self._ca_certificates, "ca_certificates")
            context = ssl.create_default_context(cadata=_pem(known).decode())
        password = secrets.token_urlsafe(32)
        encryption = BestAvailableEncryption(password.encode())
        with tempfile.TemporaryDirectory(prefix="httpx-refresh-") as home:
            file = Path(home, "key.pem")
            encrypted = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
            file.write_bytes(encrypted + _pem(chain))
            try:
                context.load_cert_chain(file, password=password)
            except ssl.SSLError as error:
                raise Unusable(
                    f"certificate and key cannot be used for TLS: {error.reason or type(error).__name__}",
                    caused_by=cause_of(error),
                ) from None
        return context


def _pem(certificates: list[Any]) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


# -- which one ---------------------------------------------------------------------------------------------------------


def authentication(
    client_auth: Method | ClientAuth | None, client_id: str | None, client_secret: Text | None
) -> ClientAuth:
    """Return how a client authenticates.

    Args:
        client_auth: a name, an object, or None: `client_secret_basic` with a secret, `none` without.
        client_id: the client's identifier.
        client_secret: its secret, if it has one.

    Raises:
        TypeError, ValueError: these do not go together.
    """
    _check_id(client_id, client_secret)
    if client_auth is None:
        client_auth = "none" if client_secret is None else "client_secret_basic"
    find = _named if isinstance(client_auth, str) else _bound
    made = find(client_auth, client_secret)
    if client_id is None and not isinstance(made, (Public, ClientAssertion)):
        raise ValueError(f"client_id must be given: {made.method} says who the client is")
    if isinstance(made, ClientSecretBasic) and not made.form_encoded and ":" in (client_id or ""):
        raise ValueError("client_id must have no colon where it is not form_encoded (RFC 7617 §2)")
    return made


def _check_id(client_id: str | None, client_secret: object) -> None:
    if not (client_id is None or isinstance(client_id, str)):
        raise TypeError("client_id must be a str or None")
    if client_id == "" or client_secret == "":
        raise ValueError(
            "client_id and client_secret must not be empty; leave client_secret out (None) for a public client"
        )
    if not (is_sendable(client_id or "")):
        raise ValueError("client_id and client_secret must be text that UTF-8 can carry")


def _named(name: Any, client_secret: Text | None) -> ClientAuth:
    if name not in get_args(Method):
        raise ValueError(
            # What was given is not repeated: it may be the secret, in the wrong place.
            f"client_auth must be one of {', '.join(get_args(Method))}, or an object of httpx_refresh.client_auth"
        )
    if (name == "none") != (client_secret is None):
        raise ValueError(
            f"client_auth {name!r} and client_secret do not go together: every method but 'none' needs one, and 'none' "
            "has none"
        )
    if client_secret is None:
        return Public()
    if name == "private_key_jwt":
        checked_source(client_secret, "client_secret", (str,), "a str")
        return PrivateKeyJWT.of_secret(client_secret)
    kinds = {
        "client_secret_basic": ClientSecretBasic,
        "client_secret_post": ClientSecretPost,
        "client_secret_jwt": ClientSecretJWT,
    }
    made: ClientAuth = kinds[name](client_secret)
    return made


def _bound(auth: Any, client_secret: Text | None) -> ClientAuth:
    if isinstance(auth, type) or not callable(getattr(auth, "prove", None)):
        raise TypeError(
            "client_auth must be a name of RFC 7591 or an object of httpx_refresh.client_auth"
        )
    if isinstance(auth, _WithSecret) and not auth.has_secret:
        if client_secret is None:
            raise ValueError(f"{type(auth).__name__} needs a secret: its own, or a client_secret")
        return cast("ClientAuth", auth.with_secret(client_secret))
    if client_secret is not None:
        raise ValueError(
            f"client_auth {type(auth).__name__} and client_secret do not go together: it has credentials of its own"
        )
    return cast("ClientAuth", auth)
