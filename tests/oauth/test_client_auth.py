"""Client authentication: what each method sends, what is read again, and which arguments are refused."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus

import anyio
import httpx
import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from httpx_refresh import RefreshUnavailable, Token, TokenEndpoint, discover
from httpx_refresh._http.libraries import asking
from httpx_refresh.client_auth import (
    ClientAssertion,
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    MutualTLS,
    PrivateKeyJWT,
)
from tests.oauth.pems import certificate, key_of, pem
from tests.oauth.test_frames import MARK, check_frames
from tests.oauth.test_keys import joserfc_key, verified

pytestmark = pytest.mark.anyio

URL = "https://as.test/token"
HELD = Token("old-access", "old-refresh")
LONG = "a shared secret of more than 32 bytes"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Server:
    """Keeps requests, and answers each with a token, or with the answer that a test set."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self.answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer or httpx.Response(200, json={"access_token": "new"})

    @property
    def form(self) -> dict[str, str]:
        """Return the body of the last request without the grant."""
        fields = dict(parse_qsl(self.requests[-1].content.decode(), strict_parsing=True))
        assert fields.pop("grant_type") == "refresh_token"
        assert fields.pop("refresh_token") == "old-refresh"
        return fields

    @property
    def basic(self) -> str:
        """Return the Basic credentials of the last request."""
        header = self.requests[-1].headers["authorization"]
        return base64.b64decode(header.removeprefix("Basic ")).decode()


async def sent(auth: Any, secret: Any = None, server: Server | None = None, **more: Any) -> Server:
    """Refresh once, authenticated like this."""
    server = server or Server()
    options = {"client_id": "the id", **more}
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as client:
        endpoint = TokenEndpoint(
            URL,
            options.pop("client_id"),
            secret,
            client_auth=auth,
            client=client,
            **options,
        )
        await endpoint.refresh(HELD)
    return server


async def unsent(auth: Any, secret: Any = None, **more: Any) -> RefreshUnavailable:
    """Return the reason why nothing is sent."""
    server = Server()
    with pytest.raises(RefreshUnavailable) as caught:
        await sent(auth, secret, server, **more)
    assert server.requests == []
    assert caught.value.outcome == "not_sent"
    assert "the refresh token was not sent" in str(caught.value)
    check_frames(caught.value)
    return caught.value


def es256(**options: Any) -> PrivateKeyJWT:
    return PrivateKeyJWT(pem("P-256"), algorithm="ES256", **options)


# -- what is sent --------------------------------------------------------------------------------------------------


async def test_a_private_key_signs_an_assertion() -> None:
    server = await sent(es256(key_id="k1"))
    form = server.form
    header, claims = verified(form.pop("client_assertion"), "P-256")
    assert header == {"alg": "ES256", "typ": "JWT", "kid": "k1"}
    assert form == {"client_assertion_type": JWT_BEARER, "client_id": "the id"}
    assert claims["iss"] == claims["sub"] == "the id"
    assert claims["aud"] == URL
    assert claims["exp"] - claims["iat"] == 60
    assert len(claims["jti"]) > 20
    assert set(claims) == {"iss", "sub", "aud", "exp", "iat", "jti"}
    assert "authorization" not in server.requests[0].headers


async def test_each_request_has_an_assertion_of_its_own() -> None:
    auth, ids = es256(), set()
    for _ in range(3):
        _, claims = verified((await sent(auth)).form["client_assertion"], "P-256")
        ids.add(claims["jti"])
    assert len(ids) == 3


@pytest.mark.parametrize("make", [es256, lambda **options: ClientSecretJWT(LONG, **options)])
async def test_an_assertion_is_for_the_issuer_unless_somebody_knows_better(
    make: Callable[..., Any],
) -> None:
    async def audience(auth: Any, **options: Any) -> Any:
        assertion = (await sent(auth, **options)).form["client_assertion"]
        claims = assertion.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"]

    known = {"issuer": "https://as.test"}
    assert await audience(make()) == URL
    assert await audience(make(), **known) == "https://as.test"
    assert await audience(make(), **known, client_assertion_audience="https://x") == "https://x"
    told = make(audience="https://told")
    assert await audience(told, **known, client_assertion_audience="https://x") == "https://told"


