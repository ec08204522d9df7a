"""The table of providers: in the documents, on the command line and as JSON; and why some providers are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from httpx_refresh.cli.app import app
from httpx_refresh.providers import PRESETS, SERVICES, _table
from tests.fakes import both_libraries

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["providers", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_document_says_what_the_presets_know() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert _table.renewed(text) == text, (
        "python -m httpx_refresh.providers._table docs/providers.md"
    )
    for one in PRESETS.values():
        assert f"### {one.provider.title}\n" in text


def test_a_document_without_a_place_for_the_table_is_left_alone() -> None:
    with pytest.raises(ValueError, match="lacks the line"):
        _table.renewed("# Something else\n")


def test_the_command_prints_a_line_for_each_provider() -> None:
    lines = printed().splitlines()
    assert len(lines) == len(PRESETS) + len(SERVICES) + 1
    (xero,) = [line for line in lines if line.startswith("xero ")]
    assert xero.split("  ")[-1].strip() == "60 days unused"
    assert "30 minutes" in xero


def test_the_command_prints_all_that_is_known_of_one() -> None:
    text = printed("2ba")
    assert "https://authorize.2ba.nl/OAuth/Token" in text
    assert "2ba.nl/?p=18: URLs" in text
    assert "not known" in text
    assert printed("twoba") == text


def test_the_command_names_those_it_knows() -> None:
    result = CliRunner().invoke(app, ["providers", "nobody"])
    assert result.exit_code == 2
    assert "xero" in result.stderr


def test_as_json_it_is_for_programs() -> None:
    every = json.loads(printed("--json"))
    assert {one["preset"] for one in every} == {*PRESETS, *SERVICES}
    for one in every:
        assert one == json.loads(printed(one["preset"], "--json"))
        assert one["sources"]
        assert one["token_endpoint"].startswith(("https://", "{realm}"))
    (figma,) = [one for one in every if one["preset"] == "figma"]
    assert figma["refresh_endpoint"] != figma["token_endpoint"]


@pytest.mark.parametrize(
    "seconds, words",
    [
        (None, ""),
        (0.0, "none"),
        (60.0, "1 minute"),
        (1800.0, "30 minutes"),
        (7200.0, "2 hours"),
        (86_400.0, "1 day"),
        (15_811_200.0, "183 days"),
        (30.0, "30 seconds"),
    ],
)
def test_a_duration_is_written_as_people_do(seconds: float | None, words: str) -> None:
    assert _table.duration(seconds) == words


@pytest.mark.anyio
@both_libraries
async def test_why_no_preset_has_a_header_of_its_own(http: Any) -> None:
    """Both libraries remove `Authorization` from a redirect to another origin, and keep every other header."""

    class OwnHeader(http.Auth):  # type: ignore[misc]  # a base of either library
        def auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = "Bearer SECRET"
            request.headers["X-Shopify-Access-Token"] = "SECRET"
            yield request

    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        away = {"location": "https://stranger.test/"}
        return http.Response(302, headers=away) if len(seen) == 1 else http.Response(200)

    async with http.AsyncClient(
        transport=http.MockTransport(answer), auth=OwnHeader(), follow_redirects=True
    ) as client:
        await client.get("https://shop.test/")
    stranger = seen[1].headers
    assert "authorization" not in stranger
    assert stranger["x-shopify-access-token"] == "SECRET"
