"""Lays a part over a golden image: shift and rotation, on request scale.

Coarse: for a few angles phase correlation finds the shift (Kuglin and Hines, The Phase Correlation Image Alignment
Method, 1975), and the angle with the highest correlation is kept. Fine: the enhanced correlation coefficient is
maximised (Evangelidis and Psarakis, Parametric Image Alignment using Enhanced Correlation Coefficient Maximization,
PAMI 2008), which ignores brightness and contrast; OpenCV's implementation of both is used.

A transform is a (2, 3) matrix that takes a place of the golden image to the place of the same point of the part.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError
from inspection.geometry.errors import NotRegisteredError

Matrix = NDArray[np.float64]
Grey = NDArray[np.float32]

_COARSE, _FINE = 256, 768  # longest side in pixels at which is searched and refined
_ANGLE_STEP = 3.0
_SCALES = (0.94, 1.0, 1.06)
_LEAST_SEEN = 0.5  # share of the golden image that must be in sight
_ITERATIONS, _EPSILON = 100, 1e-6
_BLUR = 5
_NEARLY_ALL = 1, 99  # percentiles
_DEFECTIVE, _TRIMS = 0.1, 3  # share of the pixels that the residual leaves out, found in a few rounds


class Registered(NamedTuple):
    """Where a part lies.

    Attributes:
        matrix: (2, 3) transform from the golden image to the part.
        shift_px: how far the middle of the golden image is moved, pixels.
        angle_deg: rotation.
        scale: 1 for "euclidean".
        residual: 1 - correlation with the golden image where both are in sight, 0 (equal) to 2, without the tenth of
            the pixels that differ most: a defect is no reason not to be registered.
    """

    matrix: Matrix
    shift_px: float
    angle_deg: float
    scale: float
    residual: float


@dataclass(frozen=True)
class Golden:
    """A golden image, and how far a part may be from it.

    Attributes:
        image: (H, W, C) raw frame of a good part.
        motion: "euclidean" or "similarity".
        max_shift_px: see `Registered.shift_px`.
        max_angle_deg: largest rotation either way; also how far is searched.
        max_residual: see `Registered.residual`.
    """

    image: NDArray[Any]
    motion: Literal["euclidean", "similarity"]
    max_shift_px: float
    max_angle_deg: float
    max_residual: float

    def __post_init__(self) -> None:
        """Refuses an image without any structure."""
        if self.motion not in ("euclidean", "similarity"):
            raise SettingError.of("Golden", "motion", "'euclidean' or 'similarity'", self.motion)
        if float(self._fine.std()) < 1e-6:
            raise InputError("the golden image is flat: there is nothing to register parts by")

    def register(self, image: NDArray[Any]) -> Registered:
        """Finds where a part lies.

        Args:
            image: (H, W, C) raw frame.

        Raises:
            NotRegisteredError: nothing in common, or a limit is exceeded; the message has the figures.
        """
        import cv2

        start = self._coarse_search(_reduced(image, self._coarse_step))
        try:
            for step, golden in ((self._coarse_step, self._coarse), (self._fine_step, self._fine)):
                start = self._refined(golden, _reduced(image, step), start, step)
        except cv2.error as error:  # it does not converge
            raise NotRegisteredError("the part has nothing in common with the golden image") from error
        found = self._described(start, image)
        for what, got, most, unit in (
            ("residual", found.residual, self.max_residual, ""),
            ("shift", found.shift_px, self.max_shift_px, " px"),
            ("rotation", abs(found.angle_deg), self.max_angle_deg, " degrees"),
        ):
            if not got <= most:
                raise NotRegisteredError(f"{what} {got:.3g}{unit} to the golden image, at most {most:.3g} is allowed")
        return found

    @property
    def _coarse_step(self) -> int:
        return math.ceil(int(max(self.image.shape[:2])) / _COARSE)

    @property
    def _fine_step(self) -> int:
        return math.ceil(int(max(self.image.shape[:2])) / _FINE)

    @cached_property
    def _coarse(self) -> Grey:
        return _reduced(self.image, self._coarse_step)

    @cached_property
    def _fine(self) -> Grey:
        return _reduced(self.image, self._fine_step)

    def _starts(self) -> Iterator[Matrix]:
        """Yields transforms about the middle of the golden image, at coarse scale."""
        steps = math.ceil(self.max_angle_deg / _ANGLE_STEP)
        angles = np.linspace(-self.max_angle_deg, self.max_angle_deg, 2 * steps + 1)
        middle = np.array(self._coarse.shape[::-1]) / 2
        for angle, scale in product(angles, _SCALES if self.motion == "similarity" else (1.0,)):
            turn = scale * _turn(float(angle))
            yield np.column_stack([turn, middle - turn @ middle])

    def _coarse_search(self, part: Grey) -> Matrix:
        """Returns the best of the starts with its shift, in pixels of the frame."""
        import cv2

        golden = self._coarse
        window = cv2.createHanningWindow(golden.shape[::-1], cv2.CV_32F)
        best, highest = None, -np.inf
        for start in self._starts():
            moved = warped(part, start, golden.shape)
            shift, _ = cv2.phaseCorrelate(golden - golden.mean(), moved - moved.mean(), window)
            matrix = start.copy()
            matrix[:, 2] += start[:, :2] @ np.array(shift)
            height = _correlation(golden, part, matrix)
            if height > highest:
                best, highest = matrix, height
        if best is None:
            raise NotRegisteredError("the part has nothing in common with the golden image")
        best[:, 2] *= self._coarse_step
        return best

    def _refined(self, golden: Grey, part: Grey, matrix: Matrix, step: int) -> Matrix:
        import cv2

        start = _as_index(np.column_stack([matrix[:, :2], matrix[:, 2] / step]))
        kind = cv2.MOTION_EUCLIDEAN if self.motion == "euclidean" else cv2.MOTION_AFFINE
        ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, _EPSILON)
        _, found = cv2.findTransformECC(golden, part, start.astype(np.float32), kind, ends, None, _BLUR)
        refined = _as_edges(found.astype(np.float64))
        if self.motion == "similarity":
            refined = _closest_similarity(refined, np.array(golden.shape[::-1]) / 2)
        refined[:, 2] *= step
        return refined

    def _described(self, matrix: Matrix, image: NDArray[Any]) -> Registered:
        middle = np.array(self.image.shape[1::-1]) / 2
        shift = float(np.linalg.norm(matrix[:, :2] @ middle + matrix[:, 2] - middle))
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        step = self._fine_step
        small = np.column_stack([matrix[:, :2], matrix[:, 2] / step])
        residual = 1 - _correlation(self._fine, _reduced(image, step), small, _DEFECTIVE)
        return Registered(matrix, shift, angle, scale, residual)


def warped(image: NDArray[Any], matrix: Matrix, shape: tuple[int, ...]) -> NDArray[Any]:
    """Returns a part as it lies over the golden image; beyond the part its border is repeated.

    Args:
        image: (H, W) or (H, W, C) of the part.
        matrix: (2, 3) transform from the golden image to the part.
        shape: height and width of the golden image come first.
    """
    import cv2

    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _per_bands(image, _as_index(matrix), shape, flags, cv2.BORDER_REPLICATE, 0)


def unwarped(values: NDArray[np.float32], matrix: Matrix, shape: tuple[int, ...], outside: float) -> NDArray[Any]:
    """Takes values on the golden image back to the part.

    Args:
        values: (H, W) on the golden image.
        matrix: (2, 3) transform from the golden image to the part.
        shape: height and width of the part come first.
        outside: value where the golden image does not reach.
    """
    import cv2

    return _per_bands(values, _as_index(matrix), shape, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, outside)


def in_sight(part: tuple[int, ...], matrix: Matrix, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns the mask of the pixels of the golden image that the part's frame shows.

    Args:
        part: height and width of the frame of the part come first.
        matrix: (2, 3) transform from the golden image to the part.
        shape: height and width of the golden image come first.
    """
    import cv2

    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    ones = np.full(part[:2], 255, np.uint8)
    seen: NDArray[np.bool_] = (
        cv2.warpAffine(ones, _as_index(matrix), shape[1::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT) > 0
    )
    return seen


def _per_bands(
    image: NDArray[Any], matrix: Matrix, shape: tuple[int, ...], flags: int, border: int, value: float
) -> NDArray[Any]:
    """OpenCV warps four channels at most."""
    import cv2

    def warp(band: NDArray[Any]) -> NDArray[Any]:
        done: NDArray[Any] = cv2.warpAffine(
            band, matrix, shape[1::-1], flags=flags, borderMode=border, borderValue=value
        )
        return done

    if image.ndim == 2:
        return warp(image)
    return np.stack([warp(np.ascontiguousarray(image[..., band])) for band in range(image.shape[2])], axis=2)


def _reduced(image: NDArray[Any], step: int) -> Grey:
    """Returns the grey image with `step` x `step` pixels averaged to one; what is left over at the end is cut off.

    Values far outside of what nearly all pixels have are drawn in, so that a glaring defect does not outweigh the part.
    """
    import cv2

    height, width = (side // step for side in image.shape[:2])
    small = image[: height * step, : width * step]
    if step > 1:  # before anything else: frames may be large
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    grey = small.astype(np.float32) if small.ndim == 2 else small.mean(axis=2, dtype=np.float32)
    low, high = (float(value) for value in np.percentile(grey, _NEARLY_ALL))
    limited: Grey = np.clip(grey, low - (high - low) / 2, high + (high - low) / 2)
    return limited


def _correlation(golden: Grey, part: Grey, matrix: Matrix, left_out: float = 0.0) -> float:
    """Correlation of the golden image with a part, where both are in sight; -1 where too little is.

    Args:
        golden: the golden image.
        part: the part, at the same scale.
        matrix: transform between them at that scale.
        left_out: share of the pixels, those farthest from a linear relation, that do not count.
    """
    seen = in_sight(part.shape, matrix, golden.shape)
    if seen.mean() < _LEAST_SEEN:
        return -1.0
    a, b = golden[seen], warped(part, matrix, golden.shape)[seen]
    kept = np.ones(a.size, bool)
    for _ in range(_TRIMS if left_out else 0):
        x, y = a[kept], b[kept]
        slope = float(np.cov(x, y)[0, 1]) / max(float(x.var()), 1e-12)
        off = np.abs(b - y.mean() - slope * (a - x.mean()))
        kept = off <= np.quantile(off, 1 - left_out)
    a, b = a[kept] - a[kept].mean(), b[kept] - b[kept].mean()
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else -1.0


def _turn(degrees: float) -> Matrix:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def _closest_similarity(matrix: Matrix, middle: NDArray[np.float64]) -> Matrix:
    """Returns the similarity nearest to an affine map that moves the middle of the image to the same place."""
    a, b = (matrix[0, 0] + matrix[1, 1]) / 2, (matrix[1, 0] - matrix[0, 1]) / 2
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, matrix[:, :2] @ middle + matrix[:, 2] - linear @ middle])


def _as_index(matrix: Matrix) -> Matrix:
    """From places where the middle of the first pixel is 0.5 to OpenCV's, where it is 0."""
    return np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ np.full(2, 0.5) - 0.5])


def _as_edges(matrix: Matrix) -> Matrix:
    return np.column_stack([matrix[:, :2], matrix[:, 2] - matrix[:, :2] @ np.full(2, 0.5) + 0.5])
