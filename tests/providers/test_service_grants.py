"""Each grant without a person of each provider, against a server that answers as the provider does."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.jwk import RSAKey

from httpx_refresh import MemoryStore, RefreshAuth, RefreshUnavailable, TokenEndpoint
from httpx_refresh.client_auth import ClientAssertion, PrivateKeyJWT
from httpx_refresh.grants import JWT, ClientCredentials, Grant, JWTBearer, TokenExchange
from httpx_refresh.providers import (
    auth0,
    box,
    docusign,
    github_installation,
    google_service_account,
    keycloak,
    microsoft,
    okta,
    salesforce,
    xero,
    zoom,
)
from httpx_refresh.testing import AuthorizationServer
from tests.oauth.pems import certificate, pem, public_pem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from httpx_refresh.grants import EndpointSource

pytestmark = pytest.mark.anyio

PEM = pem("RSA")
PUBLIC = RSAKey.import_key(public_pem("RSA")).as_dict(private=False)
SECRET = "s:e/c+r%t"
INSTANCE = "https://acme.my.salesforce.com"
ACCOUNT = {
    "type": "service_account",
    "client_email": "robot@acme.iam.gserviceaccount.com",
    "private_key_id": "k1",
    "private_key": PEM,
}


@dataclass
class Case:
    """A provider's grant, the settings of its server, and the expected request.

    Attributes:
        make: makes the source from the arguments of its endpoint for the connection.
        server: the settings of the server.
        form: the expected body of a token request, without the grant and secrets.
        claims: the expected claims of the assertion, as the grant or for the client.
        header: the expected header of the assertion.
        lifetime: the expected lifetime of the token in seconds.
    """

    make: Callable[[Mapping[str, Any]], EndpointSource]
    server: dict[str, Any]
    form: dict[str, str] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    lifetime: float = 3600.0


def signed(**options: Any) -> dict[str, Any]:
    """Return the settings of a server whose client, `id`, signs with the tests' key."""
    return {"client_keys": {"id": PUBLIC}, "auth_methods": ["private_key_jwt"], **options}


def rs256(**options: Any) -> PrivateKeyJWT:
    return PrivateKeyJWT(PEM, algorithm="RS256", **options)


def header_and_claims(assertion: str) -> list[dict[str, Any]]:
    """Read an assertion that the server has verified."""
    parts = assertion.split(".")[:2]
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts]


def instance(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "instance_url": INSTANCE, "id": f"{INSTANCE}/id/00D/005"}


GRAPH = "https://graph.microsoft.com/.default"
TENANT = "https://login.microsoftonline.com/acme.onmicrosoft.com/oauth2/v2.0/token"
X5T_S256 = "x5t#S256"

