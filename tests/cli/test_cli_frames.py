"""The exception that ends a command holds no secret in a local variable, of the library's frames or its framework's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from httpx_refresh.cli.console import Exit
from httpx_refresh.cli.settings import Settings
from httpx_refresh.testing import AuthorizationServer
from tests.cli.conftest import Run
from tests.oauth.test_frames import MARK, chain, expanded, frames

NOT_OURS = ("/tests/", "typer/testing.py")  # they know the environment that a test has made


def held_by(error: BaseException) -> str:
    """Return the contents of the frames of an exception and of its causes, as an error tracker would send them."""
    return " ".join(
        expanded(dict(frame.f_locals))
        for one in chain(error)
        for frame in frames(one.__traceback__)
        if not any(name in frame.f_code.co_filename for name in NOT_OURS)
    )


@pytest.fixture
def secretive(server: AuthorizationServer) -> list[str]:
    """Options of a client whose secret, and whose tokens, hold MARK."""
    server.clients = {"client": f"{MARK}-secret"}
    Path("token.json").write_text(
        json.dumps({"access_token": f"{MARK}-access", "refresh_token": f"{MARK}-refresh"})
    )
    return ["--issuer", server.issuer, "--client-id", "client", "--store", "file:token.json"]


@pytest.mark.parametrize(
    "command, secret, code",
    [
        (["refresh"], "secret", Exit.LOG_IN),
        (["refresh"], "other", Exit.REFUSED),
        (["login", "--device"], "other", Exit.LOGIN_FAILED),
        (["login", "--no-browser"], "secret", Exit.LOGIN_FAILED),
        (["revoke", "--yes"], "other", Exit.TRY_LATER),
        (["keep-alive"], "other", Exit.REFUSED),
    ],
)
def test_a_command_that_fails_ends_with_no_secret_in_a_frame(
    run: Run, secretive: list[str], command: list[str], secret: str, code: Exit
) -> None:
    environment = {"HTTPX_REFRESH_CLIENT_SECRET": f"{MARK}-{secret}"}
    pasted = f"http://127.0.0.1/callback?code={MARK}-code&state={MARK}-state\n"
    result = run(*command, *secretive, env=environment, input=pasted)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    held = held_by(result.exception)
    assert "Context object" in held  # the framework's own frames were looked at
    assert MARK not in held
    assert MARK not in result.output


def test_a_store_that_cannot_be_opened_keeps_its_password_out_of_the_frames(run: Run) -> None:
    store = f"postgresql+asyncpg://app:{MARK}@host:x/db?key=a"
    result = run("status", env={"HTTPX_REFRESH_STORE": store})
    assert result.exit_code == Exit.USAGE
    assert isinstance(result.exception, SystemExit)
    held = held_by(result.exception)
    assert "'***'" in held
    assert MARK not in held
    assert MARK not in result.output


def test_settings_show_neither_a_secret_nor_a_store_s_password() -> None:
    settings: Any = Settings(client_secret=f"{MARK}", store=f"redis://:{MARK}@h?key=a", scope="a")
    assert MARK not in repr(settings)
    assert "scope='a'" in repr(settings)
