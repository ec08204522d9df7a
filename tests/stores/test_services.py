"""Tests that need a server are skipped, or fail, on a machine without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import services


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any of the servers."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "_POSTGRES_DIRS", [])
    monkeypatch.setattr(services, "_SYSTEM_DIRS", [])


@pytest.mark.usefixtures("bare_machine")
def test_a_missing_server_is_named() -> None:
    *missing, last = services.missing_services()
    if last != "Node.js":  # It may be installed as a Python package.
        missing.append(last)
    assert missing == ["Redis", "PostgreSQL", "MariaDB", "Chromium"]


@pytest.mark.usefixtures("bare_machine")
def test_a_test_that_needs_a_missing_server_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="MariaDB is not installed"):
        services.programs_of("MariaDB")


@pytest.mark.usefixtures("bare_machine")
def test_a_test_that_needs_a_missing_server_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Redis is not installed"):
        services.programs_of("Redis")