CASES: dict[str, Case] = {
    "Salesforce, client credentials": Case(
        lambda told: ClientCredentials(salesforce("id", SECRET, domain="acme", **told)),
        {"auth_methods": ["client_secret_post"], "send_expires_in": False, "answer": instance},
        form={"client_id": "id", "client_secret": SECRET},
        lifetime=7200.0,
    ),
    "Salesforce, JWT bearer": Case(
        lambda told: JWTBearer(
            salesforce(domain="acme", **told), PEM, issuer="id", subject="ann@acme.test"
        ),
        {
            "auth_methods": [],
            "assertion_keys": {"id": PUBLIC},
            "assertion_audiences": ["https://login.salesforce.com"],
            "longest_assertion": 300.0,
            "send_expires_in": False,
            "answer": instance,
        },
        claims={"iss": "id", "sub": "ann@acme.test", "aud": "https://login.salesforce.com"},
        header={"alg": "RS256"},
        lifetime=7200.0,
    ),
    "Salesforce, JWT bearer of a sandbox": Case(
        lambda told: JWTBearer(
            salesforce(domain="acme--uat.sandbox.my.salesforce.com", **told),
            PEM,
            issuer="id",
            subject="ann@acme.test.uat",
        ),
        {
            "auth_methods": [],
            "assertion_keys": {"id": PUBLIC},
            "assertion_audiences": ["https://test.salesforce.com"],
            "send_expires_in": False,
            "answer": instance,
        },
        claims={"aud": "https://test.salesforce.com"},
        lifetime=7200.0,
    ),
    "Microsoft, a secret": Case(
        lambda told: ClientCredentials(
            microsoft("id", SECRET, tenant="acme.onmicrosoft.com", **told), scope=GRAPH
        ),
        {"auth_methods": ["client_secret_post"], "scopes": [GRAPH]},
        form={"client_id": "id", "client_secret": SECRET, "scope": GRAPH},
    ),
    "Microsoft, a certificate": Case(
        lambda told: ClientCredentials(
            microsoft(
                "id",
                tenant="acme.onmicrosoft.com",
                client_auth=PrivateKeyJWT(PEM, algorithm="PS256", certificate=certificate("RSA")),
                **told,
            ),
            scope=GRAPH,
        ),
        signed(assertion_audiences=[TENANT], longest_assertion=600.0, scopes=[GRAPH]),
        form={"client_id": "id", "scope": GRAPH},
        claims={"iss": "id", "sub": "id", "aud": TENANT},
        header={"alg": "PS256", "typ": "JWT"},
    ),
    "Okta, a service app": Case(
        lambda told: ClientCredentials(
            okta("id", domain="acme.okta.com", client_auth=rs256(key_id="k1"), **told),
            scope="okta.users.read okta.groups.read",
        ),
        signed(
            assertion_audiences=["https://acme.okta.com/oauth2/v1/token"],
            scopes=["okta.users.read", "okta.groups.read"],
        ),
        form={"scope": "okta.users.read okta.groups.read"},
        claims={"iss": "id", "sub": "id", "aud": "https://acme.okta.com/oauth2/v1/token"},
        header={"alg": "RS256", "kid": "k1"},
    ),
    "Auth0, a secret": Case(
        lambda told: ClientCredentials(
            auth0("id", SECRET, domain="acme.eu.auth0.com", **told),
            audience="https://acme.eu.auth0.com/api/v2/",
        ),
        {
            "auth_methods": ["client_secret_post"],
            "request_format": "json",
            "targets": ["https://acme.eu.auth0.com/api/v2/"],
            "lifetime": 86_400.0,
        },
        form={
            "client_id": "id",
            "client_secret": SECRET,
            "audience": "https://acme.eu.auth0.com/api/v2/",
        },
        lifetime=86_400.0,
    ),
    "Auth0, a key": Case(
        lambda told: ClientCredentials(
            auth0("id", domain="acme.eu.auth0.com", client_auth=rs256(), **told),
            audience="https://acme.eu.auth0.com/api/v2/",
        ),
        signed(
            request_format="json",
            assertion_audiences=["https://acme.eu.auth0.com/"],
            longest_assertion=180.0,
        ),
        claims={"iss": "id", "sub": "id", "aud": "https://acme.eu.auth0.com/"},
    ),
    "Keycloak, client credentials": Case(
        lambda told: ClientCredentials(
            keycloak(
                "id",
                SECRET,
                realm="https://sso.acme.test/realms/acme",
                origins=["https://api.acme.test"],
                **told,
            )
        ),
        {"auth_methods": ["client_secret_basic"], "lifetime": 300.0},
        lifetime=300.0,
    ),
    "Keycloak, a key": Case(
        lambda told: ClientCredentials(
            keycloak(
                "id",
                realm="https://sso.acme.test/realms/acme",
                origins=["https://api.acme.test"],
                client_auth=PrivateKeyJWT(PEM, algorithm="PS512"),
                **told,
            )
        ),
        signed(assertion_audiences=["https://sso.acme.test/realms/acme"]),
        claims={"aud": "https://sso.acme.test/realms/acme"},
    ),
    "Keycloak, token exchange": Case(
        lambda told: TokenExchange(
            keycloak(
                "id",
                SECRET,
                realm="https://sso.acme.test/realms/acme",
                origins=["https://api.acme.test"],
                **told,
            ),
            lambda: "the session's token",
            subject_token_type=JWT,
            audience="orders",
        ),
        {
            "auth_methods": ["client_secret_basic"],
            "subject_tokens": ["the session's token"],
            "targets": ["orders"],
        },
        form={
            "subject_token": "the session's token",
            "subject_token_type": JWT,
            "audience": "orders",
        },
    ),
    "Xero, a custom connection": Case(
        lambda told: ClientCredentials(
            xero("id", SECRET, **told), scope=["accounting.contacts", "accounting.settings"]
        ),
        {"auth_methods": ["client_secret_basic"], "lifetime": 1800.0},
        form={"scope": "accounting.contacts accounting.settings"},
        lifetime=1800.0,
    ),
    "Box, client credentials": Case(
        lambda told: ClientCredentials(
            box("id", SECRET, **told),
            params={"box_subject_type": "enterprise", "box_subject_id": "7"},
        ),
        {"auth_methods": ["client_secret_post"]},
        form={
            "client_id": "id",
            "client_secret": SECRET,
            "box_subject_type": "enterprise",
            "box_subject_id": "7",
        },
    ),
    "Box, JWT bearer": Case(
        lambda told: JWTBearer(
            box("id", SECRET, **told),
            pem("RSA", b"the passphrase"),
            password="the passphrase",
            key_id="k1",
            algorithm="RS512",
            subject="7",
            claims={"box_sub_type": "enterprise"},
        ),
        {
            "auth_methods": ["client_secret_post"],
            "assertion_keys": {"id": PUBLIC},
            "assertion_audiences": ["https://api.box.com/oauth2/token"],
            "longest_assertion": 45.0,
        },
        form={"client_id": "id", "client_secret": SECRET},
        claims={
            "iss": "id",
            "sub": "7",
            "box_sub_type": "enterprise",
            "aud": "https://api.box.com/oauth2/token",
        },
        header={"alg": "RS512", "kid": "k1"},
    ),
    "DocuSign, JWT bearer": Case(
        lambda told: JWTBearer(
            docusign(demo=True, **told),
            PEM,
            issuer="id",
            subject="a GUID",
            scope="signature impersonation",
        ),
        {
            "auth_methods": [],
            "assertion_keys": {"id": PUBLIC},
            "assertion_audiences": ["account-d.docusign.com"],
        },
        claims={
            "iss": "id",
            "sub": "a GUID",
            "aud": "account-d.docusign.com",
            "scope": "signature impersonation",
        },
        header={"alg": "RS256"},
    ),
    "Google, a service account": Case(
        lambda told: google_service_account(ACCOUNT, scope=["a", "b"], **told),
        {
            "auth_methods": [],
            "assertion_keys": {ACCOUNT["client_email"]: PUBLIC},
            "assertion_audiences": ["https://oauth2.googleapis.com/token"],
            "longest_assertion": 3600.0,
        },
        claims={
            "iss": ACCOUNT["client_email"],
            "aud": "https://oauth2.googleapis.com/token",
            "scope": "a b",
        },
        header={"alg": "RS256", "kid": "k1"},
    ),
    "Google, a service account for a person": Case(
        lambda told: google_service_account(ACCOUNT, scope="a", subject="ann@acme.test", **told),
        {
            "auth_methods": [],
            "assertion_keys": {ACCOUNT["client_email"]: PUBLIC},
            "assertion_audiences": ["https://oauth2.googleapis.com/token"],
        },
        claims={"sub": "ann@acme.test", "scope": "a"},
    ),
    "Zoom, server to server": Case(
        lambda told: Grant(
            zoom("id", SECRET, **told), "account_credentials", {"account_id": "A1"}, subject="A1"
        ),
        {
            "auth_methods": ["client_secret_basic"],
            "vendor_grants": {"account_credentials": {"account_id": "A1"}},
            "grant_ends_previous": True,
        },
        form={"account_id": "A1"},
    ),
}


