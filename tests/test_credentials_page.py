"""The page about other libraries' credentials runs, with the real google-auth and azure-identity."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from httpx_refresh import RefreshAuth, RefreshUnavailable
from httpx_refresh.testing import AuthorizationServer, running_server
from tests.test_docs import ROOT, run, serve, snippets

__all__ = ["serve"]  # a fixture

google = pytest.importorskip("google.oauth2.credentials", reason="google-auth: the group all-tests")
pytest.importorskip("azure.identity", reason="azure-identity: the group all-tests")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return run("\n".join(snippets(ROOT / "docs" / "credentials.md")), "credentials")


async def asked(auth: RefreshAuth, url: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(auth=auth, trust_env=False, **options) as client:
        return await client.get(url)


def test_credentials_of_google_auth_get_a_token_and_another_after_a_refusal(
    page: dict[str, Any],
) -> None:
    with running_server(lifetime=3600) as server:
        credentials = google.Credentials(
            None,
            refresh_token=server.token["refresh_token"],
            token_uri=server.token_url,
            client_id=server.client_id,
            client_secret=server.client_secret,
        )
        auth = RefreshAuth(page["GoogleCredentials"](credentials), origins=server.url)
        ping = f"{server.api_url}/ping"
        assert anyio.run(asked, auth, ping).status_code == 200
        server.expire()
        assert anyio.run(asked, auth, ping).status_code == 200
        assert server.stats()["token_requests"] == 2
        expires_at = anyio.run(auth.token).expires_at
        assert expires_at == pytest.approx(time.time() + 3600, abs=300)

        server.revoke_family()
        with pytest.raises(RefreshUnavailable) as caught:
            anyio.run(asked, auth, ping)
        assert caught.value.outcome == "refused"
        assert "RefreshError" in str(caught.value)


def test_what_google_auth_finds_is_asked_for_a_scope(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "user.json"
    user = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    file.write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "project")
    assert isinstance(page["google_auth"](), RefreshAuth)


class Entra:
    """A credential of azure-identity's kind (`TokenCredential`): it keeps one token for each set of claims."""

    def __init__(self, server: AuthorizationServer) -> None:
        self._server = server
        self._cached: dict[str | None, Any] = {}
        self.asked: list[tuple[Any, ...]] = []

    def get_token(self, *scopes: str, claims: str | None = None, **options: Any) -> Any:
        from azure.core.credentials import AccessToken
        from azure.core.exceptions import ClientAuthenticationError

        self.asked.append((scopes, claims, options))
        if not self._server.families:
            raise ClientAuthenticationError("a secret")
        if claims not in self._cached:
            response = self._server.login()
            self._cached[claims] = AccessToken(response["access_token"], 4_000_000_000)
        return self._cached[claims]


def test_a_credential_of_azure_identity_is_asked_once_for_many_requests(
    page: dict[str, Any], serve: Callable[[AuthorizationServer], None]
) -> None:
    server = AuthorizationServer()
    server.login()
    serve(server)
    credential = Entra(server)
    source = page["AzureCredentials"](credential, "https://graph.microsoft.com/.default")
    auth = RefreshAuth(source, origins="https://graph.microsoft.com")

    async def main() -> list[int]:
        async with httpx.AsyncClient(auth=auth) as client:
            url = "https://graph.microsoft.com/v1.0/me"
            return [(await client.get(url)).status_code for _ in range(3)]

    assert anyio.run(main) == [200, 200, 200]
    scopes = ("https://graph.microsoft.com/.default",)
    assert credential.asked == [(scopes, None, {"enable_cae": True})]
    token = anyio.run(lambda: source.obtain(None, claims={"access_token": {"nbf": {"value": "1"}}}))
    assert token.expires_at == 4_000_000_000
    assert json.loads(credential.asked[-1][1]) == {"access_token": {"nbf": {"value": "1"}}}


def test_a_credential_of_azure_identity_that_is_refused_shows_no_text_of_its_own(
    page: dict[str, Any],
) -> None:
    source = page["AzureCredentials"](Entra(AuthorizationServer()), "scope")
    with pytest.raises(RefreshUnavailable) as caught:
        anyio.run(source.obtain, None)
    assert caught.value.outcome == "refused"
    assert str(caught.value) == "azure-identity got no token: ClientAuthenticationError"


def test_the_default_credential_of_azure_makes_an_auth(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", "contoso.onmicrosoft.com")
    assert isinstance(page["azure_auth"](), RefreshAuth)


def test_a_workload_of_kubernetes_shows_its_file_to_entra(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("an assertion")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    monkeypatch.setenv("AZURE_TENANT_ID", "contoso.onmicrosoft.com")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    auth = page["entra_workload"]()
    forms = []

    def answer(request: httpx.Request) -> httpx.Response:
        forms.append(dict(httpx.QueryParams(request.content.decode())))
        return httpx.Response(200, json={"access_token": "a", "expires_in": 3600})

    patched(monkeypatch, answer)
    assert anyio.run(auth.token).access_token == "a"
    file.write_text("the next one")
    anyio.run(auth.refresh)
    assert [form["client_assertion"] for form in forms] == ["an assertion", "the next one"]


def test_a_workload_s_file_is_exchanged_at_google(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("the workload's")
    pool = "projects/1/locations/global/workloadIdentityPools/pool/providers/p"
    auth = page["google_workload"](file, pool)
    forms = []

    def answer(request: httpx.Request) -> httpx.Response:
        forms.append(dict(httpx.QueryParams(request.content.decode())))
        return httpx.Response(200, json={"access_token": "a", "expires_in": 3600})

    patched(monkeypatch, answer)
    assert anyio.run(auth.token).access_token == "a"
    (form,) = forms
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
    assert form["subject_token"] == "the workload's"
    assert form["audience"] == f"//iam.googleapis.com/{pool}"


def patched(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    """Give these answers to all clients."""

    class Client(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            options |= {"transport": httpx.MockTransport(answer), "mounts": None}
            super().__init__(**options)

    monkeypatch.setattr(httpx, "AsyncClient", Client)
