from __future__ import annotations

import json
import logging
import os
import re
import runpy
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from httpx_refresh import (
    LoginFailed,
    OriginNotAllowed,
    ReauthorizationRequired,
    RefreshUnavailable,
    RevocationFailed,
    StoreError,
    __main__,
)
from httpx_refresh.cli import console
from httpx_refresh.cli.app import app
from httpx_refresh.cli.console import Exit, Problem

if TYPE_CHECKING:
    from tests.cli.conftest import Run

COMMANDS = [
    "login",
    "status",
    "refresh",
    "token",
    "revoke",
    "watch",
    "keep-alive",
    "providers",
    "generate-key",
    "demo",
]


def test_the_help_names_every_command_and_explains_the_exit_codes(run: Run) -> None:
    said = run("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in said
    for code in Exit:
        assert f" {code} " in said


def test_the_page_of_the_command_line_lists_every_command_and_every_exit_code() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "cli.md").read_text("utf-8")
    commands = text.partition("# Commands")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)", commands, re.MULTILINE) == COMMANDS
    codes = text.partition("# Exit codes")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", codes, re.MULTILINE) == [str(int(code)) for code in Exit]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_and_every_option_a_line_in_it(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: httpx-refresh" in result.stdout


def test_an_unknown_option_is_wrong_usage(run: Run) -> None:
    result = run("status", "--colour")
    assert result.exit_code == Exit.USAGE
    assert "No such option" in result.stderr


def test_a_key_is_of_the_kind_that_a_key_file_holds(run: Run) -> None:
    one, two = (run("generate-key").stdout.strip() for _ in range(2))
    assert len(one) == 44
    assert one != two


def test_a_key_is_written_to_a_new_file_that_only_its_owner_may_read(run: Run) -> None:
    os.umask(0)
    result = run("generate-key", "--output", "new.key")
    assert result.exit_code == Exit.DONE
    assert stat.S_IMODE(Path("new.key").stat().st_mode) == 0o600
    key = Path("new.key").read_text()
    assert len(key) == 45
    assert result.stdout == ""
    assert "A new key is in new.key; only you may read it (mode 0600)." in result.stderr
    assert key.strip() not in result.output
    encrypted = ["--store", "file:token.json", "--encrypt-key-file", "new.key"]
    assert run("status", *encrypted).stderr == ""


@pytest.mark.parametrize("there", ["file", "link", "dangling link"])
def test_a_key_is_not_written_over_what_is_there(run: Run, there: str) -> None:
    Path("old.key").write_text("old")
    target = Path("old.key" if there == "file" else "link.key")
    if there != "file":
        target.symlink_to("old.key" if there == "link" else "absent.key")
    result = run("generate-key", "--output", str(target))
    assert result.exit_code == Exit.USAGE
    assert "exists already, and was left as it is" in result.stderr
    assert Path("old.key").read_text() == "old"
    assert not Path("absent.key").exists()


def test_a_key_that_cannot_be_written_is_a_line(run: Run) -> None:
    result = run("generate-key", "--output", "absent/new.key")
    assert result.exit_code == Exit.USAGE
    assert "cannot be written: No such file or directory" in result.stderr


def test_a_key_without_the_library_for_it_is_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "httpx_refresh.stores.encrypted", raising=False)
    monkeypatch.setitem(sys.modules, "joserfc", None)
    result = run("generate-key")
    assert result.exit_code == Exit.USAGE
    assert "httpx-refresh[encrypted]" in result.stderr


@pytest.mark.parametrize("mode, warned", [(0o644, True), (0o640, True), (0o600, False)])
def test_a_key_that_is_printed_into_a_file_that_others_may_read_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: int, warned: bool
) -> None:
    with Path("new.key").open("w") as output:
        Path("new.key").chmod(mode)
        monkeypatch.setattr(sys, "stdout", output)
        app(["generate-key"], standalone_mode=False)
    assert len(Path("new.key").read_text()) == 45
    said = capsys.readouterr().err
    assert ("the key was written to a file that others may read" in said) is warned


def test_a_pipe_is_no_file_that_others_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with open(reading), open(writing, "w") as output:
        os.fchmod(writing, 0o644)
        monkeypatch.setattr(sys, "stdout", output)
        assert not console.others_may_read_output()


