"""Which image models of anomalib run through the bridge on this machine, without a network: one row per model.

Every model is fitted on 12 generated images for one pass, with random weights of a small backbone where it needs any,
then scored, saved to a model file, loaded and scored again. Nothing is said about how good it is: that is what
`benchmarks.detectors` measures. Rows that are in the result file already are not measured again.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomaly.catalog import build, detector_class
from anomaly.detector import Scorer
from anomaly.detectors.anomalib_bridge.models import MODELS
from anomaly.errors import AnomalyError
from anomaly.input_spec import InputSpec
from anomaly.progress import Progress, bars, silent
from anomaly.testing import ABSOLUTE, RELATIVE, sample_images, with_square
from benchmarks.commands import names, new_parser, run
from benchmarks.environment import FACTS, facts
from benchmarks.tables import ResultFile, markdown

IMAGES = 12
KEY = ("model",)
VALUES = (
    "outcome",
    "canvas",
    "weights",
    "fit_wall_s",
    "restored",
    "alone",
    "gradient",
    "map",
    "note",
    *FACTS,
)

EXAMPLES = """\
  python -m benchmarks.anomalib_models --out results/anomalib_models
  python -m benchmarks.anomalib_models --models Patchcore,Padim"""

NOTES = """\
- restored: a model file gives the same scores and maps; alone: an image scores the same alone as in a batch; gradient:
  gradients of the score reach the image; map: it has a map of its own.
