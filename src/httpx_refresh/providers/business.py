"""Accounting, sales, trade and staff: Xero, QuickBooks, Exact Online, Salesforce, HubSpot, Zoho, 2BA and others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from .._http.challenge import ExpiryRule
from .._oauth.answer import INVALID_GRANT, Refusal
from .._oauth.authentication import ClientSecretBasic
from ._preset import DAY, HOUR, Overrides, Provider, json_field, known

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._oauth.endpoint import TokenEndpoint
    from .._oauth.material import Text

_XERO = Provider(
    title="Xero",
    url="https://identity.xero.com/connect/token",
    origins=("https://api.xero.com",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="always",
    grace=1800.0,
    client_auth="client_secret_basic",
    access_token_lifetime=1800.0,
    idle_lifetime=60 * DAY,
    quirks=(
        "a 401 about a missing scope (AuthorizationUnsuccessful) is passed on",
        "requests name the organisation in xero-tenant-id, except those of a custom connection",
        "client credentials are for custom connections, which have one organisation each",
    ),
    options={
        "authorization_endpoint": "https://login.xero.com/identity/connect/authorize",
        "revocation_endpoint": "https://identity.xero.com/connect/revocation",
        "offline_scope": "offline_access",
        "is_expired": ExpiryRule(
            lambda body: json_field(body, "Detail") != "AuthorizationUnsuccessful"
        ),
    },
)


@known(_XERO)
def xero(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Xero: a new refresh token every time; the old one is accepted for 30 more minutes, in case the answer was lost.

    Without a secret it is a PKCE app.

    Sources:
        developer.xero.com/faq/oauth2: lifetimes, grace, PKCE; XeroAPI/xero-python oauth2.py: URLs;
        XeroAPI/Xero-NetStandard issue 298: the 401; NangoHQ/nango providers.yaml: login, the API's address;
        developer.xero.com/faq/custom-integration: custom connections.
    """
    return _XERO.endpoint(client_id, client_secret, overrides)


_QUICKBOOKS = Provider(
    title="QuickBooks",
    url="https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
    origins=("https://quickbooks.api.intuit.com", "https://sandbox-quickbooks.api.intuit.com"),
    grants=("authorization_code", "refresh_token"),
    rotation="sometimes",
    client_auth="client_secret_basic",
    access_token_lifetime=HOUR,
    idle_lifetime=100 * DAY,
    absolute_lifetime=5 * 365 * DAY,
    quirks=(
        "the refresh token comes back every time and changes about once a day",
        "the redirect of a login names the connected company, realmId, which is kept with the token",
        "revocation requests are JSON",
    ),
    unknown=(
        "how long the old refresh token is still accepted: Intuit's statements contradict each other",
    ),
    options={
        "authorization_endpoint": "https://appcenter.intuit.com/connect/oauth2",
        "revocation_endpoint": "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        "revocation_format": "json",
        "scope": "com.intuit.quickbooks.accounting",
        "redirect_fields": ("realmId",),
    },
)


