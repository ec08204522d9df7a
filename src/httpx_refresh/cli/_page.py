"""The page that the browser ends on."""

from __future__ import annotations

import base64
import hashlib
import html

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--paper:#f4f6f9;--card:#fff;--line:#e3e7ed;--mark:#16794c}
.wrong{--mark:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#9aa6b6;--paper:#12161c;--card:#1b212a;--line:#2b333f;
--mark:#4cc38a}.wrong{--mark:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{width:100%;max-width:28rem;padding:2.5rem 2.25rem;background:var(--card);border:1px solid var(--line);
border-radius:1rem;box-shadow:0 1px 2px #0000000a,0 12px 32px #0000000f;text-align:center}
svg{width:3.5rem;height:3.5rem;color:var(--mark)}
h1{margin:1rem 0 .5rem;font-size:1.375rem;line-height:1.3;font-weight:650;letter-spacing:-.01em}
p{margin:.5rem 0 0;color:var(--soft);overflow-wrap:anywhere}
footer{margin-top:1.75rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.8125rem;color:var(--soft)}
"""

_RING = '<circle cx="24" cy="24" r="21" fill="none" stroke="currentColor" stroke-width="3"/>'
_SIGN = {
    True: '<path d="M15 24.5l6.5 6.5L33.5 18" fill="none" stroke="currentColor" stroke-width="3.5" '
    'stroke-linecap="round" stroke-linejoin="round"/>',
    False: '<path d="M24 14v13" fill="none" stroke="currentColor" stroke-width="3.5" stroke-linecap="round"/>'
    '<circle cx="24" cy="33.5" r="2.25" fill="currentColor"/>',
}

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # The address holds the code: it must not reach anybody as a Referer.
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"connection", b"close"),
)


def page(title: str, text: str, *, good: bool) -> bytes:
    """Write the page: a sign, a title, a sentence. It loads nothing, and runs nothing."""
    title, text = html.escape(title), html.escape(text)
    return (
        f'<!doctype html><html lang="en"{"" if good else " class=wrong"}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
        f'<svg viewBox="0 0 48 48" aria-hidden="true">{_RING}{_SIGN[good]}</svg>'
        f"<h1>{title}</h1><p>{text}</p><footer>httpx-refresh</footer></main></body></html>"
    ).encode()
