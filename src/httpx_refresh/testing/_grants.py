"""Grants without a person: client credentials, assertions, token exchange, and vendors' own grants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._clients import AssertionDesk
from ._settings import Settings
from ._tokens import TokenBook
from ._wire import Refusal

CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class GrantDesk:
    """Issues tokens for a client's own credentials, or for assertions and tokens that it presents. No mutable state."""

    def __init__(self, settings: Settings, book: TokenBook, assertions: AssertionDesk) -> None:
        self._settings = settings
        self._book = book
        self._assertions = assertions

    def knows(self, grant_type: str) -> bool:
        """Whether this grant type is one of these grants."""
        known = (CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE, *self._settings.vendor_grants)
        return grant_type in known

    def grant(self, grant_type: str, form: Mapping[str, str], client_id: str) -> dict[str, Any]:
        """Exchange a grant for a token; `client_id` is empty if no client authenticated."""
        scope = form.get("scope", "")
        extra: dict[str, Any] = {}
        refreshable = False
        if grant_type == CLIENT_CREDENTIALS:
            if self._settings.clients.get(client_id, "") is None:
                raise Refusal("unauthorized_client", "a public client has no credentials")
        elif grant_type == JWT_BEARER:
            claims = self._assertion(form)
            client_id = client_id or claims["iss"]
            scope = scope or str(claims.get("scope", ""))
        elif grant_type == TOKEN_EXCHANGE:
            extra = self._exchange(form)
            refreshable = self._settings.exchange_is_refreshable
        else:
            for name, value in self._settings.vendor_grants[grant_type].items():
                if form.get(name) != value:
                    raise Refusal("invalid_request", f"{name} is missing, or not known")
        self._check_targets(form)
        known = self._settings.scopes
        if known is not None and not set(scope.split()) <= set(known):
            raise Refusal("invalid_scope", "more than there is")
        response = self._book.grant(client_id, scope, refreshable=refreshable)
        return {**response, **extra}

    def _check_targets(self, form: Mapping[str, str]) -> None:
        """Refuse targets that this server does not have (RFC 8707 section 2, RFC 8693 section 2.2.2)."""
        known = self._settings.targets
        asked = f"{form.get('resource', '')} {form.get('audience', '')}".split()
        if known is not None and not set(asked) <= set(known):
            raise Refusal("invalid_target", "not one of this server's resources")

    def _exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Exchange a token (RFC 8693 sections 2.1 and 2.2.1)."""
        if "subject_token" not in form or "subject_token_type" not in form:
            raise Refusal("invalid_request", "a subject_token and its type are needed")
        if ("actor_token" in form) != ("actor_token_type" in form):
            raise Refusal("invalid_request", "an actor_token and its type go together")
        for name in ("subject_token", "actor_token"):
            if name in form and not self._is_good(form[name]):
                raise Refusal("invalid_request", f"the {name} is not valid")
        kind = form.get("requested_token_type", _ACCESS_TOKEN)
        extra = {"issued_token_type": kind}
        return extra if kind == _ACCESS_TOKEN else {**extra, "token_type": "N_A"}

    def _is_good(self, token: str) -> bool:
        known = self._book.check(f"{self._settings.authorization_scheme} {token}")
        return token in self._settings.subject_tokens or known.outcome == "accepted"

    def _assertion(self, form: Mapping[str, str]) -> dict[str, Any]:
        if "assertion" not in form:
            raise Refusal("invalid_request", "assertion is missing")
        keys = self._settings.assertion_keys
        return self._assertions.take(form["assertion"], keys, "invalid_grant")
