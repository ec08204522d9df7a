"""The documentation in a browser, on a wide screen and on a telephone."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.test_docs import ROOT

SIZES = [(1280, 900, False), (360, 740, True)]

# The elements beyond the right edge that no scrollable box contains.
LOOK = """
const beyond = element => {
  if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let box = element; box; box = box.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return false;
  return true;
};
return {
  width: document.documentElement.scrollWidth,
  beyond: [...document.querySelectorAll('.md-content *')].filter(beyond).map(one => one.outerHTML.slice(0, 80)),
  images: [...document.images].map(one => [one.getAttribute('src'), one.naturalWidth]),
  sources: document.querySelectorAll('.mermaid, .language-mermaid').length,
  title: document.querySelector('h1')?.textContent ?? '',
};
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `scripts/docs` builds it."""
    pytest.importorskip("mkdocs", reason="the dependency group `all-tests` is not installed")
    path = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("width, height, mobile", SIZES, ids=["wide", "telephone"])
def test_every_page_fits_into_its_window_and_shows_its_pictures(
    chromium: webdriver.Chrome, site: Path, served: str, width: int, height: int, mobile: bool
) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    pages = sorted(page.parent.relative_to(site).as_posix() for page in site.rglob("index.html"))
    assert len(pages) > 35
    pictures = set()
    for page in pages:
        chromium.get(f"{served}/{page}/")
        seen = chromium.execute_script(LOOK)
        assert seen["title"], page
        assert seen["width"] <= width, page
        assert seen["beyond"] == [], page
        assert seen["sources"] == 0, page
        for source, natural_width in seen["images"]:
            assert natural_width > 0, (page, source)
            pictures.add(source.rpartition("/")[2])
    assert {"refresh.svg", "claims.svg"} <= pictures
