"""A whole copy passes and leaves a manifest; what is missing, added, changed or of another size afterwards is told."""

import pytest

from anomaly.errors import DatasetError
from benchmarks.datasets import cards, integrity
from benchmarks.datasets.integrity import check, default_manifest, read_manifest, sha256_of


@pytest.fixture
def copy(make, tmp_path, monkeypatch):
    """A tiny tree of MPDD, whose card is made to expect just this."""
    make("mpdd", tmp_path / "mpdd")
    real = cards.read_card("mpdd")
    tiny = {"train/normal": 2, "test/normal": 1, "test/anomalous": 1}
    small = real.model_copy(update={"counts": dict.fromkeys(real.counts, tiny), "size_limits": (8, 8, 8, 8)})
    monkeypatch.setattr(integrity, "read_card", lambda name: small)
    return tmp_path / "mpdd"


def test_the_first_check_writes_a_manifest_and_the_second_compares(copy, tmp_path):
    manifest = tmp_path / "deep" / "mpdd.sha256"
    first = check("mpdd", copy, manifest)
    assert not first.faults
    assert "24 images" in first.in_words()
    known = read_manifest(manifest)
    assert len(known) == 30
    assert known["tubes/train/good/000.png"] == sha256_of(copy / "tubes/train/good/000.png")
    second = check("mpdd", copy, manifest)
    assert not second.faults
    assert any("30 files are those of" in note for note in second.notes)


def test_changed_new_and_missing_files_are_told(copy, tmp_path):
    manifest = tmp_path / "m"
    check("mpdd", copy, manifest)
    image = copy / "tubes/train/good/000.png"
    image.write_bytes((copy / "tubes/ground_truth/crack/000_mask.png").read_bytes())
    (copy / "notes.txt").write_text("new")
    (copy / "connector/train/good/001.png").unlink()
    faults = "\n".join(check("mpdd", copy, manifest).faults)
    assert "1 files changed" in faults
    assert "tubes/train/good/000.png" in faults
    assert "1 files new" in faults
    assert "notes.txt" in faults
    assert "1 files missing" in faults
    assert "connector: 1 train/normal images instead of 2" in faults


def test_a_partial_copy_writes_no_manifest_and_shows_the_layout(copy, tmp_path):
    (copy / "tubes/test/good/000.png").unlink()
    found = check("mpdd", copy, tmp_path / "m")
    assert any("test/good holds no image" in fault for fault in found.faults)
    assert not (tmp_path / "m").exists()
    assert "expected layout" in found.in_words()
    assert found.in_words().endswith("not whole")


def test_images_of_another_size_and_broken_ones_are_told(copy, tmp_path):
    import cv2
    import numpy as np

    cv2.imwrite(str(copy / "tubes/train/good/000.png"), np.zeros((9, 8), np.uint8))
    (copy / "tubes/train/good/001.png").write_bytes(b"not an image")
    faults = "\n".join(check("mpdd", copy, tmp_path / "m", hashes=False).faults)
    assert "2 images are not as they should be" in faults
    assert "9 x 8 px" in faults
    assert "001.png" in faults


def test_real_counts_are_those_of_the_card(make, tmp_path):
    make("visa", tmp_path / "visa")
    faults = "\n".join(check("visa", tmp_path / "visa", tmp_path / "m", hashes=False).faults)
    assert "pcb1: 1 train/normal images instead of 904, 1 test/normal images instead of 100" in faults


def test_counts_whatever_the_label(make, tmp_path):
    make("vindr_cxr", tmp_path / "vindr")
    faults = "\n".join(check("vindr_cxr", tmp_path / "vindr", tmp_path / "m", hashes=False).faults)
    assert "all: 3 train/any images instead of 15,000, 2 test/any images instead of 3,000" in faults


def test_a_manifest_of_something_else_is_refused(copy, tmp_path):
    (tmp_path / "m").write_text("hello\n")
    with pytest.raises(DatasetError, match="is no manifest"):
        check("mpdd", copy, tmp_path / "m")
    with pytest.raises(DatasetError, match="is no folder"):
        check("mpdd", tmp_path / "nowhere", tmp_path / "m")


def test_copies_in_two_places_have_two_manifests(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = {default_manifest("visa", tmp_path / "a"), default_manifest("visa", tmp_path / "b")}
    assert len(places) == 2
    assert all(tmp_path in place.parents for place in places)
