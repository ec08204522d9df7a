"""A real provider for the tests: django-oauth-toolkit on a loopback port, with its login and consent pages.

`python -m tests.browser FOLDER` prints one line of JSON (`url`, the accounts, the client) and serves until its
standard input is closed. Its database is FOLDER/provider.sqlite3. Besides the toolkit's endpoints it has an API,
`/api/ping`, and for tests `/control/expire`, which ends the access tokens, and `/control/tokens`, which counts them.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.utils import timezone

USER, PASSWORD = "anna", "correct horse"
CLIENT_ID, CLIENT_SECRET = "books", "client secret & more"


class QuietHandler(WSGIRequestHandler):  # type: ignore[misc]  # Django has no types
    """A handler that prints no line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def configure(folder: Path) -> None:
    """Set up Django with SQLite and its login page, and the toolkit with the options for RFC 9700."""
    settings.configure(
        SECRET_KEY="not a secret",
        DEBUG=True,  # It serves the style sheets of its own pages.
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": folder / "provider.sqlite3",
                "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 60},
            }
        },
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
            "oauth2_provider",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                        "django.template.context_processors.request",
                    ]
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF=__name__,
        STATIC_URL="/static/",
        LOGIN_URL="/login/",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        OAUTH2_PROVIDER={
            "PKCE_REQUIRED": True,
            "ROTATE_REFRESH_TOKEN": True,
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
            "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
            "SCOPES": {"read": "Read your books", "write": "Write in your books"},
            "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
            "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
        },
    )
    django.setup()
    # These can be imported only after Django is set up.
    from django.contrib import admin
    from django.contrib.auth.views import LoginView

    urlpatterns.extend(
        [
            path("", include("oauth2_provider.urls")),
            path("admin/", admin.site.urls),
            path("login/", LoginView.as_view(template_name="admin/login.html")),
            path("api/ping", ping),
            path("control/expire", expire),
            path("control/tokens", tokens),
        ]
    )


urlpatterns: list[Any] = []


def ping(request: HttpRequest) -> JsonResponse:
    """Answer an API request that has a good token."""
    from oauth2_provider.backends import OAuth2Backend

    user = OAuth2Backend().authenticate(request)
    if user is None:
        return JsonResponse({"error": "invalid_token"}, status=401)
    return JsonResponse({"user": user.get_username()})


def expire(request: HttpRequest) -> JsonResponse:
    """Expire every access token."""
    from oauth2_provider.models import get_access_token_model

    past = timezone.now() - timedelta(seconds=1)
    return JsonResponse({"expired": get_access_token_model().objects.update(expires=past)})


def tokens(request: HttpRequest) -> JsonResponse:
    """Count the refresh tokens that were issued, and those that are still good."""
    from oauth2_provider.models import get_refresh_token_model

    every = get_refresh_token_model().objects
    return JsonResponse({"issued": every.count(), "good": every.filter(revoked=None).count()})


def populate(redirect_uris: str) -> None:
    """Make a user, and a client with these redirect URIs."""
    from django.contrib.auth import get_user_model
    from oauth2_provider.models import get_application_model

    call_command("migrate", verbosity=0)
    person = get_user_model().objects.create_user(USER, password=PASSWORD)
    get_application_model().objects.create(
        name="My books",
        user=person,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris=redirect_uris,
    )


def main() -> None:
    """Serve until standard input is closed."""
    configure(Path(sys.argv[1]))
    # RFC 8252 §7.3: any port of the loopback address.
    populate("http://127.0.0.1/callback")
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    line = {"url": f"http://127.0.0.1:{server.server_port}", "user": USER, "password": PASSWORD}
    print(json.dumps({**line, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}), flush=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    sys.stdin.read()
    server.shutdown()
    thread.join()
    server.server_close()
