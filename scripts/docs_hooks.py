"""What the documentation takes from the code, and what is looked at once it is built.

MkDocs calls `on_page_markdown`: a line `<!-- table of … -->` is followed by what the code says, and a link to a file of
the repository that is no page becomes one to the repository. As a command it looks at a site that was built.
"""

from __future__ import annotations

import importlib
import pkgutil
import posixpath
import re
import sys
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]


# Serves the module beside it, and nobody else.
NOT_PUBLIC = {"httpx_refresh.stores.redis_listening"}


def public_modules() -> list[str]:
    """Return the modules of the library whose names are public: no part starts with an underscore."""
    import httpx_refresh

    found = (one.name for one in pkgutil.walk_packages(httpx_refresh.__path__, "httpx_refresh."))
    private = re.compile(r"\._|\.cli\b")
    names = {name for name in found if not private.search(name)}
    return ["httpx_refresh", *sorted(names - NOT_PUBLIC)]


def public_names() -> dict[str, object]:
    """Return what is in the `__all__` of each public module, by its full name."""
    modules = [importlib.import_module(name) for name in public_modules()]
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in getattr(module, "__all__", [])
    }


def absent_names(documented: set[str]) -> list[str]:
    """Return the public names for which nothing is documented, under this name or another one of the same object."""
    public = public_names()
    known = [value for name, value in public.items() if name in documented]
    return [
        name
        for name, value in public.items()
        if name not in documented and not any(value is one for one in known)
    ]


# -- tables ------------------------------------------------------------------------------------------------------------


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def commands() -> str:
    """Return the help of every command."""
    import typer.main
    from typer.cli import get_docs_for_click

    from httpx_refresh.cli.app import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("httpx-refresh", [], resilient_parsing=True)
    for (
        one
    ) in command.commands.values():  # whole sentences: those that are made of the help are cut
        one.short_help = one.help.split("\n\n")[0].replace("\n", " ")
    text = get_docs_for_click(obj=command, ctx=context, name="httpx-refresh", indent=1)
    return str(text).replace("\u2026", "…")


def environment() -> str:
    """Return the variables that the command line reads."""
    import typer.main

    from httpx_refresh.cli.app import app

    command: Any = typer.main.get_command(app)
    seen: dict[str, list[str]] = {}
    for one in command.commands.values():
        for parameter in one.params:
            for name in (
                [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
            ):
                seen.setdefault(name, [parameter.opts[0], parameter.help or ""])
    return _table(
        ["variable", "option", "meaning"],
        [[f"`{name}`", f"`{option}`", text] for name, (option, text) in sorted(seen.items())],
    )


def settings() -> str:
    """Return the keys of a table in the configuration file."""
    from dataclasses import fields

    from httpx_refresh.cli.settings import Settings

    return _table(
        ["key", "type"],
        [
            [f"`{one.name}`", str(one.type).replace(" | None", "")]
            for one in fields(Settings)
            if one.name != "name"
        ],
    )


def exit_codes() -> str:
    """Return the exit codes by their names."""
    from httpx_refresh.cli.console import Exit

    return _table(
        ["code", "name"], [[str(int(one)), one.name.lower().replace("_", " ")] for one in Exit]
    )


def log_messages() -> str:
    """Return the log record of each event."""
    import logging

    from httpx_refresh._refresh.events import LOG

    rows = [
        [
            logging.getLevelName(level),
            f"[`{kind.__name__}`][httpx_refresh.events.{kind.__name__}]",
            f"`{text}`",
        ]
        for kind, (level, text) in sorted(LOG.items(), key=lambda one: -one[1][0])
    ]
    return _table(["level", "event", "message"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "environment": environment,
    "exit codes": exit_codes,
    "log messages": log_messages,
    "settings": settings,
}


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put in what the code says, and let links to other files of the repository lead there."""
    for name in re.findall(r"^<!-- table of (.+) -->$", markdown, flags=re.MULTILINE):
        markdown = markdown.replace(f"<!-- table of {name} -->", TABLES[name]())
    folder = posixpath.dirname(page.file.src_uri)

    def outside(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, found[1]))
        if path.startswith("docs/") or not (ROOT / path).exists():
            return found[0]
        return f"]({config.repo_url}/blob/main/{path}{found[2] or ''})"

    return re.sub(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)", outside, markdown)


# -- a site that was built ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The anchors of a page, and where its links and images lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag is called, and where it leads."""
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            elif value and (
                (name == "href" and tag in ("a", "link"))
                or (name == "src" and tag in ("img", "script"))
            ):
                self.links.add(value)


def wrong_links(site: Path) -> list[str]:
    """Return the links between pages of the site that lead nowhere, and what is loaded from elsewhere."""
    pages = {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in sorted(page.links):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = path.parent / unquote(url.path) if url.path else path
            target = (target / "index.html" if target.is_dir() else target).resolve()
            if not target.exists():
                wrong.append(f"{path.relative_to(site)}: {link}: there is no such file")
            elif (
                target in pages
                and url.fragment
                and not url.fragment.startswith("__codelineno")
                and unquote(url.fragment) not in pages[target].anchors
            ):
                wrong.append(f"{path.relative_to(site)}: {link}: there is no such anchor")
    return wrong


def inventory(site: Path) -> set[str]:
    """Return the names that the reference of the site has."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ", 1)[0] for line in zlib.decompress(packed).decode().splitlines()}


def main(site: Path) -> int:
    """Look at a site that was built; return the exit code."""
    site = site.resolve()
    absent = [f"{name}: is not in the reference" for name in absent_names(inventory(site))]
    wrong = [*wrong_links(site), *absent]
    for line in wrong:
        print(line)
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{pages} pages, {len(public_names())} public names, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
