"""What stores have in common."""

from __future__ import annotations

import pytest
import trio

from httpx_refresh.stores.base import require_asyncio


def test_a_store_whose_driver_knows_asyncio_only_names_itself_under_trio() -> None:
    async def main() -> None:
        require_asyncio("SomeStore")

    with pytest.raises(RuntimeError, match="SomeStore serves asyncio only"):
        trio.run(main)
