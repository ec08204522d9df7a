"""A browser without a window, and the command line that waits for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.services import programs_of


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Run a browser without a window."""
    chromium, driver = programs_of("Chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=900,640",
        f"--user-data-dir={tmp_path / 'chromium'}",
        # It can reach this machine only.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--no-proxy-server",
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.implicitly_wait(60)
    try:
        yield browser
    finally:
        browser.quit()


@contextmanager
def running(
    command: list[str], folder: Path, **settings: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a command that logs in; yield the address that it prints, and the process."""
    environment = {
        **os.environ,
        "BROWSER": "true",  # The program `true`: the test has a browser of its own.
        "PYTHONWARNINGS": "error",
        "XDG_CONFIG_HOME": str(folder),
        **settings,
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield cast("IO[str]", process.stdout).readline().strip(), process
        finally:
            process.kill()


def see(chromium: webdriver.Chrome, title: str, tmp_path: Path) -> str:
    """Return the text of the page that the browser has ended on. Check that it is styled, and save a screenshot."""
    heading = chromium.find_element(By.CSS_SELECTOR, "main h1")
    assert heading.text == title
    card = chromium.find_element(By.TAG_NAME, "main")
    # The style sheet is applied, so the content security policy names its hash.
    assert card.value_of_css_property("border-radius") == "16px"
    assert chromium.save_screenshot(str(tmp_path / f"{title}.png"))
    return card.text
