"""The linear surrogate of KernelSHAP and LIME: weighted least squares in closed form."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class WeightedRidge:
    """Weighted ridge regression with an intercept that is not penalised, in captum's interface of a surrogate.

    Attributes:
        explained: share of the weighted variance of the targets that the last fit explains (R squared); 1 where there
            is none.
    """

    def __init__(self, penalty: float = 0.0) -> None:
        """Sets the weight of the squared coefficients."""
        self.penalty = penalty
        self.explained = float("nan")
        self._weights = torch.empty(0)

    def fit(self, train_data: Any, **_: object) -> None:
        """Fits the surrogate; every batch is (features (n, k), targets (n), weights (n))."""
        parts = list(train_data)
        x, y, w = (torch.cat([part[i].double() for part in parts]) for i in range(3))
        y, w = y.flatten(), w.flatten()
        root = w.sqrt()[:, None]
        center, middle = (w[:, None] * x).sum(0) / w.sum(), (w * y).sum() / w.sum()
        left, right = (x - center) * root, (y - middle)[:, None] * root
        if self.penalty:
            left = torch.cat([left, self.penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)])
            right = torch.cat([right, torch.zeros(x.shape[1], 1, dtype=x.dtype)])
        # The solution of least norm: with fewer samples than features many fit equally well.
        coefficients = torch.linalg.lstsq(left, right, driver="gelsd").solution[:, 0]
        rest = (w * ((y - middle) - (x - center) @ coefficients).square()).sum()
        spread = (w * (y - middle).square()).sum()
        self.explained = float(1 - rest / spread) if spread > 0 else 1.0
        self._weights = coefficients.float()

    def representation(self) -> Float[Tensor, "1 k"]:
        """Returns the coefficients."""
        return self._weights[None]

    def __call__(self, x: Tensor) -> Tensor:
        """Predicts but for the intercept; captum's interface asks for it."""
        return x @ self._weights
