"""Against Authlib's authorization server: the keys and secrets that it accepts, and its grants."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest
from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    BaseGrant,
    ClientCredentialsGrant,
    ClientMixin,
    InvalidRequestError,
    OAuth2Request,
    TokenEndpointMixin,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from joserfc.jwk import ECKey, OctKey, RSAKey

from httpx_refresh import RefreshAuth, RefreshUnavailable, TokenEndpoint
from httpx_refresh._oauth.answer import Answer
from httpx_refresh.client_auth import (
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    PrivateKeyJWT,
)
from httpx_refresh.grants import ACCESS_TOKEN, JWT, ClientCredentials, JWTBearer, TokenExchange
from httpx_refresh.grants import Grant as VendorGrant
from tests.oauth.pems import KIND_OF, certificate, pem, public_pem

pytestmark = pytest.mark.anyio

URL = "https://as.test/token"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ODD = "a+b/c=d:e%f&g~ä€" * 3


class Client(ClientMixin):
    def __init__(self, method: str, secret: str = "", key: Any = None) -> None:
        self.method, self.secret, self.key = method, secret, key

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.method

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("client_credentials", JWTBearerGrant.GRANT_TYPE, EXCHANGE)

    def get_allowed_scope(self, scope: Any) -> str:
        return str(scope)


class Request(OAuth2Request):
    def __init__(self, request: httpx.Request) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self.fields = dict(parse_qsl(request.content.decode()))
        self.payload = BasicOAuth2Payload(self.fields)

    @property
    def form(self) -> dict[str, str]:
        return self.fields


class Assertions(JWTBearerClientAssertion):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def get_audiences(self) -> list[str]:
        return [URL]

    def validate_jti(self, claims: Any, jti: str) -> bool:
        is_new = jti not in self.seen
        self.seen.add(jti)
        return is_new

    def resolve_client_public_key(self, client: Client) -> Any:
        return client.key


class Grant(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = [  # noqa: RUF012 - Authlib's own, whose types say that it is an instance's
        "client_secret_basic",
        "client_secret_post",
        JWTBearerClientAssertion.CLIENT_AUTH_METHOD,
    ]


class Bearer(JWTBearerGrant):
    """Accepts assertions of its only client, for ann."""

    def resolve_issuer_client(self, issuer: str) -> Client | None:
        return self.server.client if issuer == "the-id" else None

    def resolve_client_public_key(self, client: Client) -> Any:
        return client.key

    def authenticate_user(self, subject: str) -> str | None:
        return subject if subject == "ann" else None

    def has_granted_permission(self, client: Client, user: str) -> bool:
        return True

    def get_audiences(self) -> list[str]:
        return [URL]


class Exchange(BaseGrant, TokenEndpointMixin):
    """Authlib 1.9 has no token exchange (its rfc8693 is empty), so this one uses Authlib's base class for grants."""

    GRANT_TYPE = EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]  # noqa: RUF012 - as below

    def validate_token_request(self) -> None:
        self.request.client = self.authenticate_token_endpoint_client()
        form = self.request.form
        if form.get("subject_token") != "the session's" or form.get("subject_token_type") != JWT:
            raise InvalidRequestError("the subject_token is not valid")

    def create_token_response(self) -> Any:
        answer = {"access_token": "exchanged", "issued_token_type": ACCESS_TOKEN, "expires_in": 60}
        return 200, {**answer, "token_type": "Bearer"}, self.TOKEN_RESPONSE_HEADER


