"""Texts that others wrote into the store cannot control a terminal, neither in an exception nor in the log."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import httpx
import pytest

from httpx_refresh import MemoryStore, ReauthorizationRequired, RefreshAuth, TokenEndpoint

pytestmark = pytest.mark.anyio

WORDS = "w\x1b[2J\n\u202e\x9b\x07" * 200


@pytest.mark.parametrize("with_uncertain", [False, True])
async def test_notes_in_the_store_are_shown_in_one_line_without_controls(
    with_uncertain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    dead = {
        "refresh_token_sha256": hashlib.sha256(b"R").hexdigest(),
        "error": WORDS,
        "error_description": WORDS,
        "since": 3.0,
    }
    notes: dict[str, Any] = {"dead": dead}
    if with_uncertain:
        notes["uncertain"] = {"by": WORDS, "nonce": "n", "since": 1.0}
    text = json.dumps(
        {"access_token": "A", "refresh_token": "R", "expires_at": 1, "httpx_refresh": notes}
    )
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(400)))
    endpoint = TokenEndpoint("https://as.test/token", "id", "secret", client=client)
    auth = RefreshAuth(endpoint, MemoryStore(text), origins="https://api.test")
    with (
        caplog.at_level(logging.DEBUG, "httpx_refresh"),
        pytest.raises(ReauthorizationRequired) as caught,
    ):
        await auth.token()
    await auth.aclose()
    await client.aclose()
    error = caught.value
    assert (error.error or "").startswith("w [2J")
    for said in (f"{error}", error.error or "", error.error_description or ""):
        assert said.isprintable()
        assert len(said) < 1_500
    assert caplog.records
    for record in caplog.records:
        assert record.getMessage().isprintable()
