"""Every detector of the catalogue beside its peers in anomalib, on industrial and medical sets: one table.

Each row is an ordinary fit with default settings on the training images of the set, in random order, stretched to one
canvas, in a process of its own so that its peak memory is its own; then all test images are scored in another one.
Nothing is chosen on test data. Our detectors and anomalib's get the same backbone weights where they take any. Every
image score and map is raw. The last rows of a set are single global numbers of an image that no detector is needed for.

Rows that are in the result file already are not measured again: give a new --out after a change of the code.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from anomaly.catalog import DETECTORS, build, detector_class
from anomaly.detector import Scorer
from anomaly.errors import AnomalyError
from anomaly.metrics import auroc
from anomaly.progress import Progress, bars, silent
from benchmarks.commands import names, new_parser, run
from benchmarks.detector_sets import SETS, Protocol, box_hits, open_protocol, within_strata
from benchmarks.environment import FACTS, facts, shared_file
from benchmarks.image_sets import Outcome, judge
from benchmarks.isolated import Meter, run_isolated
from benchmarks.latency import Call, take_turns
from benchmarks.tables import ResultFile, markdown, number

BACKBONE, FILE = "resnet18", "resnet18_layers1to3_bnfolded"
PEERS: dict[str, dict[str, Any]] = {
    "anomalib:Patchcore": {"arguments": {"backbone": BACKBONE, "coreset_sampling_ratio": 0.01}},
    "anomalib:Padim": {"arguments": {"backbone": BACKBONE}},
    "anomalib:Stfpm": {"arguments": {"backbone": BACKBONE}},
    "anomalib:Supersimplenet": {"arguments": {"backbone": BACKBONE, "layers": ["layer2", "layer3"]}},
}
"""Peers with what differs from anomalib's own settings: the backbone, and 1 % instead of 10 % of Patchcore's patches,
since 10 % take more than an hour of CPU time a set. EfficientAd needs a teacher that must be downloaded; the nearest
that trains without one is Supersimplenet."""
BACKBONES = (BACKBONE, "bundled")
NONE = "-"
SHORTCUT = "shortcut: "
KEY = ("dataset", "detector", "backbone", "train", "test", "seed", "epochs", "threads")
QUALITY = ("image_auroc", "image_auroc_strata", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3", "aupro_0.05")
BOXES = ("box_hits", "box_hits_crossed")
COSTS = ("fit_cpu_s", "fit_wall_s", "imports_mib", "peak_mib", "ms_1_image", "file_mib")
VALUES = (*QUALITY, *BOXES, *COSTS, *FACTS)

COLUMNS = {  # what the table shows: column, digits
    "image AUROC": ("image_auroc", 3),
    "within views": ("image_auroc_strata", 3),
    "image AP": ("image_ap", 3),
    "pixel AUROC": ("pixel_auroc", 3),
    "AUPRO 0.3": ("aupro_0.3", 3),
    "peak in a box": ("box_hits", 2),
    "in another's": ("box_hits_crossed", 2),
    "fit, CPU s": ("fit_cpu_s", 1),
    "ms an image": ("ms_1_image", 1),
    "peak MiB": ("peak_mib", 0),
    "file MiB": ("file_mib", 1),
}

EXAMPLES = """\
  python -m benchmarks.detectors --out results/detectors
  python -m benchmarks.detectors --sets bsdata --detectors subspace,anomalib:Padim --limit 20 --out try    a quick try
  python -m benchmarks.detectors --sets path/to/set --backbones bundled --out results/mine"""

NOTES = """\
- within views: AUROC over pairs of images of one view (AP or PA), where the set has views: the view alone tells much.
- peak in a box: share of the anomalous images in which the highest pixel of the map lies in a box of the image; in
  another's: in the boxes of the other images, what the usual place of the boxes alone is worth. The pixel figures of a
  set with boxes count the whole box as anomalous.
- fit: reading the files included, imports not; peak: of the whole process of the fit; ms: one image from canvas to
  score and map at batch 1, median; file: the fitted model with its backbone.
- anomalib's trained models get as many passes as --epochs says, its others what they ask for."""


