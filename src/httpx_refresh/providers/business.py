"""Accounting, sales and trade: Xero, QuickBooks, Exact Online, Salesforce, HubSpot, Zoho, 2BA."""

from __future__ import annotations

import re
from typing import Any, Literal

from .._errors import frameless
from .._http.challenge import ExpiryRule
from .._oauth.answer import INVALID_GRANT, Refusal
from .._oauth.endpoint import TokenEndpoint
from ._preset import DAY, STAYS_VALID, field, preset


@frameless
def xero(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Xero: a new refresh token every time, and the old one goes on for 30 minutes in case the answer was lost.

    Without a secret it is a PKCE app. A 401 that speaks of a missing scope (`AuthorizationUnsuccessful`) is passed on.

    Sources: developer.xero.com/faq/oauth2 (lifetimes, grace, PKCE), XeroAPI/xero-python oauth2.py (URLs),
    XeroAPI/Xero-NetStandard issue 298 (the 401), NangoHQ/nango providers.yaml (login).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Xero",
        url="https://identity.xero.com/connect/token",
        authorization_endpoint="https://login.xero.com/identity/connect/authorize",
        revocation_endpoint="https://identity.xero.com/connect/revocation",
        offline_scope="offline_access",
        refresh_token_lifetime=60 * DAY,
        client_auth="client_secret_basic",
        origins=("https://api.xero.com",),
        reuse_grace=1800.0,
        is_expired=ExpiryRule(lambda body: field(body, "Detail") != "AuthorizationUnsuccessful"),
    )


