"""Any image model of anomalib as one of our detectors: fit, score, save and load like every other.

The images are put on the canvas once; anomalib's model is trained on them by Lightning's Trainer with its own
optimiser, and its network is kept. anomalib's pre-processor, post-processor, normalisation, clamping, checkpoints and
metrics take no part: scores and maps are what the network itself says. See docs/anomalib.md for the models that run.

Source: Akcay et al., Anomalib: A Deep Learning Library for Anomaly Detection, ICIP 2022 (arXiv 2202.08341).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import Provenance
from anomaly.backbones.backbone import fingerprint
from anomaly.backbones.loading import read_weights
from anomaly.catalog import build
from anomaly.detector import Detector, Scorer, Scores
from anomaly.detectors.anomalib_bridge.models import MODELS, Needs
from anomaly.detectors.anomalib_bridge.weights import offline
from anomaly.detectors.canvas_store import CanvasStore
from anomaly.errors import ArtifactError, BackboneError, MissingExtraError, SettingError, UnknownNameError
from anomaly.input_spec import Canvas, Images, InputSpec

PREFIX = "anomalib:"
_NETWORK = "network."


@lru_cache(maxsize=len(MODELS))
def detector_class(name: str) -> "type[AnomalibModel]":
    """Returns the detector class of an image model of anomalib; does not import anomalib.

    Args:
        name: class in `anomalib.models`.

    Raises:
        UnknownNameError: no such model; the message lists the valid ones.
        SettingError: the model cannot be a detector here; the message says why.
    """
    if name not in MODELS:
        raise UnknownNameError.among("model of anomalib", name, MODELS)
    if reason := MODELS[name].refused:
        raise SettingError(f"anomalib's {name} cannot be a detector here: {reason}. See docs/anomalib.md")
    return type(name, (AnomalibModel,), {"name": PREFIX + name, "model": name, "__doc__": f"anomalib's {name}."})


@dataclass(frozen=True, kw_only=True)
class AnomalibModel(Detector):
    """A model of anomalib and how to train it. Get the class of a model from `detector_class`.

    Scores keep what the network gives: some of anomalib's end in a sigmoid, so theirs lie in [0, 1]. Its image score is
    taken over the whole canvas, hence `input.resize` must be "stretch": padding would score. Some (Patchcore, Padim)
    switch gradients off within, so their scores are not differentiable; docs/anomalib.md lists which.

    Memory of a fit: what anomalib's model needs, which grows with the number of images for those with a memory bank;
    the images themselves wait on the disk.

    Attributes:
        arguments: keyword arguments of the model's class, e.g. {"backbone": "resnet18"}; JSON values only.
        weights: file of pretrained weights (safetensors, or a .pth of plain tensors). anomalib itself would download
            them, which never happens here.
        epochs: passes over the images, for models that do not set their own number (those with a memory bank do).
        batch_size: images per step, for models that do not set their own number.
    """

    model: ClassVar[str]
    """Class in `anomalib.models`."""

    input: InputSpec = field(default_factory=partial(InputSpec, resize="stretch"))
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    epochs: int = 20
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        try:
            plain = json.loads(json.dumps(self.arguments, allow_nan=False))
        except (TypeError, ValueError):
            raise SettingError.of(self.name, "arguments", "a mapping of JSON values", self.arguments) from None
        object.__setattr__(self, "arguments", plain)  # tuples become lists, as in a model file
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError.of(self.name, name, "1 or more", getattr(self, name))
        if self.input.resize != "stretch":
            allowed = "'stretch' (--resize stretch), since anomalib's models score the padding too"
            raise SettingError.of(self.name, "input.resize", allowed, self.input.resize)
        if self.input.channels not in (1, 3):
            raise SettingError.of(self.name, "input.channels", "1 or 3", self.input.channels)

    @property
    def needs(self) -> Needs:
        """What the model needs besides images."""
        return MODELS[self.model]

    def fit(self, images: Iterable[Images]) -> "AnomalibScorer":
        """Stores the images on disk, then trains anomalib's model on them. See `Detector.fit`.

        Raises:
            MissingExtraError: anomalib is not installed.
            SettingError: the weights or the folder that the model needs are missing, or it refuses an argument.
            BackboneError: the weights do not belong to the model, or it wants to download something.
        """
        engine = load_engine(self.name)
        weights = self._weights()
        self._check_folder()
        with engine.seeded(self.seed), offline(self.name):
            built = engine.build(self.model, self.arguments, self.input.size, weights)
        store = CanvasStore(self.input, images)
        plan = engine.Plan(self.epochs, self.needs.batch_size or self.batch_size, self.needs.held_out, self.seed)
        with engine.seeded(self.seed), offline(self.name):
            network = engine.train(built, store, plan)
        provenance = None
        if weights is not None and self.weights is not None:
            mean, std = (tuple(values.flatten().tolist()) for values in (built.mean, built.std))
            provenance = Provenance(
                source=Path(self.weights).name, licence="not stated", sha256=fingerprint(weights), mean=mean, std=std
            )
        kept = {key: value for key, value in self.arguments.items() if key != self.needs.folder}
        settings = replace(self, weights=None, arguments=kept)
        return AnomalibScorer(settings, network, built.mean, built.std, provenance, version("anomalib"))

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "AnomalibScorer":
        """Builds anomalib's model without weights and loads the stored tensors into it. See `Detector.restore`."""
        engine = load_engine(self.name)
        if set(description) != {"anomalib", "backbone"} and set(description) != {"anomalib"}:
            raise ArtifactError(f"description of {self.name} must hold 'anomalib'; got {sorted(description)}")
        with TemporaryDirectory(prefix="anomaly-") as empty, engine.seeded(self.seed), offline(self.name):
            folder = {self.needs.folder: empty} if self.needs.folder else {}
            built = engine.build(self.model, self.arguments | folder, self.input.size, None)
        stored = description.get("backbone")
        provenance = build(Provenance, stored) if stored else None
        scorer = AnomalibScorer(self, built.module.model, built.mean, built.std, provenance, description["anomalib"])
        _make_room(scorer, state)
        try:
            scorer.load_state_dict(dict(state), strict=True)
        except RuntimeError as error:
            raise ArtifactError(
                f"state of {self.name} does not fit; it was fitted with anomalib {description['anomalib']}, installed "
                f"is {version('anomalib')}: {error}"
            ) from None
        return scorer

    def _weights(self) -> dict[str, Tensor] | None:
        if self.weights is not None:
            if not self.needs.weights:
                raise SettingError.of(self.name, "weights", "left out: it has no pretrained part", self.weights)
            return read_weights(Path(self.weights))
        if self.needs.weights:
            raise BackboneError(
                f"{self.name} needs a file of pretrained weights (--set weights=FILE): {self.needs.weights}. anomalib "
                "would download them; this suite does not"
            )
        return None

    def _check_folder(self) -> None:
        """Models that find no folder of images at the place they are told would download one."""
        name = self.needs.folder
        if name and not (isinstance(path := self.arguments.get(name), str) and Path(path).is_dir()):
            raise SettingError.of(self.name, f"arguments[{name!r}]", "an existing folder of images", path)


