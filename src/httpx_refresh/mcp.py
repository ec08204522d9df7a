"""MCP servers (Model Context Protocol) as token sources: discovery, the client's registration, login, refresh.

`RefreshAuth(mcp.Server("https://mcp.example.com/mcp"), store)` asks nobody for anything until a token is needed. It
follows the authorization specification of 2026-07-28: https://modelcontextprotocol.io/specification/2026-07-28/basic/authorization

What a process must know of a client stands in the store, since any process may be the next to refresh, and any the
next to log in:

- *A token carries the client that it was issued to*, in its field `mcp` (`Token.extra`). A refresh token is good for
  that client only (RFC 6749 §6), so the two are one value, and are swapped as one: no process ever sends the refresh
  token of one registration as the client of another, whatever was registered meanwhile. And a source is given the
  token, and needs no further way to the store.
- *Registrations stand beside the token*, in the notes, by issuer. A login finds them there, also before there was a
  token, and after one was revoked. They are a memory of what need not be asked again; nothing but a login reads them.

Both may hold a client's secret, and so does the store hold the refresh token. A secret of a client that was registered
by hand is never written there: it is the argument's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from ._challenges import parse, united_scope
from ._errors import LoginFailed, RefreshUnavailable, RevocationFailed, StoreError, frameless
from ._http.hosts import Hosts
from ._http.origins import origin_of, read_url
from ._oauth.answer import INVALID_GRANT, NoAnswer, Refusal
from ._oauth.discovery import check_endpoint, endpoint_facts, server_metadata
from ._oauth.documents import Documents, list_of, text_of
from ._oauth.endpoint import TokenEndpoint
from ._oauth.exchange import client_maker, prepared
from ._oauth.login import AuthorizationRequest
from ._oauth.protected_resource import ProtectedResource, protected_resource
from ._oauth.registration import METHODS, Registration, client_metadata, method_for, register
from ._oauth.settings import CLIENTS, checked_url, one_loop_of, seconds
from ._oauth.settings import client as checked_client
from ._refresh.host import THIS_HOST
from ._refresh.record import Record, with_token
from ._refresh.slot import Slot
from ._refresh.source import purpose_of
from ._token import Token

if TYPE_CHECKING:
    from ._http.libraries import AsyncClient
    from ._oauth.authentication import ClientAuth, Method
    from ._oauth.material import Text
    from .stores.base import TokenStore

_FIELD = "mcp"  # of a token
_NOTE = "registrations"  # beside it
_MOST_REGISTRATIONS = 8
_FRESH = 3_600.0  # seconds for which what a server said of itself is believed
_MOST_REDIRECTS = 3
_MOST_SWAPS = 16
_STORE_TIMEOUT = 20.0

# What any MCP client may send, and changes nothing.
_PING = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "ping"})
_PING_HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}

_INVALID_CLIENT = Refusal(error="invalid_client")


@dataclass(frozen=True, slots=True)
class Login:
    """One login that was begun: send the browser to `url`, keep the rest until it comes back.

    Attributes:
        request: what to keep, see `AuthorizationRequest`.
        issuer: who was asked; nobody else is shown the code (RFC 9207).
        client_id: as which client.
    """

    request: AuthorizationRequest
    issuer: str
    client_id: str

    @property
    def url(self) -> str:
        """Where the browser is sent."""
        return self.request.url

    @property
    def state(self) -> str:
        """What the browser has to bring back (RFC 6749 §10.12)."""
        return self.request.state


@dataclass(frozen=True, slots=True)
class _Client:
    """A client of one issuer, as far as the token that it was given tells.

    Attributes:
        issuer: whose client it is.
        registration: what the issuer has registered; its secret is None for a client that was registered by hand.
        is_registered: whether it has registered itself: else its credentials are the arguments'.
    """

    issuer: str
    registration: Registration
    is_registered: bool

    def note(self) -> dict[str, Any]:
        """Return it as a token carries it."""
        said = replace(self.registration, redirect_uris=(), scope=None, expires_at=None).note()
        del said["redirect_uris"]
        return {"issuer": self.issuer, **said, "registered": self.is_registered}

    @classmethod
    def of(cls, token: Token) -> _Client | None:
        """Return the client that a token was issued to; None if the token does not tell."""
        note = token.extra.get(_FIELD)
        if not isinstance(note, Mapping):
            return None
        issuer, registered = note.get("issuer"), note.get("registered") is True
        registration = Registration.from_note(dict(note))
        if not isinstance(issuer, str) or registration is None:
            return None
        return cls(issuer, registration, registered)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a server has said of itself.

    Attributes:
        resource: what it is, and who issues tokens for it.
        scope: what its challenge asks for.
        until: until when (monotonic) that is believed.
        issuers: what the issuers that were asked have said of themselves.
    """

    resource: ProtectedResource
    scope: str | None
    until: float
    issuers: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class Server:
    """An MCP server, as a source of tokens for it.

    It is asked what it is when a token is needed, not before: its protected resource metadata (RFC 9728), where its
    401 says that it is or at the well-known places, leads to an authorization server, whose own metadata (RFC 8414,
    OpenID Connect Discovery 1.0) leads to the endpoints. Every token is asked for with `resource` (RFC 8707), and goes
    to the server's own origin only. What the server names is asked over https, at public hosts only, or where the
    server itself is; no redirect is followed, and what is read is bounded.

    Log a person in with `httpx-refresh login --mcp URL`, or with `begin_login` and `finish_login`.

    Args:
        url: the server's address, as its clients are given it.
        client_id: a client that was registered by hand; or the https address of a client ID metadata document, which
            is used where the authorization server knows such, as the specification prefers it. None, and where
            neither can be used: the client registers itself (RFC 7591) at the first login.
        client_secret: the secret of the client that was registered by hand, see `TokenEndpoint`.
        client_auth: how a client with a `client_id` authenticates, where that is not by its secret, see
            `TokenEndpoint`: with a private key, for example.
        issuer: the authorization server to use, of those that the server names; where it names none, this one. Name
            it with a `client_id`: a client that was registered with one issuer is nobody at another. None: the
            first that the server names.
        scope: what a login asks for; None: what the server's challenge asks for, else the scopes that its metadata
            names.
        client_name: what people are shown when they are asked for their consent, where the client registers itself.
        client: what to ask with, see `TokenEndpoint`. A client of yours connects where it likes: names of hosts are
            checked, the addresses that it finds are not.
        timeout: seconds for all that is asked to find the endpoints, and for each request of theirs.
        allow_http: whether the server and what it names may be plain http, as in docker-compose.
        name: what messages call it; None: the host of `url`.

    Attributes:
        origins: the server's own origin: the token goes nowhere else.
        purpose: names the server in the stored text; a text that names another one is not used.

    Mutable: `_known`, what the server and its issuers said of themselves, replaced as a whole. None: it is to be asked.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    @frameless
    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        client_secret: Text | None = None,
        client_auth: Method | ClientAuth | None = None,
        issuer: str | None = None,
        scope: str | None = None,
        client_name: str = "httpx-refresh",
        client: AsyncClient | Callable[[], AsyncClient] | None = None,
        timeout: float = 30.0,
        allow_http: bool = False,
        name: str | None = None,
    ) -> None:
        if not isinstance(allow_http, bool):
            raise TypeError("allow_http must be a bool")
        self.url: str = checked_url(url, "url", allow_http=allow_http)
        for what, value in (
            ("client_id", client_id),
            ("issuer", issuer),
            ("scope", scope),
            ("name", name),
        ):
            if not (value is None or isinstance(value, str)):
                raise TypeError(f"{what} must be a str or None")
        if not isinstance(client_name, str):
            raise TypeError("client_name must be a str")
        if client_secret is not None and (client_id is None or _is_document(client_id)):
            raise ValueError("client_secret is of a client_id that was registered by hand")
        if client_auth is not None and client_id is None:
            raise ValueError("client_auth is of a client_id: who registers itself is told how")
        if issuer is not None:
            checked_url(issuer, "issuer", allow_http=allow_http)
        home = httpx.URL(url)
        self._shown = str(home.copy_with(query=None))  # A query may hold a key.
        self.name: str = name or home.host
        self.origins: tuple[str, ...] = (str(origin_of(home)),)
        self.purpose: str = purpose_of("mcp", str(home).rstrip("/"), None)
        self.allow_http = allow_http
        self.issuer = issuer
        self.scope = scope
        self.client_name = client_name
        self._client_id = client_id
        self._client_secret = client_secret
        self._client_auth = client_auth
        self._timeout = seconds("timeout", timeout)
        self._hosts = Hosts(home)
        self._source = _watched(checked_client(client), self._hosts, home)
        self._known: _Found | None = None

    @property
    def one_loop(self) -> str | None:
        """How to pass a client that serves every event loop, see `TokenEndpoint`."""
        return one_loop_of(self._source)

    def __repr__(self) -> str:
        return f"mcp.Server({self._shown!r})"

    # -- the source ------------------------------------------------------------------------------------------------

    @frameless
    async def refresh(self, token: Token, /) -> Token:
        """Spend `token.refresh_token`, as the client that it was issued to, and return what the server answered.

        Raises:
            ReauthorizationRequired: the refresh token is refused for good; or the client that had registered itself is
                unknown to the server by now, and a login has to register it again.
            RefreshUnavailable: there is no new token; its `outcome` tells what became of the old one.
        """
        holder = _Client.of(token) or self._unnamed()
        with _unsent(self.name):
            holder, endpoint = await self._endpoint_of(holder)
        try:
            new = await endpoint.refresh(token)
        except RefreshUnavailable:
            self._known = None  # It may have moved.
            raise
        return _carrying(new, holder)

    @frameless
    async def revoke(self, token: Token, /) -> None:
        """Revoke a token (RFC 7009) at its issuer, as the client that it was issued to.

        The refresh token is revoked, and with it the grant; without one the access token.

        Raises:
            RevocationFailed: the issuer did not confirm it, or could not be asked.
            ValueError: the issuer's metadata names no `revocation_endpoint`.
        """
        with _unrevoked(self.name):
            endpoint = await self.endpoint(token)
        await endpoint.revoke(token)

    @frameless
    async def endpoint(self, token: Token) -> TokenEndpoint:
        """Return the endpoint at which a token was issued, for its client.

        Raises:
            RefreshUnavailable: the server, or who issues its tokens, could not be asked, or says what cannot be used.
        """
        holder = _Client.of(token) or self._unnamed()
        with _unsent(self.name):
            return (await self._endpoint_of(holder))[1]

    async def _endpoint_of(self, client: _Client) -> tuple[_Client, TokenEndpoint]:
        """Return a client, and its issuer's endpoint for it."""
        if not client.issuer:
            client = replace(client, issuer=self._issuer_of(await self._look()))
        return client, self._endpoint(await self._look_at(client.issuer), client)

    # -- logging in ------------------------------------------------------------------------------------------------

    @frameless
    async def begin_login(
        self,
        store: TokenStore,
        redirect_uri: str,
        *,
        scope: str | None = None,
        register: bool = False,
        **params: str,
    ) -> Login:
        """Begin a login: find out where, register the client if it is not registered yet, and make the request.

        A registration is in the store before the browser is sent anywhere. It serves the logins that end at the same
        `redirect_uri` and ask for no other scopes.

        Args:
            store: holds the token and its registrations.
            redirect_uri: where the server sends the browser.
            scope: what to ask for instead of what the server asks for, words with blanks between. Scopes that
                the token in the store has are asked for again, so that none of them is lost.
            register: whether to register again, although a registration is there.
            params: further parameters of the authorization request, such as those of `StepUpRequired.params`.

        Raises:
            LoginFailed: the server, or who issues its tokens, could not be asked, or says what cannot be used; or it
                did not register the client. Nothing in the store has changed, but for a registration.
            StoreError: the store failed.
        """
        slot = Slot(store, THIS_HOST, refresh_timeout=_STORE_TIMEOUT)
        record = await slot.read()
        with _not_begun(self.name):
            self._known = None  # A person is here: what the server says now counts.
            issuer = self._issuer_of(await self._look(), record)
            self._check_moved(issuer, record)
            found = await self._look_at(issuer)
            metadata = found.issuers[issuer]
            asked = self._scope_of(found, metadata, record, scope)
            client = self._own_client(issuer, metadata)
        if client is None:
            if (
                record.is_dead()
                and record.dead is not None
                and record.dead.error == "invalid_client"
            ):
                register = True
            noted = None if register else _registrations(record).get(issuer)
            if noted is None or not noted.fits(redirect_uri, asked or "", now=time.time()):
                with _not_begun(self.name):
                    noted = await self._register(metadata, redirect_uri, asked or "")
                await _note(slot, issuer, noted)
            client = _Client(issuer, noted, True)
        with _not_begun(self.name):
            endpoint = self._endpoint(found, client)
            request = endpoint.authorization_url(redirect_uri, scope=asked, **params)
        return Login(request, issuer, client.registration.client_id)

    async def registered_redirect_uris(self, store: TokenStore) -> tuple[str, ...]:
        """Return the redirect URIs of the clients that are registered in the store: a login that ends at one is quick.

        Raises:
            StoreError: the store failed.
        """
        record = await Slot(store, THIS_HOST, refresh_timeout=_STORE_TIMEOUT).read()
        found = [uri for one in _registrations(record).values() for uri in one.redirect_uris]
        return tuple(dict.fromkeys(reversed(found)))

    @frameless
    async def finish_login(
        self, store: TokenStore, redirect: str | Mapping[str, str], login: Login
    ) -> Token:
        """Exchange the code that the browser brought back; put the token into use with `RefreshAuth.set_token`.

        Args:
            store: the one that the login was begun with.
            redirect: the URL that the browser was sent to, or its query parameters.
            login: what `begin_login` returned for this browser.

        Raises:
            LoginFailed: there is no token; no token in the store has changed.
            StoreError: the store failed.
        """
        with _not_begun(self.name):
            found = await self._look_at(login.issuer)
            client: _Client | None = None
            if login.client_id == self._client_id:
                client = self._by_hand(login.issuer)
        if client is None:
            record = await Slot(store, THIS_HOST, refresh_timeout=_STORE_TIMEOUT).read()
            noted = _registrations(record).get(login.issuer)
            if noted is None or noted.client_id != login.client_id:
                raise LoginFailed(
                    f"The client that this login at {self.name} was begun as is not registered in the store any more. "
                    "Start the login again."
                )
            client = _Client(login.issuer, noted, True)
        with _not_begun(self.name):
            endpoint = self._endpoint(found, client)
        return _carrying(await endpoint.exchange_code(redirect, login.request), client)

    # -- what the server says --------------------------------------------------------------------------------------

    async def _look(self) -> _Found:
        """Return what the server says of itself, and what is known of the issuers that it names.

        Raises:
            RefreshUnavailable, ValueError: it could not be asked, or says what cannot be used.
        """
        found = self._known
        if found is None or time.monotonic() >= found.until:
            await prepared(self._source)
            found = self._known = await self._ask(
                Documents(self._source, self._timeout, hosts=self._hosts)
            )
        return found

    async def _look_at(self, issuer: str) -> _Found:
        """Return that with what this issuer says of itself; it must be one that the server names."""
        found, self._known = await self._look(), None  # What proves to be wrong is asked for again.
        if issuer not in found.resource.authorization_servers:
            raise ValueError(
                f"{self.name} names other authorization servers than {issuer}, whose client this is: "
                + ", ".join(found.resource.authorization_servers[:4])
            )
        if issuer not in found.issuers:
            checked_url(issuer, "an authorization server that it names", allow_http=self.allow_http)
            documents = Documents(self._source, self._timeout, hosts=self._hosts)
            metadata = await server_metadata(issuer, documents)
            self._check(metadata)
            found = replace(found, issuers={**found.issuers, issuer: metadata})
        self._known = found
        return found

    async def _ask(self, documents: Documents) -> _Found:
        named, scope = await self._challenge(documents)
        resource = await protected_resource(
            self.url, documents, named=named, allow_http=self.allow_http
        )
        if resource is None:
            if self.issuer is None:
                raise ValueError(
                    f"{self._shown} serves no protected resource metadata (RFC 9728), so nobody knows who issues "
                    "tokens for it; pass issuer= (--issuer) if you do"
                )
            resource = ProtectedResource(self.url, (self.issuer,))
        return _Found(resource, scope, time.monotonic() + _FRESH)

    async def _challenge(self, documents: Documents) -> tuple[str | None, str | None]:
        """Ask the server without a token; return where its metadata is, and which scopes it wants, if it says so."""
        url = httpx.URL(self.url)
        for _ in range(1 + _MOST_REDIRECTS):
            answer = await documents.ask("POST", str(url), dict(_PING_HEADERS), _PING)
            if isinstance(answer, NoAnswer):
                raise RefreshUnavailable(
                    f"{self.name} could not be asked who issues its tokens ({answer.why}). Try again later.",
                    outcome="not_sent",
                    transient=answer.transient,
                    caused_by=answer.caused_by,
                )
            if answer.status in (307, 308):  # To its own other spelling, with a slash at the end.
                there = url.join(answer.headers.get("location", ""))
                if origin_of(there) == origin_of(url) and there != url:
                    url = there
                    continue
            break
        else:
            raise ValueError(f"{self._shown} redirects again and again")
        if answer.status != 401:
            return None, None
        # Field by field: junk in one of them spoils no other.
        fields: Any = answer.headers
        said = [
            one.params
            for one in parse(fields.get_list("www-authenticate"))
            if one.scheme in ("bearer", "dpop")
        ]
        # The challenge that leads to the metadata counts, of several.
        params = next((one for one in said if one.get("resource_metadata")), (said or [{}])[0])
        scope = params.get("scope", "")
        asked = scope if scope.strip() and scope.isprintable() else None
        return params.get("resource_metadata") or None, asked

    def _check(self, metadata: dict[str, Any]) -> None:
        """Raise ValueError if an issuer names endpoints that must not be asked."""
        issuer = metadata["issuer"]
        if text_of(metadata, "token_endpoint") is None:
            raise ValueError(f"the metadata of {issuer} names no token_endpoint")
        for name in (
            "token_endpoint",
            "authorization_endpoint",
            "registration_endpoint",
            "revocation_endpoint",
        ):
            url = text_of(metadata, name)
            if url is not None:
                checked_url(url, name, allow_http=self.allow_http)
                check_endpoint(issuer, url, name)
                self._hosts.check(httpx.URL(url))

    def _issuer_of(self, found: _Found, record: Record | None = None) -> str:
        """Return the issuer to use: the one that was chosen, else one where a client is, else the first."""
        servers = found.resource.authorization_servers
        if self.issuer is not None:
            return self.issuer
        noted = {} if record is None else _registrations(record)
        return next((one for one in servers if one in noted), servers[0])

    def _scope_of(
        self, found: _Found, metadata: dict[str, Any], record: Record, scope: str | None
    ) -> str | None:
        """Return the scopes that a login asks for, as the specification has it; None: the server decides."""
        supported = found.resource.scopes_supported
        asked = scope or self.scope or found.scope or " ".join(supported or ())
        granted = None if record.token is None else record.token.extra.get("scope")
        asked = united_scope(granted if isinstance(granted, str) else None, asked) or ""
        if "offline_access" in list_of(metadata, "scopes_supported"):
            asked = united_scope(asked, "offline_access") or ""
        return asked or None

    # -- who the client is -----------------------------------------------------------------------------------------

    def _own_client(self, issuer: str, metadata: dict[str, Any]) -> _Client | None:
        """Return the client that is known without a registration; None if it has to register itself."""
        if self._client_id is None:
            return None
        knows = metadata.get("client_id_metadata_document_supported") is True
        return None if _is_document(self._client_id) and not knows else self._by_hand(issuer)

    def _check_moved(self, issuer: str, record: Record) -> None:
        """Raise ValueError if a client that was registered by hand would be shown to another issuer than its own."""
        held = None if record.token is None else _Client.of(record.token)
        if (
            self.issuer is None
            and self._client_id is not None
            and not _is_document(self._client_id)
            and held is not None
            and held.registration.client_id == self._client_id
            and held.issuer != issuer
        ):
            raise ValueError(
                f"its tokens came from {held.issuer}, where this client was registered by hand, and now it names "
                f"{issuer}. If you registered the client there, too, pass issuer= (--issuer)"
            )

    def _by_hand(self, issuer: str) -> _Client:
        if self._client_id is None:
            raise AssertionError("no client_id was given")
        return _Client(issuer, Registration(self._client_id), False)

    def _unnamed(self) -> _Client:
        """Return the client for a token that does not tell whose it is; its issuer is told by the server."""
        if self._client_id is None:
            raise RefreshUnavailable(
                f"Nobody knows as which client the token for {self.name} was issued: it came from no login of this "
                "library. Nothing was sent. Log in with `httpx-refresh login --mcp`, or pass client_id=.",
                outcome="not_sent",
                transient=False,
            )
        return self._by_hand(self.issuer or "")

    async def _register(
        self, metadata: dict[str, Any], redirect_uri: str, scope: str
    ) -> Registration:
        url = text_of(metadata, "registration_endpoint")
        issuer = metadata["issuer"]
        if url is None:
            raise ValueError(
                f"{issuer} registers no clients by itself. Register one there by hand, and pass its client_id "
                "(--client-id)"
            )
        method = method_for(list_of(metadata, "token_endpoint_auth_methods_supported"))
        said = client_metadata(
            redirect_uri, client_name=self.client_name, scope=scope, method=method
        )
        documents = Documents(self._source, self._timeout, hosts=self._hosts)
        return await register(url, said, documents, name=httpx.URL(issuer).host)

    def _endpoint(self, found: _Found, client: _Client) -> TokenEndpoint:
        """Make the endpoint of an issuer for one of its clients."""
        metadata = found.issuers[client.issuer]
        facts: dict[str, Any] = {**endpoint_facts(metadata), "name": self.name}
        url = facts.pop("url")
        del facts["device_authorization_endpoint"]  # The specification has no such login.
        secret: Text | None = client.registration.client_secret
        how: Any = client.registration.method
        dead: tuple[Refusal, ...] = (INVALID_GRANT,)
        if client.is_registered:
            # Who is not known any more has a token that nobody can spend.
            dead = (INVALID_GRANT, _INVALID_CLIENT)
        elif self._client_auth is not None:
            secret, how = self._client_secret, self._client_auth
        elif self._client_secret is not None:
            known = list_of(metadata, "token_endpoint_auth_methods_supported")
            secret = self._client_secret
            how = next(
                (one for one in reversed(METHODS[1:]) if one in known), "client_secret_basic"
            )
        return TokenEndpoint(
            url,
            client.registration.client_id,
            secret,
            client_auth=how,
            resource=found.resource.resource,
            client=self._source,
            timeout=self._timeout,
            allow_http=self.allow_http,
            origins=self.origins,
            dead=dead,
            **facts,
        )


