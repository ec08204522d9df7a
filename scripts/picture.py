"""Runs the demo in a terminal of its own, and draws what it showed: `python scripts/picture.py FILE.svg`."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 110

# rich's own, without fonts that a browser would fetch from somebody else's host.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def recorded() -> str:
    """Run the demo as on a terminal; return what it wrote.

    Raises:
        SystemExit: the demo failed: its sums were not right.
    """
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "60"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "httpx_refresh", "demo"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # EIO: the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    if process.wait() != 0:
        raise SystemExit("the demo failed: " + b"".join(pieces).decode(errors="replace")[-2000:])
    return b"".join(pieces).decode()


def final(output: str) -> str:
    """Return the screen at the end: what was redrawn stands there once, as it was drawn last."""
    lines: list[str] = [""]
    row = 0
    for part in re.split(r"(\r?\n|\r|\x1b\[\d*A|\x1b\[\d*K|\x1b\[\?25[lh])", output):
        if part in ("\n", "\r\n"):
            row += 1
            if row == len(lines):
                lines.append("")
        elif match := re.fullmatch(r"\x1b\[(\d*)A", part):
            row = max(0, row - int(match[1] or 1))
        elif re.fullmatch(r"\x1b\[\d*K", part):
            lines[row] = ""
        elif part and part != "\r" and not part.startswith("\x1b[?"):
            lines[row] += part
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def anonymous(screen: str) -> str:
    """Return the screen without this machine's name and without its temporary directories."""
    screen = re.sub(re.escape(tempfile.gettempdir()) + r"/\w+/", "", screen)
    return screen.replace(f"{socket.gethostname()}:", "host:")


def main(path: Path) -> None:
    """Draw the demo."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text("$ httpx-refresh demo", style="bold"))
        console.print(Text.from_ansi(anonymous(final(recorded()))))
        drawing = console.export_svg(
            title="httpx-refresh demo", theme=MONOKAI, code_format=SVG, unique_id="demo"
        )
    path.write_text(drawing, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