- weights: the network whose random weights stood in for the pretrained ones that anomalib would download."""


class Case(NamedTuple):
    """How a model is tried.

    Attributes:
        arguments: arguments of the model; small networks.
        weights: "timm:NAME", "torchvision:NAME" or "own"; empty where it needs none.
        size: side of the canvas in pixels.
    """

    arguments: Mapping[str, Any]
    weights: str = ""
    size: int = 64


_R18: dict[str, Any] = {"backbone": "resnet18"}
_TIMM = "timm:resnet18"
_DINO, _DINO3 = "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"

CASES = {
    "AnomalyDINO": Case({"encoder_name": _DINO}, f"timm:{_DINO}", 112),
    "Cfa": Case(_R18, "torchvision:resnet18"),
    "Cflow": Case({**_R18, "layers": ["layer2", "layer3"]}, _TIMM),
    "Csflow": Case({"cross_conv_hidden_channels": 64}, "torchvision:efficientnet_b5", 256),
    "Dfkde": Case({**_R18, "n_pca_components": 4}, _TIMM),
    "Dfm": Case(_R18, _TIMM),
    "Dinomaly": Case({"encoder_name": _DINO}, f"timm:{_DINO}", 112),
    "Draem": Case({"dtd_dir": "FOLDER"}),
    "Dsr": Case({}, "own"),
    "EfficientAd": Case({"imagenet_dir": "FOLDER"}, "own", 256),
    "Fastflow": Case({**_R18, "flow_steps": 2}, _TIMM),
    "FoundAD": Case({"encoder_name": "dinov2_vit_small_14"}, f"timm:{_DINO}.lvd142m", 112),
    "Fre": Case({**_R18, "input_dim": 1024}, _TIMM),
    "Ganomaly": Case({}),
    "GeneralAD": Case({"backbone": _DINO, "layers": [12], "hidden_dim": 256}, f"timm:{_DINO}", 112),
    "Glass": Case({**_R18, "pretrain_embed_dim": 256, "target_embed_dim": 256}, _TIMM, 128),
    "InpFormer": Case({"encoder_name": "vit_small_patch14_reg4_dinov2"}, "timm:vit_small_patch14_reg4_dinov2", 112),
    "L2BT": Case({}, "timm:vit_base_patch8_224.dino", 64),
    "MHPatchcore": Case({**_R18, "memory_bank_size": 50, "local_coreset_size": 10}, _TIMM),
    "Padim": Case(_R18, _TIMM),
    "Patchcore": Case(_R18, _TIMM),
    "Patchflow": Case(_R18, _TIMM, 128),
    "Rad": Case({"backbone": _DINO3, "layers": [3, 6, 9], "k_image": 4}, f"timm:{_DINO3}", 112),
    "ReverseDistillation": Case(_R18, _TIMM),
    "Stfpm": Case(_R18, _TIMM),
    "SuperADD": Case({"backbone": _DINO3, "patch_size": 64, "layers": [3, 6]}, f"timm:{_DINO3}", 128),
    "Supersimplenet": Case(_R18, _TIMM, 128),
    "Uflow": Case({**_R18, "flow_steps": 1}, _TIMM, 128),
    "UniNet": Case({}, "torchvision:wide_resnet50_2"),
}


def try_model(name: str, folder: Path) -> dict[str, Any]:
    """Fits, scores, stores and restores one model; returns its row.

    Args:
        name: class in `anomalib.models`.
        folder: an empty folder.
    """
    if MODELS[name].refused:
        return {"outcome": "refused", "note": MODELS[name].refused}
    case = CASES[name]
    spec = InputSpec(size=(case.size, case.size), resize="stretch")
    arguments = {k: str(_pictures(folder)) if v == "FOLDER" else v for k, v in case.arguments.items()}
    row: dict[str, Any] = {"canvas": case.size, "weights": case.weights}
    try:
        weights = _random_weights(name, case, spec, folder)
        settings = {"input": spec, "arguments": arguments, "weights": weights, "epochs": 1, "batch_size": 6}
        detector = build(detector_class(f"anomalib:{name}"), settings)
        began = time.perf_counter()
        scorer = detector.fit([sample_images(spec, IMAGES, seed=1)])
        row["fit_wall_s"] = time.perf_counter() - began
        return {"outcome": "runs", **row, **_properties(scorer)}
    except AnomalyError as error:
        return {"outcome": "fails", **row, "note": " ".join(str(error).split())}


def _properties(scorer: Scorer) -> dict[str, Any]:
    spec = scorer.input
    images = sample_images(spec, 3, seed=2)
    images[0] = with_square(images[0], spec)
    with torch.inference_mode():
        scores = scorer(images)
        alone = torch.cat([scorer(image[None]).score for image in images])
        state = {key: value.clone() for key, value in scorer.state_dict().items()}
        restored = scorer.detector.restore(state, scorer.description())(images)
    return {
        "restored": _yes(torch.equal(restored.score, scores.score) and torch.equal(restored.map, scores.map)),
        "alone": _yes(torch.allclose(alone, scores.score, rtol=RELATIVE, atol=ABSOLUTE)),
        "gradient": _yes(_reached(scorer, images)),
        "map": _yes(bool((scores.map.flatten(1).std(dim=1) > 0).any())),
    }


def _reached(scorer: Scorer, images: Tensor) -> bool:
    leaf = images.to(torch.float32).requires_grad_()
    try:
        scorer(leaf).score.sum().backward()
    except RuntimeError:
        return False
    return leaf.grad is not None and bool(leaf.grad.abs().sum() > 0)


def _random_weights(name: str, case: Case, spec: InputSpec, folder: Path) -> str | None:
    from safetensors.torch import save_file

    kind, _, network = case.weights.partition(":")
    torch.manual_seed(0)
    if not kind:
        return None
    if kind == "own":
        from anomaly.detectors.anomalib_bridge.detector import load_engine

        engine = load_engine(name)
        part = {"EfficientAd": "teacher", "Dsr": "discrete_latent_model"}[name]
        arguments = {k: str(_pictures(folder)) for k, v in case.arguments.items() if v == "FOLDER"}
        tensors = getattr(engine.build(name, arguments, spec.size, None).module.model, part).state_dict()
    else:
        import timm
        import torchvision

        create = timm.create_model if kind == "timm" else torchvision.models.get_model
        tensors = create(network).state_dict()
    path = folder / "weights.safetensors"
    save_file({key: value.clone() for key, value in tensors.items()}, path)
    return str(path)


def _pictures(folder: Path) -> Path:
    """Returns a folder of generated pictures with one class below, as models want that need any pictures at all."""
    import cv2

    below = folder / "pictures" / "any"
    if not below.is_dir():
        below.mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (128, 128, 3), dtype=np.uint8)
            cv2.imwrite(str(below / f"{i}.jpg"), pixels)
    return below.parent


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def measure(file: ResultFile, models: Sequence[str], progress: Progress = silent) -> list[dict[str, str]]:
    """Tries whatever the result file lacks; returns the rows of all that is asked for."""
    rows = []
    advance = progress("models", len(models))
    for name in models:
        row = file.find({"model": name})
        if row is None:
            with TemporaryDirectory(prefix="anomaly-") as folder:
                row = file.add({"model": name, **try_model(name, Path(folder)), **facts()})
        rows.append(row)
        advance(1)
    return rows


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the rows for people."""
    header = ["model", "outcome", "weights", "restored", "alone", "gradient", "map", "why not"]
    columns = ("model", "outcome", "weights", "restored", "alone", "gradient", "map", "note")
    return markdown(header, [[row[column] for column in columns] for row in rows], texts=len(header))


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.anomalib_models", __doc__, EXAMPLES, "folder for anomalib_models.csv")
    parser.add_argument("--models", default=",".join(MODELS), help="(%(default)s)")
    options = parser.parse_args()
    file = ResultFile(options.out / "anomalib_models.csv" if options.out else None, KEY, VALUES)
    with bars() as progress:
        rows = measure(file, names(options.models), progress)
    ran = sum(row["outcome"] == "runs" for row in rows)
    print("\n".join([" | ".join(facts().values()), f"{ran} of {len(rows)} run", "", table(rows), "", NOTES]))


if __name__ == "__main__":
    run(main)