class World:
    """A server and an API with a provider's settings; all of the provider's addresses lead there."""

    def __init__(
        self, make: Callable[[Mapping[str, Any]], EndpointSource], **settings: Any
    ) -> None:
        self.server = AuthorizationServer(clients={"id": SECRET}, **settings)
        self.source = make({"client": self.client})
        self.api = next(iter(self.source.origins or ())).replace("*", "acme") + "/v1/things"

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=_Routed(self), **options)

    async def call_from_many(self, *auths: RefreshAuth) -> None:
        async def call(client: httpx.AsyncClient) -> None:
            assert (await client.get(self.api)).status_code == 200

        async with anyio.create_task_group() as group:
            for auth in auths:
                for _ in range(10):
                    group.start_soon(call, self.client(auth=auth))

    @property
    def form(self) -> dict[str, str]:
        """Return the body of the last token request."""
        body = self.server.token_calls[-1].body.decode()
        return json.loads(body) if body.startswith("{") else dict(parse_qsl(body))


class _Routed(httpx.AsyncBaseTransport):
    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asks = str(request.url) == self._world.source.endpoint.url
        assert asks == (request.method == "POST"), request.url
        path = "/token" if asks else "/api/ping"
        request.url = request.url.copy_with(path=path, query=None)
        return await self._world.server.transport().handle_async_request(request)


