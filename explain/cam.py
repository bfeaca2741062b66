"""Class activation maps: which cells of a layer carry the score.

Sources: Selvaraju et al., Grad-CAM (arXiv 1610.02391); Springenberg et al., Striving for Simplicity (arXiv 1412.6806)
for guided backpropagation. Maps and guided backpropagation are captum's; tokens of a ViT, which captum would take for
channels, are weighted here.
"""

import warnings
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.errors import SettingError
from explain.explanation import Explanation
from explain.layers import Activations, Layer, choose_layer, copying_relus, watching
from explain.subject import Subject


@dataclass(frozen=True, kw_only=True)
class GradCam:
    """Channels of a layer, each weighted by its mean gradient, summed up; what speaks against an anomaly is cut off.

    Attributes:
        layer: name of the layer, or the end of one; empty chooses one, see `layers.choose_layer`.
    """

    name: ClassVar[str] = "gradcam"
    layer: str = ""

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject.

        Raises:
            SettingError: the network has no layer with a grid.
            UnknownNameError: no such layer.
        """
        layer = choose_layer(subject, self.layer)
        found = _on_image(subject, _cam(subject, layer))
        return Explanation(self.name, found, {**asdict(self), **_described(layer)})


@dataclass(frozen=True, kw_only=True)
class GuidedGradCam:
    """Grad-CAM times the gradient of the pixels that only positive gradients of rectifiers have formed.

    Only for networks whose every activation is a `torch.nn.ReLU` module: captum guides nothing else, and a gradient
    that is guided in part is neither the one nor the other.

    Attributes:
        layer: as for `GradCam`.
    """

    name: ClassVar[str] = "guided_gradcam"
    layer: str = ""

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject.

        Raises:
            SettingError: the network has another activation than ReLU modules, or none, or no layer with a grid.
            UnknownNameError: no such layer.
        """
        from captum.attr import GuidedBackprop

        if obstacle := unguided(subject):
            allowed = "one whose activations are torch.nn.ReLU modules; take gradcam"
            raise SettingError.of(self.name, "network", allowed, obstacle)
        layer = choose_layer(subject, self.layer)
        cam = _on_image(subject, _cam(subject, layer))
        with copying_relus(subject.scorer), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # captum announces its hooks
            guided = GuidedBackprop(subject.score).attribute(subject.image[None].clone())
        found = cam * guided[0].detach().clamp(min=0).sum(dim=0).numpy()
        return Explanation(self.name, found.astype(np.float32), {**asdict(self), **_described(layer)})


def unguided(subject: Subject) -> str:
    """Returns what of a network guided backpropagation would not reach, for people; empty where it reaches all.

    The operations of one scoring are counted, so that activations which no module stands for are seen, too.
    """
    relus = [module for module in subject.scorer.modules() if isinstance(module, nn.ReLU)]
    with torch.no_grad(), watching(relus) as seen, Activations() as ran:
        subject.score(subject.image[None])
    rectified = ran.found.pop("relu", 0)
    others = [f"{count} x {name}" for name, count in sorted(ran.found.items())]
    if rectified > len(seen):
        others.append(f"{rectified - len(seen)} x relu that is no module")
    return ", ".join(others) or ("" if rectified else "no activation")


def _described(layer: Layer) -> dict[str, Any]:
    return {"layer": layer.name, "grid": list(layer.grid)}


def _cam(subject: Subject, layer: Layer) -> Float[Tensor, "h w"]:
    """Returns the map on the grid of the layer."""
    module = subject.scorer.get_submodule(layer.name)
    image = subject.image[None].clone()
    if layer.prefix is None:
        from captum.attr import LayerGradCam

        found = LayerGradCam(subject.score, module).attribute(image)
        summed: Tensor = found.detach().sum(dim=(0, 1)).clamp(min=0)  # groups of channels of one image
        return summed
    with torch.enable_grad(), watching([module]) as seen:
        score = subject.score(image.requires_grad_()).sum()
    tokens = seen[0][1]
    (gradient,) = torch.autograd.grad(score, tokens)
    patches, weights = tokens[:, layer.prefix :], gradient[:, layer.prefix :].mean(dim=1, keepdim=True)
    return (patches * weights).sum(dim=(0, 2)).view(layer.grid).detach().clamp(min=0)


def _on_image(subject: Subject, cam: Float[Tensor, "h w"]) -> Float32[np.ndarray, "ih iw"]:
    spec = subject.scorer.input
    canvas = F.interpolate(cam[None, None], size=spec.size, mode="bilinear", align_corners=False)[0, 0]
    found: Float32[np.ndarray, "ih iw"] = spec.on_image(canvas, *subject.size).numpy()
    return found
