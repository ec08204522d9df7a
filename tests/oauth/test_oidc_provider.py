"""Client authentication by every method against another implementation: npm's certified oidc-provider."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from httpx_refresh import RefreshAuth, RefreshUnavailable, Token, TokenEndpoint, discover
from httpx_refresh._oauth.answer import Answer
from httpx_refresh._oauth.authentication import Asked
from httpx_refresh.client_auth import (
    ClientAssertion,
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    MutualTLS,
    PrivateKeyJWT,
)
from httpx_refresh.grants import ClientCredentials
from tests.oauth.pems import KIND_OF, certificate, pem
from tests.oauth.test_frames import check_frames
from tests.oauth.test_keys import joserfc_key

pytestmark = pytest.mark.anyio

ODD = "a+b/c=d:e%f g&h~" * 4
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")


def public_jwk(kind: str, **more: Any) -> dict[str, Any]:
    return {**joserfc_key(kind).as_dict(private=False), **more}


def client(client_id: str, method: str, **more: Any) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "token_endpoint_auth_method": method,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        **more,
    }


def x5c(kind: str) -> list[str]:
    return [base64.b64encode(ssl.PEM_cert_to_DER_cert(certificate(kind))).decode()]


CLIENTS = [
    *[
        client(
            algorithm,
            "private_key_jwt",
            token_endpoint_auth_signing_alg=algorithm,
            jwks={"keys": [public_jwk(kind)]},
        )
        for algorithm, kind in KIND_OF.items()
    ],
    *[
        client(
            algorithm,
            "client_secret_jwt",
            token_endpoint_auth_signing_alg=algorithm,
            client_secret=ODD,
        )
        for algorithm in SECRET_ALGORITHMS
    ],
    client("basic:1", "client_secret_basic", client_secret=ODD),
    client("post", "client_secret_post", client_secret=ODD),
    client(
        "rotating",
        "private_key_jwt",
        jwks={"keys": [public_jwk("RSA", kid="old"), public_jwk("other RSA", kid="new")]},
    ),
    client(
        "mtls", "self_signed_tls_client_auth", jwks={"keys": [public_jwk("RSA", x5c=x5c("RSA"))]}
    ),
]


@pytest.fixture(scope="module")
def issuer(oidc_provider: Callable[[dict[str, Any]], str]) -> str:
    return oidc_provider(
        {
            "clients": CLIENTS,
            "algorithms": [*KIND_OF, *SECRET_ALGORITHMS],
            "jwks": {"keys": [{**joserfc_key("RSA").as_dict(private=True), "use": "sig"}]},
            "key": pem("P-256"),
            "certificate": certificate("P-256"),
        }
    )


async def asked(issuer: str, client_id: str, auth: Any, **options: Any) -> Answer:
    """Request a token with client credentials, as the endpoint's client."""
    endpoint = await discover(issuer, client_id, client_auth=auth, **options)
    answer = await endpoint._client.post("grant_type=client_credentials&scope=read")
    assert isinstance(answer, Answer), answer
    return answer


async def check_token(issuer: str, client_id: str, auth: Any, **options: Any) -> None:
    answer = await asked(issuer, client_id, auth, **options)
    assert (answer.status, b'"access_token"' in answer.body) == (200, True), answer.body


@pytest.mark.parametrize("algorithm", KIND_OF)
async def test_a_private_key_of_every_kind_is_accepted(issuer: str, algorithm: Any) -> None:
    key = pem(KIND_OF[algorithm])
    await check_token(issuer, algorithm, PrivateKeyJWT(key, algorithm=algorithm))


@pytest.mark.parametrize("audience", ["", "/token"])
async def test_both_audiences_are_accepted(issuer: str, audience: str) -> None:
    auth = PrivateKeyJWT(pem("P-256"), algorithm="ES256", audience=issuer + audience)
    await check_token(issuer, "ES256", auth)


async def test_what_is_wrong_with_an_assertion_is_refused_by_the_server(issuer: str) -> None:
    """This shows that the server verifies the assertions above."""
    wrong: list[Any] = [
        PrivateKeyJWT(pem("other RSA"), algorithm="RS256"),
        PrivateKeyJWT(pem("RSA"), algorithm="RS384"),
        PrivateKeyJWT(pem("RSA"), algorithm="RS256", audience="https://elsewhere.test"),
        ClientAssertion(lambda: "e30.e30.e30"),
    ]
    for auth in wrong:
        assert (await asked(issuer, "RS256", auth)).status in (400, 401)
    endpoint = TokenEndpoint(f"{issuer}/token", "RS256", client_auth=wrong[0])
    with pytest.raises(RefreshUnavailable, match="invalid_client") as caught:
        await endpoint.refresh(Token("access", "refresh"))
    assert caught.value.outcome == "refused"


