"""The contents of errors, as logs and error trackers show them."""

from __future__ import annotations

import traceback
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def everything_said(error: BaseException) -> str:
    """Return the text, repr, arguments and attributes of an error and of all errors in its chain."""
    said = []
    link: BaseException | None = error
    while link is not None:
        said += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(said)


def everything_shown(error: BaseException) -> str:
    """Return the contents of an error and its chain, and the local variables of their frames outside the tests.

    An error tracker sends these.
    """
    shown = [everything_said(error)]
    link: BaseException | None = error
    while link is not None:
        frames = traceback.StackSummary.extract(
            traceback.walk_tb(link.__traceback__), capture_locals=True
        )
        shown += [
            repr(frame.locals) for frame in frames if _TESTS not in Path(frame.filename).parents
        ]
        link = link.__cause__ or link.__context__
    return "\n".join(shown)