@pytest.mark.parametrize("name", CASES)
async def test_a_service_s_grant_is_asked_as_the_provider_wants_it(name: str) -> None:
    case = CASES[name]
    world = World(case.make, **case.server)
    store = MemoryStore()
    # Two processes share a store, and one request serves both.
    auths = [RefreshAuth(world.source, store), RefreshAuth(world.source, store)]
    await world.call_from_many(*auths)
    assert world.server.token_requests == 1
    token = await auths[1].token()
    assert (token.expires_at or 0.0) - time.time() == pytest.approx(case.lifetime, abs=60.0)
    form = world.form
    assertion = form.pop("assertion", form.pop("client_assertion", None))
    for extra in ("grant_type", "client_assertion_type"):
        form.pop(extra, None)
    if case.form:
        assert {**form, **case.form} == form
    if assertion is not None:
        header, claims = header_and_claims(assertion)
        assert {**claims, **case.claims} == claims
        assert {**header, **case.header} == header
        assert "sub" in claims or name == "Google, a service account"
    else:
        assert not case.claims
    world.server.expire_access_tokens()
    await world.call_from_many(*auths)
    assert world.server.token_requests == 2
    assert world.server.api_refused >= 1
    if "Salesforce" in name:
        assert token.extra["instance_url"] == INSTANCE


async def test_entra_is_told_the_certificate_by_its_sha_256() -> None:
    case = CASES["Microsoft, a certificate"]
    world = World(case.make, **case.server)
    await world.source.obtain(None)
    header, _ = header_and_claims(world.form["client_assertion"])
    digest = x509.load_pem_x509_certificate(certificate("RSA").encode()).fingerprint(SHA256())
    assert header[X5T_S256] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


async def test_entra_takes_the_token_of_a_workload_whose_file_is_kept_new(tmp_path: Path) -> None:
    projected = tmp_path / "azure-identity-token"
    cluster = "https://cluster.acme.test"

    def write(lives: float) -> None:
        now = int(time.time())
        claims = {
            "iss": cluster,
            "sub": "system:serviceaccount:acme:orders",
            "aud": "api://AzureADTokenExchange",
            "iat": now,
            "exp": now + int(lives),
        }
        projected.write_text(jwt.encode({"alg": "RS256"}, claims, RSAKey.import_key(PEM)) + "\n")

    write(3600.0)
    world = World(
        lambda told: ClientCredentials(
            microsoft(
                "id",
                tenant="acme.onmicrosoft.com",
                client_auth=ClientAssertion(projected),
                **told,
            ),
            scope=GRAPH,
        ),
        federated={"id": (cluster, "system:serviceaccount:acme:orders")},
        assertion_keys={cluster: PUBLIC},
        assertion_audiences=["api://AzureADTokenExchange"],
    )
    auth = RefreshAuth(world.source)
    await world.call_from_many(auth)
    await auth.refresh()
    assert world.server.token_requests == 2
    assert world.form["client_id"] == "id"
    assert world.form["client_assertion"] == projected.read_text().strip()
    write(-60.0)
    with pytest.raises(RefreshUnavailable, match="invalid_client"):
        await auth.refresh()
    projected.unlink()
    with pytest.raises(
        RefreshUnavailable, match="file passed as assertion cannot be read"
    ) as caught:
        await world.source.obtain(None)
    assert caught.value.outcome == "not_sent"


