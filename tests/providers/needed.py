"""The arguments that some presets require besides the client."""

from __future__ import annotations

NEEDED: dict[str, dict[str, str]] = {
    "auth0": {"domain": "acme.eu.auth0.com"},
    "databricks": {"host": "dbc-a1b2.cloud.databricks.com"},
    "keycloak": {"realm": "https://sso.acme.test/realms/acme"},
    "okta": {"domain": "acme.okta.com"},
    "servicenow": {"host": "acme.service-now.com"},
    "snowflake": {"host": "acme-main.snowflakecomputing.com"},
    "workday": {"host": "wd2-impl-services1.workday.test", "tenant": "acme_dpt1"},
}


def needed(name: str) -> dict[str, str]:
    """Return the required arguments of the preset `name`."""
    return NEEDED.get(name, {})