@known(_QUICKBOOKS)
def quickbooks(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """QuickBooks Online: the refresh token comes back every time and changes about once a day.

    Intuit's statements about the old one contradict each other (24 hours in the README of intuit/oauth-jsclient, see
    its issue 74; no grace in a help article quoted in intuit/QuickBooks-V3-PHP-SDK issue 454), so no grace is assumed.

    Sources:
        intuit/oauth-pythonclient client.py: client authentication, revocation; NangoHQ/nango providers.yaml: URLs;
        developer.intuit.com's authentication FAQ: the access token's lifetime; blogs.intuit.com on the refresh token
        policy: 100 days, five years; intuit/oauth-jsclient issue 74: rotation.
    """
    return _QUICKBOOKS.endpoint(client_id, client_secret, overrides)


_EXACT_COUNTRIES = ("nl", "be", "de", "fr", "es", "co.uk", "com")

_EXACT_ONLINE = Provider(
    title="Exact Online",
    url="https://start.exactonline.{country}/api/oauth2/token",
    origins=("https://start.exactonline.{country}",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    client_auth="client_secret_post",
    access_token_lifetime=600.0,
    idle_lifetime=30 * DAY,
    quirks=(
        "a refresh is refused during the first nine and a half minutes of an access token; such a refusal is treated "
        "as temporary",
        "each country has its own server, for logins and for the API",
    ),
    unknown=("whether a spent refresh token is accepted again",),
    options={
        "authorization_endpoint": "https://start.exactonline.{country}/api/oauth2/auth",
        "refresh_not_before_expiry": 30.0,
        "dead": (INVALID_GRANT, Refusal(status=401, text="old refresh token used")),
        "transient": (Refusal(error="access_denied", text="access_token not expired"),),
    },
)


@known(_EXACT_ONLINE)
def exact_online(
    client_id: str,
    client_secret: Text | None = None,
    *,
    country: Literal["nl", "be", "de", "fr", "es", "co.uk", "com"] = "nl",
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Exact Online: a new refresh token every time, and none in an access token's first nine and a half minutes.

    Args:
        client_id: the app's client id.
        client_secret: the app's client secret.
        country: the end of the host's name, start.exactonline.*.
        overrides: see this package.

    Sources:
        NangoHQ/nango providers.yaml: URLs, the API's included, and the 30 seconds; support.1password.com's
        saas-manager-exact: the countries; picqer/exact-php-client Connection.php: client authentication, and its issues
        300: rotation, and 640: the dead token; websmurf/laravel-exact-online issues 31: the early refresh, and 19: 30
        days; forums.invantive.com topic 2903: the access token's lifetime.
    """
    if country not in _EXACT_COUNTRIES:
        raise ValueError(f"country must be one of {', '.join(_EXACT_COUNTRIES)}")
    return _EXACT_ONLINE.endpoint(client_id, client_secret, overrides, country=country)


_SALESFORCE_LOGIN = {"production": "login", "sandbox": "test"}

_SALESFORCE = Provider(
    title="Salesforce",
    url="https://{host}/services/oauth2/token",
    origins=("https://*.salesforce.com",),
    grants=("authorization_code", "refresh_token", "client_credentials", "jwt_bearer"),
    rotation="setting",
    grace=0.0,
    client_auth="client_secret_post",
    access_token_lifetime=2 * HOUR,
    idle_lifetime=30 * DAY,
    quirks=(
        "answers do not say how long a token lives: two hours are assumed, the default of its sessions; an earlier 401 "
        "means that it has expired",
        "with rotation, a second use of a refresh token ends the grant, and a refresh ends the earlier access token",
        "the API's address comes with the token, as instance_url",
        "client credentials need a My Domain, and a user as whom the app runs",
        "a JWT bearer assertion (RS256) is for https://test.salesforce.com where the domain is a sandbox's, else for "
        "https://login.salesforce.com; its issuer is the consumer key, its subject the user's name",
        "a 401 because the session is not valid for the REST API is passed on",
    ),
    options={
        "default_lifetime": 2 * HOUR,
        "authorization_endpoint": "https://{host}/services/oauth2/authorize",
        "revocation_endpoint": "{revoking}/services/oauth2/revoke",
        "scope": "api",
        "offline_scope": "refresh_token",
        "jwt_bearer": {"audience": "https://{signing}.salesforce.com"},
        "is_expired": ExpiryRule(
            lambda body: (
                "not valid for use with the REST API" not in str(json_field(body, 0, "message"))
            )
        ),
        "transient": (
            Refusal(error="invalid_grant", text="expired authorization code"),
            Refusal(text="token request is already being processed"),
        ),
    },
)


def _salesforce_host(domain: str) -> str:
    name = _SALESFORCE_LOGIN.get(domain.lower(), domain.lower())
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
        raise ValueError("domain must be 'login', 'test', a My Domain name, or its host")
    if name in ("login", "test"):
        return f"{name}.salesforce.com"
    if name.endswith(".salesforce.com"):
        return name
    return f"{name.removesuffix('.my')}.my.salesforce.com"


@known(_SALESFORCE)
def salesforce(
    client_id: str | None = None,
    client_secret: Text | None = None,
    *,
    domain: str = "login",
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Salesforce: no `expires_in`, so two hours are assumed; rotation only if it is switched on.

    Args:
        client_id: the consumer key; None for a JWT bearer grant, whose assertion names it.
        client_secret: the consumer secret, sent in the body; None for an app that needs none.
        domain: `login` (production), `test` (sandboxes), or a My Domain name or host, such as `acme` or
            `acme--uat.sandbox.my.salesforce.com`.
        overrides: see this package.

    Sources:
        help.salesforce.com 005316711: rotation and reuse; simple-salesforce api.py: INVALID_SESSION_ID, and login.py:
        client credentials, the assertion; jsforce pull 1301: a 401 that is not about expiry; developer.salesforce.com
        oauth-revoking-tokens: revocation, and sforce_api_concepts_errorhandling: two hours; help.salesforce.com
        connected_app_limit_idle_ttl: 30 days; segmentio/action-destinations salesforce/index.ts and
        SalesforceMobileSDK-iOS issue 3731: refusals that pass.
    """
    host = _salesforce_host(domain)
    revoking = f"https://{host}" if host.endswith(".my.salesforce.com") else "{instance_url}"
    is_sandbox = host == "test.salesforce.com" or ".sandbox." in host
    parts = {"host": host, "revoking": revoking, "signing": "test" if is_sandbox else "login"}
    return _SALESFORCE.endpoint(client_id, client_secret, overrides, **parts)


_HUBSPOT = Provider(
    title="HubSpot",
    url="https://api.hubapi.com/oauth/2026-03/token",
    origins=("https://api.hubapi.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="never",
    client_auth="client_secret_post",
    access_token_lifetime=1800.0,
    quirks=("the token endpoint is the one of 2026-03; /oauth/v1/token ends on 2027-02-16",),
    unknown=("how long a refresh token lives",),
    options={
        "authorization_endpoint": "https://app.hubspot.com/oauth/authorize",
        "revocation_endpoint": "https://api.hubapi.com/oauth/2026-03/token/revoke",
        "dead": (INVALID_GRANT, Refusal(status=400, text="BAD_REFRESH_TOKEN")),
    },
)


@known(_HUBSPOT)
def hubspot(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """HubSpot: the refresh token stays the same.

    Sources:
        developers.hubspot.com/changelog/v1-oauth-api-deprecation: URLs, and
        upcoming-expiration-of-oauth-access-tokens-is-changing: 30 minutes; its OAuth guide: client authentication; its
        docs/methods/OAuth2/using-access-tokens: the API's address; nango.dev/blog/hubspot-oauth-bad-refresh-token:
        BAD_REFRESH_TOKEN.
    """
    return _HUBSPOT.endpoint(client_id, client_secret, overrides)


_ZOHO = Provider(
    title="Zoho",
    url="https://accounts.zoho.{dc}/oauth/v2/token",
    origins=("https://www.zohoapis.{dc}",),
    grants=("authorization_code", "refresh_token"),
    rotation="never",
    grace="stays_valid",
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    quirks=(
        "the scheme of the Authorization field is Zoho-oauthtoken",
        'ten access tokens in ten minutes; more are refused with "Access Denied" for a while',
        "expires_in is in milliseconds if the answer has expires_in_sec, too",
        "tokens go to the API host of the data centre, api_domain in the answer; Mail, Desk and Recruit have hosts of "
        "their own, and need origins=",
    ),
    options={
        "authorization_endpoint": "https://accounts.zoho.{dc}/oauth/v2/auth",
        "authorization_scheme": "Zoho-oauthtoken",
        "dead": (INVALID_GRANT, Refusal(error="invalid_code")),
        "transient": (Refusal(error="Access Denied"),),
    },
)


@known(_ZOHO)
def zoho(
    client_id: str,
    client_secret: Text | None = None,
    *,
    dc: str = "com",
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Zoho: one refresh token that is valid until it is revoked, and an `Authorization` scheme of its own.

    Args:
        client_id: the app's client id.
        client_secret: the app's client secret.
        dc: the data centre, as accounts.zoho.* names it: `com`, `eu`, `in`, `com.au`, ...
        overrides: see this package.

    Sources:
        zoho.com/crm/developer/docs/api/v4/token-validity.html: limits, and v2: invalid_code, and v8: one hour; its
        v8/multi-dc.html and NangoHQ/nango providers.yaml: the API's address;
        zoho.com/recruit/developer-guide/apiv2/refresh.html: URLs, no new refresh token; zoho/zohocrm-python-sdk-2.0
        oauth_token.py: client authentication, expires_in in milliseconds.
    """
    if not re.fullmatch(r"[a-z]{2,3}(\.[a-z]{2,3})?", dc):
        raise ValueError("dc must be a data centre such as 'com', 'eu' or 'com.au'")
    return _ZOHO.endpoint(client_id, client_secret, overrides, dc=dc)


_TWOBA = Provider(
    title="2BA",
    url="https://authorize.2ba.nl/OAuth/Token",
    origins=("https://api.2ba.nl",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    client_auth="client_secret_post",
    quirks=("a dead refresh token is refused with a plain 400, without an error code",),
    unknown=("whether a spent refresh token is accepted again", "all lifetimes"),
    options={
        "authorization_endpoint": "https://authorize.2ba.nl/OAuth/Authorize",
        "dead": (INVALID_GRANT, Refusal(status=400)),
    },
)


@known(_TWOBA)
def twoba(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """2BA: a new refresh token every time, and a plain 400 for a dead one.

    Sources:
        2ba.nl/?p=18: URLs; 2BABV/developer-docs oauth2-refresh-access-token.md: client authentication, rotation, and
        wcf-introduction.md: the API's address.
    """
    return _TWOBA.endpoint(client_id, client_secret, overrides)


_GUSTO = Provider(
    title="Gusto",
    url="https://api.gusto.com/oauth/token",
    origins=("https://api.gusto.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace="until_used",
    client_auth="client_secret_post",
    access_token_lifetime=2 * HOUR,
    quirks=("a secret in the URL is refused with a 400",),
    unknown=("how long a refresh token lives",),
    options={"authorization_endpoint": "https://api.gusto.com/oauth/authorize"},
)


@known(_GUSTO)
def gusto(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Gusto: a new refresh token every time, and the old one ends when the new access token is first used.

    Sources:
        docs.gusto.com/app-integrations/v2024-04-01/reference/refresh-access-token: rotation, two hours;
        docs.gusto.com/embedded-payroll/docs/company-access-tokens: the grace; NangoHQ/nango providers.yaml: URLs,
        client authentication.
    """
    return _GUSTO.endpoint(client_id, client_secret, overrides)


_STRIPE = Provider(
    title="Stripe Apps",
    url="https://api.stripe.com/v1/oauth/token",
    origins=("https://api.stripe.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="unknown",
    client_auth=ClientSecretBasic(secret_as_user=True),
    access_token_lifetime=HOUR,
    quirks=(
        "the client's secret is the app developer's secret key: it is the user of HTTP Basic, without a password, and "
        "the client's id is not sent",
        "answers do not say how long a token lives: one hour is assumed",
    ),
    unknown=("whether a refresh returns another refresh token", "how long a refresh token lives"),
    options={
        "authorization_endpoint": "https://marketplace.stripe.com/oauth/v2/authorize",
        "default_lifetime": HOUR,
    },
)


@known(_STRIPE)
def stripe(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Stripe Apps: the secret key is the user of HTTP Basic, and answers do not say how long a token lives.

    Args:
        client_id: the app's client id, for the login.
        client_secret: the app developer's secret key.
        overrides: see this package.

    Sources:
        NangoHQ/nango providers.yaml: URLs, client authentication, the API's address, and provider.client.ts: one hour.
    """
    return _STRIPE.endpoint(client_id, client_secret, overrides)


_FOLLOW_UP_BOSS = Provider(
    title="Follow Up Boss",
    url="https://app.followupboss.com/oauth/token",
    origins=("https://api.followupboss.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="never",
    grace="stays_valid",
    client_auth="client_secret_post",
    access_token_lifetime=HOUR,
    idle_lifetime=90 * DAY,
    options={"authorization_endpoint": "https://app.followupboss.com/oauth/authorize"},
)


@known(_FOLLOW_UP_BOSS)
def follow_up_boss(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Follow Up Boss: one refresh token, which ends after 90 days without a refresh.

    Sources:
        docs.followupboss.com/docs/oauth-token-lifetimes: lifetimes, no rotation; NangoHQ/nango providers.yaml: URLs,
        client authentication, the API's address.
    """
    return _FOLLOW_UP_BOSS.endpoint(client_id, client_secret, overrides)


_WORKDAY = Provider(
    title="Workday",
    url="https://{host}/ccx/oauth2/{tenant}/token",
    origins=("https://{host}",),
    grants=("authorization_code", "refresh_token"),
    rotation="sometimes",
    client_auth="client_secret_basic",
    access_token_lifetime=HOUR,
    quirks=(
        "answers do not say how long a token lives: one hour is assumed",
        "refresh tokens that never expire are a setting of the API client",
        "the login page has a host of its own",
    ),
    unknown=("whether a spent refresh token is accepted again", "how long a refresh token lives"),
    options={
        "authorization_endpoint": "https://{login}/{tenant}/authorize",
        "default_lifetime": HOUR,
    },
)

_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"


@known(_WORKDAY)
def workday(
    client_id: str,
    client_secret: Text | None = None,
    *,
    host: str,
    tenant: str,
    login_host: str | None = None,
    **overrides: Unpack[Overrides],
) -> TokenEndpoint:
    """Workday: answers that do not say how long a token lives; the refresh token mostly stays.

    Args:
        client_id: of the API client.
        client_secret: of the API client.
        host: of the token endpoint and the API.
        tenant: the tenant's name, as it stands in the addresses.
        login_host: of the page where people log in; None: `host`.
        overrides: see this package.

    Sources:
        NangoHQ/nango providers.yaml: URLs, client authentication, the API's address, and provider.client.ts: one hour
        (workdayOauthExpiresIn), the refresh token.
    """
    for name, text in (("host", host), ("login_host", login_host or host)):
        if not re.fullmatch(_HOST, text.lower()):
            raise ValueError(f"{name} must be the name of a host")
    if not re.fullmatch(r"\w+", tenant, re.ASCII):
        raise ValueError("tenant must be a tenant's name")
    parts = {"host": host.lower(), "login": (login_host or host).lower(), "tenant": tenant}
    return _WORKDAY.endpoint(client_id, client_secret, overrides, **parts)
