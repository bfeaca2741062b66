"""Pictures for the tests of lines."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """Writes a picture of noise and returns its path."""

    def write(path: Path, value: int = 100, size: int = 16) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(value).integers(0, 255, (size, size, 3), np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return write
