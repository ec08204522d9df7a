"""Services that have a key instead of a person: a Google service account, a GitHub App's installation."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from .._errors import RefreshUnavailable, cause_of, frameless
from .._oauth.authentication import Asked, Proof
from .._oauth.client import JSON
from .._oauth.granting import Granted
from .._oauth.keys import KeySource, SigningKey
from .._refresh.source import purpose_of
from .._threads import run_blocking
from .._token import Token
from ._preset import HOUR, SERVICES, Overrides, Provider, host_of, known

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._http.challenge import ExpiryRule
    from .._http.libraries import AsyncClient
    from .._oauth.endpoint import TokenEndpoint


class ServiceOptions(TypedDict, total=False):
    """What these presets may be told: keyword arguments of `TokenEndpoint`, and its `url`."""

    url: str
    name: str | None
    client: AsyncClient | Callable[[], AsyncClient] | None
    timeout: float
    allow_http: bool
    origins: Iterable[str] | str | None
    is_expired: ExpiryRule | Callable[[Any], bool] | None
    params: Mapping[str, str] | None


_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

_CLOCKS_DIFFER = 5.0
"""Seconds by which the server's clock has to differ before a refused assertion is made anew by it."""


class _Service:
    """What these sources have in common: what their endpoint declares. Nothing of it changes."""

    def __init__(self, endpoint: TokenEndpoint, purpose: str) -> None:
        self.endpoint = endpoint
        self.name: str = endpoint.name
        self.client_fingerprint: str | None = endpoint.client_fingerprint
        self.authorization_scheme: str = endpoint.authorization_scheme
        self.origins: tuple[str, ...] | str | None = endpoint.origins
        self.allow_http: bool = endpoint.allow_http
        self.is_expired: ExpiryRule | Callable[[Any], bool] | None = endpoint.is_expired
        self.purpose: str = purpose
        self.repeatable: bool = True
        self.one_loop: str | None = endpoint.one_loop

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint!r})"

    @frameless
    async def obtain(self, held: Token | None, /) -> Token:
        """Ask for a token, and return what the server answered.

        If it refuses, and its clock is another than this host's, it is asked once more, by its own clock.

        Args:
            held: the token that will not do any more; it does not matter here.

        Raises:
            RefreshUnavailable: there is none now; its `outcome` tells what became of the request.
        """
        granted = await self._ask(time.time())
        if granted.refused and granted.ahead is not None and abs(granted.ahead) > _CLOCKS_DIFFER:
            granted = await self._ask(time.time() + granted.ahead)
        if isinstance(granted.came, Token):
            return granted.came
        raise granted.came

    async def _ask(self, now: float) -> Granted:
        raise NotImplementedError


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
)


class GoogleServiceAccount(_Service):
    """Get tokens with the key of a Google service account, see `google_service_account`."""

    @frameless
    def __init__(
        self, endpoint: TokenEndpoint, key: AccountKey, scope: str, subject: str | None
    ) -> None:
        self._key = key
        self._scope = scope
        self._subject = subject
        account = self._read()
        _signing(account)  # Raises what is wrong with its key.
        email = account["client_email"]
        super().__init__(
            endpoint, purpose_of("jwt-bearer", endpoint.url, email, scope=scope, subject=subject)
        )

    def _read(self) -> dict[str, str]:
        key: Any = self._key
        if not isinstance(key, Mapping):
            try:
                key = json.loads(Path(key).expanduser().read_bytes())
            except OSError as error:
                raise ValueError(f"key cannot be read: {error.strerror}") from None
            except ValueError:  # It holds the text.
                raise ValueError("key is no JSON file of a service account") from None
        names = ("client_email", "private_key", "private_key_id")
        found = {name: key.get(name) for name in names} if isinstance(key, Mapping) else {}
        if not (found and all(isinstance(one, str) and one for one in found.values())):
            raise ValueError(f"key must hold {', '.join(names)}, as a service account's key does")
        return cast("dict[str, str]", found)

    def _assertion(self, now: float) -> str:
        account = self._read()
        claims: dict[str, Any] = {
            "iss": account["client_email"],
            "aud": self.endpoint.url,
            "scope": self._scope,
            "iat": int(now),
            "exp": int(now + HOUR),
        }
        if self._subject is not None:
            claims["sub"] = self._subject
        return _signing(account).sign_here(claims, {})

    async def _ask(self, now: float) -> Granted:
        try:
            assertion = await run_blocking(self._assertion, now, group=self)
        except Exception as error:
            return Granted(_no_key(self.name, error))
        form = [("assertion", assertion)]
        return await self.endpoint.granted(_JWT_BEARER, form, secrets=[assertion])


def _signing(account: dict[str, str]) -> SigningKey:
    return SigningKey(account["private_key"], algorithm="RS256", key_id=account["private_key_id"])


def _no_key(name: str, error: Exception) -> RefreshUnavailable:
    return RefreshUnavailable(
        f"{name} was not asked: key cannot be used now ({type(error).__name__}). Check the file that it is read from.",
        outcome="not_sent",
        transient=False,
        caused_by=cause_of(error),
    )


