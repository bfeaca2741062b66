"""What each backbone is worth for anomaly detection, and what it costs on a CPU: one table.

Every backbone with its default layers, every detector with its default settings, one canvas per set, the full
train/good and test folders: nothing is chosen on test data. Each cell is an ordinary fit and an ordinary scoring of the
test images, so a row measures what a user gets. Latency is that of the backbone alone at batch 1 and 256 x 256 pixels,
all backbones, runtimes and thread counts in turns. ONNX Runtime runs the graph that torch.onnx.export gives, with its
threads told not to spin between calls, which would disturb whoever comes next.

Rows that are in the result files already are not measured again (changed weights are new rows): give a new --out after
a change of the code.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anomaly.backbones import Backbone, BackboneSpec, load_backbone
from anomaly.catalog import DETECTORS, detector_class
from anomaly.detectors.embedding import EmbeddingDetector
from anomaly.errors import UnknownNameError
from anomaly.progress import Progress, bars, silent
from benchmarks.commands import names, new_parser, run
from benchmarks.environment import FACTS, facts, shared_file
from benchmarks.image_sets import SIZES, judge, open_set
from benchmarks.latency import Call, take_turns
from benchmarks.tables import ResultFile, markdown, number

BACKBONES = {
    "bundled": None,
    "resnet18": "resnet18_layers1to3_bnfolded",
    "mobilenetv2_100": "mobilenetv2_100_onnxzoo_headless",
    "vit_tiny_patch16_224": "vit_tiny_patch16_224_tinyimagenet200",
    "resnetv2_50_stages": "resnetv2_50_gluon_stages1to3",
}
"""Backbone -> file of shared weights; None for those of the package. The last is the teacher of the first."""

SHORTCUTS = ("mean grey", "mean gradient", "file size", "image width")
METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3", "aupro_0.05")
KEY = ("backbone", "weights", "dataset", "train", "test", "detector")
VALUES = (*METRICS, *SHORTCUTS, "threads", *FACTS)
LATENCY_KEY = ("backbone", "weights", "size", "runs")
RUNTIMES = ("eager", "onnxruntime")
LATENCIES = tuple(f"{runtime}_{threads}_ms" for runtime in RUNTIMES for threads in (1, 2))
LATENCY_SIZE = 256
BETTER = "better of both means"

EXAMPLES = """\
  python -m benchmarks.backbones --out results/backbones
  python -m benchmarks.backbones --backbones bundled,resnet18 --sets magnetic_tile --limit 20 --runs 3    a quick try
  python -m benchmarks.backbones --sets "" --out results/backbones                                  latency only"""

NOTES = """\
- I, P: image and pixel AUROC, PRO: AUPRO at 0.3; on raw scores. Fit on train/good in random order (seed 0), stretched
  to one canvas per set; default settings for all sets and backbones.
