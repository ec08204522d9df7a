"""Platforms: Google, Microsoft, Atlassian, Slack, GitHub, Dropbox, Box."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .._http.challenge import ExpiryRule
from .._oauth.answer import INVALID_GRANT, Refusal
from .._oauth.settings import with_claims
from ._preset import DAY, HOUR, Overrides, Provider, json_field, known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from .._oauth.endpoint import TokenEndpoint
    from .._oauth.material import Text

_GOOGLE = Provider(
    title="Google",
    url="https://oauth2.googleapis.com/token",
    origins=("https://*.googleapis.com",),
    grants=("authorization_code", "refresh_token", "jwt_bearer"),
    rotation="sometimes",
    client_auth="client_secret_post",
    quirks=(
        "an answer to a refresh mostly holds no refresh token: the old one is kept",
        "service accounts have a preset of their own, google_service_account",
    ),
    unknown=(
        "whether a spent refresh token is accepted again",
        "how long an access token lives; the answer says it",
        "how long a refresh token lives: Google does not say; third parties say six months without use",
    ),
    options={"authorization_endpoint": "https://accounts.google.com/o/oauth2/v2/auth"},
)


@known(_GOOGLE)
def google(
    client_id: str | None = None, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Google: an answer to a refresh mostly holds no refresh token, so the old one is kept.

    Its tokens go to googleapis.com, where every host belongs to Google.

    Sources:
        googleapis/google-auth-library-python google/oauth2/_client.py: client authentication, the optional refresh
        token; NangoHQ/nango providers.yaml: URLs, and the hosts of twenty of its
        APIs; stackoverflow.com question 8953983: six months.
    """
    return _GOOGLE.endpoint(client_id, client_secret, overrides)


