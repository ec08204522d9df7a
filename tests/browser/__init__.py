"""Logins with a real browser at a real provider."""

import pytest

pytest.importorskip("selenium", reason="the dependency group `all-tests` is not installed")