class Job(NamedTuple):
    """One row to be measured; JSON-able with `_asdict`.

    Attributes:
        dataset: name in `SETS`, or a folder.
        detector: name in the catalogue.
        backbone: name of the backbone; "-" where the detector has none.
        limit: training and test images at most; None for all.
        seed: seed of the order of the images and of the fit.
        epochs: passes of anomalib's trained models.
        model: file of the fitted model.
    """

    dataset: str
    detector: str
    backbone: str
    limit: int | None
    seed: int
    epochs: int
    model: str = ""

    def protocol(self, folder: Path) -> Protocol:
        """Opens the set; masks made of boxes are written to `folder`."""
        return open_protocol(self.dataset, self.limit, self.seed, folder)

    def settings(self) -> dict[str, Any]:
        """Returns the settings of the detector besides its input."""
        weights = str(shared_file(f"weights/{FILE}.safetensors")) if self.backbone == BACKBONE else None
        given: dict[str, Any] = {"seed": self.seed}
        if self.detector in PEERS:
            return given | PEERS[self.detector] | {"weights": weights, "epochs": self.epochs}
        if self.backbone != NONE:
            given["backbone"] = {"name": self.backbone, "weights": weights}
        return given


def jobs(dataset: str, detectors: Sequence[str], backbones: Sequence[str], **common: Any) -> list[Job]:
    """Returns the rows of a set: our detectors with each backbone that they can have, peers with the shared one."""
    found = []
    for name in detectors:
        own = {field.name for field in fields(detector_class(name))}
        if name in PEERS:
            usable: Sequence[str] = (BACKBONE,)
        else:
            usable = backbones if "backbone" in own else (NONE,)
        found += [Job(dataset, name, backbone, **common) for backbone in usable]
    return found


def fit(**job: Any) -> dict[str, float]:
    """Fits a detector in this process and writes it to a file; returns what it cost."""
    import cv2  # noqa: F401 - imports are no part of the fit
    import timm  # noqa: F401

    wanted = Job(**job)
    cls = detector_class(wanted.detector)
    if wanted.detector in PEERS:
        from anomaly.detectors.anomalib_bridge import engine  # noqa: F401
    with TemporaryDirectory() as folder:
        images = wanted.protocol(Path(folder)).images
    detector = build(cls, {**wanted.settings(), "input": asdict(images.input)})
    meter = Meter()
    scorer = detector.fit(images.frames()).eval()
    figures = {key: value for key, value in meter.figures().items() if key in COSTS}
    _write(scorer, Path(wanted.model))
    return {**figures, "file_mib": Path(wanted.model).stat().st_size / 2**20}


def score(runs: int, **job: Any) -> dict[str, float | None]:
    """Scores the test images with the fitted model in this process; returns quality and latency."""
    wanted = Job(**job)
    scorer = _read(Path(wanted.model))
    with TemporaryDirectory() as folder:
        protocol = wanted.protocol(Path(folder))
        outcome = judge(protocol.images, {wanted.detector: scorer.score_canvas})
        canvas = protocol.images.input.canvas(next(protocol.images.frames())[:1])
    call = Call(partial(scorer.score_canvas, canvas), torch.get_num_threads())
    latency = take_turns({wanted.detector: call}, runs)[wanted.detector]
    return {**figures(protocol, outcome, wanted.detector), "ms_1_image": latency.median}


def figures(protocol: Protocol, outcome: Outcome, name: str) -> dict[str, float | None]:
    """Returns the quality of one scorer, by the protocol of the set."""
    found: dict[str, float | None] = {k: v for k, v in outcome.figures(name).items() if k in QUALITY}
    if protocol.strata:
        found["image_auroc_strata"] = within_strata(outcome.scores[name], outcome.labels, _strata(protocol))
    if protocol.boxes:
        pairs = [(m, mask) for m, mask in zip(outcome.maps[name], outcome.masks, strict=True) if _any(mask)]
        found |= dict(zip(BOXES, box_hits([m for m, _ in pairs], [mask for _, mask in pairs]), strict=True))
    return found


def shortcuts(protocol: Protocol) -> dict[str, dict[str, float | None]]:
    """Returns what each single global number reaches, whichever side is higher."""
    outcome = judge(protocol.images, {})
    found: dict[str, dict[str, float | None]] = {}
    for name, values in outcome.shortcuts.items():
        row: dict[str, float | None] = {"image_auroc": _either(auroc(values, outcome.labels))}
        if protocol.strata:
            row["image_auroc_strata"] = _either(within_strata(values, outcome.labels, _strata(protocol)))
        found[SHORTCUT + name] = row
    return found


