"""From files to a verdict: planted drift of light, lens and camera, and defects that are none of these."""

import json
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from anomaly.artifact import load, save
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.drift.descriptors import COLOUR, EMBEDDING, GLOBAL, SHIFT, describe, names
from anomaly.drift.making import ReferenceMaker
from anomaly.drift.monitor import ALL_SCORES, Monitoring
from anomaly.drift.run import Outcome, first_of_groups, in_time_order, monitor_files
from anomaly.errors import ArtifactError, DatasetError, SettingError
from anomaly.fitting import Plan, fit_files
from anomaly.images import infer_input, list_images
from anomaly.images.synthetic import LOT, normal
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images, with_square

SIZE = (96, 96)
BEFORE, AFTER = 16, 24


def part(seed):
    """An image of the fixture that all parts lie in: a fixed structure, each part with its own surface and light."""
    seed *= LOT  # every part is of a lot of its own: independent draws
    image = normal("cast", (112, 112), seed).astype(np.float32)
    image[30:70, 36:84] += 60
    cv2.circle(image, (90, 90), 9, 30.0, -1)
    return np.clip(image, 0, 255)


def framed(image, shift=0):
    """What the camera sees; it may have moved."""
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8).reshape(112, 112)[8:104, 8 + shift : 104 + shift]


def defect(image, k):
    """A bright scratch or a dark pit."""
    image = image.copy()
    row, column = 20 + 7 * (k % 10), 15 + 6 * (k % 12)
    if k % 2:
        cv2.line(image, (column, row), (column + 18, row + 9), 250.0, 2)
    else:
        cv2.circle(image, (column, row), 5, 5.0, -1)
    return image


PLANTED = {
    "light": lambda image: framed(image * 0.8),
    "lens": lambda image: framed(cv2.GaussianBlur(image, (0, 0), 0.9)),
    "camera": lambda image: framed(image, shift=3),
}


def written(folder, images):
    folder.mkdir()
    for k, image in enumerate(images):
        cv2.imwrite(str(folder / f"{k:04d}.png"), image)
    return list_images([folder])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    paths = written(tmp_path_factory.mktemp("normals") / "parts", [framed(part(k)) for k in range(90)])
    return fit_files(SubspaceDetector(input=infer_input(paths, SIZE)), paths, Plan(fraction=0.7), [])


