"""A model as ONE safetensors file: tensors plus a JSON manifest in its metadata. No pickle, no code, no paths.

Metadata: `manifest` (JSON, see `_manifest`) and `manifest_sha256`. The manifest names the sha256 over all tensors, so
neither can change without the other noticing. The hashes find damage and careless edits; they are no signature.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from torch import Tensor

from anomaly.backbones.backbone import fingerprint
from anomaly.calibration import Calibration, Threshold
from anomaly.catalog import build, detector_class
from anomaly.detector import Scorer
from anomaly.drift.reference import Reference
from anomaly.errors import AnomalyError, ArtifactError
from anomaly.storage import Storage

FORMAT = "anomaly-suite model"
SCHEMA = 1
_KEYS = {
    "format", "schema", "detector", "settings", "description", "calibration", "map_calibration", "training", "versions",
    "tensors_sha256",
}  # fmt: skip
_LATER = {"reference", "storage", "extensions"}
"""Keys that models of earlier versions lack."""


@dataclass(frozen=True)
class MapCalibration:
    """What is normal in the maps of held-out normals; drives contours and colours, never a decision.

    Attributes:
        typical: median pixel of the maps.
        threshold: at most this share of normal images has any pixel above it.
    """

    typical: float
    threshold: Threshold

    @property
    def scale(self) -> tuple[float, float]:
        """Map values where colours begin and end; the threshold lies in the middle."""
        extent = max(self.threshold.value - self.typical, 1e-6 * max(1.0, abs(self.typical)))
        return self.typical, self.typical + 2 * extent


@dataclass(frozen=True)
class Training:
    """What the model was trained on.

    Attributes:
        images: number of normal images fitted on.
        held_out: number of normal images held out for the calibration.
        fingerprint: sha256 over the sorted sha256 of the files of both parts.
        created: date and time, ISO 8601 with offset.
    """

    images: int
    held_out: int
    fingerprint: str
    created: str


@dataclass(frozen=True)
class Artifact:
    """A fitted scorer with its calibration and its history: what a model file holds.

    Attributes:
        scorer: the fitted scorer.
        calibration: thresholds and the scores that they come from.
        map_calibration: what is normal in the maps.
        training: what it was trained on.
        reference: calibration normals that later input is compared with; None in models of earlier versions.
        storage: which weights the file holds in fewer bits; None for all as they are.
        extensions: name of a frontend -> what it keeps with the model, JSON-able; the core carries it unread.
    """

    scorer: Scorer
    calibration: Calibration
    map_calibration: MapCalibration
    training: Training
    reference: Reference | None = None
    storage: Storage | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def provenance(self) -> dict[str, str]:
        """Returns rows for people: what this model is and where it comes from."""
        rows = {"detector": self.scorer.detector.name, **self.scorer.input.rows()}
        if backbone := self.scorer.description().get("backbone"):
            if own := getattr(self.scorer.detector, "backbone", None):  # models of anomalib name theirs otherwise
                rows["backbone"] = f"{own.name}: {', '.join(own.layers)}"
            rows["backbone weights"] = f"{backbone['source']}, licence {backbone['licence']}"
            rows["backbone sha256"] = backbone["sha256"]
        if self.storage:
            rows["weights stored as"] = f"{self.storage.kind}, rounded after the fit"
        return rows | {
            "trained on": f"{self.training.images} normal images, {self.training.held_out} held out for calibration",
            "training fingerprint": self.training.fingerprint,
            "created": self.training.created,
        }

    def report_settings(self, model_file: str) -> dict[str, Any]:
        """Returns what `anomaly.report.ResultWriter` needs to know of the model."""
        return {
            "model": {"model file": model_file, **self.provenance(), "anomaly-suite": version("anomaly-suite")},
            "calibration": self.calibration,
            "scale": self.map_calibration.scale,
            "contour": self.map_calibration.threshold.value,
            "value_range": self.scorer.input.value_range,
        }


def save(path: Path, artifact: Artifact) -> str:
    """Writes the model file, all or nothing, and returns the sha256 of the file.

    Raises:
        ArtifactError: the name does not end in .safetensors, or the folder cannot be written.
    """
    from safetensors.torch import save as to_bytes

    if path.suffix != ".safetensors":
        raise ArtifactError(f"a model file must end in .safetensors; got {path.name!r}")
    state = {key: value.detach().cpu() for key, value in artifact.scorer.state_dict().items()}
    stored = artifact.storage.pack(state) if artifact.storage else state
    tensors = {key: value.contiguous().clone() for key, value in stored.items()}
    manifest = json.dumps(_manifest(artifact, tensors), sort_keys=True)
    content = to_bytes(tensors, {"manifest": manifest, "manifest_sha256": _sha256(manifest.encode())})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, content)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror or error}") from error
    return _sha256(content)


def load(path: Path) -> Artifact:
    """Reads a model file; its scorer is in evaluation mode on the CPU.

    Raises:
        ArtifactError: no such file, truncated, not of this suite, of a newer schema, changed after it was written, or
            not complete.
    """
    manifest, tensors = _read(path)
    _check_whole(path, manifest, tensors)
    try:
        detector = build(detector_class(manifest["detector"]), manifest["settings"])
        storage = Storage.from_dict(manifest["storage"]) if "storage" in manifest else None
        state = storage.unpack(tensors) if storage else tensors
        scorer: Scorer = detector.restore(state, manifest["description"])
        stored = manifest["map_calibration"]
        return Artifact(
            scorer=scorer.eval(),
            calibration=Calibration.from_dict(manifest["calibration"]),
            map_calibration=MapCalibration(stored["typical"], Threshold(**stored["threshold"])),
            training=Training(**manifest["training"]),
            reference=Reference.from_dict(manifest["reference"]) if "reference" in manifest else None,
            storage=storage,
            extensions=manifest.get("extensions", {}),
        )
    except (AnomalyError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: the manifest does not describe a complete model: {error}") from error


def _write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears only when it is complete; one that cannot be completed leaves nothing behind."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(content)
            file.close()
            partial.chmod(0o644)  # temporary files are private, a model file is an ordinary one
            partial.replace(path)
        except OSError:
            partial.unlink()
            raise


def _manifest(artifact: Artifact, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    detector = artifact.scorer.detector
    later = {"reference": artifact.reference, "storage": artifact.storage}
    return {
        **{name: value.to_dict() for name, value in later.items() if value},
        **({"extensions": artifact.extensions} if artifact.extensions else {}),
        "format": FORMAT,
        "schema": SCHEMA,
        "detector": detector.name,
        "settings": asdict(detector),
        "description": artifact.scorer.description(),
        "calibration": artifact.calibration.to_dict(),
        "map_calibration": asdict(artifact.map_calibration),
        "training": asdict(artifact.training),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("anomaly-suite", "torch", "timm", "numpy")},
        },
        "tensors_sha256": fingerprint(tensors),
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ArtifactError(f"no model file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ArtifactError(f"{path} is truncated or not a safetensors file: {error}") from None
    if "manifest" not in metadata:
        raise ArtifactError(f"{path} is a safetensors file, but not a model of this suite: it has no manifest")
    if _sha256(metadata["manifest"].encode()) != metadata.get("manifest_sha256"):
        raise ArtifactError(f"{path}: the manifest was changed after the file was written; fit the model again")
    try:
        manifest = json.loads(metadata["manifest"])
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: the manifest is not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: the manifest must be a JSON object; got {type(manifest).__name__}")
    return manifest, tensors


def _check_whole(path: Path, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    if manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path}: format must be {FORMAT!r}; got {manifest.get('format')!r}")
    if manifest.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path}: schema {manifest.get('schema')} cannot be read, this version reads schema {SCHEMA}: "
            "install a newer anomaly-suite, or fit the model again"
        )
    if set(manifest) - _LATER != _KEYS:
        raise ArtifactError(f"{path}: the manifest must hold {sorted(_KEYS)}; got {sorted(manifest)}")
    if fingerprint(tensors) != manifest["tensors_sha256"]:
        raise ArtifactError(f"{path}: the tensors were changed after the file was written; fit the model again")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
