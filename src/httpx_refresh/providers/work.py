"""Tools for work: GitLab, Notion, Linear, Airtable, Figma, Zoom, DocuSign, Dropbox Sign, Square."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._preset import DAY, HOUR, Overrides, Provider, known

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._oauth.endpoint import TokenEndpoint
    from .._oauth.material import Text

_GITLAB = Provider(
    title="GitLab",
    url="https://{host}/oauth/token",
    origins=("https://{host}",),
    grants=("authorization_code", "device_code", "refresh_token"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_post",
    access_token_lifetime=2 * HOUR,
    quirks=(
        "a refresh also ends the earlier access token, so requests under way are refused and replayed",
        "a refresh repeats the redirect_uri of the login: pass redirect_uri=",
    ),
    unknown=("how long a refresh token lives",),
    options={
        "authorization_endpoint": "https://{host}/oauth/authorize",
        "device_authorization_endpoint": "https://{host}/oauth/authorize_device",
        "revocation_endpoint": "https://{host}/oauth/revoke",
    },
)


@known(_GITLAB)
def gitlab(
    client_id: str,
    client_secret: Text | None = None,
    *,
    host: str = "gitlab.com",
    redirect_uri: str | None = None,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """GitLab: a new refresh token every time; a refresh ends the earlier access token, and repeats the redirect URI.

    Args:
        client_id: the application's id.
        client_secret: its secret; None for a PKCE app.
        host: gitlab.com, or the host of your own GitLab.
        redirect_uri: the login's; GitLab's documents include it in every refresh. None: it is not sent.
        overrides: see this package.

    Sources:
        gitlabhq/gitlabhq doc/api/oauth2.md: URLs, rotation, two hours, redirect_uri, device logins; gitlab-org/gitlab
        issue 372358: what a refresh ends; NangoHQ/nango providers.yaml: client authentication, the API's address.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?", host.lower()):
        raise ValueError("host must be the name of a host")
    if redirect_uri is not None:
        more = {"redirect_uri": redirect_uri}
        overrides = {
            **overrides,
            "refresh_params": {**more, **(overrides.get("refresh_params") or {})},
        }
    return _GITLAB.endpoint(client_id, client_secret, overrides, host=host.lower())


