"""Presets for services, which have a key instead of a person: Google service accounts, GitHub App installations."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from .._errors import frameless
from .._oauth.authentication import Asked, Proof
from .._oauth.client import JSON
from .._oauth.granting import Granted
from .._oauth.keys import KeySource, SigningKey
from .._oauth.material import read
from .._refresh.source import purpose_of
from .._threads import run_blocking
from ..grants import Claims, EndpointSource, JWTBearer
from ._preset import HOUR, SERVICES, Overrides, Provider, known

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._http.challenge import ExpiryRule
    from .._http.libraries import AsyncClient
    from .._oauth.endpoint import TokenEndpoint


class ServiceOptions(TypedDict, total=False):
    """The keyword arguments of these presets: those of `TokenEndpoint`, and its `url`."""

    url: str
    name: str | None
    client: AsyncClient | Callable[[], AsyncClient] | None
    timeout: float
    allow_http: bool
    origins: Iterable[str] | str | None
    is_expired: ExpiryRule | Callable[[Any], bool] | None
    params: Mapping[str, str] | None


# -- Google ------------------------------------------------------------------------------------------------------------

AccountKey: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any]"

_GOOGLE = Provider(
    title="Google service account",
    url="https://oauth2.googleapis.com/token",
    origins=("https://*.googleapis.com",),
    grants=("jwt_bearer",),
    rotation="none",
    access_token_lifetime=HOUR,
    quirks=(
        "the assertion (RS256) is for the token endpoint, its scope is a claim, and it lives an hour at the most",
        "with a subject the account acts for a person of its domain, where an administrator allows that",
    ),
    options={
        "jwt_bearer": {"lifetime": HOUR, "scope_as": "claim", "issuer_is_subject": False},
    },
)


@known(_GOOGLE, SERVICES)
def google_service_account(
    key: AccountKey,
    *,
    scope: str | Iterable[str],
    subject: str | None = None,
    **overrides: Unpack[ServiceOptions],
) -> JWTBearer:
    """Google service accounts: tokens for an hour from a key, without a person and without a store.

    Args:
        key: the account's key: the path of its JSON file, which is read before each token request, or its fields.
        scope: what the token may do: words separated by spaces, or several texts.
        subject: the person that the account acts for (domain-wide delegation).
        overrides: see this package.

    Raises:
        TypeError, ValueError: an argument is invalid: no key, a missing file, no scope.

    Sources:
        google-auth google/oauth2/service_account.py: the assertion, one hour, the subject;
        googleapis/google-auth-library-python google/oauth2/_client.py: the grant; NangoHQ/nango providers.yaml: URL,
        the API's address.
    """
    if key is None or isinstance(key, str):
        if not key:
            raise ValueError("key must not be empty: is the variable that it comes from not set?")
        key = Path(key)
    endpoint = _GOOGLE.endpoint(None, None, cast("Overrides", overrides))
    return JWTBearer(endpoint, key, issuer=_email_of(key), subject=subject, scope=scope)


def _email_of(key: os.PathLike[str] | Mapping[str, Any]) -> str:
    """Return the account's email address from its key."""
    value: Any = read(key, "key")
    if isinstance(value, bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # The error holds the text.
            raise ValueError("key is not the JSON file of a service account") from None
    email = value.get("client_email") if isinstance(value, Mapping) else None
    if not (isinstance(email, str) and email and isinstance(value.get("private_key"), str)):
        raise ValueError(
            "key must hold client_email and private_key, as a service account's key does"
        )
    return email


# -- GitHub ------------------------------------------------------------------------------------------------------------

_GITHUB = Provider(
    title="GitHub App installation",
    url="https://api.github.com/app/installations/{installation}/access_tokens",
    origins=("https://api.github.com", "https://uploads.github.com"),
    grants=("installation",),
    rotation="none",
    access_token_lifetime=HOUR,
    quirks=(
        "not OAuth: the app signs a JSON Web Token of at most ten minutes, and the answer's field is named token",
        "an assertion is dated a minute back, because clocks differ",
        "several tokens can be valid at the same time",
    ),
    options={"answer_fields": {"access_token": "token"}},
)


class _AppToken:
    """The authentication of a GitHub App: a JSON Web Token instead of a bearer token."""

    method = "private_key_jwt"

    def __init__(self, key: KeySource) -> None:
        self._key = SigningKey(key, algorithm="RS256")

    @property
    def identity(self) -> str:
        """The thumbprint of the public key (RFC 7638) that was read last."""
        return self._key.thumbprint or ""

    async def prove(self, asked: Asked) -> Proof:
        """Return the `Authorization` header."""
        now = int(asked.now)
        claims = {"iss": asked.client_id, "iat": now - 60, "exp": now + 300}
        signed = await run_blocking(self._key.sign_here, claims, {}, group=self._key)
        return Proof({"Authorization": f"Bearer {signed}"}, secrets=(signed,), dated=True)


class GitHubInstallation(EndpointSource):
    """Get tokens of a GitHub App's installation, see `github_installation`."""

    @frameless
    def __init__(self, endpoint: TokenEndpoint, body: Mapping[str, Any]) -> None:
        self._body = json.dumps(body)
        scope = self._body if body else None
        super().__init__(
            endpoint,
            grant="installation",
            purpose=purpose_of("installation", endpoint.url, endpoint.client_id, scope=scope),
        )
        self.takes_claims = False

    async def _ask(self, claims: Claims) -> Granted:
        return await self.endpoint.asked_with(self._body, JSON)


@known(_GITHUB, SERVICES)
def github_installation(
    app_id: str | int,
    key: KeySource,
    installation_id: str | int,
    *,
    repositories: Iterable[str] = (),
    repository_ids: Iterable[int] = (),
    permissions: Mapping[str, str] | None = None,
    api: str = "https://api.github.com",
    **overrides: Unpack[ServiceOptions],
) -> GitHubInstallation:
    """GitHub Apps acting as themselves: tokens for an hour from a key, without a person and without a store.

    Args:
        app_id: the app's client id, or its number.
        key: its private key: PEM, or its path (`pathlib.Path`); the file is read before each token request.
        installation_id: the number of the installation.
        repositories: names of the repositories that the token is for; none: all of the installation.
        repository_ids: numbers of the repositories instead of their names.
        permissions: what the token may do, such as `{"contents": "read"}`; None: all permissions of the installation.
        api: the API's address, such as `https://ghe.example.com/api/v3` for a GitHub Enterprise Server.
        overrides: see this package.

    Raises:
        TypeError, ValueError: an argument is invalid.

    Sources:
        github/docs data/reusables/apps/generate-installation-access-token.md: URL, body, answer, one hour; PyGithub
        github/Consts.py and github/Auth.py, gidgethub gidgethub/apps.py: the assertion, and the minute before;
        NangoHQ/nango providers.yaml: the API's address; google/go-github github.go: the address of uploads, and the
        API's of an Enterprise Server.
    """
    if not str(installation_id).isdigit():
        raise ValueError("installation_id must be a number")
    if not str(app_id):
        raise ValueError("app_id must not be empty")
    body: dict[str, Any] = {
        "repositories": list(repositories),
        "repository_ids": list(repository_ids),
        "permissions": dict(permissions or {}),
    }
    found = re.fullmatch(r"(https://[^\s/?#{}@]+)(/[^\s?#{}]*[^\s?#{}/])?", api)
    if found is None:
        raise ValueError("api must be its address, such as https://ghe.example.com/api/v3")
    told: dict[str, Any] = {"client_auth": _AppToken(key), **overrides}
    if api not in _GITHUB.origins:
        url = f"{api}/app/installations/{installation_id}/access_tokens"
        told = {"url": url, "origins": [found[1]], **told}
    endpoint = _GITHUB.endpoint(
        str(app_id), None, cast("Overrides", told), installation=str(installation_id)
    )
    narrowed = {name: value for name, value in body.items() if value}
    return GitHubInstallation(endpoint, narrowed)
