"""How long a part takes on the line: raw uint8 frame in, decision out, through every runtime that runs here.

The default detector with the bundled backbone is fitted on generated wafers, exported through the parity gate, and
timed beside anomalib's own exports. One process, one number of threads, calls in turns: what else the machine does hits
all rows alike. A call begins with a frame in the caller's memory and ends with a decision there, copies included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from anomaly.artifact import Artifact, save
from anomaly.deploy import Runtime, load
from anomaly.deploy.export import FORMATS, Gate, frame_of, module_of, ship
from anomaly.deploy.frames import frames_from_files, parity_frames
from anomaly.deploy.graph import ScoringGraph, describe
from anomaly.deploy.manifest import Frames
from anomaly.deploy.onnx import to_onnx
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import DatasetError, DeviceError, ExportError, MissingExtraError, ParityError
from anomaly.fitting import Plan, fit_files
from anomaly.images import infer_input, list_images
from anomaly.images.synthetic import write_dataset
from anomaly.progress import Progress, silent
from benchmarks.anomalib_exports import export_peers, open_peer
from benchmarks.environment import shared_file
from benchmarks.latency import WARM, Call, times_in_turns
from benchmarks.roofline import Roofline, Work, measure, work_of

OURS = "subspace"
PRECISIONS = ("fp32", "fp16", "int8")
WAFER_FRAMES, WAFER_SIDE, WAFER_BUDGET = 36, 512, 360.0
"""Frames of a wafer, their height and width in pixels, and the milliseconds in which all must be judged."""
ON_CUDA = (
    ("PyTorch CUDA", None, "fp32"),
    ("PyTorch CUDA graph", "compile", "fp32"),
    ("PyTorch CUDA graph", "compile-fp16", "fp16"),
    ("ONNX Runtime CUDA", "cuda", "fp32"),
    ("ONNX Runtime CUDA", "cuda", "fp16"),
)
"""Runtime, provider and precision of the rows that need a GPU, besides TensorRT."""
WEIGHTS = "weights/resnet18_layers1to3_bnfolded.safetensors"
_PARTS, _CALIBRATION, _LEARNED_BY_PEERS = 60, 8, 24
_ROUNDS_OF_A_WAFER = 3


class Wish(NamedTuple):
    """What is measured.

    Attributes:
        runs: timed calls of each row; a fifth of them, and 5 at least, where a run has several frames.
        threads: threads of the CPU that one run uses.
        size: height and width of frame and canvas in pixels.
        batches: frames of one run.
        peers: whether anomalib's exports are timed too.
        wafer: whether the 36 frames of a wafer are timed too.
    """

    runs: int = 80
    threads: int = 1
    size: int = 256
    batches: tuple[int, ...] = (1, 8)
    peers: bool = True
    wafer: bool = True


class Row(NamedTuple):
    """One line of the result.

    Attributes:
        model: whose model.
        runtime: what ran it.
        precision: "fp32", "fp16" or "int8".
        batch: frames of one call.
        frame: height and width of the frames in pixels.
        canvas: height and width of the model's canvas in pixels.
        covers: what is below fp32, as the manifest says.
        times: milliseconds of every timed call.
        work: operations and bytes of one call; None where they are not known.
        device: "cpu" or "cuda".
    """

    model: str
    runtime: str
    precision: str
    batch: int
    frame: int
    canvas: int
    covers: str
    times: list[float]
    work: Work | None
    device: str = "cpu"

    def quantile(self, share: float) -> float:
        """Returns a quantile of the times."""
        return float(np.quantile(self.times, share))

    def figures(self) -> dict[str, float]:
        """Returns p50, p90, p99, max and jitter (p99 - p50) in milliseconds, and images a second at the median."""
        p50, p90, p99 = (self.quantile(share) for share in (0.5, 0.9, 0.99))
        return {
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "max_ms": max(self.times),
            "jitter_ms": p99 - p50,
            "images_per_s": 1000 * self.batch / p50,
        }


class Result(NamedTuple):
    """What was measured.

    Attributes:
        rows: single calls.
        wafers: 36 frames, one row for each way.
        rooflines: device -> its limits.
        skipped: lines about what could not be measured.
    """

    rows: list[Row]
    wafers: list[Row]
    rooflines: Mapping[str, Roofline]
    skipped: list[str]


class Case(NamedTuple):
    """A row that is not timed yet, and its call."""

    row: Row
    call: Callable[[], object]


def measured(wish: Wish, progress: Progress = silent) -> Result:
    """Fits, exports and times."""
    skipped: list[str] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        model, parts = fitted(wish.size, folder / "parts", progress)
        rooflines = {"cpu": measure(wish.threads)}
        if torch.cuda.is_available():
            rooflines["cuda"] = measure(wish.threads, "cuda")
        rows: list[Row] = []
        for batch in sorted(wish.batches):
            cases = list(_ours(model, parts, batch, wish, folder, skipped, progress))
            if batch == 1 and wish.peers:
                cases += _peers(model, parts, wish, folder, skipped, progress)
            rows += _timed(cases, wish.runs if batch == 1 else max(5, wish.runs // 5), wish.threads, progress)
        wafers = list(_wafers(rows, model, parts, wish, folder, progress)) if wish.wafer else []
    return Result(rows, wafers, rooflines, skipped)


def fitted(side: int, folder: Path, progress: Progress = silent) -> tuple[Artifact, list[Path]]:
    """Fits the default detector on generated wafers; returns the model and its images."""
    advance = progress(f"generating wafers of {side} px", 1)
    write_dataset(folder, "wafer", _PARTS, 0, 0, (side, side), seed=0)
    advance(1)
    paths = list_images([folder])
    failures: list[Any] = []
    spec = replace(infer_input(paths), size=(side, side))  # its own choice is never larger than 256 px
    artifact = fit_files(SubspaceDetector(input=spec), paths, Plan(), failures, progress)
    if failures:
        raise DatasetError(f"{len(failures)} generated image(s) cannot be used, e.g. {failures[0]}")
    return artifact, paths


class Exporter:
    """Exports one model for frames of one size; the graph is made once for all formats and precisions."""

    def __init__(
        self,
        artifact: Artifact,
        parts: Sequence[Path],
        side: int,
        batch: int,
        folder: Path,
        normals: int = _CALIBRATION,
    ) -> None:
        """Makes the graph.

        Args:
            artifact: the model.
            parts: normal images; resized to the frame where they have another size.
            side: height and width of the frames in pixels.
            batch: frames of one run.
            folder: where the files go.
            normals: images that int8 is calibrated with.
        """
        self.artifact, self.folder = artifact, folder
        self.frame = frame_of(artifact, (side, side), "NCHW", (batch, batch))
        self.normals = _frames(parts[:normals], artifact, self.frame)
        self.graph = to_onnx(ScoringGraph(artifact, self.frame))
        self._plain: Path | None = None

    def file(self, target: str, precision: str) -> Path:
        """Returns an export that passed the parity gate.

        Raises:
            AnomalyError: it did not pass, or the format cannot be made here.
        """
        module = module_of(target)
        out = self.folder / f"{target}-{precision}-{self.frame.height}-{self.frame.batch[1]}{module.SUFFIX}"
        if not out.is_file():
            gate = Gate(self.artifact, self.frame, precision, parity_frames(self.frame, self.normals))
            manifest = describe(self.artifact, self.frame, target, precision, {})
            made = module.variants(self.graph, precision, self.normals)
            ship(made, module.write, gate, manifest, out, module.DEVICE)
        return out

    def work(self) -> Work:
        """Returns what one run needs."""
        return work_of(self.file("onnx", "fp32"))


def _frames(parts: Sequence[Path], artifact: Artifact, frame: Any) -> Frames:
    import cv2

    spec = artifact.scorer.input
    canvas = frame_of(artifact)
    found = frames_from_files(parts, spec, canvas, _CALIBRATION)
    if (frame.height, frame.width) == spec.size:
        return found
    return np.stack([cv2.resize(image[0], (frame.width, frame.height))[None] for image in found])


def _ours(
    artifact: Artifact,
    parts: Sequence[Path],
    batch: int,
    wish: Wish,
    folder: Path,
    skipped: list[str],
    progress: Progress,
) -> Iterator[Case]:
    """Yields our rows at one number of frames."""
    exporter = Exporter(artifact, parts, wish.size, batch, folder)
    frames = exporter.normals[:batch]
    model_file = folder / "model.safetensors"
    save(model_file, artifact)
    advance = progress(f"exports for {batch} frame(s) a run", len(FORMATS) * len(PRECISIONS))
    work = exporter.work()

    def case(runtime: Runtime, words: str, precision: str, device: str) -> Case:
        covers = str(runtime.manifest.parity.get("covers", precision))
        row = Row(OURS, words, precision, batch, wish.size, wish.size, covers, [], work, device)
        return Case(row, lambda: runtime(frames).decision)

    yield case(load(model_file), "PyTorch", "fp32", "cpu")
    if torch.cuda.is_available():
        for words, provider, precision in ON_CUDA:
            file = exporter.file("onnx", precision) if words.startswith("ONNX") else model_file
            try:
                yield case(load(file, device="cuda", provider=provider), words, precision, "cuda")
            except (DeviceError, ParityError) as error:
                skipped.append(f"{OURS}, {words}, {precision}, {batch} frame(s): {error}")
    else:
        skipped.append("PyTorch and ONNX Runtime on CUDA: PyTorch finds no CUDA device here")
    for target in FORMATS:
        try:
            module_of(target).require(exporter.frame)
        except (DeviceError, MissingExtraError) as error:
            skipped.append(f"{_words(target)}: {str(error).splitlines()[0]}")
            advance(len(PRECISIONS))
            continue
        for precision in PRECISIONS:
            advance(1)
            if precision == "fp16" and batch > 1 and module_of(target).DEVICE == "cpu":
                continue  # CPUs compute in fp32 all the same
            try:
                runtime = load(exporter.file(target, precision), **_settings(target, wish.threads))
                yield case(runtime, _words(target), precision, module_of(target).DEVICE)
            except (DeviceError, ExportError, MissingExtraError) as error:
                skipped.append(f"{OURS}, {_words(target)}, {precision}, {batch} frame(s): {error}")


def _words(target: str) -> str:
    return {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}[target]


def _settings(target: str, threads: int) -> dict[str, Any]:
    return {"device": "cuda"} if target == "tensorrt" else {"threads": threads}


def _peers(
    artifact: Artifact, parts: Sequence[Path], wish: Wish, folder: Path, skipped: list[str], progress: Progress
) -> list[Case]:
    """Returns the rows of anomalib's exports; none, with a line that says why, where they cannot be made."""
    advance = progress("anomalib's own exports", 6)
    cases: list[Case] = []
    try:
        weights = shared_file(WEIGHTS)
        images = frames_from_files(parts, artifact.scorer.input, frame_of(artifact), _LEARNED_BY_PEERS)
        for peer in export_peers(images, weights, folder / "peers"):
            call = partial(open_peer(peer, wish.threads), images[:1])
            work = work_of(peer.file) if peer.file.suffix == ".onnx" else cases[-1].row.work
            row = Row(peer.name, peer.runtime, "fp32", 1, wish.size, wish.size, "fp32", [], work)
            cases.append(Case(row, call))
            advance(1)
    except (ImportError, DatasetError) as error:
        skipped.append(f"anomalib's exports: {error}")
    return cases


