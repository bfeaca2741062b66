"""anomalib's side of the bridge: builds its models without a network and trains them on stored canvases.

Importing this module imports anomalib and Lightning, which takes many seconds: `detector` does so inside its functions.
"""

import inspect
import logging
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import anomalib.models
import lightning.pytorch as pl
import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.pre_processing import PreProcessor
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomaly.detectors.anomalib_bridge.weights import answered_from, fill
from anomaly.detectors.canvas_store import CanvasStore
from anomaly.errors import SettingError, UnknownNameError
from anomaly.input_spec import Canvas
from anomaly.progress import Progress, active_bars

_OURS = ("self", "pre_trained", "pre_processor", "post_processor", "evaluator", "visualizer")
_HELD_OUT = 10
_RGB = 3


class Plan(NamedTuple):
    """How a model is trained.

    Attributes:
        epochs: passes over the images, unless the model has a number of its own.
        batch_size: images per step.
        held_out: whether every tenth image is kept from the training for the model's own statistics.
        seed: seed of the order of the images.
    """

    epochs: int
    batch_size: int
    held_out: bool
    seed: int


class Built(NamedTuple):
    """A model of anomalib, not trained yet.

    Attributes:
        module: the Lightning module; without pre-processor, post-processor, evaluator and visualiser.
        mean: (1, 3, 1, 1), what its network wants subtracted from an image in [0, 1].
        std: (1, 3, 1, 1), what it wants that divided by.
    """

    module: Any
    mean: Tensor
    std: Tensor

    def normalised(self, canvas: Canvas) -> Tensor:
        """Returns what the network takes: (N, 3, H, W); grey is repeated to RGB."""
        return (canvas.pixels.expand(-1, _RGB, -1, -1) - self.mean) / self.std


def build(
    name: str, arguments: Mapping[str, Any], size: tuple[int, int], weights: Mapping[str, Tensor] | None
) -> Built:
    """Builds a model for a canvas.

    Args:
        name: class in `anomalib.models`.
        arguments: its keyword arguments.
        size: height and width of the canvas; fills the arguments of the model that say so.
        weights: its pretrained weights; None where others will be loaded into it.

    Raises:
        SettingError: an argument that the model does not have, or cannot use on this canvas.
        BackboneError: the weights do not belong to the model, or it wants to download something.
    """
    cls = getattr(anomalib.models, name)
    valid = [argument for argument in inspect.signature(cls).parameters if argument not in _OURS]
    if unknown := sorted(set(arguments) - set(valid)):
        raise UnknownNameError.among(f"argument of anomalib's {name}", unknown[0], valid)
    sizes = {"input_shape": size, "image_size": size[0]}
    given = {argument: value for argument, value in sizes.items() if argument in valid} | dict(arguments)
    normalise = extract_transforms_by_type(_default_transform(cls), Normalize)
    processor = PreProcessor(transform=Compose([Resize(size, antialias=True), *normalise]))
    with answered_from(weights), _quiet():
        try:
            module = cls(**given, pre_processor=processor, post_processor=False, evaluator=False, visualizer=False)
        except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise SettingError(
                f"anomalib's {name} does not accept arguments {dict(arguments)} on a canvas of {size}: {error}"
            ) from error
    module.pre_processor = None  # told the model its size; the images come normalised
    if weights is not None:
        _load_own(module, name, weights)
    mean, std = (normalise[0].mean, normalise[0].std) if normalise else ((0.0,) * _RGB, (1.0,) * _RGB)
    return Built(module, *(torch.tensor(values, dtype=torch.float32).view(1, _RGB, 1, 1) for values in (mean, std)))


