"""What is known of providers: each function makes a `TokenEndpoint` that knows its provider's ways.

`(client_id, client_secret=None, **overrides) -> TokenEndpoint`; the overrides are `TokenEndpoint`'s keyword arguments,
and `url`. Where a fact comes from stands beside it; what is not known there is as in the RFCs, and can be overridden.
Each preset names the origins that its tokens may be sent to; `origins=` names others.
"""

from __future__ import annotations

from .business import exact_online, hubspot, quickbooks, salesforce, twoba, xero, zoho
from .platforms import atlassian, box, dropbox, github, google, microsoft, slack

__all__ = [
    "atlassian",
    "box",
    "dropbox",
    "exact_online",
    "github",
    "google",
    "hubspot",
    "microsoft",
    "quickbooks",
    "salesforce",
    "slack",
    "twoba",
    "xero",
    "zoho",
]
