"""Which explanations deserve trust: every method beside its controls, on sets with known defects.

Each set is learned from normal images alone; then defective images that the detector flags, drawn at random under a
seed, are explained by every method and measured as `anomaly explain` measures them: what the strongest 4 % of a map
takes away when it is replaced by normal content, deletion and insertion, infidelity, randomised weights, sensitivity,
and the known defects with chance taken off (paired minus crossed). Images are reduced to a small canvas first, and
methods that sample take few samples, so that the whole table costs minutes; the settings stand in the result file.

Rows that are in the result file already are not measured again: give a new --out after a change of the code.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from anomaly.catalog import build, detector_class
from anomaly.detector import Scorer
from anomaly.errors import DatasetError, SettingError
from anomaly.evaluation import reduced
from anomaly.images import ImageLoader, Sample, read_mask
from anomaly.progress import Progress, bars, silent
from benchmarks.commands import names, new_parser, run
from benchmarks.detector_sets import open_protocol
from benchmarks.environment import FACTS, facts, shared_file
from benchmarks.image_sets import ImageSet
from benchmarks.running.work import BACKBONE, FILE
from benchmarks.tables import ResultFile, markdown, number
from explain.cam import GradCam, GuidedGradCam
from explain.cells import Blend, Cells
from explain.explanation import Explanation
from explain.faithfulness import Faithfulness, Ground, faithfulness, ground
from explain.gradients import GradientShap, IntegratedGradients
from explain.localisation import lifts
from explain.methods import CONTROLS, TITLES, Method
from explain.native import Edges, Random
from explain.perturbation import KernelShap, Lime, Occlusion
from explain.stability import Stability, randomised, stability
from explain.subject import Subject
from explain.twin import MOST_NORMALS, Normals, Twin, nearest_patches

CANVAS = {"magnetic_tile": (128, 128), "bsdata": (96, 224), "cxr_nih_256": (128, 128)}
"""Height and width to which the images of each set are reduced."""
METHODS: tuple[Method, ...] = (
    GradCam(),
    GuidedGradCam(),
    IntegratedGradients(steps=12),
    Occlusion(window=0.2, overlap=1),
    GradientShap(samples=12),
    KernelShap(cells=5, samples=60),
    Lime(cells=5, samples=60),
)
TYPICAL = 20
"""Normal images beside the learned ones whose median score says what is typical."""
CANDIDATES = 40
"""Defective images that are scored, of which those that are flagged are explained."""
FLAGGED = 0.9
"""Share of the typical normals that a defective image must score above to be explained, as a user would."""
STABLE = 1
"""Images per set and detector on which randomised weights and sensitivity are measured."""
ROUNDS = 1000

KEY = ("dataset", "detector", "method", "images", "train", "seed")
MEANS = ("removed", "removed_by_chance", "deletion_auc", "insertion_auc", "infidelity", "randomised", "sensitivity")
LIFTS = ("pointing", "iou", "energy")
VALUES = (
    "explained", "judged", *MEANS, "removed_low", "removed_high", "deletion_low", "deletion_high",
    *(f"{name}{end}" for name in LIFTS for end in ("", "_crossed", "_lift", "_low", "_high")),
    "seconds", "settings", *FACTS,
)  # fmt: skip

EXAMPLES = """\
  python -m benchmarks.explanations --out results/explanations
  python -m benchmarks.explanations --sets bsdata --detectors subspace --images 3 --train 20    a quick try"""

NOTES = """\
- judged: images whose normal twin is nearer to typical normals than to the image; the figures up to sensitivity are
  means over them. removed: anomaly that goes with the strongest 4 % of the image. Intervals: 95 %, bootstrap over
  images.
- deletion: area under what is left, lower is better; insertion: higher is better; infidelity: 0 perfect, 1 nothing.
- random weights: rank correlation with the map of a model that has forgotten everything; near 1 the map shows the
  image.
- pointing, IoU, energy: paired - crossed, all images; an interval of the lift that holds 0 is no evidence.
- Controls: the detector's own map, the edges of the image, and random values."""


@dataclass
class _Found:
    """What was measured of one method on one set."""

    maps: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    faithful: list[Faithfulness] = field(default_factory=list)
    stable: list[Stability] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """A set that is ready to be explained.

    Attributes:
        images: canvas, training images and the chosen defective images.
        frames: (C, h, w) uint8 frames of defective images in random order, on the canvas.
        masks: (h, w) bool, their defects.
        normals: normal images that replace regions.
        twins: normal twins by number of the frame, made when they are needed.
        typical: further normal frames.
        baselines: (K, C, h, w) normal frames for GradientSHAP.
    """

    images: ImageSet
    frames: list[Tensor]
    masks: list[np.ndarray]
    normals: Normals
    twins: dict[int, Twin]
    typical: list[Tensor]
    baselines: Tensor


