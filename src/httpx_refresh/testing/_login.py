"""Logins of a person: the authorization code with PKCE, and the device code."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from ._events import Family
from ._mcp import Registry, check_resource
from ._settings import Settings
from ._tokens import TokenBook
from ._wire import NO_STORE, Refusal, Reply, redirect_reply

CODE_LIFETIME = 60.0
DEVICE_LIFETIME = 600.0
DEVICE_INTERVAL = 5.0


@dataclass(slots=True, eq=False, repr=False)
class _Code:
    client_id: str
    redirect_uri: str
    scope: str
    challenge: str | None
    expires_at: float
    asked: Mapping[str, str]
    family: Family | None = None


_ASKED = frozenset({"acr_values", "claims", "login_hint", "max_age", "prompt", "resource"})


@dataclass(slots=True, eq=False, repr=False)
class _Device:
    client_id: str
    scope: str
    user_code: str
    expires_at: float
    interval: float = DEVICE_INTERVAL
    polled_at: float = float("-inf")
    decision: str | None = None


class LoginDesk:
    """Issues authorization codes and device codes, and exchanges them for tokens."""

    def __init__(self, settings: Settings, book: TokenBook, registry: Registry) -> None:
        self._registry = registry
        self._settings = settings
        self._book = book
        self._codes: dict[str, _Code] = {}
        self._devices: dict[str, _Device] = {}

    def authorize(self, query: Mapping[str, str]) -> Reply:
        """Serve the authorization endpoint (RFC 6749 sections 4.1.1 and 4.1.2)."""
        client_id, redirect_uri = query.get("client_id", ""), query.get("redirect_uri", "")
        # If either is wrong, the server must not redirect (section 4.1.2.1).
        if client_id not in self._settings.clients and not self._registry.knows(client_id):
            raise Refusal("invalid_request", "no such client")
        if not urlsplit(redirect_uri).scheme or urlsplit(redirect_uri).fragment:
            raise Refusal("invalid_request", "redirect_uri must be absolute, without a fragment")
        self._registry.check_redirect(client_id, redirect_uri)
        fields: dict[str, str] = {}
        if self._settings.send_iss:
            fields["iss"] = self._settings.issuer
        if "state" in query:
            fields["state"] = query["state"]
        error = self._wrong_with(query)
        decision = query.get("decision") if self._settings.consent == "ask" else None
        if error is not None:
            fields["error"] = error
        elif self._settings.consent == "deny" or decision == "deny":
            fields["error"] = "access_denied"
        elif self._settings.consent == "ask" and decision is None:
            return _consent_page(f"{client_id} wants access", "/authorize", query)
        else:
            code = fields["code"] = self._settings.new_token()
            self._codes[code] = _Code(
                client_id,
                redirect_uri,
                query.get("scope", ""),
                None if self._settings.pkce == "unsupported" else query.get("code_challenge"),
                self._settings.clock() + CODE_LIFETIME,
                {name: value for name, value in query.items() if name in _ASKED},
            )
            fields.update(self._settings.redirect_fields)
        mark = "&" if urlsplit(redirect_uri).query else "?"
        return redirect_reply(f"{redirect_uri}{mark}{urlencode(fields)}")

    def _wrong_with(self, query: Mapping[str, str]) -> str | None:
        if query.get("response_type") != "code":
            return "unsupported_response_type"
        try:
            check_resource(self._settings, query)
        except Refusal as refusal:
            return refusal.error
        if self._settings.pkce == "unsupported":
            return None
        if "code_challenge" not in query:
            return "invalid_request" if self._settings.pkce == "required" else None
        # RFC 7636 section 4.3: the default method is "plain"; only S256 is accepted.
        return None if query.get("code_challenge_method") == "S256" else "invalid_request"

    def redeem_code(self, form: Mapping[str, str], client_id: str) -> dict[str, Any]:
        """Exchange a code for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.6)."""
        held = self._codes.get(form.get("code", ""))
        if held is None or held.client_id != client_id:
            raise Refusal("invalid_grant", "no such code")
        if held.family is not None:
            # RFC 6749 section 4.1.2: the second use of a code ends the tokens of the first.
            self._book.end(held.family, "code reuse")
            raise Refusal("invalid_grant", "the code was used before")
        if self._settings.clock() > held.expires_at:
            raise Refusal("invalid_grant", "the code has expired")
        if form.get("redirect_uri") != held.redirect_uri:
            raise Refusal("invalid_grant", "another redirect_uri than the code was asked with")
        verifier = form.get("code_verifier")
        if held.challenge is not None and _challenge(verifier or "") != held.challenge:
            raise Refusal("invalid_grant", "the code_verifier does not match")
        held.family, response = self._book.begin(client_id, held.scope, held.asked)
        return response

    def start_device(self, client_id: str, scope: str) -> dict[str, Any]:
        """Serve the device authorization endpoint (RFC 8628 sections 3.1 and 3.2)."""
        code = self._settings.new_token()
        user_code = f"{len(self._devices):04d}-{hashlib.sha256(code.encode()).hexdigest()[:4]}"
        now = self._settings.clock()
        self._devices[code] = _Device(client_id, scope, user_code, now + DEVICE_LIFETIME)
        page = f"{self._settings.issuer}/device"
        return {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?{urlencode({'user_code': user_code})}",
            "expires_in": int(DEVICE_LIFETIME),
            "interval": int(DEVICE_INTERVAL),
        }

    def visit_device(self, query: Mapping[str, str]) -> Reply:
        """Serve the page behind `verification_uri`: the person decides as `consent` says."""
        user_code = query.get("user_code", "")
        chosen = {"auto": "allow", "deny": "deny"}.get(self._settings.consent)
        decision = chosen or query.get("decision")
        if decision is None:
            return _consent_page(f"Device {user_code} wants access", "/device", query)
        self.decide_device(user_code, allow=decision == "allow")
        return _page("You may go back to your device.")

    def decide_device(self, user_code: str, *, allow: bool) -> None:
        """Allow or deny, as the person who reads the code on the device."""
        for device in self._devices.values():
            if device.user_code == user_code:
                device.decision = "allow" if allow else "deny"
                return
        raise Refusal("invalid_request", "no device shows that code")

    def redeem_device(self, form: Mapping[str, str], client_id: str) -> dict[str, Any]:
        """Exchange a device code for tokens (RFC 8628 sections 3.4 and 3.5)."""
        code, now = form.get("device_code", ""), self._settings.clock()
        device = self._devices.get(code)
        if device is None or device.client_id != client_id:
            raise Refusal("invalid_grant", "no such device code")
        if now > device.expires_at:
            raise Refusal("expired_token", "the device code has expired")
        too_soon = now - device.polled_at < device.interval
        device.polled_at = now
        if too_soon:
            device.interval += 5.0
            raise Refusal("slow_down", "asked again too soon")
        if device.decision is None:
            raise Refusal("authorization_pending", "the person has not decided yet")
        del self._devices[code]
        if device.decision == "deny":
            raise Refusal("access_denied", "the person said no")
        return self._book.begin(client_id, device.scope)[1]


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _consent_page(title: str, path: str, query: Mapping[str, str]) -> Reply:
    targets = {word: urlencode({**query, "decision": word}) for word in ("allow", "deny")}
    links = [
        f'<a href="{path}?{html.escape(target)}">{word}</a>' for word, target in targets.items()
    ]
    return _page(html.escape(title), " ".join(links))


def _page(text: str, links: str = "") -> Reply:
    body = f"<!doctype html><title>Log in</title><p>{text}</p><p>{links}</p>"
    return Reply(200, [(b"content-type", b"text/html; charset=utf-8"), NO_STORE], body.encode())
