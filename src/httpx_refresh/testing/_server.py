"""The authorization server and its API: a state machine of calls and replies, without I/O."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._behaviour import Behaviour
from ._clients import AssertionDesk, ClientDesk
from ._events import ApiEvent, Event, Family, TokenEvent
from ._grants import JWT_BEARER, GrantDesk
from ._login import LoginDesk
from ._mcp import PLACE, Registry, check_resource, describe_resource, resource_challenge
from ._settings import DEVICE_GRANT, Settings, describe
from ._tokens import Spent, TokenBook
from ._wire import (
    JSON,
    Call,
    Refusal,
    Reply,
    json_reply,
    read_fields,
    read_form,
    read_json,
    redirect_reply,
)

if TYPE_CHECKING:
    import httpx
    import httpx2
    from starlette.types import ASGIApp

_NOTHING = Reply(500, [], b"")
_PONG = b'{"pong":true}'


@dataclass(kw_only=True, repr=False, eq=False)
class AuthorizationServer(Settings):
    """An OAuth 2.0 authorization server and an API behind it, for tests, with or without sockets.

        server = AuthorizationServer(lifetime=60, reuse_grace=30)
        token = server.login()                            # as after a person's login
        async with httpx.AsyncClient(transport=server.transport()) as client:
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            response = await client.get(f"{server.api_url}/ping", headers=headers)
        assert server.api_accepted == 1

    The settings are those of `Settings`, and can be changed at any time. The server decides about a
    request, and rotates tokens, when the request has arrived; delays and losses of `script` and
    `script_api` come after that. `events` holds what happened, in order; `token_calls` holds the token
    requests as they were sent. Several threads may use one server.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.events: list[Event] = []
        self.token_calls: list[Call] = []
        self.token_behaviour: Behaviour | None = None
        self.api_behaviour: Behaviour | None = None
        self.token_requests: int = 0
        self.api_requests: int = 0
        self.api_accepted: int = 0
        self.api_refused: int = 0
        self.padding_sent: int = 0
        self._token_script: deque[Behaviour] = deque()
        self._api_script: deque[Behaviour] = deque()
        self._lock = threading.RLock()
        self._book = TokenBook(self, self.events)
        self._registry = Registry(self)
        self._desk = LoginDesk(self, self._book, self._registry)
        assertions = AssertionDesk(self)
        self._clients = ClientDesk(self, assertions)
        self._grants = GrantDesk(self, self._book, assertions)
        self._endpoints: dict[tuple[str, str], Callable[[Call], Reply]] = {
            ("POST", "/token"): self._token,
            ("POST", "/revoke"): self._revoke,
            ("POST", "/device_authorization"): self._device,
            ("GET", "/authorize"): lambda call: self._desk.authorize(read_fields(call.query)),
            ("GET", "/device"): lambda call: self._desk.visit_device(read_fields(call.query)),
            ("GET", "/.well-known/oauth-authorization-server"): self._metadata,
            ("GET", f"{PLACE}/api"): self._resource,
            ("POST", "/register"): self._registry.register,
        }

    @property
    def rotations(self) -> int:
        """The number of refresh tokens that were replaced."""
        return self._book.rotations

    @property
    def reuses_detected(self) -> int:
        """The number of times that a spent refresh token was used again, after its grace."""
        return self._book.reuses_detected

    @property
    def family_revocations(self) -> int:
        """The number of families that have ended."""
        return self._book.family_revocations

    @property
    def families(self) -> tuple[Family, ...]:
        """All families of tokens, the oldest first."""
        return self._book.families

    @property
    def app(self) -> ASGIApp:
        """The server as an ASGI application, for sockets. This needs the extra `testing`."""
        from ._app import create_app

        return create_app(self)

    def transport(self, *, max_connections: int | None = None) -> httpx.AsyncBaseTransport:
        """Return a transport for `httpx.AsyncClient` that sends every request to this server, for any host.

        `max_connections` limits the open responses, as a connection pool does: further requests wait
        until a response is read completely or closed.
        """
        import httpx

        from ._transport import create_transport

        transport: httpx.AsyncBaseTransport = create_transport(httpx, self, max_connections)
        return transport

    def transport2(self, *, max_connections: int | None = None) -> httpx2.AsyncBaseTransport:
        """Return such a transport for `httpx2.AsyncClient`. This needs the extra `httpx2`."""
        try:
            import httpx2
        except ImportError:
            raise ImportError(
                "transport2() needs httpx2: pip install 'httpx-refresh[httpx2]'"
            ) from None

        from ._transport import create_transport

        transport: httpx2.AsyncBaseTransport = create_transport(httpx2, self, max_connections)
        return transport

    def login(
        self, client_id: str | None = None, *, scope: str = "", **asked: str
    ) -> dict[str, Any]:
        """Begin a family of tokens, as a person's login does, and return its first token response.

        `asked` holds what else the login requested, such as `acr_values="gold"`.
        """
        with self._lock:
            return self._book.begin(client_id or self.client_id, scope, asked)[1]

    def expire_access_tokens(self) -> None:
        """Expire every access token issued so far; the refresh tokens stay valid."""
        with self._lock:
            self._book.expire_access_tokens()

    def revoke_family(self, number: int | None = None) -> None:
        """Revoke the family with this index in `families`; without an index all families."""
        with self._lock:
            for family in self.families if number is None else (self.families[number],):
                self._book.end(family, "revocation")

    def decide_device(self, user_code: str, *, allow: bool = True) -> None:
        """Allow or deny a device login, as the person in front of the device."""
        with self._lock:
            self._desk.decide_device(user_code, allow=allow)

    def script(self, *behaviours: Behaviour) -> None:
        """Set the behaviours for the next token requests, one for each; then `token_behaviour` applies."""
        self._token_script.extend(behaviours)

    def script_api(self, *behaviours: Behaviour) -> None:
        """Set the behaviours for the next API requests, one for each; then `api_behaviour` applies."""
        self._api_script.extend(behaviours)

    @property
    def registrations(self) -> list[dict[str, Any]]:
        """The metadata of all registration requests, in order, whether they succeeded or not."""
        return self._registry.requests

    def forget_registrations(self) -> None:
        """Forget all clients that have registered themselves."""
        with self._lock:
            self._registry.forget()

    def stats(self) -> dict[str, int]:
        """Return all counters by name."""
        return {
            "token_requests": self.token_requests,
            "rotations": self.rotations,
            "reuses_detected": self.reuses_detected,
            "families": len(self.families),
            "family_revocations": self.family_revocations,
            "api_requests": self.api_requests,
            "api_accepted": self.api_accepted,
            "api_refused": self.api_refused,
        }

    def handle(self, call: Call) -> Reply:
        """Handle a call at once, and return the reply."""
        with self._lock:
            try:
                if call.path.startswith("/api/"):
                    return self._api(call)
                endpoint = self._endpoints.get((call.method, call.path))
                if (call.method, call.path) == ("POST", self.refresh_path):
                    endpoint = self._token
                if endpoint is None:
                    return json_reply({"error": "not found"}, 404)
                return endpoint(call)
            except Refusal as refusal:
                return refusal.reply()

    def _token(self, call: Call) -> Reply:
        self.token_requests += 1
        self.token_calls.append(call)
        behaviour = self._token_script.popleft() if self._token_script else self.token_behaviour
        served = behaviour is None or behaviour.commits
        now, grant_type, client_id, issued = self.clock(), "", None, None
        family, generation = None, None
        reply, place = _NOTHING, len(self.events)
        try:
            form = read_json(call) if self.request_format == "json" else read_form(call)
            grant_type = form.get("grant_type", "")
            if (grant_type == "refresh_token") != (call.path == self.refresh_path) and (
                self.refresh_path != "/token"
            ):
                raise Refusal("unsupported_grant_type", "not at this address")
            family, generation = self._book.known(form.get("refresh_token", ""))
            if served:
                # RFC 7521 section 4.1: with an assertion as the grant, client authentication is optional.
                nobody = not {"client_id", "client_assertion"} & form.keys()
                nobody = nobody and "authorization" not in call.headers
                if not (grant_type == JWT_BEARER and nobody):
                    client_id = self._clients.authenticate(call, form)
                response, issued, outcome = self._grant(grant_type, form, client_id or "")
                reply = json_reply(self.answer(response))
            else:
                outcome = "not served"
        except Refusal as refusal:
            reply, outcome = refusal.reply(), refusal.outcome
            dead = self.dead_refresh_token
            if grant_type == "refresh_token" and refusal.error == "invalid_grant" and dead:
                reply = json_reply(dead[1], dead[0])
        names = (grant_type, client_id, family, generation, issued, outcome, _name(behaviour))
        # The request's event comes before the events that it caused.
        self.events.insert(place, TokenEvent(now, *names))
        return reply if behaviour is None else behaviour.shape(reply)

    def _grant(self, grant_type: str, form: dict[str, str], client_id: str) -> Spent:
        check_resource(self, form)
        if grant_type == "refresh_token":
            if "refresh_token" not in form:
                raise Refusal("invalid_request", "refresh_token is missing")
            for name, value in self.refresh_params.items():
                if form.get(name) != value:
                    raise Refusal("invalid_request", f"{name} is missing, or not the one it was")
            claims = form.get("claims")
            if claims is not None and self.claims_need_login:
                raise Refusal("interaction_required", "a person is needed", claims=claims)
            spent = self._book.spend(form["refresh_token"], client_id, form.get("scope"))
            if claims is not None:
                self._book.known_family(form["refresh_token"]).claims = claims
            return spent
        if grant_type == "authorization_code":
            return Spent(self._desk.redeem_code(form, client_id), 0, "issued")
        if grant_type == DEVICE_GRANT:
            return Spent(self._desk.redeem_device(form, client_id), 0, "issued")
        if self._grants.knows(grant_type):
            return Spent(self._grants.grant(grant_type, form, client_id), 0, "issued")
        raise Refusal("unsupported_grant_type", "not one of this server's")

    def _api(self, call: Call) -> Reply:
        self.api_requests += 1
        behaviour = self._api_script.popleft() if self._api_script else self.api_behaviour
        verdict = self._book.check(call.headers.get("authorization"))
        served = behaviour is None or behaviour.commits
        outcome = verdict.outcome if served else "not served"
        challenge = None
        if outcome == "accepted" and self.step_up is not None and verdict.family is not None:
            challenge = self.step_up(call, self.families[verdict.family])
        if challenge is not None:
            outcome = challenge.error
        self.events.append(
            ApiEvent(
                self.clock(),
                call.method,
                call.host,
                call.path,
                verdict.family,
                verdict.generation,
                outcome,
                _name(behaviour),
            )
        )
        reply = _NOTHING
        if challenge is not None:
            self.api_refused += 1
            reply = challenge.reply()
        elif outcome == "accepted":
            self.api_accepted += 1
            reply = _serve(call, self.api_accepted)
        elif served:
            self.api_refused += 1
            reply = _refuse(outcome, resource_challenge(self))
        return reply if behaviour is None else behaviour.shape(reply)

    def _revoke(self, call: Call) -> Reply:
        form = read_form(call)
        self._book.revoke(form.get("token", ""), self._clients.authenticate(call, form))
        return Reply(200, [], b"")

    def _device(self, call: Call) -> Reply:
        form = read_form(call)
        client_id = self._clients.authenticate(call, form)
        return json_reply(self._desk.start_device(client_id, form.get("scope", "")))

    def _resource(self, call: Call) -> Reply:
        if not self.resource_metadata:
            return json_reply({"error": "not found"}, 404)
        return json_reply(describe_resource(self))

    def _metadata(self, call: Call) -> Reply:
        return json_reply(describe(self))


