"""The rules of the house, as functions on plain text: what stands where, who may import whom."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PACKAGE = "httpx_refresh"
MOST_LINES = 250

Sources = dict[str, str]
"""A module's path below the package ("stores/base.py"), and its text."""


def read_map(text: str) -> list[str]:
    """Read the modules that the map in CONTRIBUTING.md names, in its order."""
    (block,) = re.findall(rf"^```\w*\nsrc/{PACKAGE}/\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    modules, folder = [], ""
    for line in block.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]  # each line has a name
        if name.endswith("/"):
            folder = name
        else:
            modules.append((folder if len(indent) > 2 else "") + name)
    return modules


def module_of(path: str) -> str:
    """Name the module that the file `path` holds."""
    return ".".join([PACKAGE, *path.removesuffix(".py").removesuffix("__init__").split("/")]).strip(
        "."
    )


def imports(path: str, text: str, modules: Mapping[str, str]) -> Iterator[str]:
    """Yield the path of each module of the package that `path` imports when it runs.

    What stands under `if TYPE_CHECKING:` is not run, and may point anywhere.
    """
    for node in _nodes_that_run(ast.parse(text)):
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


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    only_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    children = node.orelse if only_for_types else ast.iter_child_nodes(node)  # type: ignore[attr-defined]  # an `if` has one
    for child in children:
        yield child
        yield from _nodes_that_run(child)


def _origin(path: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = [PACKAGE, *path.split("/")[:-1]]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def broken_rules(order: Sequence[str], sources: Sources) -> list[str]:
    """Say each rule of the house that `sources` breaks, given the map's `order`."""
    broken = [f"{path} is not on the map" for path in sources if path not in order]
    broken += [
        f"{path} is on the map and not in the house" for path in order if path not in sources
    ]
    modules = {module_of(path): path for path in sources}
    for path, text in sources.items():
        lines = text.count("\n")
        if lines > MOST_LINES:
            broken.append(f"{path} has {lines} lines and wants to be two")
        if path.endswith("__init__.py"):
            broken += [f"{path}: {what} in it is no re-export" for what in not_re_exports(text)]
        for target in sorted(set(imports(path, text, modules))):
            if why := _why_not(path, target, order):
                broken.append(f"{path} imports {target}: {why}")
    return broken


def not_re_exports(text: str) -> Iterator[str]:
    """Yield what a package's `__init__` holds besides a docstring, imports and `__all__`."""
    for node in ast.parse(text).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not (isinstance(node, ast.ImportFrom) or is_docstring or is_all):
            yield ast.unparse(node).splitlines()[0]


# Who knows less than the map allows: the importer, what it may import, and why no more.
_NARROW = [
    (r"stores/__init__\.py", r"stores/", "a store knows only its base"),
    (r"stores/", r"stores/(base|_[a-z]\w*)\.py$|_errors\.py$", "a store knows only its base"),
    (
        r"testing/",
        r"testing/|stores/base\.py$",
        "the test server shares no code with what it tests",
    ),
]


def _why_not(path: str, target: str, order: Sequence[str]) -> str | None:
    if target == "__init__.py":
        return "nothing imports the package's own __init__"
    known, why = next(
        ((known, why) for who, known, why in _NARROW if re.match(who, path)), ("", "")
    )
    if not re.match(known, target):
        return why
    if path in order and target in order and order.index(target) <= order.index(path):
        return "imports point down the map"
    return None
