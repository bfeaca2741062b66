"""Slices and images as they are explained: the ones that carry the score, with window, letters and stamps."""

import json

import numpy as np
import pytest

from explain.figures import part_figure
from explain.gradients import IntegratedGradients
from explain.methods import methods_named
from explain.writer import About, ReportWriter
from medical.choosing import Wishes
from medical.explaining.drawing import DIFFERENCES, NO_LETTERS, ON_THE_GRID, OTHERS, Shades, draw_image, draw_slice
from medical.explaining.explaining import StudyExplainer, judged_of
from medical.explaining.normals import NormalContent
from medical.explaining.wording import BADGES, score_in_words, wording
from medical.pseudonyms import Pseudonyms
from medical.refusals import RefusedError
from medical.triage import Triage
from tests.medical.phantoms import enhanced_ct, projection
from tests.medical.studies import write_chests, write_heads

EDGES = {
    "axial": ("R", "L", "A", "P"),
    "sagittal": ("A", "P", "H", "F"),
    "coronal": ("R", "L", "H", "F"),
    "reversed": ("L", "R", "A", "P"),
}


@pytest.fixture(scope="module")
def judged(decoder, studies_in):
    """Judges the studies of a folder; returns them with their outcomes."""

    def judge(model, folder):
        studies = studies_in(folder)
        return list(zip(studies, Triage(model, decoder, Pseudonyms(b"k" * 32)).outcomes(studies), strict=True))

    return judge


@pytest.fixture(scope="module")
def heads(head_model, judged, decoder, tmp_path_factory):
    """The three explained slices of a head with a lesion in slices 3 and 4, and the model."""
    folder = write_heads(tmp_path_factory.mktemp("ill"), range(9, 10), lesion=True)
    explainer = StudyExplainer(head_model, decoder, methods_named(["gradcam"]))
    parts = list(explainer.explained(judged(head_model, folder)))
    assert explainer.failures == []
    return parts


def test_slices_that_carry_the_score_come_first(heads):
    assert [part.detail.split(" (")[0] for part in heads[:2]] in (
        ["slice 3 of 6", "slice 4 of 6"],
        ["slice 4 of 6", "slice 3 of 6"],
    )
    assert len(heads) == 3
    for part in heads:
        number = int(part.detail.split()[1])
        assert f"{2.5 * (number - 1):g} mm from the first, instance number {number}" in part.detail
        assert "The study scores" in part.view.words
        assert "This picture alone scores" in part.view.words
    own = [part.ground.image for part in heads]
    assert own == sorted(own, reverse=True)
    assert np.mean(own[:2]) == pytest.approx(heads[0].judged.score, rel=1e-4)  # the model takes the mean of two


def test_a_map_of_a_slice_points_at_the_lesion(heads):
    row, column = np.unravel_index(heads[0].anomaly_map.argmax(), heads[0].anomaly_map.shape)
    assert (row, column) in [(r, c) for r in range(10, 20) for c in range(8, 18)]


def test_slices_are_shown_with_the_window_of_their_object(heads):
    part = heads[0]
    values = part.image[..., 0]
    shown = part.view.picture[..., 0].astype(float)
    height, width = values.shape
    assert shown.shape == (round(height * 0.8 / 0.6), width)  # pixels are 0.8 x 0.6 mm and become square
    # PS3.3 C.11.2.1.2.1 with centre 40 and width 400
    wanted = np.clip(((values - (40 - 0.5)) / (400 - 1) + 0.5) * 255, 0, 255)
    rows = (np.arange(shown.shape[0]) * height / shown.shape[0]).astype(int)
    assert np.median(np.abs(wanted[rows] - shown)) < 2
    assert part.view.edges == EDGES["axial"]


def test_every_picture_has_letters_and_the_stamp(heads, head_model):
    words = wording(head_model.artifact.calibration)
    figure = part_figure(heads[0], words)
    pictures = [axis for axis in figure.axes if axis.get_images() and axis.get_title()]
    assert len(pictures) == 2 + len(heads[0].explained)  # image, blurred twin, maps
    for axis in pictures:
        texts = {text.get_text() for text in axis.texts}
        assert texts == {"R", "L", "A", "P", "NOT FOR DIAGNOSTIC USE"}
    assert "Not a medical device" in figure.get_suptitle()


