from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import MOST_LINES, broken_rules, read_map

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "httpx_refresh"


def test_the_house_keeps_its_rules() -> None:
    sources = {
        path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(SOURCE.rglob("*.py"))
    }
    order = read_map((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    broken = broken_rules(order, sources)
    assert not broken, "\n".join(broken)


# A small house that keeps the rules, and below what is broken by one change to it.
HOUSE = {
    "__init__.py": '"""A house."""\n\nfrom ._auth import Auth\n\n__all__ = ["Auth"]\n',
    "testing/__init__.py": "from ._server import Server\n",
    "testing/_server.py": "from ..stores.base import Store\n",
    "_auth.py": "from . import _token\nimport httpx_refresh.stores.base as base\nimport ssl\n",
    "stores/__init__.py": "from .memory import MemoryStore\n",
    "stores/memory.py": "from .._errors import StoreError\nfrom .base import Store\n",
    "stores/base.py": "",
    "_token.py": "def lazy():\n    from httpx_refresh._errors import TokenError\n",
    "_errors.py": "if TYPE_CHECKING:\n    from ._auth import Auth\n",
}


def test_a_house_that_keeps_the_rules_breaks_none() -> None:
    assert broken_rules(list(HOUSE), HOUSE) == []


@pytest.mark.parametrize(
    "path, text, broken",
    [
        ("_token.py", "from ._auth import Auth", "_token.py imports _auth.py: imports point down"),
        ("_token.py", "from . import _auth", "_token.py imports _auth.py: imports point down"),
        ("_token.py", "def f():\n    from ._auth import A", "_token.py imports _auth.py: imports"),
        ("_token.py", "import httpx_refresh._auth", "_token.py imports _auth.py: imports point"),
        (
            "_token.py",
            "if TYPE_CHECKING:\n    pass\nelse:\n    from ._auth import Auth",
            "_token.py imports _auth.py: imports point down",
        ),
        ("_auth.py", "from . import Auth", "_auth.py imports __init__.py: nothing imports"),
        ("_auth.py", "import httpx_refresh", "_auth.py imports __init__.py: nothing imports"),
        ("_auth.py", "from httpx_refresh import Auth", "_auth.py imports __init__.py: nothing"),
        (
            "stores/memory.py",
            "from .._token import T",
            "stores/memory.py imports _token.py: a store",
        ),
        ("stores/__init__.py", "from .._token import T", "stores/__init__.py imports _token.py: a"),
        ("stores/base.py", "from . import memory", "stores/base.py imports stores/memory.py: a st"),
        (
            "testing/_server.py",
            "from .._token import T",
            "testing/_server.py imports _token.py: th",
        ),
        ("__init__.py", "VERSION = 1", "__init__.py: VERSION = 1 in it is no re-export"),
        ("stores/__init__.py", "def f(): ...", "stores/__init__.py: def f(): in it is no re-ex"),
        ("_utils.py", "", "_utils.py is not on the map"),
        ("_token.py", "\n" * (MOST_LINES + 1), "_token.py has 251 lines and wants to be two"),
    ],
)
def test_each_rule_can_be_broken(path: str, text: str, broken: str) -> None:
    (said,) = broken_rules(list(HOUSE), {**HOUSE, path: text})
    assert said.startswith(broken)


def test_a_module_that_went_away_may_not_stay_on_the_map() -> None:
    assert broken_rules([*HOUSE, "_gone.py"], HOUSE) == [
        "_gone.py is on the map and not in the house"
    ]


def test_the_map_is_read_in_its_order() -> None:
    text = """# A text
```
src/httpx_refresh/
  __init__.py      the public names
  stores/          what holds a token
    base.py        a store
  _errors.py       the errors
```
"""
    assert read_map(text) == ["__init__.py", "stores/base.py", "_errors.py"]
