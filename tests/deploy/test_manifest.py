"""Frames are checked before they reach a model; manifests survive the metadata of a file."""

import json
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.deploy.manifest import KEY, Frame, Manifest
from anomaly.errors import ArtifactError, InputError, SettingError

GREY = Frame(channels=1, height=4, width=6, dtype="uint8")
RGB = Frame(channels=3, height=4, width=6, dtype="uint16", layout="NHWC", value_range=(0.0, 4095.0), unit="counts")
MANIFEST = Manifest(
    target="onnx",
    precision="fp32",
    frame=RGB,
    canvas=(64, 64),
    covered=(43, 64),
    review=1.5,
    ng=2.5,
    calibrated_on=40,
    promise='two\nlines, ünd <more> & "quotes"',
    score_typical=0.1,
    map_typical=0.2,
    map_threshold=3.0,
    model={"detector": "subspace"},
    parity={"score_max": 1e-6},
)


@pytest.mark.parametrize("shape", [(2, 1, 4, 6), (1, 4, 6), (4, 6)])
def test_frames_alone_or_together_become_a_batch_without_a_copy(shape):
    frames = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    batch = GREY.batch_of(frames)
    assert batch.shape[1:] == (1, 4, 6)
    assert np.shares_memory(batch, frames)
    assert np.array_equal(batch.ravel(), frames.ravel())


@pytest.mark.parametrize(
    ("frame", "frames"),
    [
        (GREY, np.zeros((1, 1, 4, 6), np.uint16)),
        (GREY, np.zeros((1, 1, 4, 6), np.float32)),
        (GREY, np.zeros((1, 3, 4, 6), np.uint8)),
        (GREY, np.zeros((1, 1, 6, 4), np.uint8)),
        (GREY, np.zeros((0, 1, 4, 6), np.uint8)),
        (GREY, np.zeros(6, np.uint8)),
        (GREY, [[0] * 6] * 4),
        (RGB, np.zeros((3, 4, 6), np.uint16)),
        (RGB, np.zeros((4, 6), np.uint16)),
        (RGB, np.full((4, 6, 3), 4096, np.uint16)),
    ],
)
def test_wrong_frames_are_refused_with_what_is_expected(frame, frames):
    with pytest.raises(InputError) as error:
        frame.batch_of(frames)
    assert frame.in_words() in str(error.value)


def test_nan_is_refused():
    frame = Frame(channels=1, height=None, width=None, dtype="float32", value_range=(0.0, 1.0))
    with pytest.raises(InputError, match="values nan to nan"):
        frame.batch_of(np.full((5, 7), np.nan, np.float32))
    assert frame.batch_of(np.ones((9, 3), np.float32)).shape == (1, 1, 9, 3)


@given(st.integers(1, 5), st.sampled_from(["NCHW", "NHWC"]), st.integers(1, 4))
def test_shape_and_check_agree(channels, layout, count):
    frame = Frame(channels=channels, height=8, width=5, dtype="uint8", layout=layout)
    assert frame.batch_of(np.zeros(frame.shape(count), np.uint8)).shape == frame.shape(count)


@pytest.fixture
def _without_type_checks():
    """Users have none: what the annotations forbid must be refused all the same."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_without_type_checks")
@pytest.mark.parametrize("change", [{"layout": "HWC"}, {"batch": (2, 1)}, {"batch": (0, 1)}, {"height": None}])
def test_impossible_frames_are_refused(change):
    with pytest.raises(SettingError):
        replace(GREY, **change)


def test_manifest_survives_metadata():
    assert Manifest.from_metadata(MANIFEST.to_metadata(), "file") == MANIFEST


def test_metadata_are_plain_lines_for_people():
    metadata = MANIFEST.to_metadata()
    assert metadata["output.decision"].endswith("0 OK, 1 REVIEW, 2 NG")
    assert metadata["input.frame"] == "uint16 (N, 4, 6, 3) in layout NHWC, raw values 0 to 4095 (counts)"
    assert float(metadata["threshold.ng"]) == 2.5
    assert json.loads(metadata[KEY])["decisions"] == ["OK", "REVIEW", "NG"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("ng"),
        lambda data: data.update(schema=2),
        lambda data: data.update(format="other"),
        lambda data: data.update(extra=1),
        lambda data: data["frame"].pop("dtype"),
        lambda data: data["frame"].update(layout="CHW"),
        lambda data: data.update(decisions=["NG", "OK"]),
        lambda data: data.update(frame=None),
    ],
)
def test_damaged_manifests_are_refused(damage):
    data = json.loads(MANIFEST.to_metadata()[KEY])
    damage(data)
    with pytest.raises(ArtifactError):
        Manifest.from_metadata({KEY: json.dumps(data)}, "file")


@pytest.mark.parametrize("metadata", [{}, {KEY: "no json"}, {KEY: "[]"}])
def test_files_without_a_manifest_are_refused(metadata):
    with pytest.raises(ArtifactError):
        Manifest.from_metadata(metadata, "file")
