"""Our detectors beside anomalib's Patchcore: fit cost, memory, latency and quality on the same weights and images.

What is shared: the training files and their order, decoding, the antialiased resize to the canvas (stretched), the
normalisation, the ResNet-18 weights and layers (the feature maps of both programs are compared before anything is
timed), the number of patches in the bank, and the metrics, on raw scores.

Each fit runs in a process of its own, so that its peak memory is its own; reading the files is part of all of them.
The fitted models are then brought into one process, which scores the test images with all of them canvas by canvas and
times them in turns at batch 1, from the canvas (values in [0, 1]) to score and map.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from anomaly.backbones import Backbone, BackboneSpec, load_backbone
from anomaly.catalog import build, detector_class
from anomaly.detector import Scores
from anomaly.detectors.embedding import EmbeddingDetector, EmbeddingScorer, feature_maps, finest, top_mean
from anomaly.detectors.levels import Batch
from anomaly.errors import DatasetError
from anomaly.input_spec import Canvas, Images
from anomaly.metrics import auroc
from benchmarks.anomalib_patchcore import LAYERS, Peer
from benchmarks.commands import new_parser, run
from benchmarks.environment import FACTS, facts, shared_file
from benchmarks.image_sets import SIZES, ImageSet, Outcome, judge, open_set
from benchmarks.isolated import FIGURES, Meter, run_isolated
from benchmarks.latency import Call, take_turns
from benchmarks.tables import ResultFile, markdown, number

PEER, BANK, SUBSPACE = "anomalib Patchcore", "memory_bank", "subspace"
TOP = "image_auroc_top"
QUALITY = ("image_auroc", TOP, "pixel_auroc", "pixel_ap", "aupro_0.3")
LATENCY = ("ms_1_thread", "ms_1_thread_p90", "ms_2_threads", "ms_2_threads_p90")
KEY = ("dataset", "train", "test", "ratio", "seed", "threads", "method")
COLUMNS = (*FIGURES, *LATENCY, *QUALITY)
WEIGHTS = "resnet18_layers1to3_bnfolded"

ROWS = {  # what the table shows: column, digits, whether less is better
    "fit, CPU s": ("fit_cpu_s", 1, True),
    "- files and features": ("features_cpu_s", 1, True),
    "- coreset and the rest": ("rest_cpu_s", 1, True),
    "fit, wall s": ("fit_wall_s", 1, True),
    "- files and features, wall s": ("features_wall_s", 1, True),
    "- coreset and the rest, wall s": ("rest_wall_s", 1, True),
    "peak memory, MiB": ("peak_mib", 0, True),
    "- after imports, before the fit": ("imports_mib", 0, True),
    "- added by the fit": ("added_mib", 0, True),
    "batch 1, 1 thread, ms (median)": ("ms_1_thread", 1, True),
    "- 90th percentile": ("ms_1_thread_p90", 1, True),
    "batch 1, 2 threads, ms (median)": ("ms_2_threads", 1, True),
    "- 90th percentile, 2 threads": ("ms_2_threads_p90", 1, True),
    "image AUROC, the method's own score": ("image_auroc", 4, False),
    "image AUROC, mean of the map's top 1 %": (TOP, 4, False),
    "pixel AUROC": ("pixel_auroc", 4, False),
    "pixel AP": ("pixel_ap", 4, False),
    "AUPRO at 0.3": ("aupro_0.3", 4, False),
}

EXAMPLES = """\
  python -m benchmarks.against_anomalib --out results/anomalib
  python -m benchmarks.against_anomalib --ratio 0.1 --images 60 --out results/anomalib
  python -m benchmarks.against_anomalib --images 8 --test 12 --runs 3        a quick try"""

NOTES = """- times, memory: how many times more the peer needs; quality: our figure minus the peer's.
- memory_bank keeps a coreset of as many patches as the peer, projected on 192 principal components and stored in
  float16; subspace keeps a linear map and no patches. Both standardise the scores by position, with defaults
  otherwise. The peer runs with its defaults; its own image score is the reweighted maximum.
