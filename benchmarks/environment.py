"""What a figure depends on besides the code under test: machine, versions, commit, and where the shared data are."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anomaly.errors import DatasetError

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "timm", "numpy", "anomalib", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "tensorrt")

FACTS = ("cpu", "cores", "date", "commit", "versions")
"""Columns of `facts`."""


def shared_file(relative: str) -> Path:
    """Returns a file or folder of the development data: below ANOMALY_SHARED, or "shared" beside the checkout.

    Raises:
        DatasetError: it is not there.
    """
    found = Path(os.environ.get("ANOMALY_SHARED", _ROOT.parent / "shared")) / relative
    if not found.exists():
        raise DatasetError(f"no development data at {found}; set ANOMALY_SHARED to the folder that holds {relative}")
    return found


def facts() -> dict[str, str]:
    """Returns machine, date, commit and versions, for the columns `FACTS` of a result file."""
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": _commit(),
        "versions": " ".join(_versions(_PACKAGES)),
    }


def _cpu() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> str:
    """Returns the short commit, with "+" where the packages differ from it."""
    git = shutil.which("git")
    if git is None or not (_ROOT / ".git").exists():
        return "unknown"

    def ask(*words: str) -> str:
        done = subprocess.run([git, *words], cwd=_ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - fixed words
        return done.stdout.strip()

    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "anomaly", "benchmarks")
    return ask("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _versions(packages: Iterable[str]) -> list[str]:
    found = [f"python={platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package}={version(package)}")
        except PackageNotFoundError:
            continue
    return found
