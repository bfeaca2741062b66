"""Real peers of a line: Debian's mosquitto and PostgreSQL 15, each on a free loopback port in a temporary folder."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker that can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.extra = ""

    def start(self) -> None:
        settings = self._folder / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self._folder}/\nmax_queued_messages 0\nuser root\n{self.extra}"
        )
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([str(self.program), "-c", str(settings)], stdout=log, stderr=log)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError((self._folder / "mosquitto.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


class PostgreSQL:
    """A server of its own with one empty database per call of `database`; the superuser needs no password."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    @staticmethod
    def programs() -> Path | None:
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        on_path = shutil.which("initdb")
        return debian[-1].parent if debian else Path(on_path).resolve().parent if on_path else None

    def _command(self, program: str, *arguments: str) -> list[str]:
        folder = self.programs()
        assert folder is not None
        as_other = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return [*as_other, str(folder / program), *arguments]

    def start(self) -> None:
        if not self._data.exists():
            self._folder.chmod(0o755)
            self._data.mkdir()
            if os.geteuid() == 0:
                shutil.chown(self._data, "postgres", "postgres")
            arguments = ("-D", str(self._data), "-U", "line", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
            subprocess.run(self._command("initdb", *arguments), check=True, capture_output=True, cwd="/")
        command = self._command(
            "postgres",
            "-D",
            str(self._data),
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-k",
            str(self._data),
            "-c",
            "fsync=off",
        )
        with (self._folder / "postgresql.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        for _ in range(200):
            ready = self._command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
            if subprocess.run(ready, cwd="/").returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError((self._folder / "postgresql.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": does not wait for clients
            self._process.wait(20)
            self._process = None

    def database(self) -> str:
        """Makes an empty database and returns its URL."""
        self._databases += 1
        name = f"results{self._databases}"
        arguments = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "line", name)
        subprocess.run(self._command("createdb", *arguments), check=True, capture_output=True, cwd="/")
        return f"postgresql://line@127.0.0.1:{self.port}/{name}"


@pytest.fixture
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A running broker; the test may stop and start it."""
    broker = Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    if broker.program is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running server; a test that stops it must start it again."""
    if PostgreSQL.programs() is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="no psycopg: pip install 'anomaly-suite[postgresql]'")
    # not below pytest's own folder, which is closed to the user under whom the server runs
    with tempfile.TemporaryDirectory(prefix="anomaly-postgresql-") as folder:
        server = PostgreSQL(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
