"""The rules of the code's structure, as functions on plain text: where things are, and which imports are allowed."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PACKAGE = "httpx_refresh"

Sources = dict[str, str]
"""A module's path below the package ("stores/base.py"), and its text."""

# A room is a package, or a module beside the packages. It imports from the floors below its own.
FLOORS = (
    ("__init__.py", "__main__.py"),
    ("cli/", "testing/"),
    ("_auth.py", "providers/", "grants.py", "client_auth.py", "events.py", "otel.py", "mcp.py"),
    ("_refresh/", "_oauth/"),
    ("_http/", "stores/"),
    (
        "_token.py",
        "_errors.py",
        "_json.py",
        "_threads.py",
        "_limits.py",
        "_challenges.py",
        "_version.py",
    ),
)

# What a room may import of another on its own floor, by the importer's path and the imported one's.
_SIDEWAYS = (
    (r"cli/", r"testing/__init__\.py"),
    (r"_oauth/", r"_refresh/source\.py"),
    (r"providers/", r"grants\.py"),
    (r"_token\.py|_threads\.py", r"_errors\.py"),
    (r"_errors\.py", r"_challenges\.py"),
)

# Stricter rules than the floors': the importer, what it may import, and the reason.
_NARROW = (
    (r"stores/", r"stores/|(_token|_errors|_threads)\.py", "a store knows only texts and errors"),
    (r"testing/", r"testing/|stores/base\.py", "testing shares no code with what it tests"),
)

# The underscore stands once, on the package: these hold no module with another.
_NO_SECOND_UNDERSCORE = r"(_refresh|_oauth|_http|cli)/(.*/)?_(?!_)"


def read_map(text: str) -> list[str]:
    """Read the modules that the map in CONTRIBUTING.md names; each line says what its module is."""
    (block,) = re.findall(rf"^```\w*\nsrc/{PACKAGE}/\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    modules, folder = [], ""
    for line in block.splitlines():
        indent, name = re.match(r"( *)(\S+)  *\S", line).groups()  # type: ignore[union-attr]  # each line has a name and words
        if name.endswith("/"):
            folder = name
        else:
            modules.append((folder if len(indent) > 2 else "") + name)
    return modules


def broken_rules(on_the_map: Sequence[str], sources: Sources) -> list[str]:
    """Return the rules that `sources` breaks, given the modules on the map."""
    broken = [f"{path} is not on the map" for path in sources if path not in on_the_map]
    broken += [f"{path} is on the map and not there" for path in on_the_map if path not in sources]
    broken += [
        f"{path} is on the map twice"
        for path in sorted(set(on_the_map))
        if on_the_map.count(path) > 1
    ]
    arrows = read_imports(sources)
    for path, text in sources.items():
        if _floor(path) is None:
            broken.append(f"{path} has no floor in tests/house.py")
        if ast.get_docstring(ast.parse(text)) is None:
            broken.append(f"{path} has no docstring")
        if re.match(_NO_SECOND_UNDERSCORE, path):
            broken.append(f"{path}: the underscore stands once, on the package")
        if path.endswith("__init__.py"):
            broken += [f"{path}: {what} in it is no re-export" for what in not_re_exports(text)]
        for target in sorted(arrows[path]):
            if why := _why_not(path, target):
                broken.append(f"{path} imports {target}: {why}")
    broken += [f"import circle: {', '.join(circle)}" for circle in circles(arrows)]
    return broken


def read_imports(sources: Sources) -> dict[str, set[str]]:
    """Map each module to the modules of the package that it imports, wherever the import stands.

    Imports inside functions and under `if TYPE_CHECKING:` count, because a reader of the one module needs the other.
    The `__init__` of a package, which runs when one of its modules is imported, does not count.
    """
    modules = {module_of(path): path for path in sources}
    return {path: set(_imports(path, text, modules)) for path, text in sources.items()}


def module_of(path: str) -> str:
    """Name the module that the file `path` holds."""
    parts = path.removesuffix(".py").removesuffix("__init__").split("/")
    return ".".join([PACKAGE, *parts]).strip(".")


def _imports(path: str, text: str, modules: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(path, node)
            # `from .a import b` names the module a.b if there is one, else something in a.
            names = [
                f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in modules else origin
                for alias in node.names
            ]
        else:
            continue
        yield from (modules[name] for name in names if name in modules)


def _origin(path: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = [PACKAGE, *path.split("/")[:-1]]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Find the groups of modules that reach each other, each group and the list of them sorted."""
    reached = {path: _reach(path, arrows) for path in arrows}
    groups = {
        tuple(sorted(other for other in reached[path] if path in reached[other]))
        for path in arrows
        if path in reached[path]
    }
    return [list(group) for group in sorted(groups)]


def _reach(path: str, arrows: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = set(arrows[path])
    while ahead:
        found |= ahead
        ahead = set().union(*(arrows[near] for near in ahead)) - found
    return found


def not_re_exports(text: str) -> Iterator[str]:
    """Yield what a package's `__init__` holds besides a docstring, imports and `__all__`.

    Names may be imported when they are first asked for (PEP 562): then `if TYPE_CHECKING:` holds the imports, and
    `else:` a table of the same, `__getattr__` and `__dir__`.
    """
    for node in ast.parse(text).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not (isinstance(node, ast.ImportFrom) or is_docstring or is_all or _is_lazy(node)):
            yield ast.unparse(node).splitlines()[0]


def _is_lazy(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "TYPE_CHECKING"
        and all(isinstance(one, ast.ImportFrom) for one in node.body)
        and all(
            isinstance(one, ast.Assign)
            or (isinstance(one, ast.FunctionDef) and one.name in ("__getattr__", "__dir__"))
            for one in node.orelse
        )
    )


def _room(path: str) -> str:
    return re.match(r"[^/]+/?", path)[0]  # type: ignore[index]  # a path is not empty


def _floor(path: str) -> int | None:
    return next((at for at, rooms in enumerate(FLOORS) if _room(path) in rooms), None)


def _why_not(path: str, target: str) -> str | None:
    if target == "__init__.py":
        return "nothing imports the package's own __init__"
    for who, known, why in _NARROW:
        if re.match(who, path) and not re.match(known, target):
            return why
    mine, other = _floor(path), _floor(target)
    if mine is None or other is None or _room(path) == _room(target) or mine < other:
        return None
    if mine > other:
        return "imports go down"
    if any(re.match(who, path) and re.match(to, target) for who, to in _SIDEWAYS):
        return None
    return "they stand on one floor"
