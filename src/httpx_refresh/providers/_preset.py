"""How a preset is made of facts."""

from __future__ import annotations

from typing import Any

from .._oauth.endpoint import TokenEndpoint

DAY = 86_400.0

STAYS_VALID = DAY
"""The `reuse_grace` of a refresh token that using it does not spend: a refresh may be repeated at any time."""


def field(value: Any, *path: str | int) -> Any:
    """Walk into a JSON value; None where the way ends."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def preset(
    client_id: str, client_secret: str | None, overrides: dict[str, Any], **facts: Any
) -> TokenEndpoint:
    """Make an endpoint of a provider's facts; what the caller says overrides them."""
    if client_secret is None:
        # A public client: the provider's way for confidential ones does not apply.
        facts["client_auth"] = None
    facts.update(overrides)
    return TokenEndpoint(facts.pop("url"), client_id, client_secret, **facts)
