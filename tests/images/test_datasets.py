import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DatasetError, ImageFileError
from anomaly.images import find_dataset, groups_from_manifest, read_mask

H, W = 6, 9


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, "train/good/10.png", "train/good/9.png", "test/good/1.png", "test/dent/1.png", "test/dent/2.png")
    return tmp_path


def test_samples_carry_label_kind_and_mask(root):
    touch(root, "test/crack/5.jpg", "ground_truth/crack/5.png")
    touch(root, "ground_truth/dent/1_mask.png", "ground_truth/dent/2_mask.png")
    dataset = find_dataset(root)
    assert [path.name for path in dataset.train] == ["9.png", "10.png"]
    assert [(sample.kind, sample.label, sample.path.name) for sample in dataset.test] == [
        ("good", 0, "1.png"),
        ("crack", 1, "5.jpg"),
        ("dent", 1, "1.png"),
        ("dent", 1, "2.png"),
    ]
    truth = root / "ground_truth"
    expected = [None, truth / "crack/5.png", truth / "dent/1_mask.png", truth / "dent/2_mask.png"]
    assert [sample.mask for sample in dataset.test] == expected


def test_a_kind_without_any_mask_has_none(root):
    assert all(sample.mask is None for sample in find_dataset(root).test)


def test_masks_missing_in_part_are_listed(root):
    touch(root, "ground_truth/dent/2_mask.png")
    with pytest.raises(DatasetError, match=r"(?s)lacks the masks of 1 of 2 image\(s\):\n  .*dent.1\.png"):
        find_dataset(root)


def test_masks_of_a_kind_that_is_not_tested_are_an_error(root):
    touch(root, "ground_truth/dents/1_mask.png")
    with pytest.raises(DatasetError, match="has masks for dents, test has only dent"):
        find_dataset(root)


@pytest.mark.parametrize("lost", ["train/good", "test/good", "test/dent"])
def test_an_empty_folder_is_an_error_that_shows_the_layout(root, lost):
    for path in (root / lost).iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"(?s)holds no image; expected.*ground_truth/<defect>/<stem>_mask\.png"):
        find_dataset(root)


def test_no_defects_at_all_is_an_error(root):
    for path in (root / "test/dent").iterdir():
        path.unlink()
    (root / "test/dent").rmdir()
    with pytest.raises(DatasetError, match="no folder of defects; expected"):
        find_dataset(root)
    with pytest.raises(DatasetError, match="expected"):
        find_dataset(root / "nowhere")


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535)])
def test_masks_are_cut_at_half_of_the_full_range(tmp_path, dtype, full):
    values = np.zeros((H, W), dtype)
    values[0, :3] = full // 2, full // 2 + 1, full
    Image.fromarray(values).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", H, W)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, values > full / 2)
    assert mask.sum() == 2


def test_one_bit_and_colour_masks(tmp_path):
    values = np.zeros((H, W), bool)
    values[2:4] = True
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(np.stack([values * np.uint8(255), values * 0, values * 0], -1).astype(np.uint8)).save(
        tmp_path / "b.png"
    )
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, H, W), values)


def test_masks_of_another_size_or_of_zero_and_one_are_refused(tmp_path):
    Image.fromarray(np.eye(H, W).astype(np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ImageFileError, match=f"mask of {H} x {W} for an image of {H} x 8"):
        read_mask(tmp_path / "m.png", H, 8)
    with pytest.raises(ImageFileError, match="values up to 1 only; write 0 and 255"):
        read_mask(tmp_path / "m.png", H, W)
    Image.fromarray(np.zeros((H, W), np.uint8)).save(tmp_path / "m.png")
    assert not read_mask(tmp_path / "m.png", H, W).any()


def manifest(tmp_path, text):
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_groups_by_bare_file_name(tmp_path):
    path = manifest(tmp_path, 'file,lot,patient\ntrain/good/a.png,1,"P, 1"\ntest\\good\\b.png,2,P2\n')
    assert groups_from_manifest(path, "patient") == {"a.png": "P, 1", "b.png": "P2"}
    assert groups_from_manifest(manifest(tmp_path, "path,lot\nx/a.png,7\n"), "lot") == {"a.png": "7"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,lot\na.png,1\n", "no column 'patient'; it has: file, lot"),
        ("name,patient\na.png,1\n", "no column file or path or img; it has: name, patient"),
        ("", "no column file or path or img"),
        ("file,patient\na.png,1\nb.png,\n", "row 3: the file name or its group is empty"),
        ("file,patient\na.png\n", "row 2: the file name or its group is empty"),
        ("file,patient\nx/a.png,1\ny/a.png,2\n", r"row 3: the file name 'a\.png' occurs twice"),
    ],
)
def test_a_manifest_that_does_not_say_it_is_refused(tmp_path, text, reason):
    with pytest.raises(DatasetError, match=reason):
        groups_from_manifest(manifest(tmp_path, text), "patient")


def test_an_unreadable_manifest_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="not a readable CSV"):
        groups_from_manifest(tmp_path / "missing.csv", "lot")
    (tmp_path / "manifest.csv").write_bytes(b"file,lot\n\xff\xfe,1\n")
    with pytest.raises(DatasetError, match="not a readable CSV file in UTF-8"):
        groups_from_manifest(tmp_path / "manifest.csv", "lot")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "train", "test", "masks"),
    [("magnetic_tile", 330, 342, 192), ("elpv_mono", 400, 376, 0), ("bsdata", 184, 187, 80)],
)
def test_real_data_sets(shared, name, train, test, masks):
    dataset = find_dataset(shared / "data/industrial" / name)
    counts = len(dataset.train), len(dataset.test), sum(sample.mask is not None for sample in dataset.test)
    assert counts == (train, test, masks)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "key", "files"), [("cxr_kermany", "patient", 1560), ("cxr_nih_256", "Patient ID", 502)]
)
def test_real_manifests(shared, name, key, files):
    assert len(groups_from_manifest(shared / "data/medical" / name / "manifest.csv", key)) == files
