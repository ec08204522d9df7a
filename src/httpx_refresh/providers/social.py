"""Networks, music and sport: X, Discord, LinkedIn, Reddit, Spotify, Strava, Fitbit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._oauth.answer import INVALID_GRANT, Refusal
from ._preset import DAY, HOUR, Overrides, Provider, known

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._oauth.endpoint import TokenEndpoint
    from .._oauth.material import Text

_X = Provider(
    title="X",
    url="https://api.x.com/2/oauth2/token",
    origins=("https://api.x.com", "https://api.twitter.com"),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_basic",
    access_token_lifetime=2 * HOUR,
    quirks=(
        "a spent refresh token is refused with invalid_request instead of invalid_grant",
        "app-only tokens come from another address, which this preset does not use",
    ),
    unknown=("how long a refresh token lives",),
    options={
        "authorization_endpoint": "https://x.com/i/oauth2/authorize",
        "offline_scope": "offline.access",
        "dead": (
            INVALID_GRANT,
            Refusal(
                status=400, error="invalid_request", text="value passed for the token was invalid"
            ),
        ),
    },
)


@known(_X)
def x(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """X, formerly Twitter: a new refresh token every time, and its own error message for a dead one.

    Without a secret it is a PKCE app.

    Sources:
        nopara73/LongevityWorldCup pull 789: rotation, invalid_request, whose words stand in many clients' tests;
        docs.sprighub.ai's copy of X's documents: two hours, offline.access; django-allauth twitter_oauth2/views.py:
        URL; developer.x.com's reference of invalidate_token: an address of the API; NangoHQ/nango providers.yaml: the
        other one, login, client authentication.
    """
    return _X.endpoint(client_id, client_secret, overrides)


_DISCORD = Provider(
    title="Discord",
    url="https://discord.com/api/oauth2/token",
    origins=("https://discord.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace=0.0,
    client_auth="client_secret_post",
    unknown=("all lifetimes; the answer says that of an access token",),
    options={
        "authorization_endpoint": "https://discord.com/api/oauth2/authorize",
        "revocation_endpoint": "https://discord.com/api/oauth2/token/revoke",
    },
)


@known(_DISCORD)
def discord(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Discord: a new refresh token every time, and the old one is spent at once.

    Sources:
        discord/discord-api-docs issue 5942: rotation, invalid_grant; httpx-oauth clients/discord.py: URLs, revocation;
        NangoHQ/nango providers.yaml: client authentication, the API's address.
    """
    return _DISCORD.endpoint(client_id, client_secret, overrides)