_NOTION = Provider(
    title="Notion",
    url="https://api.notion.com/v1/oauth/token",
    origins=("https://api.notion.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_basic",
    quirks=(
        "token requests and revocations are JSON",
        "the field of an error's code is named code",
        "a second use of a refresh token ends the grant",
        "API requests must have the header Notion-Version",
    ),
    unknown=("all lifetimes",),
    options={
        "authorization_endpoint": "https://api.notion.com/v1/oauth/authorize",
        "authorization_params": {"owner": "user"},
        "revocation_endpoint": "https://api.notion.com/v1/oauth/revoke",
        "revocation_format": "json",
        "request_format": "json",
        "answer_fields": {"error": "code"},
    },
)


@known(_NOTION)
def notion(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Notion: a new refresh token every time, and token requests in JSON.

    Sources:
        developers.notion.com/reference/refresh-a-token: JSON, HTTP Basic, rotation, and reference/revoke-token:
        revocation, the form of errors; nango.dev/blog/notion-oauth-refresh-token-invalid-grant and
        damianvtran/local-operator pull 345: what a second use ends; NangoHQ/nango providers.yaml: URLs, owner.
    """
    return _NOTION.endpoint(client_id, client_secret, overrides)


_LINEAR = Provider(
    title="Linear",
    url="https://api.linear.app/oauth/token",
    origins=("https://api.linear.app",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    client_auth="client_secret_post",
    access_token_lifetime=DAY,
    quirks=(
        "the words of a scope are separated by commas",
        "refresh tokens since October 2025, for all apps since April 2026; older tokens lived ten years",
    ),
    unknown=("whether a spent refresh token is accepted again", "how long a refresh token lives"),
    options={"authorization_endpoint": "https://linear.app/oauth/authorize"},
)


@known(_LINEAR)
def linear(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Linear: a new refresh token every time, and access tokens of a day.

    Sources:
        linear.app/docs/oauth/authentication: login, scopes, all apps since April 2026; yc-software/qm pull 1007 and
        ceedaragents/cyrus issue 285: rotation, one day; NangoHQ/nango providers.yaml: URLs, client authentication.
    """
    return _LINEAR.endpoint(client_id, client_secret, overrides)


_AIRTABLE = Provider(
    title="Airtable",
    url="https://airtable.com/oauth2/v1/token",
    origins=("https://api.airtable.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_basic",
    idle_lifetime=60 * DAY,
    quirks=(
        "a refresh also ends the earlier access token, so requests under way are refused and replayed",
        "logins must use PKCE and name their scopes",
    ),
    unknown=("how long an access token lives; the answer says it",),
    options={"authorization_endpoint": "https://airtable.com/oauth2/v1/authorize"},
)


@known(_AIRTABLE)
def airtable(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Airtable: a new refresh token every time, and a refresh ends the earlier access token.

    Sources:
        airtable.com/developers/web/api/oauth-reference: login, PKCE;
        nango.dev/blog/airtable-oauth-refresh-token-invalid-grant: rotation, 60 days, what a refresh ends;
        NangoHQ/nango providers.yaml: URLs, client authentication, the API's address.
    """
    return _AIRTABLE.endpoint(client_id, client_secret, overrides)


_FIGMA = Provider(
    title="Figma",
    url="https://api.figma.com/v1/oauth/token",
    origins=("https://api.figma.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="never",
    grace="stays_valid",
    client_auth="client_secret_basic",
    quirks=("a refresh has an address of its own, and returns no refresh token",),
    unknown=("all lifetimes; the answer says that of an access token",),
    options={
        "authorization_endpoint": "https://www.figma.com/oauth",
        "refresh_url": "https://api.figma.com/v1/oauth/refresh",
    },
)


@known(_FIGMA)
def figma(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Figma: one refresh token that is never replaced; refreshes have an address of their own.

    Sources:
        NangoHQ/nango providers.yaml: URLs, client authentication, the API's address, and provider.client.ts: a refresh
        brings no refresh token.
    """
    return _FIGMA.endpoint(client_id, client_secret, overrides)


_ZOOM = Provider(
    title="Zoom",
    url="https://zoom.us/oauth/token",
    origins=("https://api.zoom.us",),
    grants=("authorization_code", "refresh_token", "account_credentials"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_basic",
    access_token_lifetime=HOUR,
    quirks=(
        "a new access token ends the earlier one",
        "server-to-server apps use the grant account_credentials, with their account_id; there, too, a new token ends "
        "the earlier one, so processes must share it",
    ),
    unknown=("how long a refresh token lives",),
    options={
        "authorization_endpoint": "https://zoom.us/oauth/authorize",
        "exclusive_grants": ("account_credentials",),
    },
)


@known(_ZOOM)
def zoom(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Zoom: a new refresh token every time; a new access token ends the earlier one.

    Sources:
        devsupport.zoom.us article 360060332931: client authentication, the latest refresh token;
        devforum.zoom.us topics 77706: what a new access token ends, and 72070: the same for server-to-server apps;
        zoomus util.py: account_credentials; NangoHQ/nango providers.yaml: URLs, one hour, the API's address.
    """
    return _ZOOM.endpoint(client_id, client_secret, overrides)


_DOCUSIGN = Provider(
    title="DocuSign",
    url="https://{host}/oauth/token",
    origins=("https://*.docusign.net", "https://{host}"),
    grants=("authorization_code", "refresh_token", "jwt_bearer"),
    rotation="unknown",
    client_auth="client_secret_basic",
    access_token_lifetime=8 * HOUR,
    idle_lifetime=30 * DAY,
    quirks=(
        "each person has their own API address, which /oauth/userinfo returns",
        "a JWT bearer assertion is for the bare name of the host, RS256, and its scope is a claim: signature "
        "impersonation; its subject is the user's GUID",
    ),
    unknown=(
        "whether a refresh returns another refresh token, and whether a spent one is still accepted",
    ),
    options={
        "authorization_endpoint": "https://{host}/oauth/auth",
        "scope": "signature",
        "jwt_bearer": {"audience": "{host}", "scope_as": "claim"},
    },
)


@known(_DOCUSIGN)
def docusign(
    client_id: str | None = None,
    client_secret: Text | None = None,
    *,
    demo: bool = False,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """DocuSign: access tokens of eight hours, refresh tokens of 30 days.

    Args:
        client_id: the integration key; None for a JWT bearer grant, whose assertion names it.
        client_secret: its secret.
        demo: whether to use the developer environment, account-d.docusign.com.
        overrides: see this package.

    Sources:
        docusign.com/blog/developers/authorization-code-grant-refresh-tokens: URLs, client authentication, lifetimes;
        docusign-esign client/api_client.py and client/auth/oauth.py: the assertion; Ergin008's gist
        e4c538f2bc1190a05e960e6de4ff5a0c: the API's addresses; developers.docusign.com's platform/auth/reference:
        userinfo; NangoHQ/nango providers.yaml: the login's address.
    """
    if not isinstance(demo, bool):
        raise TypeError("demo must be a bool")
    host = "account-d.docusign.com" if demo else "account.docusign.com"
    return _DOCUSIGN.endpoint(client_id, client_secret, overrides, host=host)


_DROPBOX_SIGN = Provider(
    title="Dropbox Sign",
    url="https://app.hellosign.com/oauth/token",
    origins=("https://api.hellosign.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="unknown",
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    quirks=("a refresh has an address of its own, with the query ?refresh",),
    unknown=("whether a refresh returns another refresh token", "how long a refresh token lives"),
    options={
        "authorization_endpoint": "https://app.hellosign.com/oauth/authorize",
        "refresh_url": "https://app.hellosign.com/oauth/token?refresh",
    },
)


@known(_DROPBOX_SIGN)
def dropbox_sign(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Dropbox Sign (HelloSign): refreshes have an address of their own.

    Sources:
        NangoHQ/nango providers.yaml: URLs, client authentication, the API's address; dropbox-sign o_auth_api.py:
        typically one hour.
    """
    return _DROPBOX_SIGN.endpoint(client_id, client_secret, overrides)


_SQUARE = Provider(
    title="Square",
    url="https://connect.squareup.com/oauth2/token",
    origins=("https://connect.squareup.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="setting",
    client_auth="client_secret_post",
    access_token_lifetime=30 * DAY,
    quirks=(
        "with a secret the same refresh token comes back; without one (PKCE) each is valid for one use within 90 days",
        "answers give the end of a token as a date and time",
        "Square asks apps to refresh tokens every seven days",
    ),
    unknown=("whether a spent refresh token is accepted again",),
    options={
        "authorization_endpoint": "https://connect.squareup.com/oauth2/authorize",
    },
)


@known(_SQUARE)
def square(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Square: one refresh token for apps with a secret; for PKCE apps a new one every time.

    Sources:
        developer.squareup.com/docs/oauth-api/refresh-revoke-limit-scope: 30 days, seven days, and
        receive-and-manage-tokens: PKCE, 90 days; squareup o_auth/client.py: rotation, expires_at; NangoHQ/nango
        providers.yaml: URLs, client authentication, the API's address.
    """
    return _SQUARE.endpoint(client_id, client_secret, overrides)