class Server(AuthorizationServer):
    """Authlib's server with one client, as a transport's handler."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.issued = 0
        for grant in (Grant, Bearer, Exchange):
            self.register_grant(grant)
        generator: Any = self._issue
        self.register_token_generator("default", generator)
        self.register_client_auth_method(Assertions.CLIENT_AUTH_METHOD, Assertions())

    def _issue(self, **_: Any) -> dict[str, Any]:
        self.issued += 1
        return {"access_token": f"new{self.issued}", "expires_in": 60, "token_type": "Bearer"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer: Any = self.create_token_response(request)
        assert isinstance(answer, httpx.Response)
        return answer

    def query_client(self, client_id: str) -> Client:
        assert client_id == "the-id"
        return self.client

    def save_token(self, token: Any, request: Any) -> None:
        """Keep none."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Send none."""

    def create_oauth2_request(self, request: httpx.Request) -> Request:
        return Request(request)

    def handle_response(self, status: int, body: Any, headers: Any) -> httpx.Response:
        return httpx.Response(status, json=body)


async def status(client: Client, auth: Any) -> int:
    transport = httpx.MockTransport(Server(client))
    async with httpx.AsyncClient(transport=transport) as http:
        endpoint = TokenEndpoint(URL, "the-id", client_auth=auth, client=http)
        answer = await endpoint._client.post("grant_type=client_credentials")
    assert isinstance(answer, Answer)
    return answer.status


def signs(kind: str) -> Client:
    importer: Any = {"P-256": ECKey, "P-384": ECKey}.get(kind, RSAKey)
    return Client(
        JWTBearerClientAssertion.CLIENT_AUTH_METHOD, key=importer.import_key(public_pem(kind))
    )


# Authlib verifies with joserfc's recommended algorithms, unless a server says more.
@pytest.mark.parametrize("algorithm, other", [("RS256", "other RSA"), ("ES256", "P-384")])
async def test_a_private_key_is_accepted(algorithm: Any, other: str) -> None:
    kind = KIND_OF[algorithm]
    assert await status(signs(kind), PrivateKeyJWT(pem(kind), algorithm=algorithm)) == 200
    assert await status(signs(other), PrivateKeyJWT(pem(kind), algorithm=algorithm)) == 400


async def test_its_bound_on_headers_needs_a_certificate_s_digest_alone() -> None:
    def auth(*headers: Any) -> PrivateKeyJWT:
        return PrivateKeyJWT(
            pem("RSA"),
            algorithm="RS256",
            certificate=certificate("RSA"),
            certificate_headers=headers,
        )

    assert await status(signs("RSA"), auth("x5t#S256", "x5t")) == 200
    assert await status(signs("RSA"), auth("x5t#S256", "x5t", "x5c")) == 400


async def test_a_secret_signs() -> None:
    client = Client(JWTBearerClientAssertion.CLIENT_AUTH_METHOD, key=OctKey.import_key(ODD))
    assert await status(client, ClientSecretJWT(ODD)) == 200
    assert await status(client, ClientSecretJWT(ODD + "x")) == 400


async def test_a_secret_of_odd_characters_is_accepted_in_every_way() -> None:
    assert await status(Client("client_secret_post", ODD), ClientSecretPost(ODD)) == 200
    basic = Client("client_secret_basic", ODD)
    assert await status(basic, ClientSecretBasic(ODD)) == 200
    assert await status(basic, ClientSecretBasic(ODD, client_id_in_body=True)) == 200
    assert await status(basic, ClientSecretBasic(ODD + "x")) == 401


async def test_a_blank_in_a_secret_is_not_decoded_and_is_sent_as_it_is() -> None:
    basic = Client("client_secret_basic", "a blank+and a plus")
    assert await status(basic, ClientSecretBasic("a blank+and a plus")) == 401
    raw = ClientSecretBasic("a blank+and a plus", form_encoded=False)
    assert await status(basic, raw) == 200


def test_the_header_is_read_as_here() -> None:
    """If Authlib learns to read forms, the test above claims too much."""
    from authlib.oauth2.rfc6749.util import extract_basic_authorization

    header = "Basic " + base64.b64encode(b"a+b:c%2Bd").decode()
    assert extract_basic_authorization({"Authorization": header}) == ("a+b", "c+d")


# -- grants, over a socket ---------------------------------------------------------------------------------------------


