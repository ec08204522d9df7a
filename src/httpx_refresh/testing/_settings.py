"""The settings of an authorization server, and its metadata document.

Every setting may be changed while the server is in use.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ._events import Family
from ._wire import Call, Challenge

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
AUTH_METHODS = (
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none",
)

Extra = Mapping[str, Any] | Callable[[Family], Mapping[str, Any]]


@dataclass(kw_only=True, repr=False, eq=False)
class Settings:
    """The settings of an `AuthorizationServer`.

    - `issuer`: its address, with which every URL of its metadata starts.
    - `clients`: the secret of each client id; a client whose secret is None is public (RFC 6749
      section 2.1).
    - `auth_methods`: how a client may authenticate (RFC 6749 section 2.3, RFC 7523 section 2.2).
      `client_keys`: the public key of each client that signs assertions, as a JWK. `federated`: for
      clients that authenticate with another issuer's assertions, that issuer and the subject; the
      issuer's key is one of `assertion_keys`.
    - `lifetime`: seconds that an access token lives. `send_expires_in`: whether responses have
      `expires_in`.
    - `rotate`: True: every refresh returns a new refresh token; False: it returns none; "same": it
      returns the old one.
    - `revoke_on_reuse`: whether a second use of a spent refresh token ends its whole family (RFC
      9700 section 4.14.2); otherwise it is only refused.
    - `reuse_grace`: seconds after its first use for which a spent refresh token still yields another
      pair. Every pair stays valid. `"until_used"`: until the API accepts the new access token, or the
      new refresh token is spent.
    - `refresh_ends_previous_access_token`: a refresh ends the family's earlier access tokens
      before they expire.
    - `request_format`: whether token requests are forms or JSON.
    - `refresh_path`: the path for refreshes. `refresh_params`: the parameters that a refresh must
      have besides the refresh token.
    - `answer`: a function that converts a token response into this server's own format.
    - `dead_refresh_token`: status and fields of the answer to an invalid refresh token; None: the
      answer of RFC 6749 section 5.2.
    - `authorization_scheme`: the scheme of the `Authorization` field at the API.
    - `extra`: fields added to every token response, or a function of the `Family` that returns them.
    - `step_up`: a function of an API request with a valid token and of the token's `Family`; it
      returns a `Challenge` if the API requires more, or None.
    - `claims_need_login`: whether a refresh with `claims` is refused with `interaction_required` and
      the claims.
    - `consent`: what the person at `/authorize` and `/device` does: agree at once, be asked (an
      HTML page), or deny.
    - `pkce`: whether S256 (RFC 7636) is required, optional, or not supported.
    - `resource_metadata`: whether the API behaves like an MCP server: its 401s name its metadata
      (RFC 9728), and a token is issued only for requests that name it as `resource` (RFC 8707). Any
      address below `api_url` is valid, such as `mcp_url`. `scopes_supported`: the scopes in that
      metadata. `challenge_scope`: the scope in its 401s.
    - `registration`: whether clients may register themselves (RFC 7591); None: there is no
      registration endpoint.
    - `client_id_metadata_documents`: whether any https address is accepted as a client id. The
      document there is not read.
    - `send_iss`: whether the redirect names the issuer (RFC 9207). `redirect_fields`: further fields
      of the redirect.
    - `scopes`: the scopes that a grant without a person may request, and `targets`: the audiences and
      resources (RFC 8707); None: any.
    - `assertion_keys`: the public key of each issuer of assertions (RFC 7523), as a JWK.
      `assertion_audiences`: the accepted audiences of assertions, also of clients'; None: the token
      endpoint and the issuer. `longest_assertion`: seconds that an assertion may live.
    - `subject_tokens`: the tokens besides its own that this server exchanges (RFC 8693).
      `exchange_is_refreshable`: whether an exchange returns a refresh token.
    - `vendor_grants`: further grants, and the required parameters of each.
    - `grant_ends_previous`: whether a grant without a person ends the client's earlier token of such
      a grant.
    - `clock`: the time in epoch seconds. `new_token`: makes every token, code and device code;
      each call must return another text.
    """

    issuer: str = "https://server.test"
    clients: Mapping[str, str | None] = field(default_factory=lambda: {"client": "secret"})
    auth_methods: Sequence[str] = AUTH_METHODS
    client_keys: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, Mapping[str, Any]]
    )
    federated: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    lifetime: float = 3600.0
    send_expires_in: bool = True
    rotate: bool | Literal["same"] = True
    revoke_on_reuse: bool = True
    reuse_grace: float | Literal["until_used"] = 0.0
    refresh_ends_previous_access_token: bool = False
    request_format: Literal["form", "json"] = "form"
    refresh_path: str = "/token"
    refresh_params: Mapping[str, str] = field(default_factory=dict[str, str])
    answer: Callable[[dict[str, Any]], Mapping[str, Any]] = dict
    dead_refresh_token: tuple[int, Mapping[str, Any]] | None = None
    authorization_scheme: str = "Bearer"
    extra: Extra = field(default_factory=dict[str, Any])
    step_up: Callable[[Call, Family], Challenge | None] | None = None
    claims_need_login: bool = False
    consent: Literal["auto", "ask", "deny"] = "auto"
    pkce: Literal["required", "optional", "unsupported"] = "required"
    resource_metadata: bool = False
    scopes_supported: Sequence[str] = ()
    challenge_scope: str | None = None
    registration: Literal["open", "refused"] | None = None
    client_id_metadata_documents: bool = False
    send_iss: bool = True
    redirect_fields: Mapping[str, str] = field(default_factory=dict[str, str])
    scopes: Collection[str] | None = None
    targets: Collection[str] | None = None
    assertion_keys: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, Mapping[str, Any]]
    )
    assertion_audiences: Collection[str] | None = None
    longest_assertion: float = 3600.0
    subject_tokens: Collection[str] = ()
    exchange_is_refreshable: bool = False
    vendor_grants: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )
    grant_ends_previous: bool = False
    clock: Callable[[], float] = time.time
    new_token: Callable[[], str] = lambda: secrets.token_urlsafe(24)

    def __post_init__(self) -> None:
        if not self.clients:
            raise ValueError("clients: at least one is needed")
        unknown = set(self.auth_methods) - set(AUTH_METHODS)
        if unknown:
            raise ValueError(f"auth_methods: {sorted(unknown)} unknown, not of {AUTH_METHODS}")

    @property
    def client_id(self) -> str:
        """The first client's id."""
        return next(iter(self.clients))

    @property
    def client_secret(self) -> str | None:
        """The first client's secret; None for a public client."""
        return self.clients[self.client_id]

    @property
    def token_url(self) -> str:
        """The token endpoint's address."""
        return f"{self.issuer}/token"

    @property
    def api_url(self) -> str:
        """The address of the API, without a slash at the end."""
        return f"{self.issuer}/api"

    @property
    def mcp_url(self) -> str:
        """An address below the API's, which tests use as an MCP server's."""
        return f"{self.issuer}/api/mcp"


def describe(settings: Settings) -> dict[str, Any]:
    """Return the metadata document of RFC 8414 section 2."""
    issuer = settings.issuer
    document: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "revocation_endpoint": f"{issuer}/revoke",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "response_types_supported": ["code"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            DEVICE_GRANT,
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            *settings.vendor_grants,
        ],
        "token_endpoint_auth_methods_supported": list(settings.auth_methods),
        "authorization_response_iss_parameter_supported": settings.send_iss,
    }
    if settings.registration is not None:
        document["registration_endpoint"] = f"{issuer}/register"
    if settings.client_id_metadata_documents:
        document["client_id_metadata_document_supported"] = True
    if settings.pkce != "unsupported":
        document["code_challenge_methods_supported"] = ["S256"]
    return document