# -- taking over what the SDK's clients hold ---------------------------------------------------------------------------


@frameless
async def from_token_storage(storage: Any, server: Server, store: TokenStore) -> Token | None:
    """Take over what a `TokenStorage` of the MCP SDK holds, tokens and the client's registration, and return the token.

    Call it once, or at each start: a store that holds a token, or held one, is left as it is. The tokens are not to
    be used by the SDK's own provider from then on, for a refresh by the one ends the other's. The SDK keeps no moment
    of expiry, so the token is used until it is refused.

    Args:
        storage: anything with `get_tokens` and `get_client_info`, of any version of the SDK.
        server: the server that the tokens are for; it is asked who issues its tokens.
        store: the store of `RefreshAuth`.

    Returns:
        The token that the store holds now; None if neither holds one.

    Raises:
        LoginFailed: the server could not be asked, or names another issuer than the registration's.
        StoreError: the store failed.
    """
    slot = Slot(store, THIS_HOST, refresh_timeout=_STORE_TIMEOUT)
    record = await slot.read()
    if record.token is not None or record.generation:
        return record.token
    tokens, info = _dumped(await storage.get_tokens()), _dumped(await storage.get_client_info())
    registration = Registration.from_note(info)
    issuer = info.get("issuer") if isinstance(info.get("issuer"), str) else None
    with _not_begun(server.name):
        issuer = issuer or server._issuer_of(await server._look())
        await server._look_at(issuer)
    by_hand = server._client_id is not None and (
        registration is None or registration.client_id == server._client_id
    )
    client = server._by_hand(issuer) if by_hand else None
    if client is None and registration is not None:
        client = _Client(issuer, registration, True)
    token = None
    if client is not None and isinstance(tokens.get("access_token"), str):
        # When it was issued is not known: `expires_in` says nothing.
        fields = {name: value for name, value in tokens.items() if name != "expires_in"}
        token = _carrying(Token.from_response(fields), client)
    if registration is not None and not by_hand:
        await _note(slot, issuer, registration)
    if token is None:
        return None
    for _ in range(_MOST_SWAPS):
        record = await slot.read()
        if record.token is not None or record.generation:
            return record.token
        # Others start at the same time: what they took over may have been refreshed already, and is not undone.
        if await slot.swap(record.text, with_token(record, token, server.purpose)) is not None:
            return token
    raise slot.keeps_changing()


