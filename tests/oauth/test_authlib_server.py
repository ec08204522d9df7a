"""Against Authlib's own authorization server: what it accepts of keys and secrets."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientCredentialsGrant,
    ClientMixin,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc.jwk import ECKey, OctKey, RSAKey

from httpx_refresh import TokenEndpoint
from httpx_refresh._oauth.answer import Answer
from httpx_refresh.client_auth import (
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    PrivateKeyJWT,
)
from tests.oauth.pems import KIND_OF, certificate, pem, public_pem

pytestmark = pytest.mark.anyio

URL = "https://as.test/token"
ODD = "a+b/c=d:e%f&g~ä€" * 3


class Client(ClientMixin):
    def __init__(self, method: str, secret: str = "", key: Any = None) -> None:
        self.method, self.secret, self.key = method, secret, key

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.method

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

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


class Server(AuthorizationServer):
    """Authlib's server with one client, as a transport's handler."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.register_grant(Grant)
        generator: Any = lambda **_: {"access_token": "new"}  # noqa: E731 - Authlib wants one that is typed
        self.register_token_generator("default", generator)
        self.register_client_auth_method(Assertions.CLIENT_AUTH_METHOD, Assertions())

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
    """Should Authlib learn to read forms, the test above says more than is so."""
    from authlib.oauth2.rfc6749.util import extract_basic_authorization

    header = "Basic " + base64.b64encode(b"a+b:c%2Bd").decode()
    assert extract_basic_authorization({"Authorization": header}) == ("a+b", "c+d")
