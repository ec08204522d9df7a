"""Draws the sequence diagrams of the documentation: python scripts/diagrams.py. The drawings are committed.

A diagram is a list of lines: `A -> B: text` is a message, `A: text` is a note, and `== text` a rule across.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs" / "img"
WIDTH, STEP, TOP, CHARACTER = 190, 38, 70, 6.6  # CHARACTER: a guess at 12 px

DIAGRAMS = {
    "refresh": """
        callers -> auth: 200 requests
        auth -> API: each with token 1
        API -> auth: 401 (for 200 requests)
        auth: one flight; the others wait for it
        auth -> store: load: is it still token 1?
        auth -> store: replace: claim the refresh token
        auth -> token endpoint: grant_type=refresh_token
        token endpoint -> auth: token 2, refresh token 2
        auth -> store: replace: save, release the claim
        auth: now, and not before, token 2 is used
        auth -> API: each request again, with token 2
        API -> auth: 200
        auth -> callers: 200 responses
    """,
    "claims": """
        process A -> store: load: token 1
        process B -> store: load: token 1
        process A -> store: replace(1, claim of A): true
        process B -> store: replace(1, claim of B): false
        process A -> token endpoint: refresh token 1
        process B -> store: load: claimed by A
        token endpoint -> process A: token 2
        process A -> store: replace(claim, 2): true
        process B -> store: load: token 2
        process B: adopts token 2; sends nothing
        == and where A is killed while it holds the claim
        process B -> store: load: still the same claim
        process B: 1.5 x A's refresh_timeout pass
        process B -> store: replace(claim of A, claim of B): true
        process B -> token endpoint: refresh token 1, once
    """,
}


def box(
    left: float, top: float, width: float, height: float, fill: str, stroke: str = "none"
) -> str:
    """Return a rectangle."""
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="4" fill="{fill}" '
        f'stroke="{stroke}"/>'
    )


def words(middle: float, y: float, said: str, *, weight: int = 400) -> str:
    """Return a line of text."""
    return f'<text x="{middle:.0f}" y="{y:.0f}" text-anchor="middle" font-weight="{weight}">{escape(said)}</text>'


def drawing(text: str) -> str:
    """Return the SVG of a diagram."""
    lines = [line.strip() for line in text.strip().splitlines()]
    who: list[str] = []
    for line in lines:
        for name in re.findall(r"^([^:=]+?) -> ([^:]+):", line)[:1]:
            who += [one for one in name if one not in who]
    x = {name: WIDTH // 2 + number * WIDTH for number, name in enumerate(who)}
    width, height = WIDTH * len(who), TOP + STEP * len(lines) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#37474f"/></marker></defs>',
        box(0, 0, width, height, "#fff"),
    ]
    for name in who:
        parts += [
            f'<path d="M{x[name]} 44V{height}" stroke="#b0bec5" stroke-dasharray="4"/>',
            box(x[name] - 65, 14, 130, 30, "#e8eaf6", "#5c6bc0"),
            words(x[name], 34, name, weight=600),
        ]
    for number, line in enumerate(lines):
        y = TOP + STEP * number + 10
        if line.startswith("== "):
            parts += [
                box(8, y - 18, width - 16, 24, "#eceff1"),
                words(width / 2, y - 2, line[3:], weight=600),
            ]
            continue
        head, said = line.split(": ", 1)
        start, _, end = head.partition(" -> ")
        length = len(said) * CHARACTER + 12
        if not end:
            left = min(max(4.0, x[start] - length / 2), width - length - 4)
            parts += [
                box(left, y - 16, length, 24, "#fff8e1", "#ffb300"),
                words(left + length / 2, y, said),
            ]
            continue
        near = 4 if x[end] > x[start] else -4
        middle = (x[start] + x[end]) / 2
        parts += [
            f'<path d="M{x[start]} {y}H{x[end] - near}" stroke="#37474f" marker-end="url(#head)"/>',
            box(
                middle - length / 2, y - 18, length, 15, "#fff"
            ),  # or its words stand on another's line
            words(middle, y - 6, said),
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Write the drawings; with `--check`, say whether those that are there are these."""
    wrong = 0
    for name, text in DIAGRAMS.items():
        path = IMAGES / f"{name}.svg"
        if "--check" in sys.argv:
            wrong += path.read_text("utf-8") != drawing(text)
        else:
            path.write_text(drawing(text), "utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
