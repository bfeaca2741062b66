"""One row of a table: fit in a process of its own, score in another one, everything that is measured of both.

An ordinary fit with default settings on the training images in random order, stretched to one canvas. Nothing is chosen
on test data. Our detectors and anomalib's get the same images, canvas and, where they take any, backbone weights. Every
image score and map is raw.
"""

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from anomaly.calibration import hold_out
from anomaly.catalog import BRIDGES, build, detector_class
from anomaly.detector import Scorer
from anomaly.images import ImageLoader
from anomaly.metrics import auroc, bootstrap_interval, fpr_at_recall
from benchmarks.detector_sets import Protocol, box_hits, within_strata
from benchmarks.environment import facts, shared_file
from benchmarks.image_sets import Outcome, judge
from benchmarks.isolated import Meter, run_isolated
from benchmarks.latency import Call, times_in_turns
from benchmarks.running.coverage import coverage
from benchmarks.running.parts import Part, open_part

BACKBONE, FILE = "resnet18", "resnet18_layers1to3_bnfolded"
PEERS: dict[str, dict[str, Any]] = {
    "anomalib:Patchcore": {"arguments": {"backbone": BACKBONE, "coreset_sampling_ratio": 0.01}},
    "anomalib:Padim": {"arguments": {"backbone": BACKBONE}},
    "anomalib:Fre": {"arguments": {"backbone": BACKBONE}},
    "anomalib:Stfpm": {"arguments": {"backbone": BACKBONE}},
    "anomalib:Supersimplenet": {"arguments": {"backbone": BACKBONE, "layers": ["layer2", "layer3"]}},
}
"""Peers with what differs from anomalib's own settings: the backbone, and 1 % instead of 10 % of Patchcore's patches,
since 10 % take more than an hour of CPU time a set. EfficientAd needs a teacher that must be downloaded; nearest to it
are Stfpm, a student of a teacher, and Supersimplenet, which takes two CPU seconds an image and pass."""
NONE = "-"
SHORTCUT = "shortcut: "
SHORTCUTS = ("mean grey", "mean gradient", "file size", "image width")
MANY = 8
"""Images of one call of the throughput."""

KEY = (
    *("dataset", "category", "detector", "backbone", "seed", "limit", "held_out"),
    *("train", "test", "epochs", "threads"),
)
INTERVAL = ("image_auroc_low", "image_auroc_high")
BOXES = ("box_hits", "box_hits_crossed")
QUALITY = (
    *("image_auroc", *INTERVAL, "image_auroc_strata", "image_ap", "image_f1_max", "image_fpr_at_95_recall"),
    *("pixel_auroc", "pixel_ap", "aupro_0.3", "aupro_0.05", *BOXES),
)
"""Columns that two runs with the same seed agree in; 0..1."""
LATENCY = ("ms_1_image", "ms_1_image_p95", "ms_1_image_p99", f"images_per_s_{MANY}")
COSTS = (
    *("fit_cpu_s", "fit_wall_s", "imports_mib", "peak_mib", "gpu_peak_mib"),
    *(*LATENCY, "scoring_peak_mib", "file_mib", "load"),
)