@known(_GOOGLE, SERVICES)
def google_service_account(
    key: AccountKey,
    *,
    scope: str | Iterable[str],
    subject: str | None = None,
    **overrides: Unpack[ServiceOptions],
) -> GoogleServiceAccount:
    """Google service accounts: tokens of an hour for a key, without a person and without a store.

    Args:
        key: the account's key: a path of its JSON file, which is read before each token request, or its fields.
        scope: what the token may do: words with blanks between, or several texts.
        subject: the person that the account acts for (domain-wide delegation).
        overrides: see this package.

    Raises:
        TypeError, ValueError: an argument is invalid: no key, a file that is gone, no scope.

    Sources:
        google-auth google/oauth2/service_account.py: the assertion, one hour, the subject;
        googleapis/google-auth-library-python google/oauth2/_client.py: the grant; NangoHQ/nango providers.yaml: URL,
        the API's address.
    """
    words = " ".join((scope if isinstance(scope, str) else " ".join(scope)).split())
    if not words:
        raise ValueError("scope must not be empty")
    if subject is not None and not (isinstance(subject, str) and subject):
        raise ValueError("subject must be a str that is not empty, or None")
    endpoint = _GOOGLE.endpoint(None, None, cast("Overrides", overrides))
    return GoogleServiceAccount(endpoint, key, words, subject)


# -- GitHub ------------------------------------------------------------------------------------------------------------

_GITHUB = Provider(
    title="GitHub App installation",
    url="https://{host}/app/installations/{installation}/access_tokens",
    origins=("https://{host}", "https://uploads.github.com"),
    grants=("installation",),
    rotation="none",
    access_token_lifetime=HOUR,
    quirks=(
        "no OAuth: the app signs a JSON Web Token of ten minutes at the most, and the answer calls the token token",
        "an assertion begins a minute ago, for clocks differ",
        "several tokens are good side by side",
    ),
    options={"answer_fields": {"access_token": "token"}},
)


class _AppToken:
    """How a GitHub App says who it is: a JSON Web Token in the place of a bearer token.

    Mutable: `ahead`, seconds by which the server's clock was ahead of this host's when it refused the last one.
    """

    method = "private_key_jwt"

    def __init__(self, key: KeySource) -> None:
        self._key = SigningKey(key, algorithm="RS256")
        self.ahead = 0.0

    @property
    def identity(self) -> str:
        """The thumbprint of the public key (RFC 7638) as it was read last."""
        return self._key.thumbprint or ""

    async def prove(self, asked: Asked) -> Proof:
        """Return the header."""
        now = int(time.time() + self.ahead)
        claims = {"iss": asked.client_id, "iat": now - 60, "exp": now + 300}
        signed = await run_blocking(self._key.sign_here, claims, {}, group=self._key)
        return Proof({"Authorization": f"Bearer {signed}"}, secrets=(signed,))


class GitHubInstallation(_Service):
    """Get tokens of a GitHub App's installation, see `github_installation`."""

    @frameless
    def __init__(self, endpoint: TokenEndpoint, auth: _AppToken, body: Mapping[str, Any]) -> None:
        self._auth = auth
        self._body = json.dumps(body)
        narrowed = self._body if body else None
        super().__init__(
            endpoint, purpose_of("installation", endpoint.url, endpoint.client_id, scope=narrowed)
        )

    async def _ask(self, now: float) -> Granted:
        self._auth.ahead = now - time.time()
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
    host: str = "api.github.com",
    **overrides: Unpack[ServiceOptions],
) -> GitHubInstallation:
    """GitHub Apps acting as themselves: tokens of an hour for a key, without a person and without a store.

    Args:
        app_id: the app's client id, or its number.
        key: its private key: PEM, or a path (`pathlib.Path`) of it, which is read before each token request.
        installation_id: the number of the installation.
        repositories: names of the repositories that the token is for; none: all of the installation.
        repository_ids: their numbers instead.
        permissions: what the token may do, such as `{"contents": "read"}`; None: all that the installation may.
        host: of the API, for a GitHub Enterprise of one's own.
        overrides: see this package.

    Raises:
        TypeError, ValueError: an argument is invalid.

    Sources:
        github/docs data/reusables/apps/generate-installation-access-token.md: URL, body, answer, one hour; PyGithub
        github/Consts.py and github/Auth.py, gidgethub gidgethub/apps.py: the assertion, and the minute before;
        NangoHQ/nango providers.yaml: the API's address; google/go-github github.go: the address of uploads.
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
    auth = _AppToken(key)
    told = cast("Overrides", {"client_auth": auth, **overrides})
    parts = {"host": host_of("host", host), "installation": str(installation_id)}
    endpoint = _GITHUB.endpoint(str(app_id), None, told, **parts)
    narrowed = {name: value for name, value in body.items() if value}
    return GitHubInstallation(endpoint, auth, narrowed)
