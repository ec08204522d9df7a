"""What is known of providers: each function makes a `TokenEndpoint` that knows its provider's ways.

`(client_id, client_secret=None, **overrides) -> TokenEndpoint`; the overrides are `TokenEndpoint`'s keyword arguments,
and `url`. What is known of a provider is data, see `Provider`: `PRESETS` holds it by the preset's name, and where each
fact comes from stands in the preset's docstring. What is not known there is as in the RFCs, and can be overridden.
`SERVICES` holds the presets that make a source which starts from nothing, for services with a key instead of a person.
Each preset names the origins that its tokens may be sent to; `origins=` names others.
"""

from __future__ import annotations

from ._preset import PRESETS, SERVICES, Overrides, Preset, Provider
from .business import (
    exact_online,
    follow_up_boss,
    gusto,
    hubspot,
    quickbooks,
    salesforce,
    stripe,
    twoba,
    workday,
    xero,
    zoho,
)
from .identity import auth0, databricks, keycloak, okta, servicenow, snowflake
from .platforms import atlassian, box, dropbox, github, google, microsoft, slack
from .services import GitHubInstallation, github_installation, google_service_account
from .social import discord, fitbit, linkedin, reddit, spotify, strava, x
from .work import (
    airtable,
    docusign,
    dropbox_sign,
    figma,
    gitlab,
    linear,
    notion,
    square,
    zoom,
)

__all__ = [
    "PRESETS",
    "SERVICES",
    "GitHubInstallation",
    "Overrides",
    "Preset",
    "Provider",
    "airtable",
    "atlassian",
    "auth0",
    "box",
    "databricks",
    "discord",
    "docusign",
    "dropbox",
    "dropbox_sign",
    "exact_online",
    "figma",
    "fitbit",
    "follow_up_boss",
    "github",
    "github_installation",
    "gitlab",
    "google",
    "google_service_account",
    "gusto",
    "hubspot",
    "keycloak",
    "linear",
    "linkedin",
    "microsoft",
    "notion",
    "okta",
    "quickbooks",
    "reddit",
    "salesforce",
    "servicenow",
    "slack",
    "snowflake",
    "spotify",
    "square",
    "strava",
    "stripe",
    "twoba",
    "workday",
    "x",
    "xero",
    "zoho",
    "zoom",
]
