"""Shapes are checked (jaxtyping + beartype) in every test; development data are found through ANOMALY_SHARED."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
install_import_hook("anomaly", "beartype.beartype")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data and weights; skips without it."""
    folder = Path(os.environ.get("ANOMALY_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no development data at {folder}; set ANOMALY_SHARED")
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs `anomaly` in this process; returns exit status, standard output and standard error."""
    from anomaly.cli import main

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["anomaly", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")  # no message is broken into lines
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        written = capsys.readouterr()
        return caught.value.code or 0, written.out, written.err

    return called


@pytest.fixture
def browse(tmp_path):
    """Opens a page in a real browser without a network, which must write nothing to its console.

    Takes the address and options of the browser: `--dump-dom` returns the page as scripts have left it.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update"]
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run"]
    own = [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]

    def opened(address: str, *options: str) -> str:
        command = [browser, *quiet, *offline, *own, *options, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return opened
