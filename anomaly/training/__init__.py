"""The one training loop of everything here that is trained by gradients.

The batch of a step and every random number in it depend on ``(seed, step)`` alone, and the learning rate on the step.
So a checkpoint holds weights and optimiser state only, and a resumed run equals an uninterrupted one bit for bit (on
one machine, with one number of threads).

Under ``torchrun`` every process sees the same images and takes its own part of a step's batch; gradients are averaged.
"""

from anomaly.training.checkpoint import CHECKPOINT, LOG, averaged_weights
from anomaly.training.loop import train
from anomaly.training.processes import batch_indices, device, joined
from anomaly.training.run_folder import run_folder
from anomaly.training.settings import TrainingSettings

__all__ = [
    "CHECKPOINT",
    "LOG",
    "TrainingSettings",
    "averaged_weights",
    "batch_indices",
    "device",
    "joined",
    "run_folder",
    "train",
]
