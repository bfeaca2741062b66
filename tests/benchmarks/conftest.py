"""A small generated data set for the benchmarks."""

import pytest

from anomaly.images.synthetic import write_dataset


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """8 training images, 4 good and 4 defective test images of 96 x 96 px, grey."""
    root = tmp_path_factory.mktemp("data") / "metal"
    write_dataset(root, "brushed_metal", 8, 4, 4, (96, 96), seed=1)
    return root