@contextmanager
def listening(server: Server) -> Iterator[str]:
    """Start the server; yield the address of its token endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = server(httpx.Request("POST", URL, headers=dict(self.headers), content=body))
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/token"
        finally:
            http.shutdown()
            thread.join()


CLIENTS: dict[str, tuple[Client, Any]] = {
    "client_secret_basic": (Client("client_secret_basic", ODD), ClientSecretBasic(ODD)),
    "client_secret_post": (Client("client_secret_post", ODD), ClientSecretPost(ODD)),
    "client_secret_jwt": (
        Client(JWTBearerClientAssertion.CLIENT_AUTH_METHOD, key=OctKey.import_key(ODD)),
        ClientSecretJWT(ODD, audience=URL),
    ),
    "private_key_jwt": (
        signs("P-256"),
        PrivateKeyJWT(pem("P-256"), algorithm="ES256", audience=URL),
    ),
}


@pytest.mark.parametrize("method", CLIENTS)
async def test_client_credentials_serve_everybody_with_one_request_each_time(method: str) -> None:
    client, auth = CLIENTS[method]
    server = Server(client)
    with listening(server) as url:
        endpoint = TokenEndpoint(url, "the-id", client_auth=auth, origins="any")
        service = RefreshAuth(ClientCredentials(endpoint, scope="read"))
        tokens: list[str] = []

        async def ask() -> None:
            tokens.append((await service.token()).access_token)

        for number in (1, 2, 3):
            async with anyio.create_task_group() as group:
                for _ in range(25):
                    group.start_soon(ask)
            assert tokens == [f"new{number}"] * 25
            tokens.clear()
            # Each request has its own assertion: Authlib accepts none twice.
            await service.refresh(refused=await service.token())
        assert server.issued == 4


async def test_a_jwt_bearer_s_assertion_is_accepted_for_who_it_is_for() -> None:
    server = Server(signs("RSA"))
    with listening(server) as url:
        endpoint = TokenEndpoint(url, origins="any")

        def source(kind: str = "RSA", **told: Any) -> JWTBearer:
            options = {"issuer": "the-id", "subject": "ann", "audience": URL, **told}
            return JWTBearer(endpoint, pem(kind), **options)

        assert (await RefreshAuth(source(scope="read")).token()).access_token == "new1"
        for wrong in (
            source("other RSA"),
            source(subject="bob"),
            source(issuer="other"),
            source(audience="https://other.test"),
        ):
            with pytest.raises(RefreshUnavailable, match="invalid_grant") as caught:
                await wrong.obtain(None)
            assert caught.value.outcome == "refused"
    assert server.issued == 1


async def test_a_token_exchange_is_read_as_it_was_meant() -> None:
    with listening(Server(Client("client_secret_basic", ODD))) as url:
        endpoint = TokenEndpoint(url, "the-id", ODD, origins="any")
        source = TokenExchange(endpoint, "the session's", subject_token_type=JWT)
        token = await RefreshAuth(source).token()
        assert token.access_token == "exchanged"
        with pytest.raises(RefreshUnavailable, match=r"invalid_request.*subject") as caught:
            await TokenExchange(endpoint, "other", subject_token_type=JWT).obtain(None)
        assert caught.value.outcome == "refused"


async def test_who_may_not_use_a_grant_is_told_so() -> None:
    with listening(Server(Client("client_secret_basic", ODD))) as url:
        endpoint = TokenEndpoint(url, "the-id", ODD, origins="any")
        with pytest.raises(RefreshUnavailable, match="unsupported_grant_type"):
            await VendorGrant(endpoint, "account_credentials", {"account_id": "A1"}).obtain(None)
        wrong = TokenEndpoint(url, "the-id", ODD + "x", origins="any")
        with pytest.raises(RefreshUnavailable, match="invalid_client"):
            await ClientCredentials(wrong).obtain(None)