- the CPU time and memory of reading the files is part of every fit; importing the programs is not part of the times."""


class Plan(NamedTuple):
    """What a fit needs; JSON-able with `_asdict`.

    Attributes:
        dataset: shared set or folder.
        train: number of training images.
        seed: seed of their choice and of the fit.
        weights: file of ResNet-18 weights.
        ratio: share of the patches that the bank keeps.
        model: file to write the fitted model to.
    """

    dataset: str
    train: int
    seed: int
    weights: str
    ratio: float
    model: str

    def images(self, test: int | None = 0) -> ImageSet:
        """Opens the data set."""
        return open_set(self.dataset, train=self.train, test=test, seed=self.seed)

    def backbone(self) -> BackboneSpec:
        """Returns the backbone that all methods share."""
        return BackboneSpec(name="resnet18", layers=LAYERS, weights=self.weights)


def fit_peer(**plan: Any) -> dict[str, float]:
    """Fits the peer in this process; returns what it cost."""
    import anomalib.models.image.patchcore.torch_model  # noqa: F401 - imports are no part of the fit
    import cv2  # noqa: F401

    wanted = Plan(**plan)
    images = wanted.images()
    torch.manual_seed(wanted.seed)
    meter = Meter()
    peer = new_peer(wanted)
    embeddings = (peer.learn(images.input.canvas(frames)) for frames in images.frames())
    for _ in meter.features(embeddings):
        pass
    peer.reduce(wanted.ratio)
    figures = meter.figures()
    _save({"memory_bank": peer.model.memory_bank}, wanted.model, {})
    return figures


def fit_ours(detector: str, settings: dict[str, Any], **plan: Any) -> dict[str, float]:
    """Fits one of our detectors in this process; returns what it cost."""
    import cv2  # noqa: F401 - imports are no part of the fit
    import timm  # noqa: F401

    wanted = Plan(**plan)
    images = wanted.images()
    ours = build(detector_class(detector), {**settings, "input": asdict(images.input), "seed": wanted.seed})
    meter = Meter()
    stream = EmbeddingDetector.stream

    def metered(self: EmbeddingDetector, backbone: Backbone, frames: Iterator[Images]) -> Iterator[Batch]:
        return meter.features(stream(self, backbone, frames))

    with mock.patch.object(EmbeddingDetector, "stream", metered):
        scorer = ours.fit(images.frames())
    figures = meter.figures()
    restored = {"settings": asdict(scorer.detector), "description": scorer.description()}
    _save(scorer.state_dict(), wanted.model, {key: json.dumps(value) for key, value in restored.items()})
    return figures


def new_peer(plan: Plan) -> Peer:
    """Builds the peer on the weights of the plan, normalised as our backbone of the same name is."""
    from anomaly.backbones import describe

    layout = describe("resnet18")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (layout.mean, layout.std))
    return Peer(Path(plan.weights), mean, std)


def _save(tensors: dict[str, Tensor], path: str, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)


def load_ours(detector: str, path: str) -> EmbeddingScorer:
    """Brings a model that `fit_ours` wrote into this process."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    settings = build(detector_class(detector), metadata["settings"])
    scorer: EmbeddingScorer = settings.restore(state, metadata["description"]).eval()
    return scorer


def load_peer(plan: Plan) -> Peer:
    """Brings a model that `fit_peer` wrote into this process."""
    from safetensors.torch import load_file

    peer = new_peer(plan)
    peer.model.memory_bank = load_file(plan.model)["memory_bank"]
    return peer


