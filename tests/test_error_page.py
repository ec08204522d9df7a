"""The page about errors lists every error and every message, and every message names the next step."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

import httpx_refresh
from httpx_refresh import RefreshAuthError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
SOURCE = ROOT / "src" / "httpx_refresh"
MODULES = [
    path
    for path in sorted(SOURCE.rglob("*.py"))
    if not {"testing", "cli"} & set(path.relative_to(SOURCE).parts)
]

# A next step: an instruction, or a note that it happens by itself.
NEXT_STEP = re.compile(
    r"\b(log in again|try again|tries again|tried (on|again|once more)|start the login|check|set|use|"
    r"give|pass|put|send|make|raise|add|asyncio\.run|look|nothing was (sent|redeemed)|nothing has changed)\b",
    re.IGNORECASE,
)


@functools.cache
def errors() -> list[str]:
    return [
        name
        for name in httpx_refresh.__all__
        if isinstance(value := getattr(httpx_refresh, name), type)
        and issubclass(value, RefreshAuthError)
    ]


CONSTANTS = {
    node.targets[0].id: node.value
    for path in MODULES
    for node in ast.parse(path.read_text("utf-8")).body
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
}


def template(node: ast.expr) -> str:
    """Return a text of the source, with … for inserted values."""
    if isinstance(node, ast.FormattedValue):
        return template(node.value)
    if isinstance(node, ast.Name) and isinstance(CONSTANTS.get(node.id), ast.Constant | ast.BinOp):
        return template(CONSTANTS[node.id])
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.IfExp):
        return f"{template(node.body)} {template(node.orelse)}"
    return "…"


@functools.cache
def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text("utf-8")) for path in MODULES]


@functools.cache
def texts() -> list[str]:
    """Return every text in the source, alone and as part of a longer one."""
    kinds = (ast.JoinedStr, ast.BinOp, ast.Constant)
    return [
        template(node) for tree in trees() for node in ast.walk(tree) if isinstance(node, kinds)
    ]


@functools.cache
def messages() -> list[str]:
    """Return the first argument of every error in the source if it is a text."""
    found = [
        template(node.args[0])
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in errors()
        and node.args
    ]
    # The explanations of verdicts are built from texts that `test_asking` covers.
    return [text for text in found if text.replace("…'s token endpoint ", "") != "…"]


def documented() -> list[str]:
    return re.findall(r"^\| `([^`|]* [^`|]*)` \|", PAGE, flags=re.MULTILINE)


def test_the_page_has_a_section_for_every_error() -> None:
    sections = re.findall(r"^## (\w+)$", PAGE, flags=re.MULTILINE)
    assert sorted(sections) == sorted(set(errors()) - {"RefreshAuthError"})


@pytest.mark.parametrize("name", [name for name in errors() if name != "RefreshAuthError"])
def test_each_section_says_what_happened_what_is_safe_and_what_to_do(name: str) -> None:
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    for part in ("**What happened.**", "**What is safe.**", "**What to do.**"):
        assert part in section


@pytest.mark.parametrize("message", documented())
def test_each_message_of_the_page_is_one_of_the_librarys(message: str) -> None:
    parts = message.split("…")
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    # Few texts have all the parts in any order, so the slow pattern is needed for those only.
    having = [text for text in texts() if all(part in text for part in parts)]
    assert any(pattern.search(text) for text in having), message


def test_there_are_messages_to_look_at() -> None:
    assert len(documented()) > 20
    assert len(messages()) > 20


@pytest.mark.parametrize("message", messages())
def test_each_message_says_the_next_step(message: str) -> None:
    assert NEXT_STEP.search(message), message
