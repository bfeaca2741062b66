"""Layers of a network: which there are, which one to take, and what one of them said. Hooks never outlive a call."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from anomaly.errors import SettingError, UnknownNameError
from explain.subject import Subject

LEAST_GRID = 4
"""Least rows and columns of a layer that can say where."""


@dataclass(frozen=True)
class Layer:
    """A layer with a grid over the image.

    Attributes:
        name: its name in the scorer, e.g. "backbone.network.layer2".
        grid: rows and columns of its output.
        prefix: tokens of a transformer before those of the grid (class token, registers); None for (N, C, h, w) maps.
    """

    name: str
    grid: tuple[int, int]
    prefix: int | None = None


@contextmanager
def watching(modules: Sequence[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Notes what modules return, call by call; the hooks are gone when the block ends, however it ends."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen.append((module, output))

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


_ACTIVATIONS = (
    "relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "hardtanh", "prelu", "mish", "softplus", "tanh",
)  # fmt: skip


class Activations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it without types
    """A context that counts the activations which run within it, modules or not.

    Attributes:
        found: name of the operation -> how often it ran.
    """

    def __init__(self) -> None:
        """Begins at nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts and goes on."""
        name = func.overloadpacket.__name__.rstrip("_")
        if name in _ACTIVATIONS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def copying_relus(model: nn.Module) -> Iterator[None]:
    """Lets rectifiers write to new memory, which backward hooks need; as they were when the block ends."""
    changed = [m for m in model.modules() if isinstance(m, nn.ReLU) and m.inplace]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True


def layers_of(subject: Subject) -> list[Layer]:
    """Returns the layers with a grid, in the order in which they run; those that run more than once are left out."""
    scorer, image = subject.scorer, subject.image[None]
    names = {module: name for name, module in scorer.named_modules() if name}
    with torch.no_grad(), watching(list(names)) as seen:
        subject.score(image)
    calls = [module for module, _ in seen]
    found = []
    for module, output in seen:
        grid = _grid(output, subject.scorer.input.size)
        if grid is not None and min(grid[:2]) >= LEAST_GRID and calls.count(module) == 1:
            found.append(Layer(names[module], grid[:2], grid[2]))
    return found


def choose_layer(subject: Subject, wanted: str = "") -> Layer:
    """Returns the layer that Grad-CAM looks at.

    By default, for detectors on backbone features, the first layer whose features are scored: later ones grow from it,
    so that all of the score flows through it, on the finest grid. For any other network the last layer of the finest
    half of its grids that the score depends on.

    Args:
        subject: what is explained.
        wanted: name of a layer, or the end of one that is unique; empty for the default.

    Raises:
        SettingError: the network has no layer with a grid, e.g. because it slides over a volume.
        UnknownNameError: no such layer, or several.
    """
    if not subject.planar:
        raise SettingError.of("gradcam", "image", "a whole image: layers of a network on volumes have no grid", "slice")
    layers = layers_of(subject)
    if not layers:
        raise SettingError.of("gradcam", "network", "one with a layer of 4 x 4 cells or more", "no such layer")
    if wanted:
        return _named(layers, wanted)
    detector = subject.scorer.detector
    names = getattr(getattr(detector, "backbone", None), "layers", ())
    own = [layer for name in names for layer in layers if _ends(layer.name, name)]
    if hasattr(subject.scorer, "backbone") and own:
        return own[0]
    finest = max(min(layer.grid) for layer in layers)
    fine = [layer for layer in layers if 2 * min(layer.grid) >= finest]
    return next((layer for layer in reversed(fine) if _flows(subject, layer)), fine[-1])


def _named(layers: list[Layer], wanted: str) -> Layer:
    fitting = [layer for layer in layers if layer.name == wanted] or [x for x in layers if _ends(x.name, wanted)]
    if len(fitting) != 1:
        raise UnknownNameError.among("layer", wanted, [layer.name for layer in layers])
    return fitting[0]


def _ends(name: str, end: str) -> bool:
    """Whether a layer goes by the end of its name; feature extractors of timm write "stages.1" as "stages_1"."""
    plain, wanted = name.replace(".", "_"), end.replace(".", "_")
    return plain == wanted or plain.endswith("_" + wanted)


def _flows(subject: Subject, layer: Layer) -> bool:
    """Whether the score depends on the layer."""
    module = subject.scorer.get_submodule(layer.name)
    image = subject.image[None].clone().requires_grad_()
    with torch.enable_grad(), watching([module]) as seen:
        score = subject.score(image).sum()
    output = seen[0][1]
    if not output.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(score, output, allow_unused=True)
    return gradient is not None and bool(gradient.abs().sum() > 0)


def _grid(output: Tensor, canvas: tuple[int, int]) -> tuple[int, int, int | None] | None:
    """Returns rows, columns and prefix tokens of a layer's output; None where it has no grid."""
    if output.ndim == 4:
        return output.shape[2], output.shape[3], None
    if output.ndim != 3:
        return None
    tokens, (height, width) = output.shape[1], canvas
    for prefix in range(6):  # a class token and up to four registers come first, in every ViT of timm
        patches = tokens - prefix
        rows = isqrt(max(0, patches * height // width))
        for r in (rows, rows + 1):
            if r and patches % r == 0 and r * width == (patches // r) * height:
                return r, patches // r, prefix
    return None
