"""A model file -> an export that has proved to score like it. Beyond the bounds nothing is written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from anomaly.artifact import Artifact
from anomaly.deploy.frames import frames_from_files, parity_frames
from anomaly.deploy.graph import ScoringGraph, describe
from anomaly.deploy.manifest import Frame, Frames, Manifest
from anomaly.deploy.onnx import check_precision, to_onnx
from anomaly.deploy.parity import BOUNDS, compare
from anomaly.deploy.run_eager import EagerRuntime
from anomaly.deploy.runtime import Runtime, load
from anomaly.errors import ArtifactError, ExportError, ParityError, SettingError, UnknownNameError
from anomaly.images import Sample
from anomaly.input_spec import InputSpec
from anomaly.metrics import auroc
from anomaly.progress import Progress, silent

FORMATS = {
    "onnx": "anomaly.deploy.onnx",
    "openvino": "anomaly.deploy.openvino",
    "tensorrt": "anomaly.deploy.tensorrt",
}
"""Name of a target -> module with `SUFFIX`, `DEVICE`, `require`, `variants` and `write`, imported on demand."""
CALIBRATION = 64
"""Normal frames that int8 is calibrated with, at most."""


def frame_of(
    artifact: Artifact, size: tuple[int, int] | None = None, layout: Any = "NCHW", batch: tuple[int, int] = (1, 1)
) -> Frame:
    """Returns the frames that an export of a model takes.

    Args:
        artifact: the model.
        size: height and width of the camera's frames in pixels; by default those of the canvas, which needs no resize.
        layout: "NCHW" or "NHWC".
        batch: fewest and most frames of one run; static where both are the same.

    Raises:
        ExportError: the model does not take images.
        SettingError: a value is not allowed.
    """
    if not isinstance(artifact.scorer.detector.input, InputSpec):
        raise ExportError(
            f"detector {artifact.scorer.detector.name!r} takes volumes, and an export takes images: score with the "
            "model file itself"
        )
    spec = artifact.scorer.input
    height, width = size or spec.size
    return Frame(
        channels=spec.channels,
        height=height,
        width=width,
        dtype=spec.dtype,
        layout=layout,
        value_range=spec.value_range,
        unit=spec.unit,
        batch=batch,
    )


def export(
    artifact: Artifact,
    frame: Frame,
    out: Path,
    *,
    target: str = "onnx",
    precision: str = "fp32",
    normals: Sequence[Path] = (),
    tests: Sequence[Sample] = (),
    source_sha256: str = "",
    progress: Progress = silent,
) -> Manifest:
    """Exports a model, measures its parity, and writes it if the parity holds.

    Args:
        artifact: the model.
        frame: the frames that the export takes; see `frame_of`.
        out: file to write; ends in the suffix of the target.
        target: name in `FORMATS`.
        precision: "fp32", "fp16" or "int8".
        normals: image files of normals like those that the model was fitted on: compared in the parity gate, and needed
            to calibrate int8. They should not be the ones held out for the calibration.
        tests: test images with known answers, of the size of the frame; adds the AUROC before and after.
        source_sha256: hash of the model file, for the manifest.
        progress: is told what is being done.

    Returns:
        The manifest that was written, with the parity that was measured.

    Raises:
        DeviceError: the format is built for a device that is not there.
        ExportError: the detector cannot be exported; says why.
        MissingExtraError: the format needs a package that is not installed.
        ParityError: the export scores other than the model; says by how much.
        InputError: an image is not of the size of the frame.
        SettingError: an argument is not allowed.
    """
    check_precision(precision)
    module = module_of(target)
    if out.suffix != module.SUFFIX:
        raise SettingError(f"an export to {target} must end in {module.SUFFIX}; got {out.name!r}")
    if precision == "int8" and not normals:
        raise SettingError("int8 is calibrated on normal images of the part; name their folder with --images")
    module.require(frame)
    given = frames_from_files(normals, artifact.scorer.input, frame, CALIBRATION) if normals else None
    gate = Gate(artifact, frame, precision, parity_frames(frame, given), tests, progress)
    origin = {"anomaly-suite": version("anomaly-suite"), "model file sha256": source_sha256}
    manifest = describe(artifact, frame, target, precision, origin)
    advance = progress("exporting the graph", 1)
    model = to_onnx(ScoringGraph(artifact, frame))
    advance(1)
    return ship(module.variants(model, precision, given), module.write, gate, manifest, out, module.DEVICE)


def suffix_of(target: str) -> str:
    """Returns the suffix of the files of a target.

    Raises:
        UnknownNameError: no such target.
    """
    return str(module_of(target).SUFFIX)


def module_of(target: str) -> Any:
    """Returns the module of a target; see `FORMATS`.

    Raises:
        UnknownNameError: no such target.
    """
    if target not in FORMATS:
        raise UnknownNameError.among("format", target, FORMATS)
    return import_module(FORMATS[target])


def ship(
    variants: Iterable[tuple[str, Any]],
    write: Callable[[Any, Path, Mapping[str, str]], list[Path]],
    gate: "Gate",
    manifest: Manifest,
    out: Path,
    device: str = "cpu",
) -> Manifest:
    """Writes the first variant that passes the gate on a device, all or nothing. See `export`."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            for number, (words, model) in enumerate(variants):
                tried, proved = Path(folder, f"tried-{number}"), Path(folder, f"proved-{number}")
                tried.mkdir()
                proved.mkdir()
                write(model, tried / out.name, manifest.to_metadata())
                parity = gate.measure(words, load(tried / out.name, device=device))
                if parity is None:
                    continue
                shipped = replace(manifest, parity=parity)
                for file in write(model, proved / out.name, shipped.to_metadata()):
                    file.chmod(0o644)
                    file.replace(out.parent / file.name)
                return shipped
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written: {error.strerror or error}") from error
    raise ParityError(
        f"{out} was not written, its scores would differ from those of the model.\n" + "\n".join(gate.failed)
    )


