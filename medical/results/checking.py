"""Checks DICOM objects against the standard with `dciodvfy` of David Clunie's dicom3tools, where that is installed."""

import shutil
import subprocess
from pathlib import Path

from anomaly.errors import MissingExtraError
from medical.results.settings import ResultError

_SECONDS = 300


def checker_installed() -> bool:
    """Returns whether `dciodvfy` can be run."""
    return shutil.which("dciodvfy") is not None


def standard_errors(path: Path) -> tuple[str, ...]:
    """Returns what `dciodvfy` calls an error in an object; empty where it finds none. Its lines may hold patient data.

    Raises:
        MissingExtraError: `dciodvfy` is not installed.
        ResultError: it ends without having judged the object.
    """
    program = shutil.which("dciodvfy")
    if program is None:
        raise MissingExtraError("checking DICOM objects needs the program dciodvfy: apt-get install dicom3tools")
    ended = subprocess.run(  # noqa: S603 - found on the path of the user
        [program, "-new", str(path)], capture_output=True, timeout=_SECONDS, check=False
    )
    lines = (ended.stdout + ended.stderr).decode("utf-8", "replace").splitlines()
    if ended.returncode < 0 or any(line.startswith("Abort") for line in lines):
        raise ResultError(f"dciodvfy ended with status {ended.returncode} and judged nothing; can the file be read?")
    return tuple(line for line in lines if line.startswith("Error"))