async def test_an_assertion_is_accepted_once(issuer: str) -> None:
    used: list[str] = []

    async def again() -> str:
        if not used:
            proof = await PrivateKeyJWT(pem("RSA"), algorithm="RS256").prove(
                Asked("RS256", issuer, time.time())
            )
            used.append(proof.params["client_assertion"])
        return used[0]

    await check_token(issuer, "RS256", ClientAssertion(again))
    assert (await asked(issuer, "RS256", ClientAssertion(again))).status in (400, 401)


async def test_a_certificate_s_digests_and_chain_are_no_trouble(issuer: str) -> None:
    auth = PrivateKeyJWT(pem("RSA"), algorithm="PS256", certificate=certificate("RSA"))
    await check_token(issuer, "PS256", auth)


async def test_a_key_is_rotated_in_its_file(issuer: str, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(pem("RSA"))
    auth = PrivateKeyJWT(path, algorithm="RS256")
    await check_token(issuer, "rotating", auth)
    path.write_text(pem("other RSA"))
    await check_token(issuer, "rotating", auth)
    path.write_text(pem("P-256"))
    endpoint = TokenEndpoint(f"{issuer}/token", "rotating", client_auth=auth)
    with pytest.raises(RefreshUnavailable, match="wrong kind: RS256 needs an RSA key"):
        await endpoint.refresh(Token("access", "refresh"))


@pytest.mark.parametrize("key_id, accepted", [("new", True), ("old", False)])
async def test_the_key_id_names_the_key(issuer: str, key_id: str, accepted: bool) -> None:
    auth = PrivateKeyJWT(pem("other RSA"), algorithm="RS256", key_id=key_id)
    assert ((await asked(issuer, "rotating", auth)).status == 200) == accepted


@pytest.mark.parametrize("algorithm", SECRET_ALGORITHMS)
async def test_a_secret_signs(issuer: str, algorithm: Any) -> None:
    await check_token(issuer, algorithm, ClientSecretJWT(ODD, algorithm=algorithm))


async def test_a_secret_of_odd_characters_is_decoded(issuer: str) -> None:
    await check_token(issuer, "basic:1", ClientSecretBasic(ODD))
    await check_token(issuer, "basic:1", ClientSecretBasic(ODD, client_id_in_body=True))
    await check_token(issuer, "post", ClientSecretPost(ODD))


async def test_this_server_decodes_basic_credentials(issuer: str) -> None:
    raw = ClientSecretBasic(ODD.replace(":", ""), form_encoded=False)
    assert (await asked(issuer, "post", raw)).status in (400, 401)


async def test_a_self_signed_certificate_authenticates_at_the_alias(issuer: str) -> None:
    auth = MutualTLS(certificate("RSA"), pem("RSA"), ca_certificates=certificate("P-256"))
    endpoint = await discover(issuer, "mtls", client_auth=auth)
    assert endpoint.url.startswith("https://127.0.0.1:")
    await check_token(issuer, "mtls", auth)
    other = MutualTLS(
        certificate("other RSA"), pem("other RSA"), ca_certificates=certificate("P-256")
    )
    assert (await asked(issuer, "mtls", other)).status in (400, 401)


async def test_a_service_gets_its_tokens_with_a_key(issuer: str) -> None:
    auth = PrivateKeyJWT(pem("P-256"), algorithm="ES256")
    endpoint = await discover(issuer, "ES256", client_auth=auth)
    async with RefreshAuth(ClientCredentials(endpoint, scope="read"), origins="any") as service:
        first = await service.token()
        second = await service.refresh()
    assert first.access_token != second.access_token
    assert first.expires_at is not None


async def test_a_service_with_a_wrong_key_is_refused(issuer: str) -> None:
    auth = PrivateKeyJWT(pem("P-384"), algorithm="ES384", key_id="s3cr3t-of-nobody")
    endpoint = await discover(issuer, "ES256", client_auth=auth)
    async with RefreshAuth(ClientCredentials(endpoint), origins="any") as service:
        with pytest.raises(RefreshUnavailable, match="invalid_client") as caught:
            await service.token()
    assert caught.value.outcome == "refused"
    check_frames(caught.value)