class Gate:
    """Measures variants of an export against the model, and remembers why those failed that did."""

    def __init__(
        self,
        artifact: Artifact,
        frame: Frame,
        precision: str,
        inputs: Mapping[str, Frames],
        tests: Sequence[Sample] = (),
        progress: Progress = silent,
    ) -> None:
        """Prepares the comparison.

        Args:
            artifact: the model.
            frame: the frames that the export takes.
            precision: key of `BOUNDS`.
            inputs: kind -> frames to compare on.
            tests: test images with known answers; may be empty.
            progress: is told what is being done.
        """
        self.reference = EagerRuntime(artifact, replace(frame, batch=(1, frame.batch[1])))
        self.artifact, self.frame, self.inputs, self.tests, self.progress = artifact, frame, inputs, tests, progress
        self.bounds = BOUNDS[precision]
        self.failed: list[str] = []
        self.before = self._auroc(self.reference, "the model") if tests else None

    def measure(self, words: str, export: Runtime) -> dict[str, Any] | None:
        """Returns the figures of a variant, or None if it fails."""
        advance = self.progress(f"comparing {words}", 1)
        parity = compare(self.reference, export, self.inputs, self.bounds.score_max)
        advance(1)
        problems = parity.beyond(self.bounds)
        figures = {"covers": words, **parity.to_dict(), "bounds": asdict(self.bounds), "measured_on": export.running_on}
        if self.before is not None and not problems:
            after = self._auroc(export, words)
            figures["auroc"] = {"images": len(self.tests), "before": self.before, "after": after}
            if not self.before - after <= self.bounds.auroc_drop:
                problems.append(
                    f"the image AUROC falls from {self.before:.4f} to {after:.4f}, "
                    f"by {self.bounds.auroc_drop:g} at most is allowed"
                )
        if problems:
            self.failed += [f"  {words}: {problem}" for problem in problems]
            return None
        return figures

    def _auroc(self, runtime: Runtime, words: str) -> float:
        advance = self.progress(f"scoring the test images with {words}", len(self.tests))
        scores = []
        for sample in self.tests:
            frames = frames_from_files([sample.path], self.artifact.scorer.input, self.frame, 1)
            scores.append(float(runtime(frames).score[0]))
            advance(1)
        return auroc(np.array(scores), np.array([sample.label for sample in self.tests]))
