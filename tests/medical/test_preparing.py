"""Values and voxels as the model takes them, whatever the plane of the slices and however much padding there is."""

from dataclasses import replace

import numpy as np
import pytest

from medical.choosing import Wishes, choose
from medical.contract import learned
from medical.objects import Volume
from medical.preparing import slices_of
from tests.medical.studies import write_heads
from tests.medical.test_contract import INSTANCE

MR = replace(INSTANCE, modality="MR", body_part="HEAD", orientation=(1.0, 0, 0, 0, 1.0, 0), view="unknown")
CONTRACT = learned([("1", MR), ("2", MR)], "slices", "stored", None)


def volume(values, valid):
    return Volume((MR,), values.astype(np.float32), valid, np.eye(4), "stored", "none")


@pytest.mark.parametrize("margin", [1, 8, 30])
def test_padding_does_not_change_how_tissue_is_scaled(margin):
    """Independent reference: the two percentiles of the tissue alone."""
    tissue = np.random.default_rng(0).gamma(2.0, 0.1, (4, 20, 20)).astype(np.float32)
    widths = ((0, 0), (margin, margin), (margin, margin))
    valid = np.pad(np.ones(tissue.shape, bool), widths)
    padded = np.pad(tissue, widths, constant_values=tissue.min())
    inside = slice(margin, -margin)
    scaled = slices_of(volume(padded, valid), CONTRACT).numpy()[:, 0, inside, inside]
    low, high = np.percentile(tissue, (0.5, 99.5))
    np.testing.assert_allclose(scaled, np.clip((tissue - low) / (high - low), 0, 1), atol=1e-5)


def test_the_voxel_of_the_training_follows_the_body(studies_in, tmp_path):
    """Slices 2.5 mm apart, rows 0.8 mm, columns 0.6 mm; the voxel is (inferior-superior, anterior-posterior, side)."""
    expected = {
        "axial": (2.5, 0.8, 0.6),
        "sagittal": (0.8, 0.6, 2.5),
        "coronal": (0.8, 2.5, 0.6),
        "oblique": (2.5, 0.8, 0.6),
    }
    for orientation, voxel in expected.items():
        studies = studies_in(write_heads(tmp_path / orientation, range(2), orientation=orientation))
        found = choose(studies, Wishes(geometry="volume", window=(-1000.0, 400.0))).voxel
        assert found == pytest.approx(voxel), orientation