async def test_an_assertion_lives_as_long_as_is_said() -> None:
    _, claims = verified((await sent(es256(lifetime=300))).form["client_assertion"], "P-256")
    assert claims["exp"] - claims["iat"] == 300


async def test_entra_is_shown_a_certificate_s_thumbprint_and_ps256() -> None:
    auth = PrivateKeyJWT(pem("RSA"), algorithm="PS256", certificate=certificate("RSA"))
    header, _ = verified((await sent(auth)).form["client_assertion"], "RSA")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate("RSA"))).digest()
    assert header["alg"] == "PS256"
    assert header["x5t#S256"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_secret_signs_and_is_not_sent(algorithm: Any) -> None:
    server = await sent(ClientSecretJWT(LONG, algorithm=algorithm))
    assert LONG not in server.requests[0].content.decode()
    signed = jwt.decode(
        server.form["client_assertion"], OctKey.import_key(LONG), algorithms=[algorithm]
    )
    assert signed.header == {"alg": algorithm, "typ": "JWT"}
    assert signed.claims["sub"] == "the id"


async def test_a_secret_in_the_body() -> None:
    assert (await sent(ClientSecretPost("s +%"))).form == {
        "client_id": "the id",
        "client_secret": "s +%",
    }


@pytest.mark.parametrize("secret", ["plain", "a+b/c=d:e%f", "a b&c", "ä€😀", "%41+"])
async def test_basic_credentials_suit_servers_that_decode_and_those_that_do_not(
    secret: str,
) -> None:
    decoded = await sent(ClientSecretBasic(secret), client_id="ï:d")
    assert [unquote_plus(one) for one in decoded.basic.split(":")] == ["ï:d", secret]
    assert decoded.form == {}
    raw = await sent(ClientSecretBasic(secret, form_encoded=False), client_id="ïd")
    assert raw.basic == f"ïd:{secret}"


async def test_basic_can_name_the_client_in_the_body_as_well() -> None:
    server = await sent(ClientSecretBasic("s", client_id_in_body=True))
    assert (server.basic, server.form) == ("the+id:s", {"client_id": "the id"})


async def test_a_secret_can_be_the_user_and_another_word_can_stand_before_it() -> None:
    server = await sent(ClientSecretBasic("s:e/c", secret_as_user=True))
    assert (server.basic, server.form) == ("s%3Ae%2Fc:", {})
    server = await sent(ClientSecretBasic(scheme="ID"), "s")
    assert server.requests[0].headers["authorization"].startswith("ID ")
    for wrong, error in ((5, TypeError), ("two words", ValueError)):
        with pytest.raises(error, match="scheme"):
            ClientSecretBasic("s", scheme=wrong)  # type: ignore[arg-type]  # what cannot be meant


async def test_an_object_without_a_secret_takes_the_endpoint_s() -> None:
    assert (await sent(ClientSecretBasic(form_encoded=False), "a+b")).basic == "the id:a+b"
    assert (await sent(ClientSecretPost(), "a+b")).form["client_secret"] == "a+b"
    form = (await sent(ClientSecretJWT(), LONG)).form
    jwt.decode(form["client_assertion"], OctKey.import_key(LONG))


NAMES: dict[str, tuple[Any, set[str]]] = {
    "client_secret_basic": (LONG, set()),
    "client_secret_post": (LONG, {"client_id", "client_secret"}),
    "client_secret_jwt": (LONG, {"client_id", "client_assertion", "client_assertion_type"}),
    "private_key_jwt": (pem("RSA"), {"client_id", "client_assertion", "client_assertion_type"}),
    "none": (None, {"client_id"}),
}


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_of_rfc_7591_is_enough(name: Any) -> None:
    secret, fields = NAMES[name]
    server = await sent(name, secret)
    assert set(server.form) == fields
    assert ("authorization" in server.requests[0].headers) == (name == "client_secret_basic")
    assert TokenEndpoint(URL, "id", secret, client_auth=name).client_auth == name


async def test_a_server_that_wants_json_gets_the_credentials_in_it() -> None:
    server = await sent("client_secret_post", "a+b", request_format="json")
    body = json.loads(server.requests[0].content)
    assert (body["client_id"], body["client_secret"]) == ("the id", "a+b")
    server = await sent(es256(), request_format="json")
    verified(json.loads(server.requests[0].content)["client_assertion"], "P-256")


async def test_a_revocation_in_json_has_the_credentials_in_it() -> None:
    server = Server(httpx.Response(200))
    client = httpx.AsyncClient(transport=httpx.MockTransport(server))
    endpoint = TokenEndpoint(
        URL,
        "the id",
        "a+b",
        client_auth="client_secret_post",
        revocation_endpoint="https://as.test/revoke",
        revocation_format="json",
        client=client,
    )
    await endpoint.revoke(HELD)
    (request,) = server.requests
    assert json.loads(request.content) == {
        "token": "old-refresh",
        "client_id": "the id",
        "client_secret": "a+b",
    }


async def test_an_endpoint_s_secret_that_is_read_later_signs_too() -> None:
    server = await sent(ClientSecretJWT(), lambda: LONG)
    jwt.decode(server.form["client_assertion"], OctKey.import_key(LONG))
    assert "too short to sign with" in str(await unsent(ClientSecretJWT(), lambda: MARK))


# -- an assertion from elsewhere -------------------------------------------------------------------------------------


async def test_an_assertion_comes_from_a_callable_of_either_kind_or_from_a_file(
    tmp_path: Path,
) -> None:
    threads = []

    def call() -> str:
        threads.append(threading.current_thread())
        return f"assertion-{len(threads)}"

    async def awaited() -> str:
        await anyio.lowlevel.checkpoint()
        return "awaited"

    class Object:
        async def __call__(self) -> str:
            return "an object's"

    sync = ClientAssertion(call)
    assert [(await sent(sync)).form for _ in range(2)] == [
        {
            "client_assertion_type": JWT_BEARER,
            "client_assertion": f"assertion-{n}",
            "client_id": "the id",
        }
        for n in (1, 2)
    ]
    assert threading.current_thread() not in threads
    assert (await sent(ClientAssertion(awaited))).form["client_assertion"] == "awaited"
    assert (await sent(ClientAssertion(Object()))).form["client_assertion"] == "an object's"
    path = tmp_path / "token"
    path.write_text("first\n")
    projected = ClientAssertion(path)
    assert (await sent(projected)).form["client_assertion"] == "first"
    path.write_text("second\n")
    assert (await sent(projected)).form["client_assertion"] == "second"


async def test_an_assertion_may_say_who_the_client_is_and_what_kind_it_is() -> None:
    auth = ClientAssertion(lambda: "saml", assertion_type="urn:saml2-bearer")
    assert (await sent(auth, client_id=None)).form == {
        "client_assertion": "saml",
        "client_assertion_type": "urn:saml2-bearer",
    }


@pytest.mark.parametrize("returned", ["", None, 5, b"bytes", "\ud800"])
async def test_a_callable_that_returns_no_assertion(returned: Any) -> None:
    error = await unsent(ClientAssertion(lambda: returned))
    assert "passed to ClientAssertion must return a text" in str(error)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_callable_that_raises(is_async: bool) -> None:
    def fails() -> str:
        raise LookupError(MARK)

    async def fails_later() -> str:
        return fails()

    error = await unsent(ClientAssertion(fails_later if is_async else fails))
    assert "passed to ClientAssertion raised LookupError" in str(error)
    assert str(error.caused_by).startswith("LookupError (")
    assert error.transient


async def test_credentials_that_never_come_are_waited_for_as_long_as_an_exchange() -> None:
    async def never() -> str:
        await anyio.sleep_forever()
        raise AssertionError("never")

    error = await unsent(ClientAssertion(never), timeout=0.01)
    assert "the client's credentials did not come within 0.01 s" in str(error)


async def test_a_grant_may_need_no_client_at_all() -> None:
    assert (await sent(None, client_id=None)).form == {}


# -- what is read again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["path", "callable", "callable of a path"])
@pytest.mark.parametrize("wrap", [None, ClientSecretBasic])
async def test_a_secret_is_read_before_each_token_request(
    how: str, wrap: Any, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("first\n")
    source: Any = {
        "path": path,
        "callable": lambda: path.read_text().strip(),
        "callable of a path": lambda: path,
    }[how]
    server = Server()
    async with httpx.AsyncClient(transport=httpx.MockTransport(server)) as client:
        auth, secret = (None, source) if wrap is None else (wrap(source), None)
        endpoint = TokenEndpoint(URL, "id", secret, client_auth=auth, client=client)
        assert endpoint.client_auth == "client_secret_basic"
        for text in ("first", "second"):
            path.write_text(f"{text}\r\n")
            await endpoint.refresh(HELD)
            assert server.basic == f"id:{text}"


async def test_a_secret_s_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(ValueError, match="passed as client_secret cannot be read: No such file"):
        TokenEndpoint(URL, "id", path)
    path.write_text("s")
    auth = ClientSecretPost(path)
    path.unlink()
    error = await unsent(auth)
    assert "passed as client_secret cannot be read: No such file" in str(error)
    assert error.transient


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
async def test_a_secret_s_file_that_holds_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="client_secret must"):
        TokenEndpoint(URL, "id", path)
    assert "client_secret must" in str(await unsent(ClientSecretBasic(lambda: path)))


async def test_a_server_that_repeats_a_secret_of_a_file_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("the-rotated-secret")
    said = {"error": "invalid_client", "error_description": "not the-rotated-secret"}
    server = Server(httpx.Response(401, json=said))
    with pytest.raises(RefreshUnavailable) as caught:
        await sent(ClientSecretPost(path), server=server)
    assert caught.value.outcome == "refused"
    assert "not ***" in str(caught.value)
    assert "rotated" not in str(caught.value)


async def test_a_server_that_repeats_an_assertion_is_not_believed() -> None:
    said = {"error": "invalid_client", "error_description": "not an-opaque-assertion"}
    server = Server(httpx.Response(401, json=said))
    with pytest.raises(RefreshUnavailable, match=r"not \*\*\*"):
        await sent(ClientAssertion(lambda: "an-opaque-assertion"), server=server)


# -- its identity ----------------------------------------------------------------------------------------------------


def fingerprint(auth: Any, secret: Any = None, client_id: str = "id") -> str:
    return TokenEndpoint(URL, client_id, secret, client_auth=auth).client_fingerprint


async def test_credentials_are_told_apart_by_what_they_are() -> None:
    told = [
        fingerprint(None),
        fingerprint(None, "stale"),
        fingerprint(None, "good"),
        fingerprint(es256()),
        fingerprint(PrivateKeyJWT(pem("P-384"), algorithm="ES384")),
        fingerprint(MutualTLS(certificate("RSA"), pem("RSA"))),
        fingerprint(MutualTLS(certificate("other RSA"), pem("other RSA"))),
    ]
    assert len(set(told)) == len(told)
    assert all(len(one) == 8 and int(one, 16) >= 0 for one in told)
    assert fingerprint("client_secret_post", "good") == fingerprint(ClientSecretBasic("good"))
    assert fingerprint(es256()) == fingerprint(es256(key_id="k", lifetime=5))
    assert fingerprint(es256()) != fingerprint(es256(), client_id="other")


async def test_the_fingerprint_follows_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("stale")
    async with httpx.AsyncClient(transport=httpx.MockTransport(Server())) as client:
        endpoint = TokenEndpoint(URL, "id", path, client=client)
        assert endpoint.client_fingerprint == fingerprint(None, "stale")
        path.write_text("good")
        await endpoint.refresh(HELD)
        assert endpoint.client_fingerprint == fingerprint(None, "good")


# -- certificates ------------------------------------------------------------------------------------------------------


class Seen(BaseHTTPRequestHandler):
    """Answers with a token, and keeps the form and the client's certificate."""

    requests: list[tuple[dict[str, list[str]], bytes | None]]
    has_aliases = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        shown: Any = self.connection
        self.requests.append((parse_qs(body), shown.getpeercert(binary_form=True)))
        self._answer({"access_token": "new"})

    def do_GET(self) -> None:
        port: int = self.server.server_port  # type: ignore[attr-defined]  # it is an HTTPServer
        self._answer(
            {
                "issuer": f"https://127.0.0.1:{port}",
                "token_endpoint": "https://127.0.0.1:1/token",
                "revocation_endpoint": "https://127.0.0.1:1/revoke",
                "mtls_endpoint_aliases": {
                    "token_endpoint": f"https://127.0.0.1:{port}/mtls/token",
                    "device_authorization_endpoint": 5,
                }
                if self.has_aliases
                else None,
            }
        )

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, type[Seen]]]:
    """A server that requires a certificate: its URL, and the requests that it got."""
    (tmp_path / "server.pem").write_text(pem("P-256") + certificate("P-256"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(cadata=certificate("RSA") + certificate("other RSA"))
    context.verify_mode = ssl.CERT_OPTIONAL
    seen = type("SeenHere", (Seen,), {"requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), seen) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def der(kind: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate(kind))


async def test_a_certificate_authenticates_the_connection(
    tls_server: tuple[str, type[Seen]],
) -> None:
    url, seen = tls_server
    auth = MutualTLS(
        certificate("RSA"),
        pem("RSA", b"password"),
        b"password",
        ca_certificates=certificate("P-256"),
    )
    endpoint = TokenEndpoint(f"{url}/token", "the id", client_auth=auth)
    assert endpoint.client_auth == "tls_client_auth"
    assert (await endpoint.refresh(HELD)).access_token == "new"
    ((form, shown),) = seen.requests
    assert form["client_id"] == ["the id"]
    assert "client_secret" not in form
    assert shown == der("RSA")


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_the_connection_is_made_by_the_library_whose_client_asks(
    tls_server: tuple[str, type[Seen]], library: Any
) -> None:
    url, seen = tls_server
    usual = MutualTLS(certificate("RSA"), pem("RSA"))
    told = MutualTLS(certificate("RSA"), pem("RSA"), ca_certificates=certificate("P-256"))
    token = asking.set(library.Request)
    try:
        await TokenEndpoint(f"{url}/token", "id", client_auth=told).refresh(HELD)
        with pytest.raises(
            RefreshUnavailable
        ) as caught:  # The usual authorities did not sign this server's certificate.
            await TokenEndpoint(f"{url}/token", "id", client_auth=usual).refresh(HELD)
    finally:
        asking.reset(token)
    assert str(caught.value.caused_by).startswith(f"{library.__name__}.ConnectError")
    assert [shown for _, shown in seen.requests] == [der("RSA")]


async def test_a_certificate_and_its_key_are_read_before_each_token_request(
    tls_server: tuple[str, type[Seen]], tmp_path: Path
) -> None:
    url, seen = tls_server

    def rotate(kind: str) -> None:
        (tmp_path / "cert").write_text(certificate(kind))
        (tmp_path / "key").write_text(pem(kind))

    rotate("RSA")
    auth = MutualTLS(tmp_path / "cert", tmp_path / "key", ca_certificates=certificate("P-256"))
    endpoint = TokenEndpoint(f"{url}/token", "id", client_auth=auth)
    await endpoint.refresh(HELD)
    before = endpoint.client_fingerprint
    rotate("other RSA")
    await endpoint.refresh(HELD)
    assert [shown for _, shown in seen.requests] == [der("RSA"), der("other RSA")]
    assert endpoint.client_fingerprint != before


async def test_a_server_of_another_authority_is_not_asked(
    tls_server: tuple[str, type[Seen]],
) -> None:
    url, seen = tls_server
    auth = MutualTLS(certificate("RSA"), pem("RSA"), ca_certificates=certificate("P-384"))
    with pytest.raises(RefreshUnavailable) as caught:
        await TokenEndpoint(f"{url}/token", "id", client_auth=auth).refresh(HELD)
    assert caught.value.outcome == "not_sent"
    assert seen.requests == []


async def test_discovery_takes_the_endpoints_for_certificates_where_there_are_some(
    tls_server: tuple[str, type[Seen]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, seen = tls_server
    (tmp_path / "ca.pem").write_text(certificate("P-256"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr("httpx_refresh._oauth.exchange._ssl_contexts", {})
    auth = MutualTLS(certificate("RSA"), pem("RSA"), ca_certificates=certificate("P-256"))
    endpoint = await discover(url, "id", client_auth=auth)
    assert endpoint.url == f"{url}/mtls/token"
    assert endpoint.login.revocation_endpoint == "https://127.0.0.1:1/revoke"
    await endpoint.refresh(HELD)
    assert seen.requests[-1][1] == der("RSA")
    assert (await discover(url, "id")).url == "https://127.0.0.1:1/token"
    seen.has_aliases = False
    assert (await discover(url, "id", client_auth=auth)).url == "https://127.0.0.1:1/token"


async def test_a_certificate_is_not_shown_in_clear(tls_server: tuple[str, type[Seen]]) -> None:
    url, seen = tls_server
    auth = MutualTLS(certificate("RSA"), pem("RSA"), ca_certificates=certificate("P-256"))
    endpoint = TokenEndpoint(
        f"{url}/token", "id", client_auth=auth, refresh_url="http://127.0.0.1:1/refresh"
    )
    with pytest.raises(RefreshUnavailable, match="a certificate is shown over https only"):
        await endpoint.refresh(HELD)
    assert seen.requests == []


# -- refused arguments -------------------------------------------------------------------------------------------------


async def later() -> str:
    return "s"


BAD: dict[str, tuple[type[Exception], str, Callable[[], object]]] = {
    "no such name": (
        ValueError,
        "client_auth must be one of client_secret_basic",
        lambda: TokenEndpoint(URL, "id", MARK, client_auth="basic"),  # type: ignore[arg-type]  # on purpose
    ),
    "a class": (
        TypeError,
        "a name of RFC 7591 or an object",
        lambda: TokenEndpoint(URL, "id", MARK, client_auth=ClientSecretPost),  # type: ignore[arg-type]  # on purpose
    ),
    "a number": (
        TypeError,
        "a name of RFC 7591 or an object",
        lambda: TokenEndpoint(URL, "id", MARK, client_auth=5),  # type: ignore[arg-type]  # on purpose
    ),
    "a key and a secret": (
        ValueError,
        "PrivateKeyJWT and client_secret do not go together",
        lambda: TokenEndpoint(URL, "id", MARK, client_auth=es256()),
    ),
    "two secrets": (
        ValueError,
        "ClientSecretPost and client_secret do not go together",
        lambda: TokenEndpoint(URL, "id", MARK, client_auth=ClientSecretPost(MARK)),
    ),
    "no secret": (
        ValueError,
        "ClientSecretBasic needs a secret",
        lambda: TokenEndpoint(URL, "id", client_auth=ClientSecretBasic()),
    ),
    "a secret without a client": (
        ValueError,
        "client_id must be given: client_secret_basic",
        lambda: TokenEndpoint(URL, None, MARK),
    ),
    "a key without a client": (
        ValueError,
        "client_id must be given: private_key_jwt",
        lambda: TokenEndpoint(URL, client_auth=es256()),
    ),
    "a client of bytes": (
        TypeError,
        "client_id must be a str or None",
        lambda: TokenEndpoint(URL, b"id"),  # type: ignore[arg-type]  # on purpose
    ),
    "a colon in a client's id": (
        ValueError,
        "client_id must have no colon",
        lambda: TokenEndpoint(URL, "a:b", client_auth=ClientSecretBasic(MARK, form_encoded=False)),
    ),
    "an async secret": (
        TypeError,
        "client_secret must not be an async callable",
        lambda: ClientSecretPost(later),  # type: ignore[arg-type]  # on purpose
    ),
    "a secret of bytes": (
        TypeError,
        "client_secret must be a str",
        lambda: ClientSecretPost(MARK.encode()),
    ),
    "an empty secret": (ValueError, "must not be empty", lambda: ClientSecretPost("")),
    "a short secret": (
        ValueError,
        "client_secret is too short to sign with",
        lambda: ClientSecretJWT(MARK),
    ),
    "a short secret of the endpoint": (
        ValueError,
        "client_secret is too short to sign with",
        lambda: TokenEndpoint(URL, "id", MARK, client_auth="client_secret_jwt"),
    ),
    "no such algorithm": (
        ValueError,
        "algorithm must be one of HS256",
        lambda: ClientSecretJWT(LONG, algorithm="RS256"),  # type: ignore[arg-type]  # on purpose
    ),
    "no lifetime": (ValueError, "lifetime must be a second or more", lambda: es256(lifetime=0)),
    "a lifetime that is none": (TypeError, "lifetime must be a number", lambda: es256(lifetime="")),
    "no end": (ValueError, "lifetime must be finite", lambda: es256(lifetime=float("inf"))),
    "an empty audience": (ValueError, "audience must be", lambda: es256(audience="")),
    "an empty audience of the endpoint": (
        ValueError,
        "client_assertion_audience must be",
        lambda: TokenEndpoint(URL, "id", client_assertion_audience=""),
    ),
    "an assertion that is text": (
        TypeError,
        "an assertion is good once: pass a callable",
        lambda: ClientAssertion(MARK),  # type: ignore[arg-type]  # on purpose
    ),
    "no type of assertion": (
        ValueError,
        "assertion_type must be",
        lambda: ClientAssertion(lambda: "", assertion_type=""),
    ),
    "an assertion's file that is gone": (
        ValueError,
        "passed as assertion cannot be read",
        lambda: ClientAssertion(Path("/gone")),
    ),
    "a certificate and a client": (
        ValueError,
        "MutualTLS and client do not go together",
        lambda: TokenEndpoint(
            URL,
            "id",
            client_auth=MutualTLS(certificate("RSA"), pem("RSA")),
            client=httpx.AsyncClient,
        ),
    ),
    "a certificate without TLS": (
        ValueError,
        "MutualTLS needs a url that is https",
        lambda: TokenEndpoint(
            "http://127.0.0.1/token",
            "id",
            client_auth=MutualTLS(certificate("RSA"), pem("RSA")),
        ),
    ),
    "a certificate of another key": (
        ValueError,
        "certificate does not match key",
        lambda: MutualTLS(certificate("RSA"), pem("other RSA")),
    ),
    "no certificate": (
        ValueError,
        "certificate holds no certificate",
        lambda: MutualTLS(MARK, pem("RSA")),
    ),
    "no key": (ValueError, "key is no private key", lambda: MutualTLS(certificate("RSA"), MARK)),
    "a wrong password": (
        ValueError,
        "the password is wrong",
        lambda: MutualTLS(certificate("RSA"), pem("RSA", b"right"), MARK),
    ),
    "no authorities": (
        ValueError,
        "ca_certificates holds no certificate",
        lambda: MutualTLS(certificate("RSA"), pem("RSA"), ca_certificates=MARK),
    ),
    "a file that is gone": (
        ValueError,
        "passed as certificate cannot be read: No such file",
        lambda: MutualTLS(Path("/gone"), pem("RSA")),
    ),
    "a key of a number": (
        TypeError,
        "key must be PEM text",
        lambda: MutualTLS(certificate("RSA"), 5),  # type: ignore[arg-type]  # on purpose
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_meant_is_an_error_at_once_and_says_no_secret(bad: str) -> None:
    kind, said, make = BAD[bad]
    with pytest.raises(kind, match=said) as caught:
        make()
    check_frames(caught.value)
    assert "BEGIN" not in f"{caught.value!r} {vars(caught.value)}"


LATER: dict[str, tuple[str, Callable[[], Any]]] = {
    "a key": (
        "no private key in PEM",
        lambda: PrivateKeyJWT(lambda: MARK, algorithm="RS256"),
    ),
    "a key of another kind": (
        "wrong kind: RS256 needs an RSA key",
        lambda: PrivateKeyJWT(lambda: pem("P-256"), algorithm="RS256"),
    ),
    "a short secret": ("too short to sign with", lambda: ClientSecretJWT(lambda: MARK)),
    "no text": ("client_secret must be text, not int", lambda: ClientSecretPost(lambda: 5)),  # type: ignore[arg-type]  # on purpose
    "a certificate of another key": (
        "certificate does not match key",
        lambda: MutualTLS(lambda: certificate("RSA"), lambda: pem("other RSA")),
    ),
    "a key for TLS that is no text": (
        "key must be a private key in PEM, not int",
        lambda: MutualTLS(lambda: certificate("RSA"), lambda: 5),  # type: ignore[arg-type, return-value]  # on purpose
    ),
    "a certificate that is no text": (
        "certificate must be in PEM, not int",
        lambda: MutualTLS(lambda: 5, lambda: pem("RSA")),  # type: ignore[arg-type, return-value]  # on purpose
    ),
    "a password that is no text": (
        "password must be text or bytes, not int",
        lambda: MutualTLS(certificate("RSA"), pem("RSA", b"right"), lambda: 5),  # type: ignore[arg-type]  # on purpose
    ),
    "a key too short for TLS": (
        "certificate and key cannot be used for TLS",
        lambda: MutualTLS(certificate("short RSA"), pem("short RSA")),
    ),
}


@pytest.mark.parametrize("what", LATER)
async def test_what_is_read_later_and_cannot_be_used_sends_nothing(what: str) -> None:
    said, make = LATER[what]
    auth = make()
    if isinstance(auth, MutualTLS):
        with pytest.raises(RefreshUnavailable, match=said) as caught:
            await TokenEndpoint(URL, "id", client_auth=auth).refresh(HELD)
        assert caught.value.outcome == "not_sent"
        check_frames(caught.value)
    else:
        assert said in str(await unsent(auth))


@pytest.mark.parametrize(
    "auth",
    [
        es256(),
        ClientSecretBasic(MARK),
        ClientSecretPost(MARK),
        ClientSecretJWT(MARK * 5),
        ClientAssertion(lambda: MARK),
        MutualTLS(certificate("RSA"), pem("RSA", MARK.encode()), MARK),
    ],
    ids=lambda auth: type(auth).__name__,
)
def test_no_object_shows_its_credentials(auth: Any) -> None:
    assert type(auth).__name__ in repr(auth)
    assert MARK not in repr(auth)
    assert "BEGIN" not in repr(auth)
    assert MARK not in repr(TokenEndpoint(URL, "id", client_auth=auth))


@pytest.mark.parametrize("kind", [ClientSecretBasic, ClientSecretPost, ClientSecretJWT])
def test_what_an_object_holds_shows_the_secret_as_little(kind: Any) -> None:
    """Debuggers and error trackers look into objects."""
    held = repr(vars(kind(MARK * 5)))
    assert "client_secret" in held
    assert MARK not in held


def test_keys_of_the_tests_are_what_they_say() -> None:
    assert key_of("P-256").curve.name == "secp256r1"
    assert joserfc_key("RSA").key_type == "RSA"
