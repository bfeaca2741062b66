"""Name -> method, a plain table."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from anomaly.errors import UnknownNameError
from explain.cam import GradCam, GuidedGradCam
from explain.explanation import Explanation
from explain.gradients import GradientShap, IntegratedGradients
from explain.native import AnomalyMap, Edges, Random, Residual
from explain.perturbation import KernelShap, Lime, Occlusion
from explain.subject import Subject


@runtime_checkable
class Method(Protocol):
    """Settings of one way to explain a score."""

    name: ClassVar[str]

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject."""


METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        GradCam, GuidedGradCam, IntegratedGradients, Occlusion, GradientShap, KernelShap, Lime, Residual,
    )
}  # fmt: skip
"""What can be asked for."""
CONTROLS: tuple[Method, ...] = (AnomalyMap(), Edges(), Random())
"""What every report and table holds besides."""
TITLES = {
    "gradcam": "Grad-CAM",
    "guided_gradcam": "Guided Grad-CAM",
    "ig": "Integrated gradients",
    "occlusion": "Occlusion",
    "gradient_shap": "GradientSHAP",
    "kernel_shap": "KernelSHAP",
    "lime": "LIME",
    "residual": "Residual",
    "anomaly_map": "Anomaly map",
    "edges": "Edges",
    "random": "Random",
}
"""Names for people."""
WITH_SAMPLES = ("gradient_shap", "kernel_shap", "lime")


def methods_named(names: Sequence[str]) -> list[Method]:
    """Returns the methods with these names, default settings, each once.

    Raises:
        UnknownNameError: no such method.
    """
    for name in names:
        if name not in METHODS:
            raise UnknownNameError.among("method", name, METHODS)
    return [METHODS[name]() for name in dict.fromkeys(names)]