def compare(plan: Plan, threads: int, test: int | None, runs: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Fits, scores and times all methods.

    Args:
        plan: data and weights; its `model` is not used.
        threads: threads of the fits.
        test: number of test images; None for all.
        runs: timed calls of each method at batch 1.
        folder: where fitted models may be written.

    Returns:
        The figures of each method, and lines about what they mean.
    """
    images = plan.images(test)
    if len(images.train) < plan.train:
        raise DatasetError(f"{images.name} has {len(images.train)} training images; {plan.train} are wanted")
    canvas = _first_canvas(images)
    backbone = load_backbone(plan.backbone())
    difference = new_peer(plan).feature_difference(backbone, canvas)
    rows, columns = finest(feature_maps(backbone, canvas))
    patches = plan.train * rows * columns
    bank = int(patches * plan.ratio)
    settings: dict[str, dict[str, Any]] = {BANK: {"bank_size": bank}, SUBSPACE: {}}
    plans = {name: plan._replace(model=str(folder / f"{name}.safetensors")) for name in (PEER, *settings)}
    this = "benchmarks.against_anomalib"
    found: dict[str, Any] = {PEER: run_isolated(f"{this}:fit_peer", plans[PEER]._asdict(), threads)}
    for name, own in settings.items():
        arguments = {"detector": name, "settings": {**own, "backbone": asdict(plan.backbone())}}
        found[name] = run_isolated(f"{this}:fit_ours", arguments | plans[name]._asdict(), threads)

    peer, ours = load_peer(plans[PEER]), {name: load_ours(name, plans[name].model) for name in settings}
    calls: dict[str, Callable[[Canvas], Scores]] = {PEER: peer, **{name: ours[name].score_canvas for name in ours}}
    outcome = judge(images, calls)
    turns = {f"{name}{t}": Call(partial(call, canvas), t) for t in (1, 2) for name, call in calls.items()}
    timed = take_turns(turns, runs)
    for name in calls:
        spent = (*timed[f"{name}1"], *timed[f"{name}2"])
        found[name] |= _quality(outcome, name) | dict(zip(LATENCY, spent, strict=True))
    kept = len(peer.model.memory_bank), len(ours[BANK].get_buffer("bank"))
    lines = [
        f"{images.name}, canvas {images.input.size[0]} x {images.input.size[1]}; {plan.train} training images drawn "
        f"with seed {plan.seed} from train/good, {len(images.test)} test images ({sum(outcome.labels)} defective)",
        f"bank: {kept[0]} (peer) and {kept[1]} (ours) of {patches} patches, {100 * plan.ratio:g} %; "
        f"{threads} thread(s) for the fits, {runs} timed calls per latency",
        f"largest relative difference of the feature maps of both programs: {difference:.1e}",
        "shortcuts (image AUROC of one global number, no detector): "
        + ", ".join(f"{name} {value:.3f}" for name, value in outcome.shortcut_aurocs().items()),
    ]
    return found, lines


def _first_canvas(images: ImageSet) -> Canvas:
    return images.input.canvas(next(images.frames())[:1])


def _quality(outcome: Outcome, name: str) -> dict[str, float]:
    """Returns the metrics, and the image AUROC that one rule gives on every method's map."""
    highest = top_mean(torch.stack([torch.from_numpy(m) for m in outcome.maps[name]]), 0.01, None)
    return outcome.figures(name) | {TOP: auroc(highest.numpy(), outcome.labels)}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the figures of all methods side by side, with what the peer costs more and scores less."""
    ours = [name for name in found if name != PEER]
    rows = []
    for title, (column, digits, cost) in ROWS.items():
        values = [found[name].get(column) for name in (PEER, *ours)]
        compared = [_compared(values[0], value, cost) for value in values[1:]]
        rows.append([title, *(number(value, digits) for value in values), *compared])
    return markdown(["", PEER, *ours, *(f"peer against {name}" for name in ours)], rows)


def _compared(peer: float | None, ours: float | None, cost: bool) -> str:
    if peer is None or ours is None:
        return "-"
    return f"{peer / ours:.1f} x" if cost else f"{ours - peer:+.4f}"


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.against_anomalib", __doc__, EXAMPLES, "folder for a CSV of the figures")
    parser.add_argument("--dataset", default="magnetic_tile", help=f"{', '.join(SIZES)}, or a folder")
    parser.add_argument("--images", type=int, default=200, help="training images")
    parser.add_argument("--test", type=int, help="test images, evenly spaced; all by default")
    parser.add_argument("--ratio", type=float, default=0.01, help="share of the patches that a bank keeps")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the fits")
    parser.add_argument("--runs", type=int, default=100, help="timed calls per latency")
    parser.add_argument("--weights", type=Path, help="ResNet-18 weights; by default the shared ones")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images and of the fits")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = options.weights or shared_file(f"weights/{WEIGHTS}.safetensors")
    plan = Plan(options.dataset, options.images, options.seed, str(weights), options.ratio, "")
    with TemporaryDirectory() as folder:
        found, lines = compare(plan, options.threads, options.test, options.runs, Path(folder))
    circumstances = facts()
    print("\n".join([*lines, " | ".join(circumstances.values()), "", table(found), "", NOTES]))
    if options.out:
        settings = {"dataset": options.dataset, "test": options.test or "all", **plan._asdict()}
        file = ResultFile(options.out / "against_anomalib.csv", KEY, (*COLUMNS, *FACTS))
        for method, figures in found.items():
            file.add({**settings, "threads": options.threads, "method": method, **figures, **circumstances})


if __name__ == "__main__":
    run(main)
