"""How the weights of networks lie in a model file: as they are, in 16 bits, or in 8 bits with a scale per channel.

They are rounded once, when a model is compressed, and computed with in float32 as before. What is packed unpacks to the
same bits however often it is done, so a compressed model that is loaded and saved again does not drift.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from anomaly.errors import ArtifactError, SettingError

Kind = Literal["float16", "int8"]
KINDS = ("float16", "int8")
_SCALE = ".scale"
_LARGEST = 127


@dataclass(frozen=True)
class Storage:
    """Which tensors of a scorer are stored shortened, and how.

    Attributes:
        kind: "float16", or "int8" with one scale per output channel (first axis).
        names: names in the scorer's `state_dict`; all float32, for int8 with two axes or more.
    """

    kind: Kind
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuses an unknown kind."""
        if self.kind not in KINDS:
            raise SettingError.of("Storage", "kind", f"one of {', '.join(KINDS)}", self.kind)

    @classmethod
    def of(cls, scorer: torch.nn.Module, kind: Kind) -> "Storage":
        """Chooses the weights of the scorer's networks; sums, levels and a memory bank are no parameters and stay."""
        least = 2 if kind == "int8" else 1
        chosen = (n for n, p in scorer.named_parameters() if p.dtype == torch.float32 and p.ndim >= least)
        return cls(kind, tuple(sorted(chosen)))

    def pack(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors as a file stores them.

        Raises:
            ArtifactError: a value is too large for float16.
        """
        packed = dict(tensors)
        for name in self.names:
            if self.kind == "float16":
                packed[name] = tensors[name].half()
                if not packed[name].isfinite().all():
                    raise ArtifactError(
                        f"{name} holds values beyond 65504, which float16 cannot hold; use another kind"
                    )
            else:
                packed[name], packed[name + _SCALE] = _to_int8(tensors[name])
        return packed

    def unpack(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors as a scorer has them.

        Raises:
            ArtifactError: a tensor is missing or not of the kind.
        """
        found = dict(tensors)
        for name in self.names:
            scale = found.pop(name + _SCALE, None) if self.kind == "int8" else None
            stored = found.get(name)
            if (
                stored is None
                or stored.dtype != getattr(torch, self.kind)
                or (self.kind == "int8") != (scale is not None)
            ):
                got = "nothing" if stored is None else str(stored.dtype)
                raise ArtifactError(f"{name} must be stored as {self.kind}; got {got}")
            found[name] = stored.float() if scale is None else stored.float() * scale
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"kind": self.kind, "names": list(self.names)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Storage":
        """Reads what `to_dict` wrote."""
        return cls(data["kind"], tuple(data["names"]))


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds each channel symmetrically; the scale has so few bits that packing again gives the same numbers."""
    largest = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    mantissa, exponent = torch.frexp(largest / _LARGEST)
    scale = torch.ldexp((mantissa * 2**10).round() / 2**10, exponent)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / scale).round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scale
