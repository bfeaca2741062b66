"""One process or several: devices, shares of a batch, and what the processes of a run tell each other.

Convention under ``torchrun``: every process is given the same images in the same order and the same settings, and takes
its share of each step's batch, so settings mean the same on any number of processes. Gradients and the running
statistics of batch norms are averaged, so all processes hold the same network after every step. The first process alone
evaluates, logs and saves.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from anomaly.errors import SettingError


@contextmanager
def joined() -> Iterator[tuple[int, int]]:
    """Joins the processes that ``torchrun`` started, if it did, and gives (rank, number of processes)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=12))
    try:
        yield place()
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """Returns (rank, number of processes) of the run that this process has joined; (0, 1) alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def device() -> torch.device:
    """Returns where this process trains: the GPU that ``torchrun`` counts as its own, the current GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))


def batch_indices(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Returns this process's share of the images of a step; every epoch is a new permutation, and no state is kept.

    Args:
        step: The step, from 0.
        batch: Images of a step in all processes together, a multiple of their number.
        count: Images in all.
        seed: Seed of the permutations.

    Raises:
        SettingError: If the batch cannot be shared equally.
    """
    rank, processes = place()
    if batch % processes:
        raise SettingError(f"a batch must be a multiple of the {processes} processes that share it; got {batch}")
    position = step * batch + np.arange(rank, batch, processes)
    epochs = position // count
    orders = {int(e): np.random.default_rng([seed, int(e)]).permutation(count) for e in np.unique(epochs)}
    return [int(orders[int(e)][p]) for e, p in zip(epochs, position % count, strict=True)]


def start_alike(model: nn.Module) -> None:
    """Gives every process the weights and buffers of the first."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            told = tensor.contiguous()  # weights may lie channels last
            dist.broadcast(told, 0)
            tensor.copy_(told)


def average(model: nn.Module, loss: Tensor) -> Tensor:
    """Averages gradients and running statistics of batch norms in place; returns the average loss."""
    if not dist.is_initialized():
        return loss
    tensors = [p.grad for p in model.parameters() if p.grad is not None]
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            tensors += [module.running_mean, module.running_var]
    flat = torch.cat([loss.reshape(1).float(), *(t.flatten().float() for t in tensors)])
    dist.all_reduce(flat)
    total, *parts = (flat / dist.get_world_size()).split_with_sizes([1, *(t.numel() for t in tensors)])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
    return total[0]


def from_first(value: float) -> float:
    """Returns the value that the first process holds, so that all decide alike."""
    if not dist.is_initialized():
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device())
    dist.broadcast(told, 0)
    return float(told)


def wait_for_all() -> None:
    """Returns once every process of the run has come here."""
    if dist.is_initialized():
        dist.barrier()
