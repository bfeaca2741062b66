"""Normal studies -> model -> outcomes, on phantoms that went through files and the decoding process."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anomaly.artifact import load, save
from anomaly.calibration import Decision
from anomaly.errors import ArtifactError, CalibrationError, DatasetError, SettingError
from medical.choosing import Wishes, choose
from medical.model import TriageModel
from medical.outcome import Priority
from medical.pseudonyms import Pseudonyms
from medical.refusals import Reason
from medical.triage import Triage
from tests.medical.conftest import KEY
from tests.medical.phantoms import ct_series
from tests.medical.phantoms import save as write
from tests.medical.studies import write_chests, write_heads


@pytest.fixture
def triage(decoder):
    return lambda model, **more: Triage(model, decoder, Pseudonyms(KEY), keep_maps=True, **more)


def test_the_contract_comes_from_the_headers(chest_model):
    model, _ = chest_model
    contract = model.contract
    assert (contract.modalities, contract.body_parts, contract.views, contract.ages) == (
        ("DX",), ("CHEST",), ("PA",), ("ADULT",),
    )  # fmt: skip
    assert contract.spacing == pytest.approx((0.15 * 0.9, 0.2 * 1.1))
    assert model.artifact.calibration.unit == "patient"


def test_a_model_file_gives_back_the_model(chest_model):
    model, path = chest_model
    again = TriageModel.load(path)
    assert (again.contract, again.aggregation, again.subgroups, again.digest) == (
        model.contract, model.aggregation, model.subgroups, model.digest,
    )  # fmt: skip
    frame = torch.full((1, 1, 64, 48), 0.5)
    assert torch.equal(again.artifact.scorer(frame).score, model.artifact.scorer(frame).score)


def test_a_model_that_states_no_contract_is_refused(chest_model, tmp_path):
    _, path = chest_model
    plain = tmp_path / "plain.safetensors"
    save(plain, replace(load(path), extensions={}))
    with pytest.raises(ArtifactError, match="no input contract"):
        TriageModel.load(plain)


def test_abnormal_studies_are_flagged_and_their_maps_show_where(chest_model, triage, studies_in, tmp_path):
    model, _ = chest_model
    normal = list(triage(model).outcomes(studies_in(write_chests(tmp_path / "normal", range(100, 108)))))
    abnormal = list(triage(model).outcomes(studies_in(write_chests(tmp_path / "ill", range(200, 208), abnormal=True))))
    assert {outcome.status for outcome in normal + abnormal} == {"ANALYSED"}
    assert min(o.score for o in abnormal) > max(o.score for o in normal)
    assert all(o.flagged and o.priority == Priority.HIGH for o in abnormal)
    for outcome in abnormal:
        row, column = np.unravel_index(outcome.analysed[0].map.argmax(), (64, 48))
        assert abs(row - 40) <= 6
        assert abs(column - 16) <= 6


def test_what_the_contract_excludes_is_not_analysed_and_keeps_its_priority(chest_model, triage, studies_in, tmp_path):
    model, _ = chest_model
    folder = write_chests(tmp_path, range(1), BodyPartExamined="HAND", RequestedProcedurePriority="LOW")
    (outcome,) = triage(model).outcomes(studies_in(folder))
    assert (outcome.status, outcome.refusal.reason) == ("NOT_ANALYSED", Reason.BODY_PART)
    assert (outcome.decision, outcome.score, outcome.priority) == (None, None, Priority.LOW)
    assert "PLANTED" not in str(outcome.refusal)


def test_another_kind_of_image_is_not_analysed_whatever_its_header_says(chest_model, triage, studies_in, tmp_path):
    model, _ = chest_model
    folder = write_chests(tmp_path, range(3))
    for path in folder.iterdir():
        import pydicom

        made = pydicom.dcmread(path)
        made.PixelData = made.pixel_array[::-1].copy().tobytes()
        made.save_as(path)
    for outcome in triage(model).outcomes(studies_in(folder)):
        assert outcome.refusal.reason == Reason.OUT_OF_DISTRIBUTION


def test_the_sites_worklist_decides_about_priorities(chest_model, triage, studies_in, tmp_path):
    model, _ = chest_model
    studies = studies_in(write_chests(tmp_path, range(2)))
    known = {studies[0].uid: Priority.STAT}
    found = {o.study: o.priority for o in triage(model, priorities=known.get).outcomes(studies)}
    assert found == {studies[0].uid: Priority.STAT, studies[1].uid: Priority.ROUTINE}


def test_a_failing_scorer_stops_no_other_study(chest_model, triage, studies_in, tmp_path, monkeypatch):
    model, _ = chest_model
    studies = studies_in(write_chests(tmp_path, range(2)))
    calls = []

    def broken(self, images):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("PLANTED text")
        return original(self, images)

    original = type(model.artifact.scorer).forward
    monkeypatch.setattr(type(model.artifact.scorer), "forward", broken)
    first, second = triage(model).outcomes(studies)
    assert (first.refusal.reason, second.status) == (Reason.FAILED, "ANALYSED")
    assert "PLANTED" not in str(first.refusal)


def test_patients_are_never_split(fitted, tmp_path):
    model = fitted(write_chests(tmp_path, range(20), patients=5), Wishes(size=(64, 64)))
    assert len(model.artifact.calibration.scores) == 2  # .4 of 5 patients
    assert model.artifact.training.held_out == 8  # with all of their studies


def test_the_split_does_not_depend_on_the_key_of_the_pseudonyms(decoder, tmp_path):
    from anomaly.fitting import Plan
    from anomaly.options import DetectorOptions
    from medical.fitting import StudyFit
    from medical.reading import take_inventory

    write_chests(tmp_path, range(12), patients=6)
    models = []
    for key in (b"a" * 32, b"b" * 32):
        with take_inventory([tmp_path], Pseudonyms(key), pixels=decoder) as inventory:
            choice = choose(inventory.studies, Wishes(size=(64, 48)))
            detector = DetectorOptions("subspace", "bundled", "", None, [], 0).build(choice.input)
            models.append(StudyFit(decoder, choice.contract, Plan(fraction=0.4)).fit(detector, inventory.studies))
    assert models[0].artifact.training.fingerprint == models[1].artifact.training.fingerprint
    assert models[0].artifact.calibration.scores == models[1].artifact.calibration.scores


def test_slices_of_a_volume(head_model, triage, studies_in, tmp_path):
    normal = list(triage(head_model).outcomes(studies_in(write_heads(tmp_path / "normal", range(50, 53)))))
    abnormal = list(triage(head_model).outcomes(studies_in(write_heads(tmp_path / "ill", range(60, 63), lesion=True))))
    assert {o.status for o in normal + abnormal} == {"ANALYSED"}
    assert min(o.score for o in abnormal) > max(o.score for o in normal)
    found = abnormal[0].analysed[0]
    assert found.map.shape == (6, 32, 40)
    assert len(found.instances) == 6
    depth, row, column = np.unravel_index(found.map.argmax(), found.map.shape)
    assert 2 <= depth < 4  # within the lesion
    assert 12 <= row < 18
    assert 10 <= column < 16
    assert head_model.contract.thickness == pytest.approx((2.5 * 0.9, 2.5 * 1.1))


def test_a_volume_with_a_missing_slice_is_refused_as_a_whole(head_model, triage, studies_in, tmp_path):
    (outcome,) = triage(head_model).outcomes(studies_in(write_heads(tmp_path, range(1), missing=3)))
    assert outcome.refusal.reason == Reason.MISSING_SLICE
    assert len(outcome.refused) == 5


def test_whole_volumes(fitted, triage, studies_in, tmp_path):
    small = ["steps=2", "patch=[4,16,16]", "widths=[4,8]", "batch=2"]
    wishes = Wishes(geometry="volume", window=(-1000.0, 400.0), voxel=(2.5, 1.0, 1.0))
    model = fitted(write_heads(tmp_path / "normals", range(4)), wishes, "volume_autoencoder", small)
    again = model.save(tmp_path / "volumes.safetensors")
    loaded = TriageModel.load(tmp_path / "volumes.safetensors")
    (outcome,) = triage(loaded).outcomes(studies_in(write_heads(tmp_path / "one", range(9, 10))))
    assert outcome.status == "ANALYSED", outcome.refusal
    assert outcome.analysed[0].map.shape == (6, 32, 40)
    turned = write_heads(tmp_path / "turned", range(9, 10), orientation="reversed")  # a body lying the other way round
    (outcome,) = triage(loaded).outcomes(studies_in(turned))
    assert outcome.refusal.reason == Reason.OUT_OF_DISTRIBUTION
    assert again.voxel == (2.5, 1.0, 1.0)


def test_a_map_comes_back_to_where_it_was(head_model, decoder, studies_in, tmp_path):
    from medical.preparing import on_source, resampled

    for orientation in ("axial", "sagittal", "coronal", "reversed"):
        folder = write_heads(tmp_path / orientation, range(1), orientation=orientation, lesion=True)
        volume = decoder.volume(studies_in(folder)[0].series[0])
        placed = resampled(volume, head_model.contract, (1.0, 0.8, 0.7))
        back = on_source(placed.as_tensor()[0], placed, volume)
        assert back.shape == volume.values.shape
        assert np.corrcoef(back.ravel(), volume.values.ravel())[0, 1] > 0.9


def test_wishes_that_do_not_go_with_the_studies(studies_in, tmp_path):
    heads = studies_in(write_heads(tmp_path / "heads", range(2)))
    chests = studies_in(write_chests(tmp_path / "chests", range(2)))
    for studies, wishes, words in (
        (heads, Wishes(), "--window"),
        (chests, Wishes(window=(0.0, 1.0)), "--window goes with CT"),
        (heads + chests, Wishes(window=(0.0, 80.0)), "mix CT, DX"),
        (chests, Wishes(voxel=(1.0, 1.0, 1.0)), "--voxel goes with"),
        (chests, Wishes(geometry="slices"), "regular volume"),
        ([], Wishes(), "no object"),
    ):
        with pytest.raises(SettingError, match=words):
            choose(studies, wishes)


def test_a_fit_without_usable_studies_says_why(fitted, tmp_path):
    write([*ct_series((6, 8, 8), seed="one", missing=1), *ct_series((6, 8, 8), seed="two", missing=2)], tmp_path / "x")
    with pytest.raises(SettingError, match="MISSING_SLICE"):
        fitted(tmp_path / "x", Wishes(window=(0.0, 80.0)))
    with pytest.raises(CalibrationError, match="two"):
        fitted(write_chests(tmp_path / "one", range(3), patients=1), Wishes())
    folder = write_chests(tmp_path / "flat", range(4))
    import pydicom

    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.PixelData = b"\0" * len(made.PixelData)
        made.save_as(path)
    with pytest.raises(DatasetError, match="PIXELS"):
        fitted(folder, Wishes())


def test_decisions_come_from_the_calibration(chest_model):
    model, _ = chest_model
    assert model.artifact.calibration.decide(1e9) == Decision.NG
