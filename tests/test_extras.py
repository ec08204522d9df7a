"""What an extra brings is asked for by its name."""

from __future__ import annotations

import importlib
import sys

import pytest


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
