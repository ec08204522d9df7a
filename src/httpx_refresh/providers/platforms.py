"""Platforms: Google, Microsoft, Atlassian, Slack, GitHub, Dropbox, Box."""

from __future__ import annotations

import re
from typing import Any

from .._errors import frameless
from .._http.challenge import ExpiryRule
from .._oauth.answer import INVALID_GRANT, Refusal
from .._oauth.endpoint import TokenEndpoint
from ._preset import DAY, STAYS_VALID, field, preset


@frameless
def google(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Google: the refresh token is mostly not sent again, and kept.

    Its tokens go to googleapis.com, where every host is Google's.

    Sources: googleapis/google-auth-library-python google/oauth2/_client.py (client authentication, the optional
    refresh token), NangoHQ/nango providers.yaml (URLs, and the hosts of twenty of its APIs).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Google",
        url="https://oauth2.googleapis.com/token",
        authorization_endpoint="https://accounts.google.com/o/oauth2/v2/auth",
        origins=("https://*.googleapis.com",),
        client_auth="client_secret_post",
    )


@frameless
def microsoft(
    client_id: str, client_secret: str | None = None, *, tenant: str = "common", **overrides: Any
) -> TokenEndpoint:
    """Microsoft Entra ID: a new refresh token every time, and the old one stays valid.

    Its tokens go to Microsoft Graph. A token for another API (`scope` says which) needs `origins=`.

    Args:
        client_id: the application (client) id.
        client_secret: the client secret; for `private_key_jwt` the key. None for a public client.
        tenant: the directory's id or domain, or `common`, `organizations` or `consumers`.
        overrides: see this package.

    Sources: MicrosoftDocs/entra-docs v2-oauth2-auth-code-flow.md (URLs, client authentication) and refresh-tokens.md
    (the old token stays valid; 90 days), NangoHQ/nango providers.yaml (the API's address).
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", tenant):
        raise ValueError("tenant must be a directory's id or domain, or 'common'")
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Microsoft",
        url=f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        authorization_endpoint=f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        refresh_token_lifetime=90 * DAY,
        client_auth="client_secret_post",
        origins=("https://graph.microsoft.com",),
        reuse_grace=STAYS_VALID,
    )


@frameless
def atlassian(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Atlassian (Jira, Confluence): a new refresh token every time, and ten minutes' grace for the old one.

    A dead one is refused with status 403. The gateway may answer 403 or 404 to an expired access token
    (n8n-io/n8n pull 37776): these are passed on, for they mean other things more often.

    Sources: developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens (client authentication),
    community.developer.atlassian.com topics 50348 (the grace) and 60806 (90 days), raycast/extensions issue 11836 and
    nango.dev/blog/jira-oauth-refresh-token-invalid-grant (the dead token), NangoHQ/nango providers.yaml (URLs).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Atlassian",
        url="https://auth.atlassian.com/oauth/token",
        authorization_endpoint="https://auth.atlassian.com/authorize",
        refresh_token_lifetime=90 * DAY,
        client_auth="client_secret_post",
        origins=("https://api.atlassian.com",),
        reuse_grace=600.0,
        dead=(INVALID_GRANT, Refusal(status=403, error="unauthorized_client")),
    )


@frameless
def slack(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Slack with token rotation: errors come with status 200, from the token endpoint and from the API.

    A response of the API with status 200 is looked into (see `ExpiryRule`). How a client authenticates is not known
    from Slack's documents here: with a secret it is HTTP Basic (RFC 6749 §2.3.1). Its tokens go to the API and to
    files.slack.com, but not to the addresses of files that are kept elsewhere.

    Sources: api.slack.com/authentication/rotation (rotation), slackapi/python-slack-sdk rotator.py (URL),
    async_base_client.py (the API's address) and its issue 1242 (`invalid_refresh_token`), slackapi/bolt-js issue 1968
    (`token_expired`), slack-go/slack release v0.30.1 and ErikKalkoken's gist f3ab28617d5099531ded865d111dbac1 (files).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Slack",
        url="https://slack.com/api/oauth.v2.access",
        authorization_endpoint="https://slack.com/oauth/v2/authorize",
        origins=("https://slack.com", "https://files.slack.com"),
        is_expired=ExpiryRule(
            lambda body: field(body, "error") == "token_expired", frozenset({200, 401})
        ),
        dead=(INVALID_GRANT, Refusal(error="invalid_refresh_token")),
    )


@frameless
def github(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """GitHub Apps, on behalf of a user: a new refresh token every time, and errors with status 200.

    A refresh ends the earlier access token, and a new one may be refused for a moment (coder/coder externalauth.go):
    such a 401 is passed on, and the token is kept.

    Sources: github/docs refreshing-user-access-tokens.md (rotation, lifetimes, client authentication),
    lelylan/simple-oauth2 issue 459 (`bad_refresh_token`), NangoHQ/nango providers.yaml (URLs), google/go-github
    github.go (the address of uploads).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="GitHub",
        url="https://github.com/login/oauth/access_token",
        authorization_endpoint="https://github.com/login/oauth/authorize",
        origins=("https://api.github.com", "https://uploads.github.com"),
        refresh_token_lifetime=15_811_200.0,
        client_auth="client_secret_post",
        dead=(INVALID_GRANT, Refusal(error="bad_refresh_token")),
    )


@frameless
def dropbox(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Dropbox: one refresh token that is never replaced; without a secret it is a PKCE app.

    A 401 that names another reason than `expired_access_token` is passed on.

    Sources: dropbox/dropbox-sdk-python dropbox_client.py (all but the URLs) and session.py (the API's addresses),
    NangoHQ/nango providers.yaml (URLs).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Dropbox",
        url="https://api.dropboxapi.com/oauth2/token",
        authorization_endpoint="https://www.dropbox.com/oauth2/authorize",
        authorization_params={"token_access_type": "offline"},
        origins=("https://api.dropboxapi.com", "https://content.dropboxapi.com"),
        client_auth="client_secret_post",
        reuse_grace=STAYS_VALID,
        is_expired=ExpiryRule(
            lambda body: field(body, "error", ".tag") in ("expired_access_token", None)
        ),
    )


@frameless
def box(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Box: a new refresh token every time, and the old one is spent at once.

    Sources: developer.box.com/guides/authentication/tokens/refresh (rotation, 60 days), box.dev access-tokens/refresh
    (client authentication), support.box.com 360049133654 (the dead token), NangoHQ/nango providers.yaml (URLs),
    box/box-python-sdk base_urls.py (the API's addresses).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Box",
        url="https://api.box.com/oauth2/token",
        authorization_endpoint="https://account.box.com/api/oauth2/authorize",
        origins=("https://api.box.com", "https://upload.box.com"),
        refresh_token_lifetime=60 * DAY,
        client_auth="client_secret_post",
    )