_LINKEDIN = Provider(
    title="LinkedIn",
    url="https://www.linkedin.com/oauth/v2/accessToken",
    origins=("https://api.linkedin.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="never",
    grace="stays_valid",
    client_auth="client_secret_post",
    access_token_lifetime=60 * DAY,
    absolute_lifetime=365 * DAY,
    quirks=(
        "refresh tokens are for approved apps only",
        "logins do not support PKCE",
        "a person logs in again once a year, however often the token was refreshed",
    ),
    options={
        "authorization_endpoint": "https://www.linkedin.com/oauth/v2/authorization",
        "pkce": False,
    },
)


@known(_LINKEDIN)
def linkedin(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """LinkedIn: one refresh token, for a year from the login.

    Sources:
        linkedin-api-client clients/auth/client.py: client authentication; codestudyblog.com's copy of LinkedIn's
        documents: lifetimes, no rotation; NangoHQ/nango providers.yaml: URLs, no PKCE, and its guide for LinkedIn:
        approved apps.
    """
    return _LINKEDIN.endpoint(client_id, client_secret, overrides)


_REDDIT = Provider(
    title="Reddit",
    url="https://www.reddit.com/api/v1/access_token",
    origins=("https://oauth.reddit.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="unknown",
    client_auth="client_secret_basic",
    quirks=(
        "a login requests a refresh token with duration=permanent, which this preset sends",
        "the API requires a User-Agent of your own",
    ),
    unknown=("whether a refresh returns another refresh token", "all lifetimes"),
    options={
        "authorization_endpoint": "https://www.reddit.com/api/v1/authorize",
        "authorization_params": {"duration": "permanent"},
        "revocation_endpoint": "https://www.reddit.com/api/v1/revoke_token",
    },
)


@known(_REDDIT)
def reddit(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Reddit: a refresh token only for a login that requests a permanent one, as this preset does.

    Sources:
        httpx-oauth clients/reddit.py: URLs, client authentication, duration, revocation; NangoHQ/nango providers.yaml:
        the API's address.
    """
    return _REDDIT.endpoint(client_id, client_secret, overrides)


_SPOTIFY = Provider(
    title="Spotify",
    url="https://accounts.spotify.com/api/token",
    origins=("https://api.spotify.com",),
    grants=("authorization_code", "refresh_token", "client_credentials"),
    rotation="sometimes",
    client_auth="client_secret_basic",
    access_token_lifetime=HOUR,
    quirks=("a refresh may return no refresh token: the old one is kept",),
    unknown=("whether a spent refresh token is accepted again", "how long a refresh token lives"),
    options={"authorization_endpoint": "https://accounts.spotify.com/authorize"},
)


@known(_SPOTIFY)
def spotify(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Spotify: the refresh token is kept if an answer holds none; without a secret it is a PKCE app.

    Sources:
        spotipy oauth2.py: client authentication, one hour, what comes back; NangoHQ/nango providers.yaml: URLs, the
        API's address.
    """
    return _SPOTIFY.endpoint(client_id, client_secret, overrides)


_STRAVA = Provider(
    title="Strava",
    url="https://www.strava.com/api/v3/oauth/token",
    origins=("https://www.strava.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="sometimes",
    client_auth="client_secret_post",
    access_token_lifetime=6 * HOUR,
    quirks=(
        "the words of a scope are separated by commas",
        "only the newest refresh token may be used",
    ),
    unknown=("whether a spent refresh token is accepted again", "how long a refresh token lives"),
    options={"authorization_endpoint": "https://www.strava.com/oauth/mobile/authorize"},
)


@known(_STRAVA)
def strava(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Strava: a refresh token that may change with any refresh, and access tokens of six hours.

    Sources:
        developers.strava.com/docs/oauth-updates: rotation; stravalib protocol.py: URLs, client authentication, what the
        answer holds; zachliibbe.com's case study: six hours; NangoHQ/nango providers.yaml: the login's address.
    """
    return _STRAVA.endpoint(client_id, client_secret, overrides)


_FITBIT = Provider(
    title="Fitbit",
    url="https://api.fitbit.com/oauth2/token",
    origins=("https://api.fitbit.com",),
    grants=("authorization_code", "refresh_token"),
    rotation="always",
    grace="until_used",
    client_auth="client_secret_basic",
    access_token_lifetime=8 * HOUR,
    quirks=(
        "a repeated refresh returns the same answer until one of its tokens is used",
        "refresh tokens do not expire",
        "Google Health replaces it, with logins of its own",
    ),
    options={"authorization_endpoint": "https://www.fitbit.com/oauth2/authorize"},
)


@known(_FITBIT)
def fitbit(
    client_id: str, client_secret: Text | None = None, **overrides: Unpack[Overrides]
) -> TokenEndpoint:
    """Fitbit: a new refresh token every time; a repeated refresh returns it again until one of its tokens is used.

    Sources:
        dev.fitbit.com web-api/authorization/refresh-token: client authentication, rotation; dev.fitbit.com
        web-api/developer-guide/best-practices: eight hours, refresh tokens do not expire; dev.fitbit.com
        web-api/oauth2-additions: the grace;
        NangoHQ/nango providers.yaml: URLs, the API's address.
    """
    return _FITBIT.endpoint(client_id, client_secret, overrides)
