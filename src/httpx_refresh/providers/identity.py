"""Servers with an address for each customer: Okta, Auth0, Keycloak, Snowflake, ServiceNow, Databricks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._preset import DAY, HOUR, Overrides, Provider, host_of, known

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._oauth.endpoint import TokenEndpoint
    from .._oauth.material import Text


_OKTA = Provider(
    title="Okta",
    url="https://{domain}/oauth2/v1/token",
    origins=("https://{domain}",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="setting",
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    quirks=(
        "with rotation a spent refresh token is accepted for the app's leeway, 0 to 60 seconds (30 by default); no "
        "grace is assumed here, set it with reuse_grace=",
        "Okta's own APIs take service apps only with private_key_jwt, whose audience is the token endpoint",
        "new service apps require DPoP, which this library does not support: switch it off for the app",
        "tokens of a custom authorization server need url=, and those for your own API need origins=",
    ),
    unknown=("where tokens are revoked, and where devices log in: use discover()",),
    options={
        "authorization_endpoint": "https://{domain}/oauth2/v1/authorize",
        "offline_scope": "offline_access",
    },
)


@known(_OKTA)
def okta(
    client_id: str,
    client_secret: Text | None = None,
    *,
    domain: str,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Okta's org authorization server: rotation, and a leeway for it, are settings of the app.

    Args:
        client_id: the app's client id.
        client_secret: its secret; None for a public client.
        domain: of the org, such as `acme.okta.com`.
        overrides: see this package.

    Sources:
        okta/okta-sdk-dotnet docs OpenIdConnectApplicationSettingsRefreshToken.md: rotation, the leeway; okta-sdk-python
        jwt.py and dpop.py, okta-sdk-nodejs issue 424: service apps, one hour, DPoP; developer.okta.com's API of users'
        tokens: offline_access; NangoHQ/nango providers.yaml: URLs, client authentication, the API's address.
    """
    return _OKTA.endpoint(client_id, client_secret, overrides, domain=host_of("domain", domain))


