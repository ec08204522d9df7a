"""What an error tells whoever prints it."""

from __future__ import annotations


def everything_said(error: BaseException) -> str:
    """Return the text, repr, arguments and attributes of an error and of all it is chained to."""
    said = []
    link: BaseException | None = error
    while link is not None:
        said += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(said)
