import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import DatasetError, SettingError, UnknownNameError
from anomaly.images import find_dataset, groups_from_manifest, read_image, read_mask
from anomaly.images.synthetic import LOT, SERIALS, VISIBLE, defective, defects_of, normal, write_dataset
from anomaly.images.synthetic_defects import DEFECTS
from anomaly.images.synthetic_surfaces import STRUCTURED, SURFACES

SIZE = (96, 80)
PAIRS = [(surface, defect) for surface in SURFACES for defect in defects_of(surface)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535)])
@pytest.mark.parametrize("surface", SURFACES)
def test_normals_have_the_size_depth_and_contrast_asked_for(surface, dtype, full, channels):
    image = normal(surface, SIZE, 3, dtype, channels)
    assert image.shape == (*SIZE, channels)
    assert image.dtype == dtype
    assert 0.15 < image.mean() / full < 0.8
    assert image.std() / full > 0.02
    assert np.mean((image == 0) | (image == full)) < 0.001
    assert len(np.unique(image)) > (50 if dtype == "uint8" else 2000)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_seed_always_draws_the_same_part_and_another_seed_another(surface):
    np.testing.assert_array_equal(normal(surface, SIZE, 5), normal(surface, SIZE, 5))
    difference = np.abs(normal(surface, SIZE, 5).astype(int) - normal(surface, SIZE, 6)).mean()
    assert difference > 4


@pytest.mark.parametrize("surface", SURFACES)
def test_depths_show_the_same_part(surface):
    deep, shallow = normal(surface, SIZE, 5, "uint16"), normal(surface, SIZE, 5)
    assert np.abs(deep / 257 - shallow).max() <= 0.51


@pytest.mark.parametrize(("surface", "defect"), PAIRS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    size=st.tuples(st.integers(64, 150), st.integers(64, 150)),
    dtype=st.sampled_from(["uint8", "uint16"]),
    channels=st.sampled_from([1, 3]),
)
def test_the_mask_is_exactly_what_the_defect_changed(surface, defect, seed, size, dtype, channels):
    image, mask = defective(surface, defect, size, seed, dtype, channels)
    without = normal(surface, size, seed, dtype, channels)
    changed = np.abs(image.astype(int) - without).max(axis=2)
    np.testing.assert_array_equal(mask, changed > 0)
    assert 15 < mask.sum() < 0.8 * mask.size
    assert changed[mask].min() >= VISIBLE * np.iinfo(dtype).max * 0.6  # both images are rounded
    again, _ = defective(surface, defect, size, seed, dtype, channels)
    np.testing.assert_array_equal(image, again)


@pytest.mark.parametrize(("surface", "defect"), PAIRS)
def test_defects_differ_in_place_size_and_contrast(surface, defect):
    places, sizes, contrasts = [], [], []
    for seed in range(12):
        image, mask = defective(surface, defect, (128, 128), seed * 977)
        places.append(np.argwhere(mask).mean(axis=0))
        sizes.append(mask.sum())
        contrasts.append(np.abs(image.astype(int) - normal(surface, (128, 128), seed * 977))[mask].mean())
    assert np.std(places, axis=0).min() > 4
    assert max(sizes) > 1.3 * min(sizes)
    assert max(contrasts) > 1.1 * min(contrasts)


def test_parts_of_a_lot_share_their_light():
    def mean(seed):
        return normal("cast", (128, 128), seed).mean()

    within = np.mean([np.std([mean(lot * LOT + part) for part in range(4)]) for lot in range(8)])
    between = np.std([np.mean([mean(lot * LOT + part) for part in range(4)]) for lot in range(8)])
    assert between > 1.2 * within


def test_structural_defects_belong_to_structured_surfaces():
    assert set(defects_of("cast")) == {"scratch", "pit", "stain"}
    assert all(set(defects_of(surface)) == set(DEFECTS) for surface in STRUCTURED)
    with pytest.raises(SettingError, match=r"one that cast can have \(scratch, pit, stain\); got 'missing'"):
        defective("cast", "missing", SIZE, 0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"size": (63, 64)}, "size of synthetic image must be"),
        ({"seed": -1}, "seed of synthetic image must be 0 or more"),
        ({"dtype": "float32"}, "dtype of synthetic image must be"),
        ({"channels": 4}, "channels of synthetic image must be 1 or 3"),
    ],
)
def test_values_that_are_not_allowed(wrong, reason):
    with pytest.raises(SettingError, match=reason):
        normal("cast", **{"size": SIZE, "seed": 0} | wrong)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UnknownNameError, match=r"unknown surface 'waver'. Did you mean 'wafer'\?"):
        normal("waver", SIZE, 0)
    with pytest.raises(UnknownNameError, match=r"unknown defect 'dent'.*misplaced, missing, pit, scratch, stain"):
        defective("wafer", "dent", SIZE, 0)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint16", 3)])
def test_a_written_data_set_is_found_with_exact_masks_and_lots(tmp_path, dtype, channels):
    root = tmp_path / "set"
    write_dataset(root, "wafer", train=30, good=4, defective=7, size=SIZE, seed=2, dtype=dtype, channels=channels)
    dataset = find_dataset(root)
    assert len(dataset.train) == 30
    assert [sample.label for sample in dataset.test].count(0) == 4
    assert {sample.kind for sample in dataset.test} == {"good", *DEFECTS}
    for sample in dataset.test:
        serial = int(sample.path.stem)
        part = normal("wafer", SIZE, 2 * SERIALS + serial, dtype, channels)
        changed = (read_image(sample.path) != part).any(axis=2)
        mask = read_mask(sample.mask, *SIZE) if sample.mask else np.zeros(SIZE, bool)
        np.testing.assert_array_equal(mask, changed)


def test_lots_of_training_and_test_are_apart(tmp_path):
    write_dataset(tmp_path, "brushed_metal", train=30, good=4, defective=3, size=(64, 64), seed=0)
    lots = groups_from_manifest(tmp_path / "manifest.csv", "lot")
    dataset = find_dataset(tmp_path)
    train, test = {lots[p.name] for p in dataset.train}, {lots[sample.path.name] for sample in dataset.test}
    assert (train, test) == ({"lot000", "lot001"}, {"lot002"})
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 37
    assert all((tmp_path / row["file"]).is_file() for row in rows)
    assert sum(int(row["label"]) for row in rows) == 3
    with pytest.raises(DatasetError, match="is not empty"):
        write_dataset(tmp_path, "cast", train=1, good=1, defective=1, size=(64, 64), seed=0)
