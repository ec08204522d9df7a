from __future__ import annotations

import subprocess
import sys

import httpx_refresh


def test_the_command_says_which_version_it_is() -> None:
    command = [sys.executable, "-m", "httpx_refresh", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"httpx-refresh {httpx_refresh.__version__}\n"