@frameless
def quickbooks(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """QuickBooks Online: the refresh token comes back every time and changes about once a day.

    What Intuit says of the old one contradicts itself (24 hours in the README of intuit/oauth-jsclient, see its issue
    74; at once in a help article quoted in intuit/QuickBooks-V3-PHP-SDK issue 454), so no grace is taken for granted.

    The company that was connected, `realmId`, comes with the redirect of a login, and is kept with the token.

    Sources: intuit/oauth-pythonclient client.py (client authentication, revocation), NangoHQ/nango providers.yaml
    (URLs), blogs.intuit.com on the refresh token policy (100 days).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="QuickBooks",
        url="https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        authorization_endpoint="https://appcenter.intuit.com/connect/oauth2",
        revocation_endpoint="https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        revocation_format="json",
        scope="com.intuit.quickbooks.accounting",
        redirect_fields=("realmId",),
        refresh_token_lifetime=100 * DAY,
        client_auth="client_secret_basic",
        origins=(
            "https://quickbooks.api.intuit.com",
            "https://sandbox-quickbooks.api.intuit.com",
        ),
    )


_EXACT_COUNTRIES = ("nl", "be", "de", "fr", "es", "co.uk", "com")


@frameless
def exact_online(
    client_id: str,
    client_secret: str | None = None,
    *,
    country: Literal["nl", "be", "de", "fr", "es", "co.uk", "com"] = "nl",
    **overrides: Any,
) -> TokenEndpoint:
    """Exact Online: a new refresh token every time, and none in an access token's first nine and a half minutes.

    A token is replaced 30 seconds before its expiry at the earliest; a refresh that comes too early is refused with
    words that pass by themselves. Each country has a server of its own, for logins and for the API.

    Args:
        client_id: the app's client id.
        client_secret: the app's client secret.
        country: the end of the host's name, start.exactonline.*.
        overrides: see this package.

    Sources: NangoHQ/nango providers.yaml (URLs, the API's included, and the 30 seconds),
    support.1password.com/saas-manager-exact (the countries), picqer/exact-php-client Connection.php (client
    authentication) and its issues 300 (rotation) and 640 (the dead token), websmurf/laravel-exact-online issue 31 (the
    early refresh).
    """
    if country not in _EXACT_COUNTRIES:
        raise ValueError(f"country must be one of {', '.join(_EXACT_COUNTRIES)}")
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Exact Online",
        url=f"https://start.exactonline.{country}/api/oauth2/token",
        authorization_endpoint=f"https://start.exactonline.{country}/api/oauth2/auth",
        refresh_token_lifetime=30 * DAY,
        client_auth="client_secret_post",
        origins=(f"https://start.exactonline.{country}",),
        refresh_not_before_expiry=30.0,
        dead=(INVALID_GRANT, Refusal(status=401, text="old refresh token used")),
        transient=(Refusal(error="access_denied", text="access_token not expired"),),
    )


_SALESFORCE_LOGIN = {"production": "login", "sandbox": "test"}


def _salesforce_host(domain: str) -> str:
    name = _SALESFORCE_LOGIN.get(domain.lower(), domain.lower())
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
        raise ValueError("domain must be 'login', 'test', a My Domain name, or its host")
    if name in ("login", "test"):
        return f"{name}.salesforce.com"
    if name.endswith(".salesforce.com"):
        return name
    return f"{name.removesuffix('.my')}.my.salesforce.com"


@frameless
def salesforce(
    client_id: str, client_secret: str | None = None, *, domain: str = "login", **overrides: Any
) -> TokenEndpoint:
    """Salesforce: no `expires_in`, so a token is refreshed when it is refused; rotation only where it is switched on.

    With rotation a second use of a refresh token ends the grant. A 401 that says that the session is not valid for
    the REST API is passed on: another token would be refused just the same.

    Args:
        client_id: the consumer key.
        client_secret: the consumer secret, sent in the body; None for an app that needs none.
        domain: `login` (production), `test` (sandboxes), or a My Domain name or host, such as `acme` or
            `acme--uat.sandbox.my.salesforce.com`.
        overrides: see this package.

    Sources: help.salesforce.com 005316711 (rotation and reuse), simple-salesforce api.py (`INVALID_SESSION_ID`),
    jsforce pull 1301 (a 401 that is not about expiry), developer.salesforce.com oauth-revoking-tokens (revocation),
    help.salesforce.com connected_app_limit_idle_ttl (30 days), segmentio/action-destinations salesforce/index.ts and
    SalesforceMobileSDK-iOS issue 3731 (refusals that pass).
    """
    host = _salesforce_host(domain)
    revoking = f"https://{host}" if host.endswith(".my.salesforce.com") else "{instance_url}"
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Salesforce",
        url=f"https://{host}/services/oauth2/token",
        authorization_endpoint=f"https://{host}/services/oauth2/authorize",
        revocation_endpoint=f"{revoking}/services/oauth2/revoke",
        scope="api",
        offline_scope="refresh_token",
        refresh_token_lifetime=30 * DAY,
        client_auth="client_secret_post",
        origins=("https://*.salesforce.com",),
        is_expired=ExpiryRule(
            lambda body: "not valid for use with the REST API" not in str(field(body, 0, "message"))
        ),
        transient=(
            Refusal(error="invalid_grant", text="expired authorization code"),
            Refusal(text="token request is already being processed"),
        ),
    )


@frameless
def hubspot(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """HubSpot: the refresh token stays the same.

    The token endpoint is the one of 2026-03; the older `/oauth/v1/token` ends on 2027-02-16.

    Sources: developers.hubspot.com/changelog/v1-oauth-api-deprecation (URLs), its OAuth guide (client authentication)
    and docs/methods/OAuth2/using-access-tokens (the API's address), nango.dev/blog/hubspot-oauth-bad-refresh-token
    (`BAD_REFRESH_TOKEN`).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="HubSpot",
        url="https://api.hubapi.com/oauth/2026-03/token",
        authorization_endpoint="https://app.hubspot.com/oauth/authorize",
        revocation_endpoint="https://api.hubapi.com/oauth/2026-03/token/revoke",
        origins=("https://api.hubapi.com",),
        client_auth="client_secret_post",
        dead=(INVALID_GRANT, Refusal(status=400, text="BAD_REFRESH_TOKEN")),
    )


@frameless
def zoho(
    client_id: str, client_secret: str | None = None, *, dc: str = "com", **overrides: Any
) -> TokenEndpoint:
    """Zoho: one refresh token that is good until it is revoked, and an `Authorization` scheme of its own.

    It hands out ten access tokens in ten minutes; "Access Denied" beyond that passes by itself. Its tokens go to the
    API host of the data centre, which the token response names as `api_domain`. A product with a host of its own (Mail,
    Desk, Recruit) needs `origins=`.

    Args:
        client_id: the app's client id.
        client_secret: the app's client secret.
        dc: the data centre, as accounts.zoho.* names it: `com`, `eu`, `in`, `com.au`, ...
        overrides: see this package.

    Sources: zoho.com/crm/developer/docs/api/v4/token-validity.html (limits) and v2 (`invalid_code`), its
    v8/multi-dc.html and NangoHQ/nango providers.yaml (the API's address),
    zoho.com/recruit/developer-guide/apiv2/refresh.html (URLs, no new refresh token), zoho/zohocrm-python-sdk-2.0
    oauth_token.py (client authentication, `expires_in` in milliseconds).
    """
    if not re.fullmatch(r"[a-z]{2,3}(\.[a-z]{2,3})?", dc):
        raise ValueError("dc must be a data centre such as 'com', 'eu' or 'com.au'")
    return preset(
        client_id,
        client_secret,
        overrides,
        name="Zoho",
        url=f"https://accounts.zoho.{dc}/oauth/v2/token",
        authorization_endpoint=f"https://accounts.zoho.{dc}/oauth/v2/auth",
        client_auth="client_secret_post",
        origins=(f"https://www.zohoapis.{dc}",),
        authorization_scheme="Zoho-oauthtoken",
        reuse_grace=STAYS_VALID,
        dead=(INVALID_GRANT, Refusal(error="invalid_code")),
        transient=(Refusal(error="Access Denied"),),
    )


@frameless
def twoba(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """2BA: a new refresh token every time, and a plain 400 for a dead one.

    Sources: 2ba.nl/?p=18 (URLs), 2BABV/developer-docs oauth2-refresh-access-token.md (client authentication) and
    wcf-introduction.md (the API's address).
    """
    return preset(
        client_id,
        client_secret,
        overrides,
        name="2BA",
        url="https://authorize.2ba.nl/OAuth/Token",
        authorization_endpoint="https://authorize.2ba.nl/OAuth/Authorize",
        client_auth="client_secret_post",
        origins=("https://api.2ba.nl",),
        dead=(INVALID_GRANT, Refusal(status=400)),
    )