@pytest.mark.parametrize("orientation", EDGES)
def test_letters_follow_the_orientation(orientation, decoder, studies_in, tmp_path):
    (study,) = studies_in(write_heads(tmp_path / "in", range(1), orientation=orientation))
    volume = decoder.volume(study.series[0])
    for index in (0, 5):
        drawn = draw_slice(volume, index, volume.values[index])
        assert drawn.edges == EDGES[orientation]
        grey = np.clip(((volume.values[index] - 39.5) / 399 + 0.5) * 255, 0, 255)
        np.testing.assert_allclose(drawn.picture[..., 0], grey, atol=1.5)  # it is this slice, not another one


@pytest.mark.parametrize("shuffled", [False, True])
def test_slices_of_one_multi_frame_object(shuffled, decoder, studies_in, tmp_path):
    enhanced_ct(shuffled=shuffled).save_as(tmp_path / "one.dcm", enforce_file_format=True)
    (study,) = studies_in(tmp_path)
    volume = decoder.volume(study.series[0])
    count = len(volume.values)
    for index in range(count):
        drawn = draw_slice(volume, index, volume.values[index])
        assert drawn.place == f"frame {count - index if shuffled else index + 1}"
        assert drawn.edges == EDGES["axial"]
        assert np.corrcoef(drawn.picture[..., 0].ravel(), volume.values[index].ravel())[0, 1] > 0.7


def test_an_object_without_orientation_says_so(studies_in, decoder, tmp_path):
    made = projection()
    made.PatientOrientation = ["", ""]
    made.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    (study,) = studies_in(tmp_path)
    instance = study.series[0].instances[0]
    drawn = draw_image(instance, 1, decoder.image(instance).values)
    assert drawn.edges == ("", "", "", "")
    assert NO_LETTERS in drawn.notes


def test_shades_give_a_window_back():
    values = np.random.default_rng(0).uniform(-1000, 1000, (60, 50)).astype(np.float32)
    grey = np.clip((values + 160) * 255 / 400, 0, 255).round().astype(np.uint8)
    shades = Shades.of(values, np.repeat(grey[..., None], 3, axis=2))
    asked = np.array([[-900.0, -160.0, 40.0, 240.0, 900.0]])
    np.testing.assert_allclose(shades(asked)[..., 0], [[0, 0, 128, 255, 255]], atol=4)


def test_normal_content_is_used_and_never_shown(head_model, judged, decoder, studies_in, tmp_path):
    normals = studies_in(write_heads(tmp_path / "normals", range(20, 24)))
    content = NormalContent.read(normals, head_model, decoder)
    assert content.studies == 4
    ill = judged(head_model, write_heads(tmp_path / "ill", range(9, 10), lesion=True))
    (part,) = StudyExplainer(head_model, decoder, methods_named(["gradcam"]), content, top=1).explained(ill)
    assert part.twin.kind.startswith("nearest normal")
    assert part.twin.sources[0].startswith("normal ")
    assert DIFFERENCES not in part.view.notes  # Grad-CAM does not take differences from it
    assert part.view.twin is None
    assert part.view.nearest is None
    assert OTHERS in part.view.notes
    assert part.ground.judged
    assert part.ground.twin < part.ground.image
    figure = part_figure(part, wording(head_model.artifact.calibration))
    assert not any("as it should look" in axis.get_title() for axis in figure.axes)


def test_maps_that_are_differences_from_what_is_not_shown_say_so(head_model, judged, decoder, studies_in, tmp_path):
    content = NormalContent.read(studies_in(write_heads(tmp_path / "normals", range(20, 22))), head_model, decoder)
    ill = judged(head_model, write_heads(tmp_path / "ill", range(9, 10), lesion=True))
    methods = (IntegratedGradients(steps=2),)
    (with_normals,) = StudyExplainer(head_model, decoder, methods, content, top=1).explained(ill)
    (without,) = StudyExplainer(head_model, decoder, methods, top=1).explained(ill)
    assert with_normals.view.notes[-2:] == (OTHERS, DIFFERENCES)
    assert DIFFERENCES not in without.view.notes


def test_a_patient_is_never_replaced_by_themselves(chest_model, decoder, studies_in, tmp_path):
    studies = studies_in(write_chests(tmp_path, range(40, 43)))
    content = NormalContent.read(studies, chest_model[0], decoder)
    own = decoder.image(studies[0].series[0].instances[0]).values
    everybody, others = content.like("nobody", 0.0), content.like(studies[0].patient, 0.0)
    assert len(everybody.images) == 3
    assert len(others.images) == 2
    assert not any(np.array_equal(image[0], own) for image in others.images)
    assert any(np.array_equal(image[0], own) for image in everybody.images)


