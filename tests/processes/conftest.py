"""The backends that processes share."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.processes.stores import Slot

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ("file", "sqlite", "redis_url", "postgres_url", "mariadb_url")


@pytest.fixture(params=BACKENDS)
def slot(request: pytest.FixtureRequest, tmp_path: Path) -> Slot:
    """An empty slot on each backend."""
    if request.param == "file":
        url = f"file:{tmp_path / 'token.json'}"
    elif request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'tokens.db'}"
    else:
        url = request.getfixturevalue(request.param)
    return Slot(url, secrets.token_hex(8))
