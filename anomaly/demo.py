"""The whole job on generated parts: data set, model, results, report."""

import time
from pathlib import Path

from anomaly.artifact import save
from anomaly.catalog import build, detector_class
from anomaly.errors import DatasetError, ImageFileError
from anomaly.evaluation import evaluate_samples
from anomaly.fitting import Plan, fit_files
from anomaly.images import find_dataset, infer_input
from anomaly.images.synthetic import write_dataset
from anomaly.progress import Progress
from anomaly.report import ResultWriter

SIZE = (256, 256)


def run_demo(out: Path, surface: str, images: int, progress: Progress) -> list[str]:
    """Generates parts, fits, calibrates, scores and reports; returns lines that tell how it went and where to look.

    Args:
        out: folder for everything; an earlier demo in it is reused where the data are the same, otherwise it must be
            empty.
        surface: name in `anomaly.images.synthetic.SURFACES`.
        images: normal images to learn from; as many are scored, half of them good.
        progress: is told what is being done.

    Raises:
        DatasetError: `out` holds something else.
    """
    data, model = out / f"{surface}-{images}", out / f"{surface}-{images}.safetensors"
    if not (data / "manifest.csv").is_file():
        if out.exists() and any(path.suffix != ".safetensors" and not path.is_dir() for path in out.iterdir()):
            raise DatasetError(f"{out} holds other files; name a folder that does not exist yet with --out")
        write_dataset(data, surface, images, images // 2, images - images // 2, SIZE, seed=0, progress=progress)
    dataset = find_dataset(data)
    failures: list[ImageFileError] = []
    started = time.perf_counter()
    detector = build(detector_class("subspace"), {"input": infer_input(dataset.train)})
    artifact = fit_files(detector, dataset.train, Plan(), failures, progress)
    save(model, artifact)
    fitted = time.perf_counter()
    results = out / f"{surface}-{images}-results"
    with ResultWriter(results, title=f"Demo: {surface}", **artifact.report_settings(model.name)) as writer:
        evaluation = evaluate_samples(artifact, dataset.test, writer, failures, progress)
    scored = time.perf_counter()
    return [
        *evaluation.in_words(),
        "",
        f"Learned from {images} normal parts and calibrated in {fitted - started:.1f} s; "
        f"scored, drew and reported {len(dataset.test)} parts in {scored - fitted:.1f} s.",
        f"  data     {data}",
        f"  model    {model}",
        f"  results  {results / 'results.csv'}",
        f"Open {results / 'report.html'} in a browser to see which parts are bad and where.",
    ]