class AnomalibScorer(Scorer):
    """The network of a trained model of anomalib."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        detector: AnomalibModel,
        network: nn.Module,
        mean: Tensor,
        std: Tensor,
        provenance: Provenance | None,
        trained_with: str,
    ) -> None:
        """Keeps the network, (1, 3, 1, 1) mean and deviation of its input, and where it comes from."""
        super().__init__(detector)
        self.model = detector.model
        self.network = network.requires_grad_(False)
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = tensor.data.contiguous()  # as a model file holds it: other strides add up in another order
        for part in network.modules():
            if getattr(part, "requires_grad", None) is False:  # anomalib's feature extractors: whether to keep a graph
                vars(part)["requires_grad"] = True
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self._provenance = provenance
        self._trained_with = trained_with
        self.eval()

    def description(self) -> dict[str, Any]:
        """Returns the version of anomalib and the provenance of the weights, where there are any."""
        backbone = {"backbone": asdict(self._provenance)} if self._provenance else {}
        return {"anomalib": self._trained_with, **backbone}

    def score_canvas(self, canvas: Canvas) -> Scores:
        """Returns what the network says, as it comes; models without a map have the score at every pixel."""
        pixels = (canvas.pixels.expand(-1, 3, -1, -1) - self.mean) / self.std
        if not MODELS[self.model].one_by_one:
            return self._scores(pixels)
        alone = [self._scores(image[None]) for image in pixels]
        return Scores(torch.cat([scores.score for scores in alone]), torch.cat([scores.map for scores in alone]))

    def _scores(self, pixels: Tensor) -> Scores:
        found = self.network(pixels)
        n, size = len(pixels), pixels.shape[-2:]
        if found.anomaly_map is None:
            score = found.pred_score.reshape(n).float()
            return Scores(score, score.reshape(n, 1, 1).expand(n, *size).clone())
        maps = found.anomaly_map.reshape(n, 1, *found.anomaly_map.shape[-2:]).float()
        if maps.shape[-2:] != size:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        score = maps.amax(dim=(1, 2, 3)) if found.pred_score is None else found.pred_score.reshape(n).float()
        return Scores(score, maps[:, 0])

    def train(self, mode: bool = True) -> "AnomalibScorer":
        """Stays in evaluation mode whatever is asked: anomalib's networks return something else while they train."""
        return super().train(False)


def _make_room(scorer: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives buffers the shape that they were learned with: anomalib fills memory banks and Gaussians by assignment."""
    for name, buffer in list(scorer.named_buffers()):
        if name in state and name.startswith(_NETWORK) and state[name].shape != buffer.shape:
            owner, _, own = name.rpartition(".")
            setattr(scorer.get_submodule(owner), own, torch.empty_like(state[name]))


def load_engine(name: str) -> ModuleType:
    """Imports what needs anomalib, without the warnings that it and its packages have of their own deprecations.

    Args:
        name: what is wanted with it, for the error.

    Raises:
        MissingExtraError: anomalib is not installed.
    """
    if find_spec("anomalib") is None:
        raise MissingExtraError.of("anomalib", "anomalib", f"the detector {name!r}")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from anomaly.detectors.anomalib_bridge import engine
    return engine