def measure(
    file: ResultFile, wanted: Sequence[Job], threads: int, runs: int, progress: Progress = silent
) -> tuple[list[dict[str, str]], list[str]]:
    """Measures whatever the result file lacks, row by row; a row that fails does not stop the others.

    Args:
        file: receives the rows.
        wanted: rows, set by set.
        threads: threads of fits and scorings.
        runs: timed calls per latency.
        progress: is told what is being done.

    Returns:
        The rows of all that is asked for, shortcuts last in each set, and one line per row that failed.
    """
    rows, failed = [], []
    advance = progress("rows", len(wanted))
    for dataset in dict.fromkeys(job.dataset for job in wanted):
        own = [job for job in wanted if job.dataset == dataset]
        with TemporaryDirectory() as folder:
            protocol = own[0].protocol(Path(folder) / "masks")
            common: dict[str, Any] = {"dataset": protocol.images.name, "train": len(protocol.images.train)}
            common |= {"test": len(protocol.images.test), "seed": own[0].seed, "threads": threads}
            for job in own:
                key = {**common, "detector": job.detector, "backbone": job.backbone, "epochs": _epochs(job)}
                row = file.find(key)
                if row is None:
                    try:
                        found = _isolated(job._replace(model=str(Path(folder) / "model.safetensors")), threads, runs)
                        row = file.add({**key, **found, **facts()})
                    except subprocess.CalledProcessError:  # its traceback has been printed
                        failed.append(f"{protocol.images.name}: {job.detector} ({job.backbone}) failed, see above")
                rows += [row] if row else []
                advance(1)
            rows += _shortcut_rows(file, protocol, {**common, "backbone": NONE, "epochs": NONE})
    return rows, failed


def _epochs(job: Job) -> str:
    return str(job.epochs) if job.detector in PEERS else NONE


def _isolated(job: Job, threads: int, runs: int) -> dict[str, Any]:
    arguments = job._asdict()
    costs = run_isolated("benchmarks.detectors:fit", arguments, threads)
    return {**costs, **run_isolated("benchmarks.detectors:score", {**arguments, "runs": runs}, threads)}


def _shortcut_rows(file: ResultFile, protocol: Protocol, common: Mapping[str, Any]) -> list[dict[str, str]]:
    keys = [
        {**common, "detector": SHORTCUT + name} for name in ("mean grey", "mean gradient", "file size", "image width")
    ]
    rows = [file.find(key) for key in keys]
    if any(row is None for row in rows):
        found = shortcuts(protocol)
        rows = [file.add({**key, **found[key["detector"]], **facts()}) for key in keys]
    return [row for row in rows if row is not None]


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


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the rows for people, set by set; columns that no row has are left out."""
    shown = {title: c for title, c in COLUMNS.items() if any(row[c[0]] for row in rows)}
    lines = [
        [row["dataset"], row["detector"], row["backbone"], *(number(row[c], digits) for c, digits in shown.values())]
        for row in rows
    ]
    return markdown(["set", "detector", "backbone", *shown], lines, texts=3)


def split_lines(wanted: Sequence[Job]) -> list[str]:
    """Returns one line per set: how it was split."""
    lines = []
    for job in {job.dataset: job for job in wanted}.values():
        with TemporaryDirectory() as folder:
            protocol = job.protocol(Path(folder))
        images = protocol.images
        anomalous = sum(sample.label for sample in images.test)
        lines.append(
            f"- {images.name}: {len(images.train)} training images (order of seed {job.seed}), "
            f"{len(images.test) - anomalous} normal and {anomalous} anomalous test images, canvas "
            f"{images.input.size[0]} x {images.input.size[1]}; {protocol.split}"
        )
    return lines


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.detectors", __doc__, EXAMPLES, "folder for detectors.csv and detectors.md")
    parser.add_argument("--sets", default=",".join(SETS), help="names or folders (%(default)s)")
    parser.add_argument("--detectors", default=",".join([*DETECTORS, *PEERS]), help="(%(default)s)")
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="of our detectors (%(default)s)")
    parser.add_argument("--limit", type=int, help="training images and test images at most; all by default")
    parser.add_argument("--epochs", type=int, default=20, help="passes of anomalib's trained models (%(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="timed calls per latency (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the images and of the fits")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of fits and scorings")
    options = parser.parse_args()
    out: Path | None = options.out
    file = ResultFile(out / "detectors.csv" if out else None, KEY, VALUES)
    common = {"limit": options.limit, "seed": options.seed, "epochs": options.epochs}
    wanted = [
        job
        for dataset in names(options.sets)
        for job in jobs(dataset, names(options.detectors), names(options.backbones), **common)
    ]
    with bars() as progress:
        rows, failed = measure(file, wanted, options.threads, options.runs, progress)
    text = "\n".join([" | ".join(facts().values()), "", *split_lines(wanted), "", table(rows), "", NOTES])
    print(text)
    if out:
        (out / "detectors.md").write_text(text + "\n", encoding="utf-8")
    if failed:
        raise AnomalyError("; ".join(failed))


if __name__ == "__main__":
    run(main)
