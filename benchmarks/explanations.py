"""Which explanations deserve trust: every method beside its controls, on sets with known defects.

Each set is learned from normal images alone; then defective images that the detector flags, drawn at random under a
seed, are explained by every method and measured with the measures of `anomaly explain`: what the strongest 4 % of a map
takes away when it is replaced by normal content, deletion and insertion, infidelity, randomised weights, sensitivity,
and the known defects with chance taken off: each map with its own mask minus its mean with the masks of all other
defective images that were drawn, scaled to the size of the own one, since large defects are flagged more often than
small ones and a random map covers more of them. One thing differs: normal content is always the mosaic of normal
patches (`twin.nearest_patches`), where the command takes the nearest whole normal image if the mosaic is too strange
(`twin.make_twin`, which came after the first rows). Images are reduced to a small canvas first, and methods that sample
take few samples; the settings stand in the result file.

One row per image and method, on the disk before the next image begins: a run that was broken off goes on, and one with
more --images adds to what is there. Rows that are there are not measured again: give a new --out after a change of the
code.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from explain.faithfulness import faithfulness, ground
from explain.gradients import GradientShap, IntegratedGradients
from explain.localisation import FIGURES, against_mask, lift_of
from explain.methods import CONTROLS, TITLES, Method
from explain.native import Edges, Random
from explain.perturbation import KernelShap, Lime, Occlusion
from explain.stability import randomised, stability
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
CANDIDATES = 60
"""Defective images that are scored, of which those that are flagged are explained."""
FLAGGED = 0.9
"""Share of the typical normals that a defective image must score above to be explained, as a user would."""
STABLE = 3
"""Images per set and detector on which randomised weights and sensitivity are measured."""
ROUNDS = 1000

KEY = ("dataset", "detector", "method", "train", "seed", "image")
FAITHFUL = ("removed", "removed_by_chance", "deletion_auc", "insertion_auc", "infidelity")
STABILITY = ("randomised", "sensitivity")
VALUES = (
    *FAITHFUL, *STABILITY, *(f"{name}{end}" for name in (*FIGURES, "area") for end in ("", "_crossed")),
    "seconds", "settings", *FACTS,
)  # fmt: skip
FILE_NAME = "explanations.csv"

EXAMPLES = """\
  python -m benchmarks.explanations --out results/explanations
  python -m benchmarks.explanations --sets bsdata --detectors subspace --images 3 --train 20    a quick try
  python -m benchmarks.explanations --images 0 --out benchmarks/results    the table of what is there"""

NOTES = """\
- explained: flagged images that the method explained. judged: those whose normal twin is nearer to typical normals than
  to the image; the figures from removed to infidelity are means over them. removed: anomaly that goes with the
  strongest 4 % of the image. Intervals: 95 %, bootstrap over images.
- deletion: area under what is left, lower is better; insertion: higher is better; infidelity: 0 perfect, 1 nothing.
- random weights: rank correlation with the map of a model that has forgotten everything; near 1 the map shows the
  image. It and the sensitivity are means over at most STABLE images.
- pointing, IoU, energy: with the own mask, all explained images; the lift of the energy is that minus its mean with the
  masks of the other defective images, scaled to the size of the own one; an interval that holds 0 is no evidence.
- Controls: the detector's own map, the edges of the image, and random values.""".replace("STABLE", str(STABLE))


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


def flagged(scorer: Scorer, prepared: Prepared) -> tuple[list[int], float]:
    """Returns the numbers of the frames that are flagged, in their random order, and the median of typical scores."""
    with torch.no_grad():
        typical = torch.cat([scorer(frame[None]).score for frame in prepared.typical])
        scores = torch.cat([scorer(frame[None]).score for frame in prepared.frames])
    return [k for k, score in enumerate(scores) if score > typical.quantile(FLAGGED)], float(typical.median())


def explain_one(
    scorer: Scorer, prepared: Prepared, index: int, typical: float, seed: int, forgotten: Scorer | None
) -> dict[str, dict[str, object]]:
    """Explains one image with every method and control; a method that the model refuses has no figures.

    Args:
        scorer: the fitted scorer.
        prepared: the set.
        index: number of the frame.
        typical: median score of typical normals.
        seed: seed of methods that draw samples.
        forgotten: copy of the scorer with random weights; None leaves stability out.

    Returns:
        Method -> its columns of `VALUES` but for the facts.
    """
    frame = prepared.frames[index]
    if index not in prepared.twins:
        prepared.twins[index] = nearest_patches(frame, prepared.normals, scorer.input.value_range)
    subject = Subject.of(scorer, frame, prepared.twins[index], prepared.baselines, seed + index)
    blend = Blend(subject, Cells.over(subject.size))
    on = ground(blend, typical)
    found: dict[str, dict[str, object]] = {}
    for method in (*METHODS, *CONTROLS):
        row: dict[str, object] = {"settings": _settings(method)}
        started = time.perf_counter()
        try:
            explanation = method.explain(subject)
        except SettingError:
            found[method.name] = row
            continue
        row["seconds"] = time.perf_counter() - started
        measured = faithfulness(explanation, blend, on)
        row |= {name: getattr(measured, name) for name in FAITHFUL} if measured else {}
        if forgotten is not None and not isinstance(method, Edges | Random):
            stable = stability(method, explanation, subject, forgotten)
            row |= {name: getattr(stable, name) for name in STABILITY}
        found[method.name] = row | against_masks(explanation.map, prepared.masks, index)
    return found