def prepare(dataset: str, train: int, seed: int) -> Prepared:
    """Opens a set and draws defective images with masks, at most `CANDIDATES`.

    Args:
        dataset: name in `CANVAS`.
        train: normal images to learn from.
        seed: seed of every draw.

    Raises:
        DatasetError: no such set, or a file cannot be used.
        SettingError: the set has too few normal images.
    """
    with TemporaryDirectory() as folder:
        found = open_protocol(dataset, None, seed, Path(folder)).images
        spec = replace(found.input, size=CANVAS.get(dataset, found.input.size))
        if len(found.train) < train + TYPICAL:
            raise SettingError(f"--train must leave {TYPICAL} of the {len(found.train)} normal images; got {train}")
        known = [sample for sample in found.test if sample.mask is not None]
        order = np.random.default_rng(seed).permutation(len(known))
        everything = replace(found, input=spec)
        frames: list[Tensor] = []
        masks: list[np.ndarray] = []
        chosen: list[Sample] = []
        for index in order:
            if len(frames) == CANDIDATES:
                break
            image = _read(everything, known[index].path)
            mask_file = known[index].mask
            assert mask_file is not None
            mask = reduced(read_mask(mask_file, image.shape[-2], image.shape[-1]), spec.size)
            if mask.any():  # a defect below a pixel of the canvas cannot be pointed at
                chosen.append(known[index])
                frames.append(_on_canvas(everything, image))
                masks.append(mask)
    pool = [_on_canvas(everything, _read(everything, path)) for path in found.train[:MOST_NORMALS]]
    normals = Normals(tuple(path.name for path in found.train[:MOST_NORMALS]), tuple(pool))
    others = found.train[train : train + TYPICAL]
    typical = [_on_canvas(everything, _read(everything, path)) for path in others]
    learned = replace(everything, train=found.train[:train], test=chosen)
    return Prepared(learned, frames, masks, normals, {}, typical, torch.stack(pool[:8]).float())


def explain_all(
    scorer: Scorer, prepared: Prepared, images: int, seed: int, progress: Progress = silent
) -> dict[str, _Found]:
    """Explains flagged images with every method and control; a method that the model refuses has no maps.

    Args:
        scorer: the fitted scorer.
        prepared: the set.
        images: how many, at most.
        seed: seed of methods that draw samples.
        progress: is told what is being done.
    """
    forgotten = randomised(scorer, seed)
    with torch.no_grad():
        typical = torch.cat([scorer(frame[None]).score for frame in prepared.typical])
        scores = torch.cat([scorer(frame[None]).score for frame in prepared.frames])
    flagged = [k for k, score in enumerate(scores) if score > typical.quantile(FLAGGED)][:images]
    found = {method.name: _Found() for method in (*METHODS, *CONTROLS)}
    advance = progress(f"{scorer.detector.name}: explaining", len(flagged))
    for place, index in enumerate(flagged):
        frame = prepared.frames[index]
        if index not in prepared.twins:
            prepared.twins[index] = nearest_patches(frame, prepared.normals, scorer.input.value_range)
        subject = Subject.of(scorer, frame, prepared.twins[index], prepared.baselines, seed + index)
        blend = Blend(subject, Cells.over(subject.size))
        on = ground(blend, float(typical.median()))
        for method in (*METHODS, *CONTROLS):
            row, started = found[method.name], time.perf_counter()
            try:
                explanation = method.explain(subject)
            except SettingError:
                continue
            row.seconds.append(time.perf_counter() - started)
            row.maps.append(explanation.map)
            row.masks.append(prepared.masks[index])
            _measure(row, method, explanation, blend, on, forgotten if place < STABLE else None)
        advance(1)
    return found


def _measure(
    row: _Found, method: Method, explanation: Explanation, blend: Blend, on: Ground, forgotten: Scorer | None
) -> None:
    measured = faithfulness(explanation, blend, on)
    row.faithful += [measured] if measured else []
    if forgotten is not None and not isinstance(method, Edges | Random):
        row.stable.append(stability(method, explanation, blend.subject, forgotten))


def figures(found: _Found, seed: int) -> dict[str, object]:
    """Returns the columns of one method."""
    row: dict[str, object] = {
        "explained": len(found.maps),
        "judged": len(found.faithful),
        "seconds": float(np.mean(found.seconds)),
    }
    for name in MEANS:
        parts = found.stable if name in ("randomised", "sensitivity") else found.faithful
        if parts:
            row[name] = float(np.mean([getattr(part, name) for part in parts]))
    for column, name in (("removed", "removed"), ("deletion", "deletion_auc")):
        if found.faithful:
            values = np.array([getattr(part, name) for part in found.faithful])
            row[f"{column}_low"], row[f"{column}_high"] = _interval(values, seed)
    for name, lift in lifts(found.maps, found.masks, seed, ROUNDS).items():
        row |= {name: lift.paired, f"{name}_crossed": lift.crossed, f"{name}_lift": lift.lift}
        row |= {f"{name}_low": lift.low, f"{name}_high": lift.high}
    return row


