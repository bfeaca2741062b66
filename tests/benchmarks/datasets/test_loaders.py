"""Loaders find split, label, masks, boxes and groups in trees of the true layout, and say what a partial tree lacks."""

import shutil

import numpy as np
import pytest

from anomaly.errors import DatasetError, ImageFileError, UnknownNameError
from benchmarks.datasets import ANOMALOUS, NORMAL, SETS, TEST, TRAIN, UNKNOWN, load, load_copy, truth
from benchmarks.datasets.arrays import pixels
from benchmarks.datasets.cards import counted


@pytest.mark.parametrize("name", SETS)
def test_a_whole_tree_is_found(name, make, tmp_path):
    expected, _ = make(name, tmp_path)
    examples = load(name, tmp_path)
    found = counted(examples)
    assert set(found) == {one or "all" for one in SETS[name].categories}
    if expected is not None:
        assert all(own == expected for own in found.values()), found
    assert all(example.path.is_file() for example in examples)
    assert all(mask.is_file() for example in examples for mask in example.masks)
    assert all((example.kind == "good") == (example.label == NORMAL) for example in examples)
    assert load(name, tmp_path, SETS[name].categories[0]) == [e for e in examples if e.category == examples[0].category]


@pytest.mark.parametrize("name", SETS)
def test_a_partial_tree_is_refused_with_what_is_missing(name, make, tmp_path):
    _, removable = make(name, tmp_path / "whole")
    assert removable
    for i, (path, word) in enumerate(removable.items()):
        partial = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", partial)
        target = partial / path
        shutil.rmtree(target) if path.endswith("/") else target.unlink()
        with pytest.raises(DatasetError) as caught:
            load(name, partial)
        message = str(caught.value)
        assert word in message
        assert f"expected layout of {name}:" in message


@pytest.mark.parametrize("name", SETS)
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(DatasetError, match=r"lacks|holds no|is no folder"):
        load(name, tmp_path)
    with pytest.raises(DatasetError):
        load(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", SETS)
def test_the_tree_of_another_set_is_refused_with_what_is_missing(name, make, tmp_path):
    make("kolektor_sdd" if name != "kolektor_sdd" else "mpdd", tmp_path)
    with pytest.raises(DatasetError, match=rf"(?s)(lacks|holds no image).*expected layout of {name}:"):
        load(name, tmp_path)


BOXES = {"deeppcb", "neu_det", "bsdata", "nih_chestxray14", "rsna_pneumonia", "vindr_cxr"}
IMAGE_LABELS = {"elpv", "wm811k", "mixedwm38", "medianomaly", "medmnist", "kermany", "chexpert", "ixi", "brats"}
MASKED = [name for name in SETS if name not in BOXES | IMAGE_LABELS]


@pytest.mark.parametrize("name", MASKED)
def test_masks_are_drawn_whatever_their_values(name, make, marked, tmp_path):
    make(name, tmp_path)
    chosen = [e for e in load(name, tmp_path, SETS[name].categories[0]) if e.label == ANOMALOUS]
    for example in chosen:
        assert np.array_equal(truth(example, 8, 8, SETS[name].soft_masks), marked)


def test_a_mask_of_another_size_is_refused(make, tmp_path):
    make("mpdd", tmp_path)
    bad = next(e for e in load("mpdd", tmp_path, "tubes") if e.masks)
    with pytest.raises(ImageFileError, match="8 x 8 for an image of 9 x 8"):
        truth(bad, 9, 8, False)


@pytest.mark.parametrize(
    ("name", "kind", "box"),
    [
        ("neu_det", "crazing", (1, 2, 5, 6)),
        ("deeppcb", "mousebite", (1, 2, 5, 6)),
        ("nih_chestxray14", "Mass", (1, 2, 4, 6)),
        ("rsna_pneumonia", "Lung Opacity", (1, 2, 4, 6)),
        ("vindr_cxr", "Nodule/Mass", (1, 2, 5, 6)),
    ],
)
def test_boxes_have_their_corners_and_kinds(name, kind, box, make, tmp_path):
    make(name, tmp_path)
    region = next(e for e in load(name, tmp_path) if e.regions).regions[0]
    assert region.kind == kind
    assert (*region.points[0], *region.points[2]) == box


def test_polygons_are_filled_and_overlaps_stay_filled(make, tmp_path):
    make("bsdata", tmp_path)
    example = next(e for e in load("bsdata", tmp_path) if e.regions)
    twice = example._replace(regions=example.regions * 2)
    once = truth(example, 8, 8, False)
    assert 10 <= once.sum() <= 20
    assert np.array_equal(once, truth(twice, 8, 8, False))


def test_without_marks_a_normal_image_is_all_normal_and_another_one_is_not_known(make, tmp_path):
    make("elpv", tmp_path)
    by_label = {e.label: e for e in load("elpv", tmp_path, "mono")}
    assert not truth(by_label[NORMAL], 8, 8, False).any()
    assert truth(by_label[ANOMALOUS], 8, 8, False) is None
    assert truth(by_label[UNKNOWN], 8, 8, False) is None


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("kolektor_sdd", {"kos01", "kos02"}),
        ("real_iad", {"S0001", "S0002", "S0003"}),
        ("bsdata", {"277500_315"}),
        ("wm811k", {"lot1", "lot2"}),
        ("chexpert", {"patient00001", "patient00002", "patient00003", "patient64541"}),
        ("ixi", {"IXI002", "IXI012"}),
        ("kermany", {"person1", "NORMAL2-IM-0130", "DME-1", "DRUSEN-2"}),
    ],
)
def test_groups_are_what_must_stay_together(name, groups, make, tmp_path):
    make(name, tmp_path)
    assert {e.group for e in load(name, tmp_path)} == groups


