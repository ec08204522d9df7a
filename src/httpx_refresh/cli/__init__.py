"""The command line: logs in, shows, refreshes and revokes. It needs the extra `cli`."""

from __future__ import annotations

from . import extra as extra