def _timed(cases: Sequence[Case], runs: int, threads: int, progress: Progress, warm: int = WARM) -> list[Row]:
    calls = {str(number): Call(case.call, threads) for number, case in enumerate(cases)}
    times = times_in_turns(calls, runs, progress, warm)
    return [case.row._replace(times=times[str(number)]) for number, case in enumerate(cases)]


def fastest(rows: Sequence[Row], model: str = OURS, batch: int = 1) -> Row | None:
    """Returns the row on the CPU with the lowest median of an exported model at a number of frames; None if none is."""
    mine = [row for row in rows if row.model.startswith(model) and row.batch == batch and row.device == "cpu"]
    found = [row for row in mine if row.runtime != "PyTorch"]
    return min(found, key=lambda row: row.quantile(0.5)) if found else None


def _wafers(
    rows: Sequence[Row], artifact: Artifact, parts: Sequence[Path], wish: Wish, folder: Path, progress: Progress
) -> Iterator[Row]:
    """Times 36 frames of 512 px through the fastest runtime, on a canvas of 512 px and on the one of the rows above."""
    best = fastest(rows)
    if best is None:
        return
    large, large_parts = fitted(WAFER_SIDE, folder / "wafers", progress)
    for model, images in ((large, large_parts), (artifact, parts)):
        canvas = model.scorer.input.size[0]
        progress(f"exporting for frames of {WAFER_SIDE} px, canvas {canvas} px", 1)(0)
        own = folder / f"wafer-{canvas}"
        own.mkdir()
        exporter = Exporter(model, images, WAFER_SIDE, 1, own, normals=6)
        file, precision = _first_that_ships(exporter, best)
        one = exporter.work()
        work = Work(WAFER_FRAMES * one.gflop, WAFER_FRAMES * one.gbyte)
        frames = np.concatenate([exporter.normals] * WAFER_FRAMES)[:WAFER_FRAMES]
        target = "openvino" if best.runtime == "OpenVINO" else "onnx"
        cases = []
        for words, call in _ways(file, target, frames, wish.threads):
            covers = f"{precision}, {words}"
            row = Row(OURS, best.runtime, precision, WAFER_FRAMES, WAFER_SIDE, canvas, covers, [], work)
            cases.append(Case(row, call))
        yield from _timed(cases, _ROUNDS_OF_A_WAFER, wish.threads, progress, warm=1)


def _first_that_ships(exporter: Exporter, best: Row) -> tuple[Path, str]:
    """Returns an export in the best row's precision, or in fp32 if the gate does not let that one pass."""
    target = "openvino" if best.runtime == "OpenVINO" else "onnx"
    try:
        return exporter.file(target, best.precision), best.precision
    except ParityError:
        return exporter.file(target, "fp32"), "fp32"


def _ways(file: Path, target: str, frames: Frames, threads: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields both ways to share the threads: all for one frame after the other, or one for each of several frames."""
    together = load(file, **_settings(target, threads))
    yield "one frame after the other", lambda: together(frames).decision
    if threads == 1:
        return
    alone = [load(file, **_settings(target, 1)) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def side_by_side() -> list[Any]:
        return [s.decision for s in pool.map(lambda i: alone[i](frames[i::threads]), range(threads))]

    yield f"{threads} frames side by side", side_by_side
