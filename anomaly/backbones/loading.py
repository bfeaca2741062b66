"""From a name to a `Backbone` with weights: the bundled network, any timm model, the teacher of the bundled one."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anomaly.backbones.backbone import Backbone, BackboneSpec, Provenance, fingerprint
from anomaly.backbones.folding import fold, fold_structure
from anomaly.errors import BackboneError, UnknownNameError

BUNDLED = "bundled"
TEACHER = "resnetv2_50_stages"
_SHOWN = 8


class Layout(NamedTuple):
    """What is known of an architecture before any weight is loaded."""

    layers: tuple[str, ...]
    default: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    source: str


def load_backbone(spec: BackboneSpec) -> Backbone:
    """Builds the network of `spec` and loads its weights, strictly.

    Raises:
        UnknownNameError: no such network or layer; the message lists the valid ones.
        BackboneError: the weights cannot be had, or do not fit the network.
    """
    layout = describe(spec.name)
    spec = _with_layers(spec, layout)
    if spec.weights is not None:
        network = _network(spec)
        tensors = read_weights(Path(spec.weights))
        _load_strictly(network, tensors, spec)
        source, licence = Path(spec.weights).name, "not stated"
    elif spec.name == BUNDLED:
        from anomaly.backbones.bundled import load_bundled

        network, source, licence = load_bundled(), "package", layout.licence
    else:
        network, source, licence = _from_hub(spec, layout), layout.source, layout.licence
    provenance = Provenance(
        source=source,
        licence=licence,
        sha256=fingerprint(network.state_dict()),
        mean=layout.mean,
        std=layout.std,
    )
    return Backbone(replace(spec, weights=None), fold(network.eval()), provenance)


def restore_backbone(spec: BackboneSpec, provenance: Provenance, tensors: Mapping[str, Tensor]) -> Backbone:
    """Builds the network of `spec` with the weights that an artifact carries.

    Raises:
        BackboneError: a tensor is missing, unknown or of the wrong shape, or they are not the ones recorded.
    """
    network = _network(spec).eval()
    if set(tensors) != set(network.state_dict()):  # pre-activation networks keep some batch norm when folded
        network = fold_structure(network)
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise BackboneError(f"the artifact's tensors do not fit backbone {spec.name!r}: {error}") from None
    return Backbone(spec, network, provenance)


@lru_cache(maxsize=16)
def describe(name: str) -> Layout:
    """Returns layers, defaults, normalisation and licence of a network by name, without weights.

    Raises:
        UnknownNameError: no such network.
    """
    if name == BUNDLED:
        from anomaly.backbones import bundled

        layers = tuple(bundled.LAYERS)
        return Layout(layers, layers, bundled.MEAN, bundled.STD, "Apache-2.0", "package")
    if name == TEACHER:
        from anomaly.backbones.resnetv2_stages import MEAN, STD

        layers = ("stages.1", "stages.2")
        return Layout(layers, layers, MEAN, STD, "Apache-2.0", "a file (--weights)")
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise UnknownNameError.among("backbone", name, [BUNDLED, TEACHER, *timm.list_models()])
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    layers = tuple(str(info["module"]) for info in model.feature_info)
    cfg = model.pretrained_cfg
    default = _default_layers([int(info["reduction"]) for info in model.feature_info], layers)
    return Layout(
        layers,
        default,
        tuple(cfg["mean"]),
        tuple(cfg["std"]),
        cfg.get("license") or "not stated",
        f"hub {cfg.get('hf_hub_id') or name}",
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a file of plain tensors: safetensors, or .pth/.pt/.bin without any pickled object.

    Raises:
        BackboneError: missing, not readable, or not a mapping of tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise BackboneError(f"no weights file at {path}")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise BackboneError(f"{path.name} is not a readable file of weights: {error}") from None
    except Exception as error:  # torch's unpickler has no public error class
        raise BackboneError(f"{path.name} holds more than plain tensors and is not loaded: {error}") from None
    content = content.get("state_dict", content.get("model", content)) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BackboneError(f"{path.name} must hold a mapping of names to tensors")
    return content


def _with_layers(spec: BackboneSpec, layout: Layout) -> BackboneSpec:
    for layer in spec.layers:
        if layer not in layout.layers:
            raise UnknownNameError.among(f"layer of backbone {spec.name!r}", layer, layout.layers)
    chosen = spec.layers or layout.default
    return replace(spec, layers=tuple(layer for layer in layout.layers if layer in chosen))


def _default_layers(reductions: list[int], layers: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(reductions)) == 1:  # a ViT: every block has the same grid
        depth = len(layers)
        return tuple(layers[i] for i in sorted({max(0, depth // 2 - 1), max(0, depth * 3 // 4 - 1)}))
    return tuple(layer for layer, stride in zip(layers, reductions, strict=True) if stride in (8, 16))


def _network(spec: BackboneSpec) -> nn.Module:
    if spec.name == BUNDLED:
        from anomaly.backbones.bundled import folded_network

        return folded_network()
    if spec.name == TEACHER:
        from anomaly.backbones.resnetv2_stages import ResNetV2Stages

        return ResNetV2Stages()
    return _timm_features(spec, pretrained=False)


def _timm_features(spec: BackboneSpec, *, pretrained: bool) -> nn.Module:
    import timm

    options: dict[str, Any] = {"pretrained": pretrained, "features_only": True}
    options["out_indices"] = [i for i, layer in enumerate(describe(spec.name).layers) if layer in spec.layers]
    with torch.device("meta"):
        full = timm.create_model(spec.name, pretrained=False)
    if hasattr(getattr(full, "patch_embed", None), "dynamic_img_pad"):
        options["dynamic_img_size"] = True  # a ViT: any input size, position embeddings interpolated
    network: nn.Module = timm.create_model(spec.name, **options)
    return network


def _from_hub(spec: BackboneSpec, layout: Layout) -> nn.Module:
    if spec.name == TEACHER:
        raise BackboneError(f"backbone {TEACHER!r} is not on a hub; give its weights with --weights FILE")
    try:
        return _timm_features(spec, pretrained=True)
    except Exception as error:  # hub clients raise many kinds: no network, no such file, no permission
        raise BackboneError(
            f"the weights of {spec.name!r} ({layout.source}) are neither in the local cache nor to be had from the "
            f"hub: {type(error).__name__}: {error}. Give a file with --weights FILE, or use --backbone bundled"
        ) from error


def _load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], spec: BackboneSpec) -> None:
    """Loads every tensor that the network uses; refuses keys that even the whole architecture does not know."""
    wanted = network.state_dict()
    given = {_plain(key): key for key in tensors}
    missing = [key for key in wanted if _plain(key) not in given]
    known = {_plain(key) for key in wanted} | _whole_architecture(spec.name)
    unknown = [key for plain, key in given.items() if plain not in known]
    if missing or unknown:
        raise BackboneError(
            f"the weights do not belong to backbone {spec.name!r} with layers {', '.join(spec.layers)}: "
            f"missing {_list(missing)}; unknown {_list(unknown)}. "
            f"This network wants keys like {_list(list(wanted))}"
        )
    chosen = {key: tensors[given[_plain(key)]] for key in wanted}
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in chosen.items()
        if value.shape != wanted[key].shape
    ]
    if shapes:
        raise BackboneError(f"the weights do not fit backbone {spec.name!r}: {_list(shapes)}")
    network.load_state_dict(chosen, strict=True)


def _whole_architecture(name: str) -> set[str]:
    if name in (BUNDLED, TEACHER):
        return set()
    import timm

    with torch.device("meta"):
        return {_plain(key) for key in timm.create_model(name, pretrained=False).state_dict()}


def _plain(key: str) -> str:
    """Feature extractors of timm rename "stem.0.weight" to "stem_0.weight" and put "model." before it."""
    return key.removeprefix("model.").replace(".", "_")


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