def _serve(call: Call, count: int) -> Reply:
    """Answer with a description of the request; `/api/ping` answers fast, `/api/redirect` redirects."""
    if call.path == "/api/ping" and call.method == "GET":
        return Reply(200, [JSON], _PONG)
    if call.path == "/api/redirect":
        query = read_fields(call.query)
        if "to" not in query:
            raise Refusal("invalid_request", "redirect needs to=")
        return redirect_reply(query["to"], int(query.get("status", "307")))
    return json_reply(
        {
            "method": call.method,
            "path": call.path,
            "query": call.query,
            "length": len(call.body),
            "sha256": hashlib.sha256(call.body).hexdigest(),
            "content_type": call.headers.get("content-type"),
            "count": count,
        }
    )


def _refuse(outcome: str, further: str) -> Reply:
    """Return a 401 (RFC 6750 section 3); for a request without a token it has no error code (section 3.1)."""
    challenge = 'Bearer realm="api"'
    if outcome != "missing":
        challenge += f', error="invalid_token", error_description="the token is {outcome}"'
    reply = json_reply({"error": "invalid_token", "reason": outcome}, 401)
    reply.headers.append((b"www-authenticate", (challenge + further).encode()))
    return reply


def _name(behaviour: Behaviour | None) -> str | None:
    return None if behaviour is None else type(behaviour).__name__
