"""A real browser, and a real provider for it to log in at."""

import pytest

pytest.importorskip("selenium", reason="the dependency group `all-tests` is not installed")
