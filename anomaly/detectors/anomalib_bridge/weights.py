"""Pretrained weights of anomalib's networks come from a file, never from a network.

While they are built, anomalib's models ask timm or torchvision for pretrained weights, some of them with no way to say
no. Inside `answered_from` such a request is answered with the tensors of a file; inside `offline` whatever else would
open a connection fails before it does.
"""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from anomaly.errors import BackboneError

_SHOWN = 6
_BUILDING = threading.Lock()
_offline: ContextVar[str] = ContextVar("_offline", default="")


@contextmanager
def offline(name: str) -> Iterator[None]:
    """Refuses every network connection of this thread; other threads keep theirs.

    Args:
        name: who is refused, for the error.

    Raises:
        BackboneError: a connection was about to be opened.
    """
    _install_guard()
    token = _offline.set(name)
    try:
        yield
    finally:
        _offline.reset(token)


@lru_cache(maxsize=1)
def _install_guard() -> None:
    sys.addaudithook(_guard)  # cannot be removed again, so it is added once


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("socket.connect", "socket.getaddrinfo") or not (name := _offline.get()):
        return
    target = arguments[1] if event == "socket.connect" else arguments[:2]
    if isinstance(target, tuple):  # local sockets have a path
        raise BackboneError(
            f"{name} wants to download from {target[0]}, which this suite never does on its own. Give its weights as a "
            "file (weights) and its data as a local folder"
        )


@contextmanager
def answered_from(tensors: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Answers requests for pretrained weights, by any code that runs inside, with given tensors.

    Args:
        tensors: the weights; None leaves networks as they are initialised, since others will be loaded into them.

    Raises:
        BackboneError: the tensors do not belong to the network that is asked for.
    """
    import timm
    from torchvision.models import WeightsEnum, get_model

    create = timm.create_model

    def built(model_name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        network: nn.Module = create(model_name, pretrained=False, **options)
        if pretrained and tensors is not None:
            fill(network, tensors, model_name, _whole(create, model_name))
        return network

    def state(weights: Any, *_: Any, **__: Any) -> dict[str, Tensor]:
        name = type(weights).__name__.removesuffix("_Weights").lower()
        network: nn.Module = get_model(name, weights=None)
        if tensors is not None:
            fill(network, tensors, name, set(network.state_dict()))
        return network.state_dict()

    with (
        _BUILDING,
        mock.patch.object(timm, "create_model", built),
        mock.patch.object(WeightsEnum, "get_state_dict", state),
    ):
        yield


def fill(network: nn.Module, tensors: Mapping[str, Tensor], name: str, whole: set[str]) -> None:
    """Loads tensors into a network, all that it has but its classifier, which no anomaly detector uses.

    Args:
        network: the network.
        tensors: its weights, under the names of the whole architecture or of timm's feature extractor.
        name: name of the network, for errors.
        whole: names of all tensors of the architecture, whose layers the network may have in part.

    Raises:
        BackboneError: a tensor is missing, unknown or of the wrong shape.
    """
    wanted = network.state_dict()
    given = {_plain(key): value for key, value in tensors.items()}
    classifier = {_plain(key) for key in wanted if key.startswith(("fc.", "head.", "classifier."))}
    missing = [key for key in wanted if _plain(key) not in given and _plain(key) not in classifier]
    unknown = sorted(set(given) - {_plain(key) for key in {*wanted, *whole}})
    shapes = [
        f"{key} {tuple(given[_plain(key)].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if _plain(key) in given and given[_plain(key)].shape != value.shape
    ]
    if missing or unknown or shapes:
        raise BackboneError(
            f"the weights do not belong to the network {name!r}: missing {_list(missing)}; unknown {_list(unknown)}; "
            f"of another shape {_list(shapes)}"
        )
    network.load_state_dict({key: given.get(_plain(key), value) for key, value in wanted.items()})


def _whole(create: Any, name: str) -> set[str]:
    with torch.device("meta"):
        return set(create(name, pretrained=False).state_dict())


def _plain(key: str) -> str:
    """Feature extractors of timm rename "stem.0.weight" to "stem_0.weight" and put "model." before it."""
    return key.removeprefix("model.").replace(".", "_")


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