_AUTH0 = Provider(
    title="Auth0",
    url="https://{domain}/oauth/token",
    origins=("https://{domain}",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="setting",
    client_auth="client_secret_post",
    absolute_lifetime=30 * DAY,
    quirks=(
        "token requests are JSON",
        "with rotation a spent refresh token is accepted for the app's overlap period, which is off by default; a "
        "later use ends the grant; set the period with reuse_grace=",
        "client credentials name an audience; tokens for your own API need origins=",
        "a client assertion is for https://{domain}/",
    ),
    unknown=("how long an access token lives: it is a setting of each API",),
    options={
        "authorization_endpoint": "https://{domain}/authorize",
        "offline_scope": "offline_access",
        "request_format": "json",
        "client_assertion_audience": "https://{domain}/",
    },
)


@known(_AUTH0)
def auth0(
    client_id: str,
    client_secret: Text | None = None,
    *,
    domain: str,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Auth0: token requests are JSON; rotation, and an overlap for it, are settings of the app.

    Args:
        client_id: the application's client id.
        client_secret: its secret; None for a public client.
        domain: of the tenant, such as `acme.eu.auth0.com`.
        overrides: see this package.

    Sources:
        auth0.com/docs/secure/tokens/refresh-tokens/configure-refresh-token-rotation: rotation, overlap, 30 days that a
        rotation does not extend; auth0-python client_authentication.py: assertions; anthropics/claude-code issue 84440:
        what a second use ends; NangoHQ/nango providers.yaml: URLs, JSON, client authentication.
    """
    return _AUTH0.endpoint(client_id, client_secret, overrides, domain=host_of("domain", domain))


_KEYCLOAK = Provider(
    title="Keycloak",
    url="{realm}/protocol/openid-connect/token",
    origins=(),
    grants=(
        "authorization_code",
        "device_code",
        "refresh_token",
        "client_credentials",
        "token_exchange",
    ),
    rotation="setting",
    quirks=(
        "refresh tokens are valid for one use if the realm says so (Revoke Refresh Token)",
        "a refresh token lives as long as its session, which each refresh prolongs (SSO Session Idle)",
        "how a client authenticates is a setting of the client: HTTP Basic is assumed",
        "its tokens are for your own APIs, so origins= is required",
    ),
    unknown=("all lifetimes: they are settings of the realm",),
    options={
        "authorization_endpoint": "{realm}/protocol/openid-connect/auth",
        "device_authorization_endpoint": "{realm}/protocol/openid-connect/auth/device",
        "revocation_endpoint": "{realm}/protocol/openid-connect/revoke",
        "issuer": "{realm}",
    },
)


@known(_KEYCLOAK)
def keycloak(
    client_id: str,
    client_secret: Text | None = None,
    *,
    realm: str,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Keycloak: rotation and lifetimes are settings of the realm.

    Args:
        client_id: of the client.
        client_secret: its secret; None for a public client.
        realm: the realm's address, such as `https://sso.example.com/realms/acme`.
        overrides: see this package; `origins` is needed.

    Sources:
        keycloak.org/securing-apps/oidc-layers: URLs; ivangfr/springboot-react-keycloak issue 15: revocation;
        python-keycloak urls_patterns.py: device logins; Keycloak's Server Administration Guide, Session and Token
        Timeouts: rotation, sessions.
    """
    if not re.fullmatch(r"https?://[^\s?#{}]+/realms/[^\s?#/{}]+", realm):
        raise ValueError("realm must be its address, such as https://sso.example.com/realms/acme")
    return _KEYCLOAK.endpoint(client_id, client_secret, overrides, realm=realm)


_SNOWFLAKE = Provider(
    title="Snowflake",
    url="https://{host}/oauth/token-request",
    origins=("https://{host}",),
    grants=("authorization_code", "refresh_token"),
    rotation="setting",
    client_auth="client_secret_basic",
    quirks=(
        "refresh tokens for one use must be requested",
        "the scope names a role: session:role:NAME",
    ),
    unknown=("whether a spent refresh token is accepted again", "all lifetimes"),
    options={
        "authorization_endpoint": "https://{host}/oauth/authorize",
        "offline_scope": "refresh_token",
    },
)


@known(_SNOWFLAKE)
def snowflake(
    client_id: str,
    client_secret: Text | None = None,
    *,
    host: str,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Snowflake's own OAuth: refresh tokens for one use must be requested.

    Args:
        client_id: of the security integration.
        client_secret: of the security integration.
        host: of the account, such as `acme-main.snowflakecomputing.com`.
        overrides: see this package.

    Sources:
        NangoHQ/nango providers.yaml: URLs, client authentication, the API's address; snowflake-connector-python
        connection_config.py: rotation, roles; docs.snowflake.com/user-guide/oauth-custom and OpenInt's connector for
        Snowflake: the scope that brings a refresh token.
    """
    return _SNOWFLAKE.endpoint(client_id, client_secret, overrides, host=host_of("host", host))


_SERVICENOW = Provider(
    title="ServiceNow",
    url="https://{host}/oauth_token.do",
    origins=("https://{host}",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="unknown",
    client_auth="client_secret_post",
    access_token_lifetime=1800.0,
    absolute_lifetime=100 * DAY,
    quirks=(
        "the app's Refresh Token Count must be Unlimited, or refreshes end",
        "lifetimes are settings of the app",
    ),
    unknown=("whether a refresh returns another refresh token",),
    options={"authorization_endpoint": "https://{host}/oauth_auth.do"},
)


@known(_SERVICENOW)
def servicenow(
    client_id: str,
    client_secret: Text | None = None,
    *,
    host: str,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """ServiceNow: refresh tokens of a hundred days, access tokens of half an hour, unless the app says otherwise.

    Args:
        client_id: of the app in the application registry.
        client_secret: its secret.
        host: of the instance, such as `acme.service-now.com`.
        overrides: see this package.

    Sources:
        NangoHQ/nango providers.yaml: URLs, client authentication, and its guide for ServiceNow: lifetimes, the count.
    """
    return _SERVICENOW.endpoint(client_id, client_secret, overrides, host=host_of("host", host))


_DATABRICKS = Provider(
    title="Databricks",
    url="https://{host}/oidc/v1/token",
    origins=("https://{host}",),
    grants=("client_credentials",),
    rotation="none",
    client_auth="client_secret_basic",
    quirks=("the scope of a service principal is all-apis",),
    unknown=("how long an access token lives; the answer says it",),
)


@known(_DATABRICKS)
def databricks(
    client_id: str,
    client_secret: Text | None = None,
    *,
    host: str,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Databricks, a service principal of a workspace: `ClientCredentials(databricks(...), scope="all-apis")`.

    Args:
        client_id: the service principal's application id.
        client_secret: its OAuth secret.
        host: of the workspace, such as `dbc-a1b2c3d4-5e6f.cloud.databricks.com`.
        overrides: see this package.

    Sources:
        databricks-sdk credentials_provider.py and oauth.py: client authentication, scope; NangoHQ/nango providers.yaml:
        URL, the API's address.
    """
    return _DATABRICKS.endpoint(client_id, client_secret, overrides, host=host_of("host", host))