_MICROSOFT = Provider(
    title="Microsoft",
    url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    origins=("https://graph.microsoft.com",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="always",
    grace="stays_valid",
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    idle_lifetime=90 * DAY,
    quirks=(
        "tokens go to Microsoft Graph; those for another API (scope says which) need origins=",
        "client credentials need your own tenant, and one resource with /.default as their scope; they never return a "
        "refresh token",
        "with a certificate the assertion is signed with PS256, and its header holds the SHA-256 hash (x5t#S256)",
    ),
    options={
        "authorization_endpoint": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize"
    },
)


@known(_MICROSOFT)
def microsoft(
    client_id: str,
    client_secret: Text | None = None,
    *,
    tenant: str = "common",
    client_capabilities: Sequence[str] = (),
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Microsoft Entra ID: a new refresh token every time, and the old one stays valid.

    Args:
        client_id: the application (client) id.
        client_secret: the client secret; for `private_key_jwt` the key. None for a public client, and with
            `client_auth=PrivateKeyJWT(..., algorithm="PS256", certificate=...)`.
        tenant: the directory's id or domain, or `common`, `organizations` or `consumers`.
        client_capabilities: what this client supports: `["cp1"]` says that it handles claims challenges, as this
            library does; APIs send some challenges to such clients only. Logins, refreshes and grants then request
            `xms_cc` with these values, merged with the other `claims`.
        overrides: see this package.

    Sources:
        MicrosoftDocs/entra-docs claims-challenge.md: client capabilities; v2-oauth2-auth-code-flow.md: URLs, client
        authentication, one hour; refresh-tokens.md: the old token stays valid, 90 days;
        v2-oauth2-client-creds-grant-flow.md: client credentials; certificate-credentials.md: certificates;
        NangoHQ/nango providers.yaml: the API's address.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", tenant):
        raise ValueError("tenant must be a directory's id or domain, or 'common'")
    if client_capabilities:
        if isinstance(client_capabilities, str):
            raise TypeError('client_capabilities must be a list of words, such as ["cp1"]')
        capable = {"access_token": {"xms_cc": {"values": list(client_capabilities)}}}
        for name in ("params", "authorization_params"):
            given: Any = overrides.get(name) or {}
            overrides[name] = with_claims(given, capable)
    return _MICROSOFT.endpoint(client_id, client_secret, overrides, tenant=tenant)


_ATLASSIAN = Provider(
    title="Atlassian",
    url="https://auth.atlassian.com/oauth/token",
    origins=("https://api.atlassian.com",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="always",
    grace=600.0,
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    idle_lifetime=90 * DAY,
    absolute_lifetime=365 * DAY,
    quirks=(
        "a dead refresh token is refused with status 403",
        "the gateway may answer 403 or 404 to an expired access token: these are passed on, because they "
        "usually mean something else",
        "client credentials are those of a service account",
    ),
    options={
        "authorization_endpoint": "https://auth.atlassian.com/authorize",
        "dead": (INVALID_GRANT, Refusal(status=403, error="unauthorized_client")),
    },
)


@known(_ATLASSIAN)
def atlassian(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Atlassian (Jira, Confluence): a new refresh token every time, and ten minutes' grace for the old one.

    Sources:
        developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens: client authentication, rotation;
        community.developer.atlassian.com topics 50348: the grace, and 60806: lifetimes; raycast/extensions issue 11836
        and nango.dev/blog/jira-oauth-refresh-token-invalid-grant: the dead token; n8n-io/n8n pull 37776: the gateway;
        NangoHQ/nango providers.yaml: URLs, service accounts.
    """
    return _ATLASSIAN.endpoint(client_id, client_secret, overrides)


_SLACK = Provider(
    title="Slack",
    url="https://slack.com/api/oauth.v2.access",
    origins=("https://slack.com", "https://files.slack.com"),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    access_token_lifetime=12 * HOUR,
    quirks=(
        "errors come with status 200, from the token endpoint and from the API: the bodies of the API's responses with "
        "status 200 are read",
        "two refreshes at the same time can both succeed, and one of their tokens is invalid",
        "tokens are not sent to the addresses of files that are stored elsewhere",
    ),
    unknown=(
        "how a client authenticates: HTTP Basic is assumed",
        "whether a spent refresh token is accepted again",
        "how long a refresh token lives",
    ),
    options={
        "authorization_endpoint": "https://slack.com/oauth/v2/authorize",
        "is_expired": ExpiryRule(
            lambda body: json_field(body, "error") == "token_expired", frozenset({200, 401})
        ),
        "dead": (INVALID_GRANT, Refusal(error="invalid_refresh_token")),
    },
)


@known(_SLACK)
def slack(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Slack with token rotation: errors come with status 200, from the token endpoint and from the API.

    The bodies of the API's responses with status 200 are read (see `ExpiryRule`).

    Sources:
        api.slack.com/authentication/rotation: rotation, twelve hours; slackapi/python-slack-sdk rotator.py: URL,
        async_base_client.py: the API's address, and its issue 1242: invalid_refresh_token; slackapi/bolt-js issue 1968:
        token_expired; slackapi/node-slack-sdk issue 2504: two at the same time; slack-go/slack release v0.30.1 and
        ErikKalkoken's gist f3ab28617d5099531ded865d111dbac1: files.
    """
    return _SLACK.endpoint(client_id, client_secret, overrides)


_GITHUB = Provider(
    title="GitHub",
    url="https://github.com/login/oauth/access_token",
    origins=("https://api.github.com", "https://uploads.github.com"),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_post",
    access_token_lifetime=8 * HOUR,
    idle_lifetime=15_811_200.0,
    quirks=(
        "errors come with status 200",
        "a refresh ends the earlier access token, and the new one may be refused for a moment",
        "a GitHub App acting as itself has a preset of its own, github_installation",
    ),
    options={
        "authorization_endpoint": "https://github.com/login/oauth/authorize",
        "dead": (INVALID_GRANT, Refusal(error="bad_refresh_token")),
    },
)


@known(_GITHUB)
def github(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """GitHub Apps, on behalf of a user: a new refresh token every time, and errors with status 200.

    Sources:
        github/docs refreshing-user-access-tokens.md: rotation, lifetimes, client authentication; coder/coder
        externalauth.go: a new token that is refused; lelylan/simple-oauth2 issue 459: bad_refresh_token; NangoHQ/nango
        providers.yaml: URLs; google/go-github github.go: the address of uploads.
    """
    return _GITHUB.endpoint(client_id, client_secret, overrides)


_DROPBOX = Provider(
    title="Dropbox",
    url="https://api.dropboxapi.com/oauth2/token",
    origins=("https://api.dropboxapi.com", "https://content.dropboxapi.com"),
    grants=("authorization_code", "refresh_token"),
    rotation="never",
    grace="stays_valid",
    client_auth="client_secret_post",
    access_token_lifetime=4 * HOUR,
    quirks=(
        "without a secret it is a PKCE app",
        "a 401 that names another reason than expired_access_token is passed on",
    ),
    unknown=("how long a refresh token lives",),
    options={
        "authorization_endpoint": "https://www.dropbox.com/oauth2/authorize",
        "authorization_params": {"token_access_type": "offline"},
        "is_expired": ExpiryRule(
            lambda body: json_field(body, "error", ".tag") in ("expired_access_token", None)
        ),
    },
)


@known(_DROPBOX)
def dropbox(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Dropbox: one refresh token that is never replaced; without a secret it is a PKCE app.

    Sources:
        dropbox/dropbox-sdk-python dropbox_client.py: all but the URLs, and session.py: the API's addresses;
        Unstructured-IO/docs dropbox.mdx: four hours; NangoHQ/nango providers.yaml: URLs.
    """
    return _DROPBOX.endpoint(client_id, client_secret, overrides)


_BOX = Provider(
    title="Box",
    url="https://api.box.com/oauth2/token",
    origins=("https://api.box.com", "https://upload.box.com"),
    grants=("authorization_code", "refresh_token", "client_credentials", "jwt_bearer"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    idle_lifetime=60 * DAY,
    quirks=(
        "client credentials name their subject: box_subject_type (enterprise or user) and box_subject_id in params",
        "a JWT bearer assertion is for https://api.box.com/oauth2/token, has a claim box_sub_type, and lives a minute "
        "at the most (30 seconds here); the client's secret goes with it",
    ),
    options={
        "authorization_endpoint": "https://account.box.com/api/oauth2/authorize",
        "jwt_bearer": {"lifetime": 30.0},
    },
)


@known(_BOX)
def box(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Box: a new refresh token every time, and the old one is spent at once.

    Sources:
        developer.box.com/guides/authentication/tokens/refresh: rotation, 60 days, and tooling/postman/refresh: one
        hour; box.dev access-tokens/refresh: client authentication; support.box.com 360049133654: the dead token;
        NangoHQ/nango providers.yaml: URLs; box/box-python-sdk base_urls.py: the API's addresses; box-sdk-gen
        ccg_auth.py: client credentials, and jwt_auth.py: the assertion.
    """
    return _BOX.endpoint(client_id, client_secret, overrides)
