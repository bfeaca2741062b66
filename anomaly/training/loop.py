"""The loop: loss, gradients, step, moving average; evaluation, log and checkpoint now and then."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from anomaly.errors import SettingError, TrainingError
from anomaly.progress import active_bars
from anomaly.training import precision, processes
from anomaly.training.checkpoint import Run
from anomaly.training.run_folder import next_folder
from anomaly.training.settings import TrainingSettings

Loss = Callable[[int], Tensor]


def train(
    model: nn.Module,
    loss_at: Loss,
    settings: TrainingSettings,
    *,
    folder: Path | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    stop_after: int | None = None,
    progress: bool = True,
) -> nn.Module:
    """Trains a network with AdamW where it lies (CPU or GPU) and returns the moving average of its weights.

    Args:
        model: The network; trained in place.
        loss_at: Loss of the batch of a step, a scalar tensor; must depend on the step and torch's global generator
            only, which is seeded before each call (in each process of a run with another seed). Under `joined` it is
            the mean over this process's share of the batch, see `batch_indices`.
        settings: How to train.
        folder: Where checkpoint and log go; by default what `run_folder` says. A checkpoint found there is resumed.
        evaluate: Figures for the log, the same names at every call; gets the averaged network in evaluation mode.
        validate: Loss on images held out of the training, which needs no label; gets the averaged network in
            evaluation mode. With it the averaged network of the lowest loss is returned, not the last one.
        stop_after: Stop (with a checkpoint) after this step instead of the last, to go on later.
        progress: Whether to show a progress bar.

    Returns:
        The averaged network in evaluation mode.

    Raises:
        ArtifactError: If the folder holds a checkpoint of other settings or of another network.
        SettingError: If patience is asked for without `validate`.
        TrainingError: If a loss is not finite.
    """
    if settings.patience and validate is None:
        raise SettingError.of(
            "TrainingSettings", "patience", "0 where nothing is held out to validate on", settings.patience
        )
    run = _begin(model, settings, folder)
    last = min(settings.steps, stop_after or settings.steps)
    first = processes.place()[0] == 0  # alone evaluates and writes
    started, saved = time.monotonic() - run.seconds, time.monotonic()
    with _reproducible(run), _reported(run, show=progress and first) as advance:
        while run.step < last and not run.ended:
            run.losses.append(_update(run, loss_at))
            run.seconds = time.monotonic() - started
            if run.step == settings.steps or run.step % settings.evaluate_every == 0:
                _look(run, evaluate, validate)
            stops = run.step == last or run.ended
            if first and (stops or time.monotonic() - saved > settings.checkpoint_seconds):
                run.save()
                saved = time.monotonic()
            advance(1)
    if run.best.weights:
        run.average.load_state_dict(run.best.weights)
    return run.average


def _begin(model: nn.Module, settings: TrainingSettings, folder: Path | None) -> Run:
    processes.start_alike(model)
    where = next(model.parameters()).device
    kind = precision.resolve(settings, where)
    run = Run(
        model,
        copy.deepcopy(model).eval().requires_grad_(requires_grad=False),
        _optimiser(model, settings),
        precision.loss_scaler(kind, where),
        settings,
        kind,
        next_folder() if folder is None else folder,
    )
    run.resume()
    return run


@contextmanager
def _reproducible(run: Run) -> Iterator[None]:
    """Leaves random state and gradient mode of the caller alone; cuDNN takes only kernels that repeat their results."""
    where = next(run.model.parameters()).device
    forked = [where] if where.type == "cuda" else []
    repeatable = torch.backends.cudnn.flags(benchmark=False, deterministic=True)
    with torch.inference_mode(False), torch.random.fork_rng(forked), repeatable:
        yield


@contextmanager
def _reported(run: Run, *, show: bool) -> Iterator[Callable[[int], None]]:
    if not show:
        yield lambda done: None
        return
    with active_bars() as start:
        advance = start("training", run.settings.steps)
        advance(run.step)
        yield advance


def _optimiser(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _update(run: Run, loss_at: Loss) -> float:
    """Does one step; returns its loss, averaged over the processes."""
    settings, (rank, _) = run.settings, processes.place()
    torch.manual_seed(settings.seed * 1_000_003 + run.step + 7_919_000_000_003 * rank)
    for group in run.optimiser.param_groups:
        group["lr"] = settings.rate(run.step)
    run.model.train()
    run.optimiser.zero_grad(set_to_none=True)
    where = next(run.model.parameters()).device
    with precision.autocast(run.precision, where):
        loss = loss_at(run.step)
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    mean = float(processes.average(run.model, loss.detach()))  # before unscaling: all processes see one overflow
    if not math.isfinite(mean):
        raise TrainingError(
            f"the loss of step {run.step + 1} is {mean}: lower the learning rate ({settings.learning_rate:g}), or "
            f"train in full precision (amp 'off'; it was {run.precision!r})"
        )
    run.scaler.unscale_(run.optimiser)
    nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    run.step += 1
    decay = min(settings.ema, run.step / (run.step + 10))  # the first weights are forgotten fast
    with torch.no_grad():
        for kept, new in zip(run.average.state_dict().values(), run.model.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)
    return mean


def _look(
    run: Run,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
    validate: Callable[[nn.Module], float] | None,
) -> None:
    """Evaluates in the first process and logs; every process learns the validation loss."""
    first = processes.place()[0] == 0
    figures = {"loss": sum(run.losses) / len(run.losses)}
    run.losses.clear()
    if validate is not None:
        figures["validation_loss"] = processes.from_first(validate(run.average) if first else 0.0)
        run.best.offer(figures["validation_loss"], run.average)
    if first:
        run.log(figures | dict(evaluate(run.average) if evaluate else {}))
