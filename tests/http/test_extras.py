"""Modules of an extra that is not installed name the extra in their error."""

from __future__ import annotations

import importlib.util
import runpy
import sys

import httpx
import pytest

from httpx_refresh._http import libraries as _libraries


@pytest.mark.parametrize(
    "module, package, extra",
    [
        ("httpx_refresh.stores.sql", "sqlalchemy", "sql"),
        ("httpx_refresh.stores.encrypted", "joserfc", "encrypted"),
    ],
)
def test_a_store_without_its_package_says_which_extra_to_install(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'httpx-refresh\[{extra}\]'"):
        importlib.import_module(module)


def test_without_httpx2_the_objects_serve_httpx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    alone = runpy.run_path(str(_libraries.__file__))
    assert alone["LIBRARIES"] == (httpx,)
    assert alone["AuthBase"].__bases__ == (httpx.Auth,)
    assert alone["BYTE_STREAMS"] == (httpx.ByteStream,)
