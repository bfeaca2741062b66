"""Every detector of the catalogue beside its peers in anomalib, on industrial and medical sets: one table.

The rows of `anomaly bench run` (see `benchmarks.running.work`) without held-out normals: all training images of a set
are learned from. The last rows of a set are single global numbers of an image that no detector is needed for.

Rows that are in the result file already are not measured again: give a new --out after a change of the code.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomaly.catalog import DETECTORS
from anomaly.errors import AnomalyError
from anomaly.progress import bars
from benchmarks.commands import names, new_parser, run
from benchmarks.detector_sets import SETS
from benchmarks.environment import FACTS, facts
from benchmarks.running.parts import Part
from benchmarks.running.rows import measure
from benchmarks.running.work import BACKBONE, BOXES, PEERS, Job, jobs
from benchmarks.tables import ResultFile, markdown, number

BACKBONES = (BACKBONE, "bundled")
KEY = ("dataset", "detector", "backbone", "train", "test", "seed", "epochs", "threads")
QUALITY = ("image_auroc", "image_auroc_strata", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3", "aupro_0.05")
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
    for job in {job.part: job for job in wanted}.values():
        protocol = job.protocol(None)
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
    common = {"limit": options.limit, "seed": options.seed, "epochs": options.epochs, "held_out": 0.0}
    parts = [Part(name) for name in names(options.sets)]
    wanted = jobs(parts, names(options.detectors), names(options.backbones), **common)
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
