"""Shapes are checked (jaxtyping + beartype) in every test; development data are found through ANOMALY_SHARED."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
install_import_hook("anomaly", "beartype.beartype")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data and weights; skips without it."""
    folder = Path(os.environ.get("ANOMALY_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no development data at {folder}; set ANOMALY_SHARED")
    return folder
