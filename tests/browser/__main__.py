"""The provider as a command, in a process of its own."""

from __future__ import annotations

from tests.browser.provider import main

main()
