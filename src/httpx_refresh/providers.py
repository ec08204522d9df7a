"""A table of facts about providers: each function makes a `TokenEndpoint` that knows its provider's ways.

`(client_id, client_secret=None, **overrides) -> TokenEndpoint`; the overrides are `TokenEndpoint`'s keyword arguments,
and `url`. Where a fact comes from stands beside it.
"""

from __future__ import annotations

import re
from typing import Any

from ._answer import INVALID_GRANT, Refusal
from ._endpoint import TokenEndpoint
from ._expiry import ExpiryRule

_DAY = 86_400.0


def _field(value: Any, *path: str | int) -> Any:
    """Walk into a JSON value; None where the way ends."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _endpoint(
    client_id: str, client_secret: str | None, facts: dict[str, Any], overrides: dict[str, Any]
) -> TokenEndpoint:
    facts = {**facts, **overrides}
    if client_secret is None:
        # A public client; the provider's way for confidential ones does not apply.
        facts = {**facts, "token_endpoint_auth_method": overrides.get("token_endpoint_auth_method")}
    return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)


def xero(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """Xero: a new refresh token every time, and the old one goes on for 30 minutes in case the answer was lost.

    Without a secret it is a PKCE app. A 401 that speaks of a missing scope (`AuthorizationUnsuccessful`) is passed on.

    Sources: developer.xero.com/faq/oauth2 (lifetimes, grace, PKCE), XeroAPI/xero-python oauth2.py (URLs),
    XeroAPI/Xero-NetStandard issue 298 (the 401), NangoHQ/nango providers.yaml (login).
    """
    facts = {
        "name": "Xero",
        "url": "https://identity.xero.com/connect/token",
        "token_endpoint_auth_method": "client_secret_basic",
        "origins": ("https://api.xero.com",),
        "reuse_grace": 1800.0,
        "is_expired": ExpiryRule(
            lambda body: _field(body, "Detail") != "AuthorizationUnsuccessful"
        ),
        "authorization_endpoint": "https://login.xero.com/identity/connect/authorize",
        "revocation_endpoint": "https://identity.xero.com/connect/revocation",
        "offline_scope": "offline_access",
        "refresh_token_lifetime": 60 * _DAY,
    }
    return _endpoint(client_id, client_secret, facts, overrides)


def quickbooks(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """QuickBooks Online: the refresh token comes back every time and changes about once a day.

    What Intuit says of the old one contradicts itself (24 hours in the README of intuit/oauth-jsclient, see its issue
    74; at once in a help article quoted in intuit/QuickBooks-V3-PHP-SDK issue 454), so no grace is taken for granted.

    The company that was connected, `realmId`, comes with the redirect of a login, and is kept with the token.

    Sources: intuit/oauth-pythonclient client.py (client authentication, revocation), NangoHQ/nango providers.yaml
    (URLs), blogs.intuit.com on the refresh token policy (100 days).
    """
    facts = {
        "name": "QuickBooks",
        "url": "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        "token_endpoint_auth_method": "client_secret_basic",
        "origins": (
            "https://quickbooks.api.intuit.com",
            "https://sandbox-quickbooks.api.intuit.com",
        ),
        "authorization_endpoint": "https://appcenter.intuit.com/connect/oauth2",
        "revocation_endpoint": "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        "revocation_format": "json",
        "scope": "com.intuit.quickbooks.accounting",
        "redirect_fields": ("realmId",),
        "refresh_token_lifetime": 100 * _DAY,
    }
    return _endpoint(client_id, client_secret, facts, overrides)


_SALESFORCE_LOGIN = {"login": "login.salesforce.com", "production": "login.salesforce.com"}
_SALESFORCE_LOGIN |= {"test": "test.salesforce.com", "sandbox": "test.salesforce.com"}


def _salesforce_host(domain: str) -> str:
    name = domain.lower()
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
        raise ValueError("domain must be 'login', 'test', a My Domain name, or its host")
    if name in _SALESFORCE_LOGIN:
        return _SALESFORCE_LOGIN[name]
    if name.endswith(".salesforce.com"):
        return name
    return f"{name.removesuffix('.my')}.my.salesforce.com"


def salesforce(
    client_id: str, client_secret: str | None = None, *, domain: str = "login", **overrides: Any
) -> TokenEndpoint:
    """Salesforce: no `expires_in`, so a token is refreshed when it is refused; rotation only where it is switched on.

    Args:
        client_id: the consumer key.
        client_secret: the consumer secret, sent in the body; None for an app that needs none.
        domain: `login` (production), `test` (sandboxes), or a My Domain name or host, such as `acme` or
            `acme--uat.sandbox.my.salesforce.com`.
        overrides: see this module.

    Sources: help.salesforce.com 005316711 (rotation and reuse), simple-salesforce api.py (`INVALID_SESSION_ID`),
    jsforce pull 1301 (a 401 that is not about expiry), developer.salesforce.com oauth-revoking-tokens (revocation),
    help.salesforce.com connected_app_limit_idle_ttl (30 days), segmentio/action-destinations salesforce/index.ts and
    SalesforceMobileSDK-iOS issue 3731 (refusals that pass).
    """
    host = _salesforce_host(domain)
    revoking = f"https://{host}" if host.endswith(".my.salesforce.com") else "{instance_url}"
    facts = {
        "name": "Salesforce",
        "url": f"https://{host}/services/oauth2/token",
        "token_endpoint_auth_method": "client_secret_post",
        "origins": ("https://*.salesforce.com",),
        "is_expired": ExpiryRule(
            lambda body: (
                "not valid for use with the REST API" not in str(_field(body, 0, "message"))
            )
        ),
        "transient": (
            Refusal(error="invalid_grant", text="expired authorization code"),
            Refusal(text="token request is already being processed"),
        ),
        "authorization_endpoint": f"https://{host}/services/oauth2/authorize",
        "revocation_endpoint": f"{revoking}/services/oauth2/revoke",
        "scope": "api",
        "offline_scope": "refresh_token",
        "refresh_token_lifetime": 30 * _DAY,
    }
    return _endpoint(client_id, client_secret, facts, overrides)


def twoba(client_id: str, client_secret: str | None = None, **overrides: Any) -> TokenEndpoint:
    """2BA: a new refresh token every time, and a plain 400 for a dead one.

    Sources: 2ba.nl/?p=18 (URLs), 2BABV/developer-docs oauth2-refresh-access-token.md (client authentication).
    """
    facts = {
        "name": "2BA",
        "url": "https://authorize.2ba.nl/OAuth/Token",
        "token_endpoint_auth_method": "client_secret_post",
        "origins": ("https://api.2ba.nl",),
        "dead": (INVALID_GRANT, Refusal(status=400)),
        "authorization_endpoint": "https://authorize.2ba.nl/OAuth/Authorize",
    }
    return _endpoint(client_id, client_secret, facts, overrides)
