from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import broken_rules, read_map

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "httpx_refresh"


def test_the_house_keeps_its_rules() -> None:
    sources = {
        path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(SOURCE.rglob("*.py"))
    }
    on_the_map = read_map((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    broken = set(broken_rules(on_the_map, sources))
    assert not broken, "\n".join(sorted(broken))


# A small house that keeps the rules, and below what is broken by one change to it.
DOC = '"""A room."""\n'
HOUSE = {
    "__init__.py": DOC + 'from ._auth import Auth\n\n__all__ = ["Auth"]\n',
    "__main__.py": DOC + "from .cli.app import main\n",
    "cli/app.py": DOC + "from .._refresh.session import S\nfrom ..testing import Server\n",
    "testing/__init__.py": DOC + "from ._server import Server\n",
    "testing/_server.py": DOC + "from ..stores.base import Store\n",
    "_auth.py": DOC + "from . import _token\nimport httpx_refresh.stores.base\nimport ssl\n",
    "providers/__init__.py": DOC + "from .._oauth.endpoint import TokenEndpoint\n",
    "_refresh/session.py": DOC + "from .source import Source\nfrom ..stores.base import Store\n",
    "_refresh/source.py": DOC,
    "_oauth/endpoint.py": DOC + "from .._refresh.source import Source\nfrom .._http import a\n",
    "_http/a.py": DOC,
    "stores/__init__.py": DOC + "from .memory import MemoryStore\n",
    "stores/memory.py": DOC + "from .._errors import StoreError\nfrom .base import Store\n",
    "stores/base.py": DOC + "from .._threads import run\n",
    "_token.py": DOC + "def lazy():\n    from httpx_refresh._errors import TokenError\n",
    "_threads.py": DOC,
    "_errors.py": DOC,
}


def test_a_house_that_keeps_the_rules_breaks_none() -> None:
    assert broken_rules(list(HOUSE), HOUSE) == []


@pytest.mark.parametrize(
    "path, text, broken",
    [
        ("_token.py", "from ._http.a import A", "_token.py imports _http/a.py: imports go down"),
        ("_token.py", "from ._http import a", "_token.py imports _http/a.py: imports go down"),
        ("_token.py", "def f():\n    from ._http.a import A", "_token.py imports _http/a.py: imp"),
        ("_token.py", "import httpx_refresh._http.a", "_token.py imports _http/a.py: imports go"),
        (
            "_token.py",
            "if TYPE_CHECKING:\n    from ._http.a import A",
            "_token.py imports _http/a.py: imports go down",
        ),
        ("_http/a.py", "from .._auth import Auth", "_http/a.py imports _auth.py: imports go down"),
        (
            "_http/a.py",
            "from .._refresh.source import S",
            "_http/a.py imports _refresh/source.py: imports go down",
        ),
        (
            "_http/a.py",
            "from ..stores.base import S",
            "_http/a.py imports stores/base.py: they stand on one floor",
        ),
        (
            "_oauth/endpoint.py",
            "from .._refresh.session import S",
            "_oauth/endpoint.py imports _refresh/session.py: they stand on one floor",
        ),
        (
            "_refresh/source.py",
            "from .._oauth import endpoint",
            "_refresh/source.py imports _oauth/endpoint.py: they stand on one floor",
        ),
        (
            "providers/__init__.py",
            "from .._auth import Auth",
            "providers/__init__.py imports _auth.py: they stand on one floor",
        ),
        (
            "testing/_server.py",
            "from ..cli.app import main",
            "testing/_server.py imports cli/app.py: testing shares no code",
        ),
        (
            "testing/_server.py",
            "from .._token import T",
            "testing/_server.py imports _token.py: testing shares no code",
        ),
        ("_auth.py", "from . import Auth", "_auth.py imports __init__.py: nothing imports"),
        ("_auth.py", "import httpx_refresh", "_auth.py imports __init__.py: nothing imports"),
        ("_auth.py", "from httpx_refresh import Auth", "_auth.py imports __init__.py: nothing"),
        (
            "stores/memory.py",
            "from .._http.a import A",
            "stores/memory.py imports _http/a.py: a store knows",
        ),
        (
            "_token.py",
            "from ._threads import run",
            "_token.py imports _threads.py: they stand on one floor",
        ),
        (
            "stores/base.py",
            "from . import memory",
            "import circle: stores/base.py, stores/memory.py",
        ),
        (
            "_refresh/source.py",
            "if TYPE_CHECKING:\n    from .session import S",
            "import circle: _refresh/session.py, _refresh/source.py",
        ),
        (
            "_refresh/source.py",
            "def f():\n    from . import session",
            "import circle: _refresh/session.py, _refresh/source.py",
        ),
        ("__init__.py", "VERSION = 1", "__init__.py: VERSION = 1 in it is no re-export"),
        ("stores/__init__.py", "def f(): ...", "stores/__init__.py: def f(): in it is no re-ex"),
        (
            "__init__.py",
            "if TYPE_CHECKING:\n    from ._auth import Auth\nelse:\n    def f(): ...",
            "__init__.py: if TYPE_CHECKING: in it is no re-export",
        ),
        (
            "__init__.py",
            "if TYPE_CHECKING:\n    VERSION = 1",
            "__init__.py: if TYPE_CHECKING: in it is no re-export",
        ),
        (
            "__init__.py",
            "if DEBUG:\n    from ._auth import Auth",
            "__init__.py: if DEBUG: in it is no re-export",
        ),
        ("_utils.py", "", "_utils.py has no floor"),
        ("_refresh/_known.py", "", "_refresh/_known.py: the underscore stands once"),
        ("cli/_page.py", "", "cli/_page.py: the underscore stands once"),
    ],
)
def test_each_rule_can_be_broken(path: str, text: str, broken: str) -> None:
    on_the_map = list({**HOUSE, path: ""})
    said, *rest = broken_rules(on_the_map, {**HOUSE, path: DOC + text})
    assert said.startswith(broken)
    assert not [other for other in rest if not other.startswith("import circle: ")]


def test_names_may_be_imported_when_they_are_first_asked_for() -> None:
    lazy = (
        "if TYPE_CHECKING:\n    from ._auth import Auth\n"
        "else:\n    _HOMES = {'._auth': ('Auth',)}\n    def __getattr__(name): ...\n    def __dir__(): ..."
    )
    assert broken_rules(list(HOUSE), {**HOUSE, "__init__.py": DOC + lazy}) == []


def test_a_circle_of_three_is_one_circle() -> None:
    house = {
        "_http/a.py": DOC + "from . import b",
        "_http/b.py": DOC + "from . import c",
        "_http/c.py": DOC + "from . import a",
        "_http/d.py": DOC + "from . import a",
    }
    assert broken_rules(list(house), house) == [
        "import circle: _http/a.py, _http/b.py, _http/c.py",
    ]


def test_a_module_has_a_docstring() -> None:
    house = {**HOUSE, "_errors.py": "# a comment\n"}
    assert broken_rules(list(HOUSE), house) == ["_errors.py has no docstring"]


def test_a_module_may_not_be_missing_on_the_map() -> None:
    on_the_map = [path for path in HOUSE if path != "_errors.py"]
    assert broken_rules(on_the_map, HOUSE) == ["_errors.py is not on the map"]


def test_a_module_that_went_away_may_not_stay_on_the_map() -> None:
    assert broken_rules([*HOUSE, "_gone.py"], HOUSE) == ["_gone.py is on the map and not there"]


def test_a_module_has_one_line_on_the_map() -> None:
    assert broken_rules([*HOUSE, "_token.py"], HOUSE) == ["_token.py is on the map twice"]


MAP = """# A text
```
src/httpx_refresh/
  __init__.py      the public names
  stores/          what holds a token
    base.py        a store
  _errors.py       {words}
```
"""


def test_the_map_is_read() -> None:
    assert read_map(MAP.format(words="the errors")) == [
        "__init__.py",
        "stores/base.py",
        "_errors.py",
    ]


def test_a_line_of_the_map_says_what_the_module_is() -> None:
    with pytest.raises(AttributeError):
        read_map(MAP.format(words=""))