class Job(NamedTuple):
    """One row to be measured; JSON-able with `_asdict`.

    Attributes:
        data: word of `parts` that names the set.
        category: product of the set; empty where it has only one.
        detector: name in the catalogue.
        backbone: name of the backbone; "-" where the detector has none.
        limit: training and test images at most; None for all.
        seed: seed of the order of the images, of what is held out and of the fit.
        epochs: passes of anomalib's trained models.
        held_out: share of the training images that the fit does not see and that makes the thresholds; 0 for none.
        model: file of the fitted model.
    """

    data: str
    category: str
    detector: str
    backbone: str
    limit: int | None
    seed: int
    epochs: int
    held_out: float
    model: str = ""

    @property
    def part(self) -> Part:
        """The experiment."""
        return Part(self.data, self.category)

    def protocol(self, folder: Path | None) -> Protocol:
        """Opens the set; masks that must be drawn are written to `folder`, or left out."""
        return open_part(self.part, self.limit, self.seed, folder)

    def split(self, protocol: Protocol) -> tuple[list[Path], list[Path]]:
        """Returns the training images that the fit sees, in their order, and those held out; no group in both."""
        paths = protocol.images.train
        if not self.held_out:
            return paths, []
        known = [protocol.groups.get(path, "") for path in paths]
        names = [str(path) for path in paths]
        groups = dict(zip(names, known, strict=True)) if all(known) else None
        fitted, held = hold_out(names, seed=self.seed, fraction=self.held_out, groups=groups)
        return [paths[index] for index in fitted], [paths[index] for index in held]

    def settings(self, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the settings of the detector besides its input, for a canvas of a height and width in pixels."""
        weights = str(shared_file(f"weights/{FILE}.safetensors")) if self.backbone == BACKBONE else None
        given: dict[str, Any] = {"seed": self.seed}
        if is_peer(self.detector):
            given |= deepcopy(PEERS.get(self.detector, {})) | {"weights": weights, "epochs": self.epochs}
            if self.detector == "anomalib:Fre":  # wants to be told how many features: layer 3, pooled by 2
                given["arguments"]["input_dim"] = 256 * (size[0] // 32) * (size[1] // 32)
            return given
        if self.backbone != NONE:
            given["backbone"] = {"name": self.backbone, "weights": weights}
        return given

    def key(self, protocol: Protocol, threads: int) -> dict[str, Any]:
        """Returns the columns `KEY` of its row."""
        return {
            **{name: value for name, value in self._asdict().items() if name in KEY},
            "dataset": self.part.dataset,
            "train": len(self.split(protocol)[0]),
            "test": len(protocol.images.test),
            "epochs": self.epochs if is_peer(self.detector) else NONE,
            "threads": threads,
        }


def is_peer(detector: str) -> bool:
    """Returns whether a detector is a model of another program."""
    return detector.partition(":")[0] in BRIDGES


def jobs(parts: Sequence[Part], detectors: Sequence[str], backbones: Sequence[str], **common: Any) -> list[Job]:
    """Returns the rows of experiments: our detectors with each backbone that they can have, peers with the shared one.

    Raises:
        UnknownNameError: no such detector.
    """
    found = []
    for part in parts:
        for name in detectors:
            own = {field.name for field in fields(detector_class(name))}
            usable: Sequence[str] = backbones if "backbone" in own else (NONE,)
            if is_peer(name):
                usable = (BACKBONE,) if name in PEERS else (NONE,)
            found += [Job(*part, name, backbone, **common) for backbone in usable]
    return found


def measured(job: Job, threads: int, runs: int) -> dict[str, Any]:
    """Fits and scores in two new processes and returns all that was measured, and where.

    Args:
        job: the row.
        threads: threads of fit and scoring.
        runs: timed calls of the latency.

    Raises:
        subprocess.CalledProcessError: one of them failed; its traceback is on standard error.
    """
    with TemporaryDirectory() as folder:
        arguments = job._replace(model=str(Path(folder) / "model.safetensors"))._asdict()
        costs = run_isolated("benchmarks.running.work:fit", arguments, threads)
        scored = run_isolated("benchmarks.running.work:score", {**arguments, "runs": runs}, threads)
    return {**costs, **scored, **facts()}


def fit(**job: Any) -> dict[str, float]:
    """Fits a detector in this process and writes it to a file; returns what it cost."""
    import cv2  # noqa: F401 - imports are no part of the fit
    import timm  # noqa: F401

    wanted = Job(**job)
    cls = detector_class(wanted.detector)
    if is_peer(wanted.detector):
        from anomaly.detectors.anomalib_bridge.detector import load_engine

        load_engine(wanted.detector)
    protocol = wanted.protocol(None)
    images = replace(protocol.images, train=wanted.split(protocol)[0])
    detector = build(cls, {**wanted.settings(images.input.size), "input": asdict(images.input)})
    meter = Meter()
    scorer = detector.fit(images.frames()).eval()
    figures = {key: value for key, value in meter.figures().items() if key in COSTS}
    if torch.cuda.is_available():
        figures["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    _write(scorer, Path(wanted.model))
    return {**figures, "file_mib": Path(wanted.model).stat().st_size / 2**20}


def score(runs: int, **job: Any) -> dict[str, Any]:
    """Scores the test images with the fitted model in this process; returns quality, kept promises and latency."""
    wanted = Job(**job)
    scorer = _read(Path(wanted.model))
    with TemporaryDirectory() as folder:
        protocol = wanted.protocol(Path(folder))
        outcome = judge(protocol.images, {wanted.detector: scorer.score_canvas})
    held = wanted.split(protocol)[1]
    meter = Meter()
    found = figures(protocol, outcome, wanted.detector)
    if held:
        found |= _promises(protocol, outcome.scores[wanted.detector], held, scorer)
    return {**found, **_latency(scorer, protocol, runs), "scoring_peak_mib": meter.figures()["peak_mib"]}


def figures(protocol: Protocol, outcome: Outcome, name: str) -> dict[str, Any]:
    """Returns the quality of one scorer, by the protocol of the set: columns of `QUALITY`."""
    found: dict[str, Any] = {k: v for k, v in outcome.figures(name).items() if k in QUALITY}
    scores, labels = np.array(outcome.scores[name]), np.array(outcome.labels)
    found |= dict(zip(INTERVAL, bootstrap_interval(auroc, scores, labels, seed=0), strict=True))
    found["image_fpr_at_95_recall"] = fpr_at_recall(scores, labels, 0.95)
    if protocol.strata:
        found["image_auroc_strata"] = within_strata(outcome.scores[name], outcome.labels, _strata(protocol))
    if protocol.boxes:
        pairs = [(m, mask) for m, mask in zip(outcome.maps[name], outcome.masks, strict=True) if _any(mask)]
        found |= dict(zip(BOXES, box_hits([m for m, _ in pairs], [mask for _, mask in pairs]), strict=True))
    return found


def shortcuts(protocol: Protocol) -> dict[str, dict[str, float | None]]:
    """Returns what each single global number reaches, whichever side is higher."""
    outcome = judge(protocol.images, {})
    labels = np.array(outcome.labels)
    found: dict[str, dict[str, float | None]] = {}
    for name, given in outcome.shortcuts.items():
        values = np.array(given)
        if auroc(values, labels) < 0.5:
            values = -values
        ends = bootstrap_interval(auroc, values, labels, seed=0)
        row: dict[str, float | None] = {"image_auroc": auroc(values, labels), **dict(zip(INTERVAL, ends, strict=True))}
        if protocol.strata:
            row["image_auroc_strata"] = _either(within_strata(given, outcome.labels, _strata(protocol)))
        found[SHORTCUT + name] = row
    return found


@torch.inference_mode()
def _promises(protocol: Protocol, scores: Sequence[float], held: Sequence[Path], scorer: Scorer) -> dict[str, Any]:
    images = replace(protocol.images, train=list(held))
    held_scores = [
        value for batch in images.frames() for value in scorer.score_canvas(images.input.canvas(batch)).score.tolist()
    ]
    normals = [(sample.path, value) for sample, value in zip(images.test, scores, strict=True) if sample.label == 0]
    known = [protocol.groups.get(path, "") for path in (*held, *(path for path, _ in normals))]
    if not all(known):
        return coverage(held_scores, [value for _, value in normals])
    return coverage(held_scores, [value for _, value in normals], known[: len(held)], known[len(held) :])


def _latency(scorer: Scorer, protocol: Protocol, runs: int) -> dict[str, float]:
    images = protocol.images
    paths = (images.train * MANY)[:MANY]
    frames = next(iter(ImageLoader(paths, images.input, MANY))).images
    first, all_frames = images.input.canvas(frames[:1]), images.input.canvas(frames)
    threads = torch.get_num_threads()
    one = times_in_turns({"one": Call(partial(scorer.score_canvas, first), threads)}, runs)["one"]
    many = times_in_turns({"many": Call(partial(scorer.score_canvas, all_frames), threads)}, max(1, runs // 5), warm=1)
    p50, p95, p99 = (float(value) for value in np.quantile(one, (0.5, 0.95, 0.99)))
    found = dict(zip(LATENCY, (p50, p95, p99, 1000 * MANY / float(np.median(many["many"]))), strict=True))
    return found | {"load": os.getloadavg()[0]}


def _write(scorer: Scorer, path: Path) -> None:
    from safetensors.torch import save_file

    described = {"settings": asdict(scorer.detector), "description": scorer.description()}
    metadata = {"detector": scorer.detector.name, **{key: json.dumps(value) for key, value in described.items()}}
    save_file({name: tensor.contiguous().clone() for name, tensor in scorer.state_dict().items()}, path, metadata)


def _read(path: Path) -> Scorer:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    detector = build(detector_class(metadata["detector"]), json.loads(metadata["settings"]))
    scorer: Scorer = detector.restore(state, json.loads(metadata["description"])).eval()
    return scorer


def _strata(protocol: Protocol) -> list[str]:
    return [protocol.strata[sample.path] for sample in protocol.images.test]


def _any(mask: np.ndarray | None) -> bool:
    return mask is not None and bool(mask.any())


def _either(value: float | None) -> float | None:
    return None if value is None else max(value, 1 - value)
