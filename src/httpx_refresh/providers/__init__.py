"""Presets of providers: each function makes a `TokenEndpoint` that follows its provider's rules.

The signature is `(client_id, client_secret=None, **overrides) -> TokenEndpoint`. The overrides are `TokenEndpoint`'s
keyword arguments, and `url`. The facts about a provider are data (see `Provider`). `PRESETS` holds them by the preset's
name, and the preset's docstring names the source of each fact. Where a fact is not known, the RFCs apply; an override
changes that. `SERVICES` holds the presets for services that have a key instead of a person: each makes a source that
starts without a stored token. Each preset names the origins that its tokens may be sent to; `origins=` names others.
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