def test_zoom_s_server_to_server_apps_are_known_to_need_a_shared_store() -> None:
    source = Grant(zoom("id", SECRET), "account_credentials", {"account_id": "A1"})
    with pytest.raises(TypeError, match="ends the last one"):
        RefreshAuth(source)
    told = Grant(
        zoom("id", SECRET), "account_credentials", {"account_id": "A1"}, ends_previous=False
    )
    RefreshAuth(told)


# -- GitHub, whose apps do not use OAuth -------------------------------------------------------------------------------


class App(httpx.AsyncBaseTransport):
    """GitHub's API for apps: it verifies the app's token, and answers in its own format."""

    def __init__(self, server: AuthorizationServer) -> None:
        self.server = server
        self.asked: list[Any] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        transport = self.server.transport()
        if request.method == "GET":
            request.url = request.url.copy_with(path="/api/ping")
            return await transport.handle_async_request(request)
        assert str(request.url) == "https://api.github.com/app/installations/7/access_tokens"
        scheme, _, bearer = request.headers["authorization"].partition(" ")
        claims = jwt.decode(bearer, RSAKey.import_key(PUBLIC), algorithms=["RS256"]).claims
        now = time.time()
        is_good = claims["iat"] <= now < claims["exp"] <= now + 600
        if (scheme, claims["iss"], is_good) != ("Bearer", "Iv1.app", True):
            return httpx.Response(401, json={"message": "A JSON web token could not be decoded"})
        self.asked.append(json.loads(request.content))
        inner = httpx.Request(
            "POST",
            "https://server.test/token",
            data={"grant_type": "installation", "client_id": "id", "client_secret": SECRET},
        )
        answer = await transport.handle_async_request(inner)
        await answer.aread()
        token = {"token": answer.json()["access_token"], "expires_at": "2099-01-01T00:00:00Z"}
        return httpx.Response(201, json={**token, "permissions": {"contents": "read"}})


async def test_a_github_installation_serves_many_with_one_request() -> None:
    server = AuthorizationServer(clients={"id": SECRET}, vendor_grants={"installation": {}})
    app = App(server)
    source = github_installation(
        "Iv1.app",
        PEM,
        7,
        permissions={"contents": "read"},
        client=lambda: httpx.AsyncClient(transport=app),
    )
    auth = RefreshAuth(source)
    for requests in (1, 2):
        async with (
            httpx.AsyncClient(transport=app, auth=auth) as client,
            anyio.create_task_group() as group,
        ):

            async def call(client: httpx.AsyncClient = client) -> None:
                assert (await client.get("https://api.github.com/repos/a/b")).status_code == 200

            for _ in range(10):
                group.start_soon(call)
        assert app.asked == [{"permissions": {"contents": "read"}}] * requests
        server.expire_access_tokens()
    stranger = github_installation("other", PEM, 7, client=lambda: httpx.AsyncClient(transport=app))
    with pytest.raises(RefreshUnavailable, match="could not be decoded") as caught:
        await stranger.obtain(None)
    assert caught.value.outcome == "refused"


def test_a_preset_of_a_service_is_a_source_around_an_endpoint() -> None:
    source = google_service_account(ACCOUNT, scope="a")
    assert isinstance(source, JWTBearer)
    assert isinstance(source.endpoint, TokenEndpoint)
    other = {**ACCOUNT, "private_key": pem("other RSA")}
    told = [google_service_account(one, scope="a").client_fingerprint for one in (ACCOUNT, other)]
    assert len(set(told)) == 2


@pytest.mark.parametrize("demo", ["true", 1, None])
def test_whether_docusign_s_demo_is_meant_is_a_bool(demo: Any) -> None:
    with pytest.raises(TypeError, match="demo must be a bool"):
        docusign("id", "secret", demo=demo)
