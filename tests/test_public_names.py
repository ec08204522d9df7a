"""The names of `httpx_refresh` are imported at their first use, and there are no others."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import httpx_refresh

INIT = Path(httpx_refresh.__file__)


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    code = "import sys, httpx_refresh; print([m for m in sys.modules if m.startswith('httpx_refresh')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(ast.literal_eval(done.stdout)) == ["httpx_refresh", "httpx_refresh._version"]


def test_checkers_of_types_are_told_the_same_homes_as_the_interpreter() -> None:
    (lazy,) = (one for one in ast.parse(INIT.read_text("utf-8")).body if isinstance(one, ast.If))
    told = {
        (f".{one.module}", name.name)
        for one in lazy.body
        if isinstance(one, ast.ImportFrom)
        for name in one.names
    }
    homes = vars(httpx_refresh)["_HOMES"]
    assert told == {(home, name) for home, names in homes.items() for name in names}
    assert {name for _, name in told} | {"__version__"} == set(httpx_refresh.__all__)


@pytest.mark.parametrize("name", httpx_refresh.__all__)
def test_each_public_name_is_there_and_is_the_one_of_its_home(name: str) -> None:
    value = getattr(httpx_refresh, name)
    home = vars(httpx_refresh)["_HOME_OF"].get(name, "._version")
    assert getattr(importlib.import_module(home, "httpx_refresh"), name) is value
    assert vars(httpx_refresh)[name] is value  # The next access does not go through __getattr__.
    assert name in dir(httpx_refresh)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'httpx_refresh' has no attribute 'Refresh'"):
        getattr(httpx_refresh, "Refresh")  # noqa: B009 - a type checker would refuse the attribute
    with pytest.raises(ImportError, match="cannot import name 'Refresh'"):
        exec("from httpx_refresh import Refresh")  # noqa: S102 - as above


REFRESHED = """
import asyncio, sys
from httpx_refresh import MemoryStore, RefreshAuth, Token

class Source:
    name = "fake"
    async def refresh(self, token):
        return Token("access-2", "refresh-2")

auth = RefreshAuth(Source(), MemoryStore('{"access_token": "a", "refresh_token": "r"}'), origins="any")
print("httpx_refresh._refresh.events" in sys.modules)
assert asyncio.run(auth.refresh()).access_token == "access-2"
print("httpx_refresh._refresh.events" in sys.modules)
"""


def test_events_are_imported_by_the_first_refresh_and_not_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFRESHED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\nTrue\n"