- better of both means: the higher of the two detectors' means, each over all sets; never chosen set by set.
- Latency of the backbone alone, batch 1, 256 x 256 px, median; the number is that of the threads."""


class Named(NamedTuple):
    """A backbone of the table.

    Attributes:
        name: name in `BACKBONES`.
        spec: where its weights come from.
        weights: short hash of them.
    """

    name: str
    spec: BackboneSpec
    weights: str

    @classmethod
    def of(cls, name: str) -> "Named":
        """Finds the weights of a backbone.

        Raises:
            UnknownNameError: no such backbone.
            DatasetError: there are no shared data.
        """
        if name not in BACKBONES:
            raise UnknownNameError.among("backbone of the benchmark", name, BACKBONES)
        file = BACKBONES[name]
        spec = BackboneSpec(name=name, weights=str(shared_file(f"weights/{file}.safetensors")) if file else None)
        return cls(name, spec, load_backbone(spec).provenance.sha256[:12])


def quality(
    file: ResultFile,
    backbones: Sequence[Named],
    sets: Sequence[str],
    detectors: Sequence[str],
    limit: int | None,
    progress: Progress = silent,
) -> list[dict[str, str]]:
    """Measures whatever the result file lacks; returns the rows of all that is asked for.

    Args:
        file: receives the rows.
        backbones: the backbones.
        sets: names or folders of data sets.
        detectors: names of detectors.
        limit: training images and test images at most; None for all.
        progress: is told what is being done.
    """
    rows = []
    advance = progress("fits", len(sets) * len(backbones) * len(detectors))
    for name in sets:
        images = open_set(name, train=limit, test=limit)
        for backbone in backbones:
            key = {"backbone": backbone.name, "weights": backbone.weights, "dataset": images.name}
            key |= {"train": str(len(images.train)), "test": str(len(images.test))}
            for detector in detectors:
                row = file.find({**key, "detector": detector})
                if row is None:
                    cls: type[Any] = detector_class(detector)
                    settings: EmbeddingDetector = cls(input=images.input, backbone=backbone.spec)
                    outcome = judge(images, {detector: settings.fit(images.frames()).eval().score_canvas})
                    found = outcome.figures(detector) | outcome.shortcut_aurocs()
                    threads = {"threads": torch.get_num_threads()}
                    row = file.add({**key, "detector": detector, **found, **threads, **facts()})
                rows.append(row)
                advance(1)
    return rows


def latencies(file: ResultFile, backbones: Sequence[Named], runs: int) -> list[dict[str, str]]:
    """Times all backbones together, unless the result file has every one of them; returns their rows."""
    keys = [{"backbone": b.name, "weights": b.weights, "size": LATENCY_SIZE, "runs": runs} for b in backbones]
    rows = [file.find(key) for key in keys]
    if any(row is None for row in rows):
        calls: dict[str, Call] = {}
        differences = {}
        image = torch.rand(1, 3, LATENCY_SIZE, LATENCY_SIZE, generator=torch.Generator().manual_seed(0))
        for backbone in backbones:
            network = load_backbone(backbone.spec).eval()
            own, differences[backbone.name] = _calls(network, image)
            calls |= {f"{backbone.name} {variant}": call for variant, call in own.items()}
        timed = take_turns(calls, runs)
        for key in keys:
            medians = {variant: timed[f"{key['backbone']} {variant}"].median for variant in LATENCIES}
            file.add({**key, **medians, "onnx_difference": differences[str(key["backbone"])], **facts()})
        rows = [file.find(key) for key in keys]
    return [row for row in rows if row is not None]


def _calls(network: Backbone, image: Tensor) -> tuple[dict[str, Call], float]:
    """Returns the calls that are timed, and the largest relative difference of the exported maps."""
    import onnxruntime

    calls = {f"eager_{threads}_ms": Call(partial(network, image), threads) for threads in (1, 2)}
    feed = {"image": image.numpy()}
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "backbone.onnx")
        torch.onnx.export(
            network, (image,), path, input_names=["image"], dynamo=True, external_data=False, verbose=False
        )
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            calls[f"onnxruntime_{threads}_ms"] = Call(partial(session.run, None, feed), 1)
    with torch.inference_mode():
        pairs = zip(session.run(None, feed), network(image), strict=True)
        return calls, max(float((torch.from_numpy(a) - b).abs().max() / b.abs().max()) for a, b in pairs)


def table(rows: Sequence[Mapping[str, str]], timed: Sequence[Mapping[str, str]]) -> str:
    """Returns backbone x detector against sets, means and latencies; the means of both detectors' better one below."""
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    columns = [
        (name, metric)
        for name in sets
        for metric in ("image_auroc", "pixel_auroc", "aupro_0.3")
        if _has(rows, name, metric)
    ]
    short = {"image_auroc": "I", "pixel_auroc": "P", "aupro_0.3": "PRO"}
    header = ["backbone", "detector", *(f"{name} {short[metric]}" for name, metric in columns), "mean I", "mean P"]
    lines: list[list[str]] = []
    for backbone in dict.fromkeys(row["backbone"] for row in [*rows, *timed]):
        ms = [number(row[c], 1) for row in timed if row["backbone"] == backbone for c in LATENCIES] or ["-"] * len(
            LATENCIES
        )
        means = []
        own = [row for row in rows if row["backbone"] == backbone]
        for detector in dict.fromkeys(row["detector"] for row in own):
            cells = {row["dataset"]: row for row in own if row["detector"] == detector}
            means.append([mean(cells.values(), metric) for metric in ("image_auroc", "pixel_auroc")])
            values = [cells[name][metric] if name in cells else "" for name, metric in columns]
            lines.append([backbone, detector, *(number(v, 3) for v in [*values, *means[-1]]), *ms])
        best = [max((value for m in means if (value := m[i]) is not None), default=None) for i in (0, 1)]
        lines.append([backbone, BETTER, *[""] * len(columns), *(number(value, 3) for value in best), *ms])
    return markdown([*header, *(variant.replace("_", " ") for variant in LATENCIES)], lines, texts=2)


def mean(rows: Any, metric: str) -> float | None:
    """Returns the mean of a metric over the sets that have it; None where none has."""
    values = [float(row[metric]) for row in rows if row[metric]]
    return sum(values) / len(values) if values else None


def shortcut_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns per set what a single global number reaches: a score that does not clearly beat it proves nothing."""
    sets = {row["dataset"]: row for row in rows}
    shown = [
        [f"{name}, {row['train']} train, {row['test']} test", *(number(row[s], 3) for s in SHORTCUTS)]
        for name, row in sets.items()
    ]
    return markdown(["image AUROC of one global number", *SHORTCUTS], shown)


def _has(rows: Sequence[Mapping[str, str]], name: str, metric: str) -> bool:
    return any(row["dataset"] == name and row[metric] for row in rows)


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.backbones", __doc__, EXAMPLES, "folder for backbones.csv and latency.csv")
    parser.add_argument("--backbones", default=",".join(BACKBONES), help="(%(default)s)")
    parser.add_argument("--sets", default=",".join(SIZES), help="names or folders (%(default)s)")
    parser.add_argument("--detectors", default="subspace,memory_bank", help=f"of {', '.join(DETECTORS)} (%(default)s)")
    parser.add_argument("--limit", type=int, help="training images and test images at most; all by default")
    parser.add_argument("--runs", type=int, default=50, help="timed calls per latency (%(default)s); 0 for none")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the fits and scorings")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out: Path | None = options.out
    file = ResultFile(out / "backbones.csv" if out else None, KEY, VALUES)
    latency = ResultFile(out / "latency.csv" if out else None, LATENCY_KEY, (*LATENCIES, "onnx_difference", *FACTS))
    backbones = [Named.of(name) for name in names(options.backbones)]
    with bars() as progress:
        rows = quality(file, backbones, names(options.sets), names(options.detectors), options.limit, progress)
    timed = latencies(latency, backbones, options.runs) if options.runs else []
    print("\n".join([" | ".join(facts().values()), "", table(rows, timed), "", shortcut_table(rows), "", NOTES]))


if __name__ == "__main__":
    run(main)
