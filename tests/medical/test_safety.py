"""What goes wrong with one study stops no other and loses none: it is NOT_ANALYSED, with the site's priority."""

import json
from dataclasses import replace

import numpy as np
import pytest

from anomaly.errors import AnomalyError
from medical.model import TriageModel
from medical.objects import Image
from medical.outcome import Priority
from medical.pseudonyms import Pseudonyms
from medical.refusals import Reason
from medical.running import Run
from medical.triage import Triage
from medical.units import read_units
from tests.medical.conftest import KEY
from tests.medical.studies import write_chests


@pytest.fixture
def two(studies_in, tmp_path):
    write_chests(tmp_path / "two", range(2), RequestedProcedurePriority="LOW")
    return studies_in(tmp_path / "two")


class Troubled:
    """The reader, which raises over the first object that it is asked for."""

    def __init__(self, decoder, error):
        self.decoder, self.error = decoder, error

    def image(self, instance, frame=1):
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self.decoder.image(instance, frame)

    def volume(self, series):
        raise AssertionError("no volume is read here")


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("PLANTED"), AnomalyError("PLANTED"), ValueError("PLANTED"), KeyError("PLANTED")]
)
def test_reading_fails(chest_model, decoder, two, error, capfd):
    triage = Triage(chest_model[0], Troubled(decoder, error), Pseudonyms(KEY))
    first, second = triage.outcomes(two)
    assert (first.status, first.refusal.reason, first.priority) == ("NOT_ANALYSED", Reason.FAILED, Priority.LOW)
    assert second.status == "ANALYSED"
    assert "PLANTED" not in str(first) + "".join(capfd.readouterr())


@pytest.mark.parametrize("error", [ValueError("PLANTED"), IndexError("PLANTED"), OSError("PLANTED"), MemoryError()])
def test_the_scorer_fails(chest_model, decoder, two, error, monkeypatch, capfd):
    scorer = type(chest_model[0].artifact.scorer)
    original, calls = scorer.forward, []

    def broken(self, images):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return original(self, images)

    monkeypatch.setattr(scorer, "forward", broken)
    first, second = Triage(chest_model[0], decoder, Pseudonyms(KEY)).outcomes(two)
    assert (first.status, first.refusal.reason, first.priority) == ("NOT_ANALYSED", Reason.FAILED, Priority.LOW)
    assert second.status == "ANALYSED"
    assert "PLANTED" not in str(first) + "".join(capfd.readouterr())


@pytest.mark.parametrize("where", ["score", "map"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_no_analysis(chest_model, decoder, two, where, value, monkeypatch):
    scorer = type(chest_model[0].artifact.scorer)
    original = scorer.forward

    def broken(self, images):
        found = original(self, images)
        changed = getattr(found, where).clone()
        changed.reshape(-1)[0] = value
        return found._replace(**{where: changed})

    monkeypatch.setattr(scorer, "forward", broken)
    for outcome in Triage(chest_model[0], decoder, Pseudonyms(KEY)).outcomes(two):
        assert (outcome.refusal.reason, outcome.priority, outcome.flagged) == (Reason.FAILED, Priority.LOW, False)


def test_an_object_is_counted_once_however_many_of_its_frames_are_refused(chest_model, two):
    """Frames of one colour: the header passes, each frame is refused by itself."""
    series = two[0].series[0]
    study = replace(two[0], series=(replace(series, instances=(replace(series.instances[0], frames=5),)),))

    class Coloured:
        def image(self, instance, frame=1):
            values = np.zeros((64, 48, 3), np.float32)
            return Image(instance, frame, values, np.ones((64, 48), bool), "stored", "none")

        def volume(self, series):
            raise AssertionError("no volume is read here")

    assert len(list(read_units(study, chest_model[0].contract, Coloured()))) == 5
    (outcome,) = Triage(chest_model[0], Coloured(), Pseudonyms(KEY)).outcomes([study])
    assert len(outcome.refused) == outcome.objects == 1
    assert outcome.refused[0].refusal.detail.endswith("(5 frames)")


@pytest.mark.parametrize("what", ["marked_pictures", "write_results"])
@pytest.mark.parametrize("error", [AnomalyError("PLANTED"), OSError(28, "PLANTED"), ValueError("PLANTED")])
def test_results_that_cannot_be_written_lose_no_study(
    chest_model, decoder, studies_in, tmp_path, monkeypatch, capfd, what, error
):
    model = TriageModel.load(chest_model[1])
    studies = studies_in(write_chests(tmp_path / "ill", range(400, 402), abnormal=True))
    (tmp_path / "out").mkdir()

    def fails(*arguments):
        raise error

    monkeypatch.setattr(f"medical.running.{what}", fails)
    with Run(tmp_path / "out", model, Pseudonyms(KEY), None, dicom=True, with_heatmaps=True) as run:
        for outcome in Triage(model, decoder, Pseudonyms(KEY), keep_maps=True).outcomes(studies):
            run.add(outcome)
    assert len(run.outcomes) == len(run.failed) == 2
    assert "PLANTED" not in "".join(run.failed) + "".join(capfd.readouterr())


def test_an_audit_trail_that_cannot_be_written_loses_no_study(chest_model, decoder, two, tmp_path, monkeypatch):
    model = TriageModel.load(chest_model[1])
    run = Run(tmp_path, model, Pseudonyms(KEY), None, dicom=False, with_heatmaps=False)
    with run:
        monkeypatch.setattr(
            "medical.privacy.audit._append", lambda path, content: (_ for _ in ()).throw(OSError(28, ""))
        )
        for outcome in Triage(model, decoder, Pseudonyms(KEY)).outcomes(two):
            run.add(outcome)
    assert len(run.outcomes) == 2
    assert len(run.failed) == 3  # two studies and the end of the run
    assert all("No space left" in line for line in run.failed)


def test_the_split_depends_on_the_studies_and_the_seed_and_not_on_the_key(decoder, tmp_path):
    from anomaly.fitting import Plan
    from anomaly.options import DetectorOptions
    from medical.choosing import Wishes, choose
    from medical.fitting import StudyFit
    from medical.reading import take_inventory

    folder, found = write_chests(tmp_path, range(8)), set()
    for key in (b"a" * 32, b"b" * 32, b"c" * 32):
        studies = list(take_inventory([folder], Pseudonyms(key), pixels=decoder).studies)
        choice = choose(studies, Wishes(size=(64, 48)))
        options = DetectorOptions("subspace", "bundled", "", None, (), 0)
        model = StudyFit(decoder, choice.contract, Plan()).fit(options.build(choice.input), studies)
        found.add(json.dumps(model.artifact.calibration.to_dict()))
    assert len(found) == 1