def _dumped(model: Any) -> dict[str, Any]:
    """Return the fields of one of the SDK's pydantic models as JSON has them."""
    if model is None:
        return {}
    fields: dict[str, Any] = model.model_dump(mode="json", exclude_none=True)
    return fields


# -- what stands in the store ------------------------------------------------------------------------------------------


def _registrations(record: Record) -> dict[str, Registration]:
    """Return the registrations beside a token, by issuer."""
    notes = record.others.get(_NOTE)
    if not isinstance(notes, Mapping):
        return {}
    read = {issuer: Registration.from_note(note) for issuer, note in notes.items()}
    return {issuer: one for issuer, one in read.items() if one is not None}


async def _note(slot: Slot, issuer: str, registration: Registration) -> None:
    """Put a registration beside the token, whatever else changes there; while a claim stands, its owner writes alone.

    Raises:
        StoreError: the store failed, or was not to be written for `_STORE_TIMEOUT`.
    """
    with anyio.move_on_after(_STORE_TIMEOUT):
        while True:
            record = await slot.read()
            if slot.judge(record).claim == "none":
                kept = {one: old for one, old in _registrations(record).items() if one != issuer}
                newest = list({**kept, issuer: registration}.items())[-_MOST_REGISTRATIONS:]
                notes = {one: registered.note() for one, registered in newest}
                changed = record._replace(text=None, others={**record.others, _NOTE: notes})
                if await slot.swap(record.text, changed) is not None:
                    return
            await anyio.sleep(0.05)
    raise StoreError(
        f"{slot.store!r} could not take the client's registration: a refresh stands in the way. No login was begun. "
        "Try again in a minute."
    )