def train(built: Built, store: CanvasStore, plan: Plan) -> nn.Module:
    """Trains a model by Lightning's Trainer, as anomalib's Engine does, and returns its network on the CPU.

    Everything random comes from torch's, numpy's and Python's global generators: see `seeded`.
    """
    settings = {
        "max_epochs": plan.epochs,
        **{"check_val_every_n_epoch": plan.epochs, "limit_val_batches": 1.0 if plan.held_out else 0},
        **{k: v for k, v in built.module.trainer_arguments.items() if k != "val_check_interval"},
    }
    with TemporaryDirectory(prefix="anomaly-") as folder, _quiet(), active_bars() as progress:
        trainer = pl.Trainer(
            callbacks=[_Reported(progress)],
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            **{"devices": 1, **settings},
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        try:
            trainer.fit(built.module, datamodule=_Canvases(built, store, plan))
        except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            height, width = store.read([0]).pixels.shape[-2:]
            raise SettingError(
                f"anomalib's {built.module.name} failed in its training on {len(store)} images, canvas {height} x "
                f"{width} px: {type(error).__name__}: {error}. Another canvas (--size) or other arguments may suit it"
            ) from error
    network: nn.Module = built.module.model
    return network.cpu()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch, numpy and Python, whose global generators anomalib draws from, and puts them back afterwards.

    Gradients are on inside, whatever the caller's mode.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what anomalib uses
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what anomalib uses
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002 - what anomalib uses


class _Canvases(pl.LightningDataModule):
    """The stored canvases as anomalib's models want them."""

    def __init__(self, built: Built, store: CanvasStore, plan: Plan) -> None:
        """Splits off every tenth image where the model needs images that it was not trained on."""
        super().__init__()
        self.built, self.store = built, store
        self.train_batch_size = plan.batch_size
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.held_out = range(0, len(store), _HELD_OUT) if plan.held_out else range(0)
        self.kept = [i for i in range(len(store)) if i not in self.held_out]

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the training images in batches of nearly equal size: batch norm cannot take a single left-over."""
        count = -(-len(self.kept) // self.train_batch_size)
        sampler = _Shuffled(self.kept, count, self.generator)
        indices = cast("Dataset[int]", range(len(self.store)))
        return DataLoader(indices, batch_sampler=sampler, collate_fn=self._batch)

    def val_dataloader(self) -> DataLoader[Any]:
        """Returns the images held out."""
        indices = cast("Dataset[int]", self.held_out)
        return DataLoader(indices, batch_size=self.train_batch_size, collate_fn=self._batch)

    def _batch(self, indices: list[int]) -> ImageBatch:
        images = self.built.normalised(self.store.read(indices))
        labels = torch.zeros(len(indices), dtype=torch.long)
        masks = torch.zeros(len(indices), *images.shape[-2:], dtype=torch.uint8)
        return ImageBatch(image=images, gt_label=labels, gt_mask=masks)


class _Shuffled(Sampler[list[int]]):
    """Batches of indices in a new random order each time."""

    def __init__(self, indices: list[int], count: int, generator: torch.Generator) -> None:
        """Keeps the indices and the number of batches to cut them into."""
        self.indices, self.count, self.generator = indices, count, generator

    def __len__(self) -> int:
        """Returns the number of batches."""
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the batches of one pass."""
        order = torch.randperm(len(self.indices), generator=self.generator).numpy()
        for part in np.array_split(np.array(self.indices)[order], self.count):
            yield part.tolist()


class _Reported(pl.Callback):
    """Reports the batches of all passes."""

    def __init__(self, progress: Progress) -> None:
        """Keeps what is reported to."""
        self.progress = progress

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Says how many batches there will be."""
        passes = trainer.max_epochs or 1
        self.advance = self.progress(
            f"training anomalib's {pl_module.name}", int(passes * trainer.num_training_batches)
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Counts a batch."""
        self.advance(1)


def _default_transform(cls: Any) -> Any:
    return cls.configure_pre_processor().transform


def _load_own(module: Any, name: str, weights: Mapping[str, Tensor]) -> None:
    """Puts weights into the models that download them when their training begins, and keeps them from doing so."""
    network = {"EfficientAd": "teacher", "Dsr": "discrete_latent_model"}.get(name)
    if network is None:
        return
    fill(getattr(module.model, network), weights, f"{name}.{network}", set())
    module.prepare_pretrained_model = lambda: None
    module.model.load_pretrained_discrete_model_weights = lambda *_: None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning from advertising and from advice that does not apply here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "anomalib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