def test_what_a_terminal_would_obey_is_shown_as_an_escape() -> None:
    assert console.visible("Grüße, 日本 \\ x") == "Grüße, 日本 \\ x"
    assert console.visible("\x1b[31m\r\n\u2028\U000e0001\ud800") == (
        r"\u001b[31m\u000d\u000a\u2028\U000e0001\ud800"
    )
    # The output of `status --json` is still the same JSON.
    assert json.loads(console.visible(json.dumps({"scope": "\x7f"}))) == {"scope": "\x7f"}


@pytest.mark.parametrize("print_line", [console.say, console.tell, console.warn])
def test_every_line_goes_through_that(
    print_line: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    print_line("a\x1b]0;title\x07b")
    assert r"a\u001b]0;title\u0007b" in "".join(capsys.readouterr())


def test_the_short_option_for_help_is_known_to_all_commands(run: Run) -> None:
    for arguments in (["-h"], ["login", "-h"], ["keep-alive", "-h"]):
        assert run(*arguments).exit_code == 0


def test_on_a_terminal_lines_break_at_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    address = "https://login.example.test/authorize?state=x"
    console.tell(f"Whoever reads this is glad of {address} in one piece")
    lines = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in lines] == [
        "Whoever reads this",
        "is glad of",
        address,
        "in one piece",
    ]


@pytest.mark.parametrize("code", [0, 1])
def test_the_demo_ends_with_its_own_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("httpx_refresh.cli.demo.main", lambda: code)
    assert run("demo").exit_code == code


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["httpx-refresh", "--help"])
    monkeypatch.delitem(sys.modules, "httpx_refresh.__main__")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("httpx_refresh", run_name="__main__")
    assert not caught.value.code
    assert "Usage: httpx-refresh" in capsys.readouterr().out


@pytest.mark.parametrize("absent", ["typer", "rich", "h11"])
def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], absent: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("httpx_refresh.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 2
    assert "pip install 'httpx-refresh[cli]'" in capsys.readouterr().err


def test_an_import_that_fails_for_another_reason_is_not_explained_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "httpx_refresh.cli.app", None)
    with pytest.raises(ImportError, match=r"httpx_refresh\.cli\.app"):
        __main__.main()


def test_the_library_imports_nothing_of_the_command_line() -> None:
    # Not rich: httpx has a command line of its own, and imports rich for that if it is there.
    code = "import httpx_refresh, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "httpx_refresh" in imported
    assert not {"typer", "httpx_refresh.cli", "httpx_refresh.testing"} & imported


def test_the_installed_command_runs_in_a_pipe_without_colours_and_without_a_traceback(
    tmp_path: Path,
) -> None:
    command = Path(sys.executable).with_name("httpx-refresh")
    environment = {**os.environ, "HTTPX_REFRESH_STORE": f"file:{tmp_path}/absent/token.json"}
    done = subprocess.run(
        [str(command), "status"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == Exit.STORE
    assert done.stdout == ""
    assert done.stderr.startswith("Error: FileStore(")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error, code",
    [
        (Problem("words"), Exit.USAGE),
        (ReauthorizationRequired("words"), Exit.LOG_IN),
        (RefreshUnavailable("words", outcome="busy"), Exit.TRY_LATER),
        (RefreshUnavailable("words", outcome="refused"), Exit.REFUSED),
        (RevocationFailed("words"), Exit.TRY_LATER),
        (StoreError("words"), Exit.STORE),
        (LoginFailed("words"), Exit.LOGIN_FAILED),
        (OriginNotAllowed("words"), Exit.USAGE),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_each_failure_has_an_exit_code(
    error: BaseException, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, console.reporting():
        raise error
    assert caught.value.exit_code == code
    assert capsys.readouterr().out == ""


def test_what_the_library_warns_of_is_a_line_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("httpx_refresh")
    before = list(logger.handlers)
    with console.reporting():
        logger.warning("%s refreshes", "pod\x1b[2J")
        logger.info("unsaid")
    assert capsys.readouterr().err == "pod\\u001b[2J refreshes\n"
    assert logger.handlers == before


def test_a_mistake_of_the_program_is_not_made_a_message() -> None:
    with pytest.raises(ZeroDivisionError), console.reporting():
        raise ZeroDivisionError


def test_a_terminal_is_asked_for_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert not console.at_terminal()