@pytest.fixture(scope="module")
def model(artifact, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "part.safetensors"
    save(path, artifact)
    return path


@pytest.fixture(scope="module")
def dimmed(tmp_path_factory):
    """A stream in which the light drops after `BEFORE` images, with a defect now and then."""
    images = [part(1000 + k) for k in range(BEFORE + AFTER)]
    images = [defect(image, k) if k % 9 == 4 else image for k, image in enumerate(images)]
    seen = [framed(image) if k < BEFORE else PLANTED["light"](image) for k, image in enumerate(images)]
    return written(tmp_path_factory.mktemp("stream") / "dimmed", seen)


@pytest.mark.parametrize(("kind", "number"), [("lens", "sharpness"), ("camera", "shift across")])
def test_planted_drift_is_found_dated_and_named(artifact, tmp_path, kind, number):
    images = [part(2000 + k) for k in range(BEFORE + AFTER)]
    seen = [framed(image) if k < BEFORE else PLANTED[kind](image) for k, image in enumerate(images)]
    result = monitor_files(artifact, written(tmp_path / kind, seen), Monitoring(), [])
    assert result.outcome is Outcome.DRIFT, result.headline()
    assert result.alarms[0].image >= BEFORE
    assert abs(result.since - BEFORE) <= 4
    assert number in [change.name for change in result.moved]


def test_normal_parts_with_a_few_defects_are_no_drift(artifact, tmp_path):
    images = [defect(part(3000 + k), k) if k % 10 == 3 else part(3000 + k) for k in range(BEFORE + AFTER)]
    result = monitor_files(artifact, written(tmp_path / "few", [framed(i) for i in images]), Monitoring(), [])
    assert result.outcome is Outcome.NO_DRIFT
    assert result.headline() == "NO DRIFT in 40 images"


def test_a_lot_of_defects_is_named_as_such_and_not_as_drift(artifact, tmp_path):
    images = [part(4000 + k) if k < BEFORE else defect(part(4000 + k), k) for k in range(BEFORE + AFTER)]
    result = monitor_files(artifact, written(tmp_path / "many", [framed(i) for i in images]), Monitoring(), [])
    assert result.outcome is Outcome.MANY_ANOMALIES, result.headline()
    assert [alarm.name for alarm in result.alarms] == [ALL_SCORES]
    assert not result.moved
    assert "look for defects" in "\n".join(result.in_words())


# The command


@pytest.fixture(scope="module")
def report(artifact, dimmed, tmp_path_factory):
    """The files of the report on the dimmed stream, and the result."""
    from anomaly.drift.page import write_report
    from anomaly.errors import ImageFileError

    out = tmp_path_factory.mktemp("report")
    result = monitor_files(artifact, dimmed, Monitoring(), [])
    failures = [ImageFileError("bad<script>.png", "is no image")]
    low_high = artifact.scorer.input.value_range
    page = write_report(out, result, title="part <b>", model={"a": "b"}, value_range=low_high, failures=failures)
    return page, out / "drift.json", result


def test_dimmer_light_is_told_apart_from_the_defects_among_it(report):
    _, _, result = report
    assert result.outcome is Outcome.DRIFT
    assert abs(result.since - BEFORE) <= 4
    assert result.moved[0].name == "brightness"
    assert result.moved[0].shift < -2


def test_report_needs_nothing_but_itself_and_escapes_what_it_names(report):
    page, data, result = report
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<b>", html.replace("<b class=alarm>", ""))
    assert "bad&lt;script&gt;.png" in html
    assert html.count("data:image/jpeg;base64,") == 12
    assert f"since image {result.since + 1} of 40" in html
    found = json.loads(data.read_text())
    assert found["outcome"] == "DRIFT"
    assert found["since_image"] == result.since + 1
    assert "brightness" in found["moved"]
    assert len(found["rows"]) == 40
    assert set(found["rows"][0]["log10_wealth"]) == set(result.monitor.names)


@pytest.mark.peer
def test_report_works_in_a_browser_without_a_network(report, browse):
    shown = browse(report[0].as_uri(), "--dump-dom")
    assert shown.count("<polyline") == len(report[2].monitor.names) + len(report[2].numbers.names)


def test_command_says_so_with_words_files_and_status(call, model, dimmed, tmp_path):
    out = tmp_path / "out"
    status, words, _ = call("drift", model, dimmed[0].parent, "--out", out)
    assert status == 3
    assert re.match(r"DRIFT since image 1[3-9] of 40 \(alarm at image \d+\): ", words)
    assert "Moved: brightness" in words
    assert "at most 1 %" in words
    assert (out / "drift.html").is_file()
    assert json.loads((out / "drift.json").read_text())["outcome"] == "DRIFT"


def test_command_without_drift_and_with_a_broken_file(call, model, dimmed, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    for path in dimmed[:3]:
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes(b"this is no image")
    status, words, err = call("drift", model, folder, "--out", tmp_path / "out", "--json")
    assert status == 1
    assert json.loads(words)["outcome"] == "NO DRIFT"
    assert "broken.png" in err


def test_a_model_without_a_reference_still_loads_and_says_what_to_do(call, artifact, dimmed, tmp_path):
    path = tmp_path / "earlier.safetensors"
    save(path, replace(artifact, reference=None))
    assert load(path).reference is None
    status, _, err = call("drift", path, dimmed[0], "--out", tmp_path / "out")
    assert status == 2
    assert "keeps no reference of its calibration normals" in err
    assert "fit it again to monitor drift" in err
    with pytest.raises(ArtifactError):
        monitor_files(load(path), dimmed, Monitoring(), [])


def test_command_refuses_what_cannot_be_meant(call, model, dimmed, tmp_path):
    for arguments, message in (
        (("--order", "size"), "--order must be one of name, modified"),
        (("--group", "lot"), "--manifest and --group go together"),
        (("--alarm-rate", 0), "alarm_rate of Monitoring"),
    ):
        status, _, err = call("drift", model, dimmed[0], "--out", tmp_path / "out", *arguments)
        assert status == 2
        assert message in err


# What is stored and described


def test_the_reference_survives_the_model_file(artifact, model):
    assert load(model).reference == artifact.reference
    assert len(artifact.reference.rows) == 63 - 6
    assert artifact.reference.names == ("score", *GLOBAL, *EMBEDDING, *SHIFT)


def test_one_image_of_a_group_is_kept_whatever_the_order_and_a_tenth_is_the_template(artifact):
    normals = [(tensor(framed(part(k))), float(k), f"patient {k % 12}") for k in range(24)]
    makers = [ReferenceMaker(artifact.scorer) for _ in range(2)]
    for k in range(24):
        makers[0].add(*normals[k])
        makers[1].add(*normals[-1 - k])
    assert makers[0].reference() == makers[1].reference()
    kept = [row[0] % 12 for row in makers[0].reference().rows]
    assert len(kept) == len(set(kept)) == 11


def test_descriptors_of_light_position_and_defects(artifact):
    def row(image):
        description = describe(artifact.scorer, tensor(image))
        return dict(zip(names(artifact.scorer), description.row(artifact.reference.thumbnail), strict=True))

    plain = part(7)
    wanted, dimmed, damaged, moved = map(
        row, (framed(plain), framed(plain * 0.8), framed(defect(plain, 1)), framed(plain, shift=4))
    )
    assert dimmed["brightness"] == pytest.approx(0.8 * wanted["brightness"], rel=0.01)
    for name in ("contrast", "light across", "light down", *SHIFT):
        assert dimmed[name] == pytest.approx(wanted[name], abs=0.01)
    assert dimmed["sharpness"] == pytest.approx(wanted["sharpness"], abs=0.05)
    for name in (*GLOBAL, *SHIFT):
        assert abs(damaged[name] - wanted[name]) < 0.03
    assert moved["shift across"] - wanted["shift across"] == pytest.approx(-4 / 96, abs=0.01)
    assert abs(moved["shift down"] - wanted["shift down"]) < 0.01


def test_descriptors_are_of_the_image_and_not_of_the_padding():
    scorer = SubspaceDetector(input=InputSpec(size=(64, 96))).fit([sample_images(InputSpec(size=(64, 96)), 4, seed=0)])
    assert names(scorer) == (*GLOBAL, COLOUR, *EMBEDDING, *SHIFT)
    image = sample_images(InputSpec(size=(64, 64)), 1, seed=1)[0]
    narrow = replace(scorer.detector, input=InputSpec(size=(64, 64)))
    same = type(scorer)(narrow, scorer.backbone, None, scorer.offset, scorer.matrix, scorer.sums)
    wanted, got = describe(same, image), describe(scorer, image)
    count = len(GLOBAL) + 1
    assert np.allclose(wanted.values[:count], got.values[:count], rtol=1e-4, atol=1e-5)
    assert np.array_equal(wanted.thumbnail, got.thumbnail)
    assert describe(scorer, image).values == got.values
    assert describe(scorer, with_square(image, scorer.input)).values != got.values


def test_a_flat_image_has_finite_descriptors(artifact):
    flat = describe(artifact.scorer, torch.full((1, 96, 96), 7, dtype=torch.uint8))
    assert np.isfinite(flat.row(flat.thumbnail)).all()
    assert np.isfinite(flat.row(artifact.reference.thumbnail)).all()


def test_order_and_groups_of_a_stream(tmp_path):
    import os

    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, time in zip(paths, (30, 10, 20), strict=True):
        path.touch()
        os.utime(path, (time, time))
    assert in_time_order(paths, "name") == paths
    assert [path.name for path in in_time_order(paths, "modified")] == ["b.png", "c.png", "a.png"]
    assert first_of_groups(paths, {"a.png": "x", "b.png": "y", "c.png": "x"}) == paths[:2]
    with pytest.raises(DatasetError, match=r"1 of 3 files have no group; the first is .*c\.png"):
        first_of_groups(paths, {"a.png": "x", "b.png": "y"})
    with pytest.raises(SettingError):
        Monitoring(anomalies=1.5)


def tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image))[None]
