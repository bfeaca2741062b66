"""Our detectors inside anomalib: an `AnomalibModule` that its `Engine` fits, tests and compares like its own models.

Importing this module imports anomalib. Frames come from anomalib's data modules as RGB in [0, 1], resized to the canvas
by its pre-processor; everything after that happens in our scorer.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

try:
    from anomalib import LearningType
    from anomalib.data import Batch, InferenceBatch
    from anomalib.models import AnomalibModule
    from anomalib.pre_processing import PreProcessor
except ImportError as missing:
    from anomaly.errors import MissingExtraError

    raise MissingExtraError.of("anomalib", "anomalib", "AnomalibDetector") from missing

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, Resize

from anomaly.catalog import build, detector_class
from anomaly.detector import Detector, Scorer
from anomaly.errors import ArtifactError, SettingError

_CHECKPOINT = "anomaly_suite"
_FRAMES = {"channels": 3, "dtype": "float32", "value_range": (0.0, 1.0), "unit": "share of white", "resize": "stretch"}


class AnomalibDetector(AnomalibModule):
    """One of our detectors as a model of anomalib.

    The fit runs when the training begins and pulls the batches of the training data loader; no optimiser is involved
    and the training step does nothing. Checkpoints of the Engine hold the fitted detector.

    Example:
        >>> from anomalib.data import Folder
        >>> from anomalib.engine import Engine
        >>> model = AnomalibDetector("subspace", size=(256, 256))
        >>> engine = Engine()
        >>> engine.fit(model, datamodule=Folder("parts", root="parts", normal_dir="good", abnormal_dir="bad"))
        >>> engine.test(model, datamodule=...)
    """

    def __init__(
        self,
        detector: str = "subspace",
        settings: Mapping[str, Any] | None = None,
        size: tuple[int, int] = (256, 256),
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Any = True,
        visualizer: Any = True,
    ) -> None:
        """Sets the detector up; plain values, so that a checkpoint can hold them.

        Args:
            detector: name in `anomaly.catalog`.
            settings: its settings other than `input`.
            size: height and width of the canvas.
            pre_processor: anomalib's; by default it resizes images and masks to the canvas and does nothing else.
            post_processor: anomalib's; by default it scales scores to [0, 1], with a threshold, and clamps them.
            evaluator: anomalib's metrics.
            visualizer: anomalib's pictures.

        Raises:
            UnknownNameError: no such detector or setting.
            SettingError: a value that is not allowed.
        """
        self.size = (int(size[0]), int(size[1]))  # the pre-processor is configured by the base class
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        frames = _FRAMES | {"size": self.size}
        self.detector: Detector = build(detector_class(detector), {**(settings or {}), "input": frames})
        self.model = _Fitted()

    def configure_pre_processor(self) -> PreProcessor:
        """Returns the resize to the canvas, of images and masks."""
        return PreProcessor(transform=Compose([Resize(self.size, antialias=True)]))

    def on_train_start(self) -> None:
        """Fits the detector on the batches of the training data loader."""
        scorer = self.detector.fit(self._frames())
        self.model.scorer = scorer.to(self.device).eval()

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> Tensor:
        """Does nothing: the detector is fitted when the training begins."""
        del batch, args, kwargs
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> Batch:
        """Adds scores and maps to a batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    def configure_optimizers(self) -> None:
        """Returns no optimiser: nothing is trained by Lightning."""

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Returns what the Trainer is told: one pass, of which only one batch is read a second time."""
        return {
            **{"gradient_clip_val": 0, "max_epochs": 1, "limit_train_batches": 1, "num_sanity_val_steps": 0},
            "devices": 1,
        }

    @property
    def learning_type(self) -> LearningType:
        """Returns that normal images are learned from alone."""
        return LearningType.ONE_CLASS

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what `Detector.restore` needs besides the tensors, as JSON."""
        super().on_save_checkpoint(checkpoint)
        if (scorer := self.model.scorer) is not None:
            fitted = {"name": scorer.detector.name, "settings": asdict(scorer.detector)}
            checkpoint[_CHECKPOINT] = json.dumps({**fitted, "description": scorer.description()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the fitted detector.

        Raises:
            ArtifactError: the checkpoint holds none, or tensors that do not fit it.
        """
        super().on_load_checkpoint(checkpoint)
        if _CHECKPOINT not in checkpoint:
            raise ArtifactError("the checkpoint holds no fitted detector of this suite")
        stored = json.loads(checkpoint[_CHECKPOINT])
        prefix = "model.scorer."
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        settings = build(detector_class(stored["name"]), stored["settings"])
        self.model.scorer = settings.restore(state, stored["description"]).eval()

    def _frames(self) -> Iterator[Tensor]:
        for batch in self.trainer.train_dataloader:
            image: Tensor = batch.image
            if self.pre_processor is not None:
                image, _ = self.pre_processor.transform(image, batch.gt_mask)
            yield image.as_subclass(Tensor).clamp(0, 1)  # rounding of the resize


class _Fitted(nn.Module):
    """Batches of RGB frames in [0, 1] -> what anomalib calls an inference batch."""

    scorer: Scorer | None

    def __init__(self) -> None:
        """Holds no scorer until one is fitted or loaded."""
        super().__init__()
        self.register_module("scorer", None)

    def forward(self, images: Tensor) -> InferenceBatch:
        """Scores frames.

        Raises:
            SettingError: nothing is fitted yet.
        """
        if self.scorer is None:
            raise SettingError("the detector is not fitted yet; call Engine.fit, or load a checkpoint")
        scores = self.scorer(images.as_subclass(Tensor).clamp(0, 1))
        return InferenceBatch(pred_score=scores.score, anomaly_map=scores.map)