def against_masks(values: np.ndarray, masks: Sequence[np.ndarray], index: int) -> dict[str, object]:
    """Returns each of `FIGURES` and the area of a map's own mask, and their means over all other masks ("_crossed")."""
    found = [against_mask(values, mask) | {"area": float(mask.mean())} for mask in masks]
    others = [one for place, one in enumerate(found) if place != index]
    crossed = {f"{name}_crossed": float(np.mean([one[name] for one in others])) for name in found[index] if others}
    return {**found[index], **crossed}


def measure(
    file: ResultFile,
    sets: Sequence[str],
    detectors: Sequence[str],
    images: int,
    train: int,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Measures what the result file lacks, image by image.

    Args:
        file: receives the rows.
        sets: names in `CANVAS`.
        detectors: names in the catalogue.
        images: flagged defective images per set and detector at most.
        train: normal images to learn from.
        seed: seed of every draw.
        progress: is told what is being done.
    """
    for dataset in sets:
        prepared = prepare(dataset, train, seed)
        for name in detectors:
            common = {"dataset": dataset, "detector": name, "train": train, "seed": seed}
            scorer = _fitted(name, prepared.images, seed)
            forgotten = randomised(scorer, seed)
            chosen, typical = flagged(scorer, prepared)
            advance = progress(f"{dataset}, {name}: explaining", len(chosen[:images]))
            for place, index in enumerate(chosen[:images]):
                if any(file.find({**common, "image": index, "method": m.name}) is None for m in (*METHODS, *CONTROLS)):
                    stable = forgotten if place < STABLE else None
                    rows = explain_one(scorer, prepared, index, typical, seed, stable)
                    for method, row in rows.items():
                        file.add({**common, "image": index, "method": method, **row, **facts()})
                advance(1)


def summary(rows: Sequence[dict[str, str]], seed: int) -> dict[str, object]:
    """Returns the figures of one method over its images: counts, means, and (mean, low, high) with intervals.

    Args:
        rows: of one set, detector and method.
        seed: seed of the bootstrap.
    """
    explained = [row for row in rows if row["seconds"]]
    found: dict[str, object] = {
        "explained": len(explained),
        "judged": sum(bool(row["removed"]) for row in explained),
    }
    for name in (*FAITHFUL, *STABILITY, "seconds", *FIGURES):
        values = [float(row[name]) for row in explained if row[name]]
        found[name] = float(np.mean(values)) if values else None
    removed = np.array([float(row["removed"]) for row in explained if row["removed"]])
    if len(removed):
        found["removed"] = _interval(removed, seed)
    crossed = [row for row in explained if row["energy_crossed"]]
    if crossed:
        columns = ("energy", "energy_crossed", "area", "area_crossed")
        own, others, area, area_of_others = (np.array([float(row[name]) for row in crossed]) for name in columns)
        lift = lift_of(own, others * area / area_of_others, seed, ROUNDS)
        found["energy_lift"] = (lift.lift, lift.low, lift.high)
    return found


def _interval(values: np.ndarray, seed: int) -> tuple[float, float, float]:
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (ROUNDS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def _settings(method: Method) -> str:
    return " ".join(f"{name}={value}" for name, value in method.__dict__.items() if value != "")


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


def table(rows: Sequence[dict[str, str]], seed: int) -> str:
    """Returns the rows for people, one line per set, detector and method, in the order in which they were measured."""
    header = [
        "set", "detector", "method", "explained", "judged", "removed 4 % [interval]", "deletion", "insertion",
        "infidelity", "random weights", "sensitivity", "pointing", "IoU", "energy", "energy lift [interval]",
        "s an image",
    ]  # fmt: skip
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["detector"], row["method"]), []).append(row)
    lines = []
    for (dataset, detector, method), own in groups.items():
        found = summary(own, seed)
        if not found["explained"]:
            continue
        means = [_shown(found[name], 2) for name in (*FAITHFUL[2:], *STABILITY, *FIGURES)]
        first = [dataset, detector, TITLES[method], found["explained"], found["judged"], _shown(found["removed"], 2)]
        lines.append([*first, *means, _shown(found.get("energy_lift"), 3), _shown(found["seconds"], 2)])
    return markdown(header, lines, texts=3)


def _shown(value: object, digits: int) -> str:
    if isinstance(value, tuple):
        mean, low, high = (number(one, digits) for one in value)
        return f"{mean} [{low}, {high}]"
    return number(value, digits)  # type: ignore[arg-type]  # a mean or None


def main() -> None:
    """Runs the command."""
    about = f"folder for {FILE_NAME} and explanations.md"
    parser = new_parser("benchmarks.explanations", __doc__, EXAMPLES, about)
    parser.add_argument("--sets", default=",".join(CANVAS), help="names (%(default)s)")
    parser.add_argument("--detectors", default="subspace,memory_bank", help="with a backbone (%(default)s)")
    parser.add_argument(
        "--images", type=int, default=5, help="flagged images per set and detector at most (%(default)s)"
    )
    parser.add_argument("--train", type=int, default=100, help="normal images to learn from (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (%(default)s)")
    options = parser.parse_args()
    out: Path | None = options.out
    file = ResultFile(out / FILE_NAME if out else None, KEY, VALUES)
    if options.images > 0:
        with bars() as progress:
            sets, detectors = names(options.sets), names(options.detectors)
            measure(file, sets, detectors, options.images, options.train, options.seed, progress)
    wanted = {"train": str(options.train), "seed": str(options.seed)}
    rows = [row for row in file.rows if all(row[name] == value for name, value in wanted.items())]
    described = f"{options.train} normals learned, seed {options.seed}"
    text = "\n".join([" | ".join([*facts().values(), described]), "", table(rows, options.seed), "", NOTES])
    print(text)
    if out:
        (out / "explanations.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