def test_tables_of_images_are_read_row_by_row(make, tmp_path):
    make("mixedwm38", tmp_path / "mixed")
    mixed = load("mixedwm38", tmp_path / "mixed")
    assert [e.kind for e in mixed] == ["good", "Center", "Edge-Loc+Random"]
    assert pixels(mixed[0]).shape == (52, 52, 1)
    assert set(np.unique(pixels(mixed[0]))) == {170}
    make("wm811k", tmp_path / "wm")
    wafers = load("wm811k", tmp_path / "wm")
    assert pixels(wafers[0])[..., 0].tolist() == [[0, 128], [255, 128]]
    make("medmnist", tmp_path / "med")
    oct_images = load("medmnist", tmp_path / "med", "octmnist")
    assert {e.label for e in oct_images} == {ANOMALOUS}  # classes 0 and 1 are CNV and DME
    assert pixels(oct_images[0]).shape == (4, 4, 1)
    assert {e.label for e in load("medmnist", tmp_path / "med", "bloodmnist")} == {UNKNOWN}


def test_dicom_files_and_volumes_are_not_taken_for_images(make, tmp_path):
    make("ixi", tmp_path / "ixi")
    make("rsna_pneumonia", tmp_path / "rsna")
    for example in (load("ixi", tmp_path / "ixi", "T1")[0], load("rsna_pneumonia", tmp_path / "rsna")[0]):
        with pytest.raises(ImageFileError, match="makes pictures of it"):
            pixels(example)


def test_unknown_names_list_the_valid_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="mvtec_ad"):
        load("mvtec", tmp_path)
    with pytest.raises(UnknownNameError, match="pcb1"):
        load("visa", tmp_path, "pcb9")


def test_a_broken_list_is_named(make, tmp_path):
    make("real_iad", tmp_path)
    (tmp_path / "realiad_jsons/realiad_jsons_sv/mint.json").write_text("{")
    with pytest.raises(DatasetError, match=r"mint\.json is no readable JSON"):
        load("real_iad", tmp_path, "mint")
    make("deeppcb", tmp_path)
    (tmp_path / "PCBData/group00041/00041_not/00041000.txt").write_text("1 2 3 4 9")
    with pytest.raises(DatasetError, match="kind 1 to 6"):
        load("deeppcb", tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "train", "normal", "anomalous"),
    [
        ("magnetic_tile", 330, 150, 192),
        ("elpv", 400, 188, 188),
        ("bsdata", 184, 107, 80),
        ("kermany", 900, 260, 400),
    ],
)
def test_copies_at_hand_are_those_of_their_description(name, train, normal, anomalous, shared, monkeypatch):
    monkeypatch.setenv("ANOMALY_SHARED", str(shared))
    examples = load_copy(name)
    have = [sum(e.split == split and e.label == label for e in examples) for split, label in
            ((TRAIN, NORMAL), (TEST, NORMAL), (TEST, ANOMALOUS))]  # fmt: skip
    assert have == [train, normal, anomalous]
    first = next(e for e in examples if e.label == ANOMALOUS)
    image = pixels(first)
    assert image.ndim == 3
    if first.masks:
        assert truth(first, *image.shape[:2], SETS[name].soft_masks).any()


@pytest.mark.shared
def test_the_chest_xrays_at_hand_follow_their_protocol(shared, monkeypatch):
    monkeypatch.setenv("ANOMALY_SHARED", str(shared))
    examples = load_copy("nih_chestxray14")
    train, test = ({e.group for e in examples if e.split == split} for split in (TRAIN, TEST))
    assert train
    assert not train & test
    assert {e.path.parent.name for e in examples if e.split == TEST} == {"Pneumonia"}
    assert any(e.regions for e in examples if e.label == ANOMALOUS)
    assert not any(e.regions for e in examples if e.label == NORMAL)
