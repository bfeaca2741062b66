"""Where the training runs inside a fit keep their checkpoints: detectors are settings and know no paths."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.errors import ArtifactError
from anomaly.training.processes import place, wait_for_all

IDENTITY = "run.json"


@dataclass
class _Run:
    folder: Path
    identity: dict[str, Any]
    trained: int = 0


_ACTIVE: ContextVar[_Run | None] = ContextVar("run_folder", default=None)


@contextmanager
def run_folder(folder: Path, identity: Mapping[str, Any]) -> Iterator[None]:
    """Makes every `train` in this block without a folder of its own resumable.

    The first training keeps checkpoint and log in `folder/1`, the second in `folder/2`, and so on: a fit trains in the
    same order every time. A fit that trains nothing leaves no trace.

    Args:
        folder: Where a run goes, or went until it was stopped.
        identity: Whatever decides the outcome: settings, fingerprint of the images; JSON-able.

    Raises:
        ArtifactError: At the first training, if the folder belongs to a run of another identity.
    """
    token = _ACTIVE.set(_Run(folder, json.loads(json.dumps(identity, sort_keys=True))))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def next_folder() -> Path | None:
    """Returns the folder of the next training inside `run_folder`; None outside of it.

    Raises:
        ArtifactError: If the folder belongs to another run.
    """
    run = _ACTIVE.get()
    if run is None:
        return None
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / IDENTITY
    if place()[0] == 0 and not path.exists():
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(run.identity, indent=2, sort_keys=True) + "\n")
        partial.replace(path)
    wait_for_all()
    found = json.loads(path.read_text())
    if found != run.identity:
        differing = sorted(k for k in found.keys() | run.identity.keys() if found.get(k) != run.identity.get(k))
        raise ArtifactError(
            f"{run.folder} holds a run with other {', '.join(differing)}: give the same images and settings as then to "
            "go on with it, or name another folder"
        )
    run.trained += 1
    return run.folder / str(run.trained)
