"""Database servers that a test kills and starts again. They keep every write that they have acknowledged."""

from __future__ import annotations

import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pymysql  # type: ignore[import-untyped]  # it has no types

from tests import services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


class Restartable:
    """A server that can be killed and started again."""

    def __init__(self, url: str, run: Callable[[], AbstractContextManager[object]]) -> None:
        self.url = url
        self._run = run
        self._running = ExitStack()

    def start(self) -> None:
        self._running.enter_context(self._run())

    def kill(self) -> None:
        """Kill the server, as a power cut would."""
        self._running.close()


@contextmanager
def redis() -> Iterator[Restartable]:
    """Redis with an append-only file, synced before it answers."""
    (program,) = services.programs_of("Redis")
    port = services._free_port()
    with services._directory() as home:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        with _served(
            f"redis://127.0.0.1:{port}/0", command, home, "Ready to accept connections"
        ) as server:
            yield server


@contextmanager
def postgres() -> Iterator[Restartable]:
    initdb, program = services.programs_of("PostgreSQL")
    user, port = services._server_user("postgres"), services._free_port()
    with services._directory(user) as home:
        data = home / "data"
        initialise = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
        services._run(initialise, home, user)
        command = [program, "-D", str(data), "-k", str(home), "-p", str(port), "-h", "127.0.0.1"]
        with _served(
            f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres",
            command,
            home,
            "database system is ready to accept connections",
            user=user,
            # SIGQUIT is PostgreSQL's "immediate shutdown", a crash: it writes nothing more, the children end, too,
            # and the next start recovers from the log.
            stop=signal.SIGQUIT,
        ) as server:
            yield server


@contextmanager
def mariadb() -> Iterator[Restartable]:
    install, program = services.programs_of("MariaDB")
    user, port = services._server_user("mysql"), services._free_port()
    with services._directory(user) as home:
        data = f"--datadir={home / 'data'}"
        login = "--auth-root-authentication-method=normal"
        services._run([install, "--no-defaults", data, login, "--skip-test-db"], home, user)
        command = [
            program,
            "--no-defaults",
            data,
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={home / 'socket'}",
            f"--pid-file={home / 'pid'}",
            f"--tmpdir={home}",
            "--innodb-use-native-aio=0",
            "--skip-log-bin",
        ]
        url = f"mariadb+aiomysql://root@127.0.0.1:{port}/tests"
        with _served(url, command, home, "ready for connections", user=user) as server:
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
                connection.cursor().execute("CREATE DATABASE tests")
            yield server


@contextmanager
def _served(
    url: str,
    command: list[str],
    home: Path,
    ready: str,
    *,
    user: str | None = None,
    stop: signal.Signals = signal.SIGKILL,
) -> Iterator[Restartable]:
    def run() -> AbstractContextManager[Any]:
        return services._running(command, home, ready=ready, user=user, stop=stop)

    server = Restartable(url, run)
    server.start()
    try:
        yield server
    finally:
        server.kill()
