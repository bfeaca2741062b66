"""DICOM files, volumes and rows become pictures on which masks and boxes lie where the authors marked something."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from anomaly.detector import Scores
from anomaly.errors import DatasetError, ImageFileError
from anomaly.images import image_info, read_image
from anomaly.progress import _ACTIVE
from benchmarks.audit import audit
from benchmarks.audit.fingerprints import of_file
from benchmarks.datasets import ANOMALOUS, NORMAL, SETS, TEST, TRAIN, UNKNOWN, Example, load, truth
from benchmarks.datasets.dicom import read_dicom
from benchmarks.datasets.plain import plain, slices_of
from benchmarks.datasets.splits import GROUPS, OFFICIAL, VALIDATED, is_tested, with_test_part
from benchmarks.datasets.volumes import cut, positions
from benchmarks.image_sets import judge
from benchmarks.running.parts import Part, open_part
from medical.reading import PixelReader
from tests.benchmarks.datasets.originals import (
    SEEN_TUMOUR,
    brain,
    brats_case,
    nifti,
    rsna_file,
    vindr_file,
    x_ray,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anomaly-suite" / "images"


@pytest.mark.parametrize("name", ["rsna_pneumonia", "vindr_cxr"])
def test_boxes_lie_on_what_they_mark(name, make, tmp_path):
    make(name, tmp_path)
    shown = plain(load(name, tmp_path))
    assert {image_info(e.path).dtype for e in shown} == {"uint16"}
    boxed = [e for e in shown if e.regions and e.label == ANOMALOUS]
    assert boxed
    for example in boxed:
        image = read_image(example.path)[..., 0]
        assert np.array_equal(truth(example, *image.shape, False), image > 40_000)
    plain_ones = [read_image(e.path)[..., 0] for e in shown if e.label == NORMAL]
    assert plain_ones
    assert all(image.max() < 16_000 and image[0, 0] < image[-1, -1] for image in plain_ones)


def test_values_are_those_that_the_stored_bits_can_express(tmp_path):
    vindr_file(tmp_path / "low.dicom", x_ray(), bits=12)
    vindr_file(tmp_path / "inverse.dicom", x_ray(), "MONOCHROME1", bits=14)
    with PixelReader() as reader:
        for name in ("low.dicom", "inverse.dicom"):
            found = read_dicom(tmp_path / name, reader)
            assert found.pixels.dtype == np.uint16
            assert np.abs(found.pixels / 65535 - x_ray()).max() < 1 / 4095
            assert found.about == {"DICOM sex": "F", "DICOM age": "61"}


def test_what_the_header_says_of_the_acquisition_reaches_the_audit(tmp_path):
    examples = []
    for i in range(12):
        path = tmp_path / f"{i}.dcm"
        bad = i % 2
        rsna_file(path, np.random.default_rng(i).random((32, 32)), "AP" if bad else "PA")
        examples.append(Example(path, TEST, bad, "opacity" if bad else "good"))
    shown = plain(examples)
    numbers, traits = of_file(shown[0].path)
    assert numbers["DICOM age"] == 62
    assert (traits["DICOM view"], traits["DICOM sex"], traits["metadata"]) == ("PA", "M", "none")
    view = next(one for one in audit("planted", shown).findings if one.what == "DICOM view")
    assert (view.auroc, view.says) == (1.0, "STRONG")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: path.write_bytes(b"no image at all, only words that fill a few bytes" * 9), "NOT_DICOM"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "TRUNCATED"),
    ],
)
def test_refusals_name_the_file_and_their_code(damage, code, make, tmp_path):
    make("vindr_cxr", tmp_path)
    damage(tmp_path / "train/b.dicom")
    with pytest.raises(DatasetError, match=rf"1 of 5 files cannot be used: .*train/b\.dicom.*{code}"):
        plain(load("vindr_cxr", tmp_path))


def test_a_flat_x_ray_is_refused(tmp_path):
    rsna_file(tmp_path / "flat.dcm", np.full((16, 16), 0.5))
    with PixelReader() as reader, pytest.raises(ImageFileError, match="PIXELS"):
        read_dicom(tmp_path / "flat.dcm", reader)


@pytest.mark.shared
def test_a_real_image_of_rsna_is_read_as_it_is(shared, tmp_path):
    (path,) = (shared / "data/dicom/torchxrayvision").glob("tests__1.2.276*.dcm")
    (inverse,) = (shared / "data/dicom/torchxrayvision").glob("*MONOHR1.dcm")
    from pydicom import dcmread

    stored = dcmread(path).pixel_array
    with PixelReader() as reader:
        found, other = read_dicom(path, reader), read_dicom(inverse, reader)
    assert np.abs(found.pixels.astype(int) - stored.astype(int) * 257).max() == 0
    assert np.array_equal(other.pixels, 65535 - found.pixels)
    assert found.about["DICOM view"] == "PA"


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR", "ASL", "IRP", "SAR"])
def test_slices_are_seen_the_same_whatever_the_axes_on_disk(axes, tmp_path):
    nifti(tmp_path / "volume.nii.gz", brain(tumour=True), axes)
    mask = np.zeros(brain().shape, np.uint8)
    mask[7:10, 11:15, 9:11] = 2
    nifti(tmp_path / "mask.nii.gz", mask, axes)
    slices = cut(tmp_path / "volume.nii.gz", tmp_path / "mask.nii.gz")
    assert [one.position for one in slices] == [7, 8, 9, 10, 11, 12]
    for one in slices:
        marked = np.zeros((16, 12), bool)
        marked[SEEN_TUMOUR] = one.position in (9, 10)
        assert np.array_equal(one.marked, marked)
        if one.position in (9, 10):
            assert np.array_equal(one.pixels == 255, marked)
        assert one.pixels[1, 0] > one.pixels[1, -1]  # the patient's right is on the left of the picture
        assert one.pixels[0, 0] > one.pixels[-1, 0]  # anterior is up
    assert slices[0].pixels[8, 6] < slices[-1].pixels[8, 6]


def test_a_real_brain_is_seen_from_below_with_its_front_up():
    """The example of nibabel itself, stored with axes to the left, the front and the top."""
    import nibabel

    path = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"
    if not path.is_file():
        pytest.skip("this nibabel comes without its examples")
    stored = np.asanyarray(nibabel.load(path).dataobj).astype(float)
    for one in cut(path):
        expected = stored[:, ::-1, one.position].T
        assert one.pixels.shape == (41, 33)
        assert np.corrcoef(one.pixels.ravel(), expected.ravel())[0, 1] > 0.99


def test_nine_slices_of_a_volume_of_brats():
    assert positions(155) == [60, 65, 70, 75, 80, 85, 90, 95, 100]
    assert positions(1) == [0]


def test_slices_have_label_mask_and_patient(make, tmp_path):
    make("brats", tmp_path)
    found = slices_of(load("brats", tmp_path, "t2"))
    known = [e for e in found if e.group == "BraTS2021_00000"]
    assert [e.label for e in known] == [NORMAL, NORMAL, ANOMALOUS, ANOMALOUS, NORMAL, NORMAL]
    assert [e.kind for e in known] == ["good", "good", "glioma", "glioma", "good", "good"]
    for example in known:
        image = read_image(example.path)[..., 0]
        marked = np.zeros(image.shape, bool)
        marked[SEEN_TUMOUR] = example.label == ANOMALOUS
        assert np.array_equal(truth(example, *image.shape, SETS["brats"].soft_masks), marked)
    others = [e for e in found if e.group == "BraTS2021_00001"]
    assert {(e.label, e.split) for e in others} == {(UNKNOWN, "validation")}
    make("ixi", tmp_path / "ixi")
    assert {(e.label, e.kind, e.masks) for e in slices_of(load("ixi", tmp_path / "ixi", "T1"))} == {
        (NORMAL, "good", ())
    }


def test_pictures_are_written_once_and_anew_after_a_change(tmp_path, cache):
    brats_case(tmp_path, 3, sequences=("flair",))
    first = slices_of(load("brats", tmp_path, "flair"))
    times = {e.path: e.path.stat().st_mtime_ns for e in first}
    assert slices_of(load("brats", tmp_path, "flair")) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert all(cache in path.parents for path in times)
    nifti(tmp_path / "BraTS2021_00003/BraTS2021_00003_flair.nii.gz", brain(), "LPS")
    assert not set(times) & {e.path for e in slices_of(load("brats", tmp_path, "flair"))}
    assert not list(cache.rglob(".*"))


def test_a_bar_is_shown_only_for_what_is_not_there_yet(make, tmp_path):
    make("vindr_cxr", tmp_path)
    shown = []

    def bar(what, steps):
        shown.append((what, steps))
        return lambda done: None

    token = _ACTIVE.set(bar)
    try:
        examples = load("vindr_cxr", tmp_path)
        plain(examples[:2])
        plain(examples)
        plain(examples)
    finally:
        _ACTIVE.reset(token)
    assert shown == [("DICOM files written as PNG", 2), ("DICOM files written as PNG", 3)]


def damaged(path):
    """A volume of which the compressed voxels go on with a block of a type that deflate does not have."""
    nifti(path, brain(), "RAS")
    packer = zlib.compressobj(wbits=31)
    begin = packer.compress(gzip.decompress(path.read_bytes())[:1000]) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(begin + b"\xff" * 64)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: path.write_bytes(b"\x1f\x8bnothing"), "is no readable NIfTI"),
        (damaged, "is no readable NIfTI"),
        (lambda path: nifti(path, np.full((4, 4, 4), np.nan, np.float32), "RAS"), "not finite"),
        (lambda path: nifti(path, np.ones((4, 4, 4), np.int16), "RAS"), "has one value"),
        (lambda path: nifti(path, brain(), "RAS", code=0), "states no orientation"),
    ],
)
def test_volumes_that_cannot_be_used_are_named(write, says, tmp_path):
    path = tmp_path / "IXI002-Guys-0828-T1.nii.gz"
    write(path)
    with pytest.raises(DatasetError, match=rf"IXI002-Guys-0828-T1\.nii\.gz.*{says}"):
        slices_of(load("ixi", tmp_path, "T1"))


def test_a_mask_of_another_place_is_refused(tmp_path):
    brats_case(tmp_path, 0, sequences=("flair",))
    nifti(tmp_path / "BraTS2021_00000/BraTS2021_00000_seg.nii.gz", np.ones((12, 16, 19), np.uint8), "LPS")
    with pytest.raises(DatasetError, match="another place or size"):
        slices_of(load("brats", tmp_path, "flair"))


def test_rows_of_tables_become_files(make, tmp_path):
    make("mixedwm38", tmp_path / "mixed")
    shown = plain(load("mixedwm38", tmp_path / "mixed"))
    assert all(e.row is None for e in shown)
    assert read_image(shown[0].path).shape == (52, 52, 1)
    assert set(np.unique(read_image(shown[0].path))) == {170}
    make("medmnist", tmp_path / "med")
    with pytest.raises(DatasetError, match="holds volumes"):
        plain(load("medmnist", tmp_path / "med", "organmnist3d"))


def test_the_audit_leaves_tables_as_they_are(make, tmp_path, cache):
    make("medmnist", tmp_path)
    examples = load("medmnist", tmp_path, "octmnist")
    assert plain(examples, tables=False) == examples
    assert not cache.exists()
    with pytest.raises(DatasetError, match="holds volumes"):
        audit("volumes", load("medmnist", tmp_path, "adrenalmnist3d"))


@pytest.mark.parametrize(
    ("name", "category", "split"),
    [
        ("visa", "pcb1", OFFICIAL),
        ("elpv", "mono", OFFICIAL),  # all for training, and no groups: `bench run` refuses it
        ("chexpert", "", VALIDATED),
        ("kolektor_sdd", "", GROUPS),
        ("rsna_pneumonia", "", GROUPS),
        ("brats", "t1", GROUPS),
        ("vindr_cxr", "", OFFICIAL),
        ("medmnist", "bloodmnist", OFFICIAL),  # no class of it is normal
    ],
)
def test_whose_split_it_is(name, category, split, make, tmp_path):
    make(name, tmp_path)
    assert with_test_part(load(name, tmp_path, category))[1] == split


def test_patients_are_on_one_side_and_the_line_says_whose_split_it_is():
    patients = [f"patient{i}" for i in range(400)]
    examples = [
        Example(path, TRAIN, i % 2, "x", group=group)
        for i, group in enumerate(patients)
        for path in (f"{group}a", f"{group}b")
    ]
    found, words = with_test_part(examples)
    assert words == GROUPS
    sides = [{e.group for e in found if e.split == split} for split in (TRAIN, TEST)]
    assert not sides[0] & sides[1]
    assert 90 <= len(sides[1]) <= 150
    assert sides[1] == {group for group in patients if is_tested(group)}
    assert with_test_part(found) == (found, OFFICIAL)
    alone = [e._replace(group="") for e in examples]
    assert with_test_part(alone) == (alone, OFFICIAL)
    checked = [*examples, Example("v", "validation", 1, "x", group="v"), Example("t", TEST, UNKNOWN, "x")]
    assert [e.split for e in with_test_part(checked)[0]][-2:] == [TEST, TEST]
    assert with_test_part(checked)[1] == VALIDATED


def test_the_patients_of_rsna_are_those_of_nih_where_the_list_is_there(make, tmp_path):
    import json

    make("rsna_pneumonia", tmp_path)
    rows = [{"subset_img_id": name, "img_id": f"0000000{i // 2}_00{i}.png"} for i, name in enumerate("abcd")]
    path = tmp_path / "pneumonia-challenge-dataset-mappings_2018.json"
    path.write_text(json.dumps(rows))
    assert [e.group for e in load("rsna_pneumonia", tmp_path)] == ["00000000", "00000000", "00000001", "00000001"]
    path.write_text(json.dumps(rows[:2]))
    with pytest.raises(DatasetError, match="lacks 1 of 3 images: c"):
        load("rsna_pneumonia", tmp_path)
    path.write_text("[1]")
    with pytest.raises(DatasetError, match="subset_img_id"):
        load("rsna_pneumonia", tmp_path)


def test_a_set_of_volumes_opens_as_an_experiment(tmp_path):
    for number in range(8):
        brats_case(tmp_path / "brats", number, sequences=("flair",))
    protocol = open_part(Part(f"brats={tmp_path / 'brats'}", "flair"), None, 0, tmp_path / "masks")
    assert "no split" in protocol.split
    learned = {protocol.groups[path] for path in protocol.images.train}
    tested = {protocol.groups[sample.path] for sample in protocol.images.test}
    assert learned
    assert tested
    assert not learned & tested
    assert {sample.label for sample in protocol.images.test} == {NORMAL, ANOMALOUS}
    assert all((sample.mask is not None) == sample.label for sample in protocol.images.test)
    assert next(iter(protocol.images.frames())).shape[-2:] == (16, 12)
    few = open_part(Part(f"brats={tmp_path / 'brats'}", "flair"), 4, 0, None)
    assert (len(few.images.train), len(few.images.test)) == (4, 4)


def test_healthy_volunteers_alone_are_no_experiment(make, tmp_path):
    make("ixi", tmp_path)
    with pytest.raises(DatasetError, match=r"ixi T1 cannot be run"):
        open_part(Part(f"ixi={tmp_path}", "T1"), None, 0, None)


@pytest.fixture
def rsna(tmp_path):
    """24 images, 8 of them with an opacity and its box."""
    root, kinds = tmp_path / "rsna", {f"{i:02}": "Lung Opacity" if i % 3 == 0 else "Normal" for i in range(24)}
    boxed = {name for name, kind in kinds.items() if kind == "Lung Opacity"}
    for name in kinds:
        rsna_file(root / f"stage_2_train_images/{name}.dcm", x_ray((2, 3, 7, 8) if name in boxed else None))
    (root / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\n" + "".join(f"{name},{kind}\n" for name, kind in kinds.items())
    )
    (root / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\n"
        + "".join(f"{name},2,3,5,5,1\n" if name in boxed else f"{name},,,,,0\n" for name in kinds)
    )
    return root


def test_brightness_finds_the_boxes_of_a_set_of_dicom_files(rsna, tmp_path):
    """The scorer is the grey value itself: nothing is learned, and boxes and images lie on one canvas."""
    protocol = open_part(Part(f"rsna_pneumonia={rsna}"), None, 0, tmp_path / "masks")
    assert not {protocol.groups[path] for path in protocol.images.train} & {
        protocol.groups[sample.path] for sample in protocol.images.test
    }

    def grey(canvas):
        return Scores(canvas.pixels.amax((1, 2, 3)), canvas.pixels[:, 0])

    bright = judge(protocol.images, {"grey": grey})
    found = bright.figures("grey")
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.97


@pytest.mark.slow
def test_a_run_on_dicom_files_from_the_command_line(rsna, tmp_path, call, monkeypatch):
    """What `anomaly bench run --data rsna_pneumonia=FOLDER` does, fit and scoring in this process."""
    import csv
    import json

    from benchmarks.running import work

    def at_once(task, arguments, threads):
        return json.loads(json.dumps(getattr(work, task.partition(":")[2])(**json.loads(json.dumps(arguments)))))

    monkeypatch.setattr(work, "run_isolated", at_once)
    out = tmp_path / "out"
    status, _, err = call(
        *("bench", "run", "--data", f"rsna_pneumonia={rsna}", "--detectors", "gaussian"),
        *("--runs", 1, "--threads", 1, "--limit", 6, "--out", out),
    )
    assert status == 0, err
    with (out / "results.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["detector"] == "gaussian")
    assert (row["train"], row["test"]) == ("4", "6")
    assert (float(row["image_auroc"]), float(row["pixel_auroc"]) > 0.9) == (1.0, True)