def _interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (ROUNDS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def measure(
    file: ResultFile,
    sets: Sequence[str],
    detectors: Sequence[str],
    images: int,
    train: int,
    seed: int,
    progress: Progress = silent,
) -> list[dict[str, str]]:
    """Measures what the result file lacks; returns all rows that are asked for.

    Args:
        file: receives the rows.
        sets: names in `CANVAS`.
        detectors: names in the catalogue.
        images: flagged defective images per set and detector at most.
        train: normal images to learn from.
        seed: seed of every draw.
        progress: is told what is being done.
    """
    rows = []
    methods = [method.name for method in (*METHODS, *CONTROLS)]
    for dataset in sets:
        prepared: Prepared | None = None
        for name in detectors:
            common = {"dataset": dataset, "detector": name, "images": images, "train": train, "seed": seed}
            known = [file.find({**common, "method": method}) for method in methods]
            if all(row is None for row in known):
                prepared = prepared or prepare(dataset, train, seed)
                scorer = _fitted(name, prepared.images, seed)
                for method, found in explain_all(scorer, prepared, images, seed, progress).items():
                    values = figures(found, seed) if found.maps else {}
                    file.add({**common, **values, "method": method, "settings": _settings(method), **facts()})
            rows += [row for row in (file.find({**common, "method": m}) for m in methods) if row and row["seconds"]]
    return rows


def _settings(method: str) -> str:
    own = next(m for m in (*METHODS, *CONTROLS) if m.name == method)
    return " ".join(f"{name}={value}" for name, value in own.__dict__.items() if value != "")


def _fitted(name: str, images: ImageSet, seed: int) -> Scorer:
    cls = detector_class(name)
    weights = str(shared_file(f"weights/{FILE}.safetensors"))
    settings = {"input": asdict(images.input), "seed": seed, "backbone": {"name": BACKBONE, "weights": weights}}
    scorer: Scorer = build(cls, settings).fit(images.frames()).eval()
    return scorer


def _read(images: ImageSet, path: Path) -> Tensor:
    loader = ImageLoader([path], images.input, 1)
    frames = [batch.images[0] for batch in loader]
    if not frames:
        raise DatasetError(f"an image cannot be used: {loader.failures[0]}")
    return frames[0]


def _on_canvas(images: ImageSet, image: Tensor) -> Tensor:
    low, high = images.input.value_range
    pixels = images.input.canvas(image[None]).pixels[0]
    return (low + pixels * (high - low)).round().clamp(low, high).to(image.dtype)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Returns the rows for people."""
    header = [
        "set", "detector", "method", "explained", "judged", "removed 4 % [interval]", "deletion", "insertion",
        "infidelity", "random weights", "sensitivity", "pointing", "IoU", "energy", "energy lift [interval]",
        "s an image",
    ]  # fmt: skip
    lines = []
    for row in rows:
        removed = _with_interval(row, "removed", "removed", 2)
        lift = _with_interval(row, "energy_lift", "energy", 3)
        two = [number(row[name], 2) for name in (*MEANS[2:], *(f"{k}" for k in LIFTS))]
        lines.append(
            [
                row["dataset"],
                row["detector"],
                TITLES[row["method"]],
                row["explained"],
                row["judged"],
                removed,
                *two,
                lift,
                number(row["seconds"], 2),
            ]
        )
    return markdown(header, lines, texts=3)


def _with_interval(row: dict[str, str], value: str, ends: str, digits: int) -> str:
    if not row[value]:
        return "-"
    return f"{number(row[value], digits)} [{number(row[f'{ends}_low'], digits)}, {number(row[f'{ends}_high'], digits)}]"


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.explanations", __doc__, EXAMPLES, "folder for explanations.csv and explanations.md")
    parser.add_argument("--sets", default=",".join(CANVAS), help="names (%(default)s)")
    parser.add_argument("--detectors", default="subspace,memory_bank", help="with a backbone (%(default)s)")
    parser.add_argument(
        "--images", type=int, default=5, help="flagged images per set and detector at most (%(default)s)"
    )
    parser.add_argument("--train", type=int, default=100, help="normal images to learn from (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (%(default)s)")
    options = parser.parse_args()
    out: Path | None = options.out
    file = ResultFile(out / "explanations.csv" if out else None, KEY, VALUES)
    started = time.perf_counter()
    with bars() as progress:
        sets, detectors = names(options.sets), names(options.detectors)
        rows = measure(file, sets, detectors, options.images, options.train, options.seed, progress)
    minutes = (time.perf_counter() - started) / 60
    about = f"{options.images} images, {options.train} normals learned, seed {options.seed}, {minutes:.1f} minutes"
    text = "\n".join([" | ".join([*facts().values(), about]), "", table(rows), "", NOTES])
    print(text)
    if out:
        (out / "explanations.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
