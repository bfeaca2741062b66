"""TensorRT engines as files: what lies beside them, and where those that were built are kept.

This module needs the standard library and numpy alone: it is part of the light runtime.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from anomaly.deploy.manifest import Manifest
from anomaly.errors import ArtifactError


class Origin(NamedTuple):
    """What an engine was built with: it runs nowhere else.

    Attributes:
        tensorrt: version of TensorRT.
        gpu: name of the GPU.
        capability: its compute capability.
    """

    tensorrt: str
    gpu: str
    capability: str

    def in_words(self) -> str:
        """One line for people."""
        return f"TensorRT {self.tensorrt} for {self.gpu} (compute capability {self.capability})"


def sidecar(path: Path) -> Path:
    """Returns the file with the manifest of an engine."""
    return path.with_name(f"{path.name}.json")


def describe_engine(plan: bytes, origin: Origin, metadata: Mapping[str, str]) -> str:
    """Returns the content of the file beside an engine."""
    entries = {"sha256": hashlib.sha256(plan).hexdigest(), "built_with": origin._asdict(), "metadata": dict(metadata)}
    return json.dumps(entries, indent=1, sort_keys=True)


def read_engine(path: Path) -> tuple[bytes, Origin, Manifest]:
    """Reads an engine with what lies beside it.

    Raises:
        ArtifactError: the manifest is missing or damaged, or belongs to another engine.
    """
    beside = sidecar(path)
    if not beside.is_file():
        raise ArtifactError(
            f"{path} has no {beside.name} beside it, so nobody knows what it scores and whether it scores like its "
            "model: build it with `anomaly export --format tensorrt` on this machine"
        )
    try:
        entries = json.loads(beside.read_text(encoding="utf-8"))
        stored, origin, metadata = entries["sha256"], Origin(**entries["built_with"]), entries["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{beside} is damaged: {error}; export again") from error
    plan = path.read_bytes()
    if hashlib.sha256(plan).hexdigest() != stored:
        raise ArtifactError(f"{beside} belongs to another engine than {path}, or one of them is damaged; export again")
    return plan, origin, Manifest.from_metadata(metadata, beside)


def cache_folder() -> Path:
    """Returns where engines are kept: ANOMALY_ENGINES, or a folder in the user's cache."""
    own = os.environ.get("ANOMALY_ENGINES")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anomaly-suite" / "engines"


def engine_key(model: bytes, origin: Origin, precision: str) -> str:
    """Returns the name of an engine in the cache: another model, TensorRT, GPU or precision has another one."""
    return hashlib.sha256(json.dumps([hashlib.sha256(model).hexdigest(), *origin, precision]).encode()).hexdigest()


def timing_file(origin: Origin) -> Path:
    """Returns where the times of kernels are kept; they hold for one TensorRT on one kind of GPU."""
    return cache_folder() / f"timing-{hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]}"


def keep(path: Path, content: bytes) -> None:
    """Writes a file of the cache, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)
