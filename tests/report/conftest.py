from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anomaly.calibration import Calibration, calibrate
from anomaly.report import ResultWriter


@pytest.fixture
def calibration() -> Calibration:
    return calibrate(np.linspace(0.1, 1.0, 60, dtype=np.float32))


@pytest.fixture
def writer(calibration: Calibration) -> Callable[[Path], ResultWriter]:
    """A writer with pixel threshold 1 whose maps are shown from 0 to 2."""
    return lambda out: ResultWriter(
        out,
        title="brushed plates",
        model={"model file": "plates.safetensors", "trained on": "60 images"},
        calibration=calibration,
        scale=(0.0, 2.0),
        contour=1.0,
    )


@pytest.fixture
def part() -> tuple[np.ndarray, np.ndarray]:
    """A grey image 40 px high and 60 wide, and its map: 3 at rows 10..19 and columns 30..49, peak at x 35, y 12."""
    image = np.random.default_rng(0).integers(60, 200, (40, 60, 1), dtype=np.uint8)
    anomaly_map = np.zeros((40, 60), np.float32)
    anomaly_map[10:20, 30:50] = 3
    anomaly_map[12, 35] = 4
    return image, anomaly_map
