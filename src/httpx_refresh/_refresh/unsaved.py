"""A token that the store does not take: hand it to whoever asked for it, so that it is not lost even then."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

from .._token import Token
from ..stores.base import TokenStore
from .redemption import Endpoint, describe

logger = logging.getLogger("httpx_refresh")


async def hand_over(
    token: Token,
    on_unsaved: Callable[[Token], object] | None,
    endpoint: Endpoint,
    store: TokenStore,
) -> None:
    """Log that `token` could not be saved, and call (or await) `on_unsaved` with it; what that raises is logged."""
    logger.critical(
        "%s: the new token could not be saved in %r. It is in memory, is used, and is%s handed to on_unsaved. Mend "
        "the store before this process ends, or a person must log in again.",
        describe(endpoint),
        store,
        "" if on_unsaved is not None else " not (there is none)",
    )
    if on_unsaved is None:
        return
    try:
        answer = on_unsaved(token)
        if inspect.isawaitable(answer):
            await answer
    except Exception:
        logger.exception("on_unsaved failed")