def test_normals_are_refused_like_all_others(chest_model, decoder, studies_in, tmp_path):
    hands = studies_in(write_chests(tmp_path, range(2), BodyPartExamined="HAND"))
    with pytest.raises(RefusedError, match="BODY_PART"):
        NormalContent.read(hands, chest_model[0], decoder)


def test_several_images_of_a_study(chest_model, judged, decoder, tmp_path):
    import pydicom

    write_chests(tmp_path, range(60, 61), abnormal=True)
    write_chests(tmp_path, range(61, 62))
    first, second = (pydicom.dcmread(tmp_path / f"{n}.dcm") for n in (60, 61))
    second.StudyInstanceUID, second.PatientID = first.StudyInstanceUID, first.PatientID
    second.save_as(tmp_path / "61.dcm")
    ((study, outcome),) = judged(chest_model[0], tmp_path)
    assert len(outcome.analysed) == 2
    parts = list(StudyExplainer(chest_model[0], decoder, methods_named(["gradcam"])).explained([(study, outcome)]))
    assert parts[0].detail.startswith("image 1 of 2, highest score first")
    assert parts[0].ground.image == pytest.approx(outcome.score, rel=1e-4)
    assert len(parts) == 1  # the other one would not be flagged by itself


def test_a_score_of_a_part_of_the_images_says_so(chest_model, judged, tmp_path):
    import pydicom

    write_chests(tmp_path, range(60, 62))
    first, second = (pydicom.dcmread(tmp_path / f"{n}.dcm") for n in (60, 61))
    second.StudyInstanceUID, second.PatientID = first.StudyInstanceUID, first.PatientID
    second.BodyPartExamined = "HAND"
    second.save_as(tmp_path / "61.dcm")
    ((_, outcome),) = judged(chest_model[0], tmp_path)
    assert outcome.status == "PARTLY_ANALYSED"
    said = "1 of its 2 images was not analysed."
    assert said in score_in_words(outcome, chest_model[0])
    about = About("studies", {}, chest_model[0].artifact.calibration, ())
    with ReportWriter(tmp_path / "why", about, [judged_of(outcome)], []):
        pass
    assert json.loads((tmp_path / "why" / "report.json").read_text())["images"][0]["note"] == said
    assert said in (tmp_path / "why" / "report.html").read_text()


@pytest.mark.slow
def test_slices_of_a_model_of_whole_volumes(fitted, judged, decoder, tmp_path):
    small = ["steps=2", "patch=[4,16,16]", "widths=[4,8]", "batch=2"]
    wishes = Wishes(geometry="volume", window=(-1000.0, 400.0), voxel=(2.5, 1.0, 1.0))
    model = fitted(write_heads(tmp_path / "normals", range(4)), wishes, "volume_autoencoder", small)
    studies = judged(model, write_heads(tmp_path / "one", range(9, 10)))
    explainer = StudyExplainer(model, decoder, methods_named(["occlusion", "gradcam"]), top=1)
    (part,) = explainer.explained(studies)
    assert explainer.failures == []
    assert part.view.edges == ON_THE_GRID
    assert "whole image" in part.refused["gradcam"]
    assert any("resampled" in note for note in part.view.notes)
    assert part.ground.image == pytest.approx(part.judged.score, rel=1e-4)


def test_a_study_that_is_gone_stops_no_other_and_is_logged(chest_model, judged, decoder, tmp_path, logged):
    studies = judged(chest_model[0], write_chests(tmp_path, range(60, 62), abnormal=True))
    (tmp_path / "60.dcm").unlink()
    explainer = StudyExplainer(chest_model[0], decoder, methods_named(["gradcam"]))
    parts = list(explainer.explained(studies))
    assert len(parts) == 1
    (failure,) = explainer.failures
    assert failure.name.startswith("study ")
    assert str(tmp_path) not in str(failure)
    assert "60" not in failure.reason
    assert failure.reason.startswith("scored, but not explained")  # it was judged: "not analysed" would be false
    assert failure.objects == 0
    (line,) = [line for line in logged() if line["event"] == "failed"]
    assert failure.name == f"study {line['study']}"
    assert str(tmp_path) not in str(line)


def test_words_never_call_a_study_normal_or_ok(chest_model):
    words = wording(chest_model[0].artifact.calibration)
    assert {badge.word for badge in BADGES.values()} == {"Strongly flagged (NG)", "Flagged (REVIEW)", "Not flagged"}
    assert any("does not mean normal" in line for line in words.cautions)
    assert any("rule out" in line for line in words.cautions)
    assert "Nothing is known" not in words.unused  # studies that were judged and not explained stand there, too
    assert not words.alike
