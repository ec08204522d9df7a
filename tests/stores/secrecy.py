"""What an error tells whoever prints it."""

from __future__ import annotations

import traceback
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def everything_said(error: BaseException) -> str:
    """Return the text, repr, arguments and attributes of an error and of all it is chained to."""
    said = []
    link: BaseException | None = error
    while link is not None:
        said += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(said)


def everything_shown(error: BaseException) -> str:
    """Return what an error and its chain say, and the locals of all frames that they hold, but for the tests' own.

    This is what an error tracker sends.
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