def _carrying(token: Token, client: _Client) -> Token:
    return replace(token, extra={**token.extra, _FIELD: client.note()})


# -- the rest ----------------------------------------------------------------------------------------------------------


def _is_document(client_id: str) -> bool:
    """Whether a client id is the address of a metadata document (draft-ietf-oauth-client-id-metadata-document §3)."""
    url = read_url(client_id)
    return (
        url is not None and url.scheme == "https" and url.path not in ("", "/") and not url.fragment
    )


def _watched(client: Any, hosts: Hosts, home: httpx.URL) -> Any:
    """Return what makes clients that connect only where `hosts` allows; a client that was lent is left as it is."""
    if isinstance(client, CLIENTS):
        return client
    make = client or client_maker(tunnelled=home.scheme == "https")

    def made() -> Any:
        one = make()
        if isinstance(one, CLIENTS):
            hooks = one.event_hooks
            one.event_hooks = {**hooks, "request": [*hooks.get("request", []), hosts.watch]}
        return one

    return made


@contextmanager
def _unsent(name: str) -> Iterator[None]:
    """Say of what is wrong with a server's words that the refresh token was not sent."""
    try:
        yield
    except ValueError as error:
        raise RefreshUnavailable(
            f"What {name} says of its tokens cannot be used: {error}. The refresh token was not sent. If that "
            "is intended, log in again.",
            outcome="not_sent",
            transient=False,
        ) from None


@contextmanager
def _unrevoked(name: str) -> Iterator[None]:
    """Say of a server that could not be asked that nothing was revoked."""
    try:
        yield
    except RefreshUnavailable as error:
        raise RevocationFailed(
            f"{name} could not be asked where its tokens are revoked, and nothing was sent: the token may still be "
            f"good. Try again later. ({error})",
            caused_by=error.caused_by,
        ) from None


@contextmanager
def _not_begun(name: str) -> Iterator[None]:
    """Say of what is wrong with a server's words that no login was begun."""
    try:
        yield
    except ValueError as error:
        raise LoginFailed(
            f"What {name} says of its tokens cannot be used: {error}. No login was begun; nothing has changed."
        ) from None
    except RefreshUnavailable as error:
        raise LoginFailed(
            f"{error} No login was begun; nothing has changed.",
            transient=error.transient,
            caused_by=error.caused_by,
        ) from None
