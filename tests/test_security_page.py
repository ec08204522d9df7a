"""The page about security is correct: each guarantee names existing tests, and each database example uses TLS."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"
EXAMPLES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.py")),
    ROOT / "src/httpx_refresh/stores/urls.py",
    *sorted((ROOT / "src/httpx_refresh/cli").glob("*.py")),
]


def guarantees() -> dict[str, list[str]]:
    """Return each guarantee of the page with the tests that it names."""
    section = PAGE.read_text("utf-8").split("## What is guaranteed\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (?!guarantee )(.+?) \| (.+?) \|$", section, flags=re.MULTILINE)
    return {said: re.findall(r"`([^`]+)`", tests) for said, tests in rows}


@pytest.mark.parametrize("said, tests", guarantees().items(), ids=guarantees())
def test_a_guarantee_names_tests_that_exist(said: str, tests: list[str]) -> None:
    assert tests, said
    for test in tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name.startswith("test_")
        assert name in {one.name for one in ast.walk(tree) if isinstance(one, kinds)}, test


def test_there_are_guarantees() -> None:
    assert len(guarantees()) > 20


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_example_goes_to_a_database_without_tls(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"\b(?:redis|valkey)://\S+", text) == []
    servers = re.findall(r"\b(?:postgresql\+asyncpg|mariadb\+aiomysql)://[^\s`\"]*", text)
    assert [url for url in servers if "@" in url and "ssl=" not in url] == []


def test_the_policy_says_how_to_report_and_leads_to_the_page() -> None:
    policy = (ROOT / "SECURITY.md").read_text("utf-8")
    assert "Report a vulnerability" in policy
    assert "(docs/security.md)" in policy
