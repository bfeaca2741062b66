import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from anomaly import catalog
from anomaly.artifact import SCHEMA, Artifact, MapCalibration, Training, load, save
from anomaly.backbones import BackboneSpec
from anomaly.backbones.backbone import fingerprint
from anomaly.backbones.bundled import WEIGHTS
from anomaly.calibration import calibrate
from anomaly.detector import Detector, Scorer, Scores
from anomaly.detectors.memory_bank import MemoryBankDetector
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import ArtifactError
from anomaly.input_spec import Canvas, Images, InputSpec
from anomaly.testing import sample_images

SPEC = InputSpec(size=(64, 64))


@dataclass(frozen=True, kw_only=True)
class ToneDetector(Detector):
    """A detector small enough to try damage on every byte of its file."""

    name: ClassVar[str] = "tone"
    power: float = 1.0

    def fit(self, images: Iterable[Images]) -> "ToneScorer":
        return ToneScorer(self, torch.tensor([0.25, 0.5]), torch.tensor(7))

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "ToneScorer":
        return ToneScorer(self, state["tone"], state["count"])


class ToneScorer(Scorer):
    def __init__(self, detector: ToneDetector, tone: Tensor, count: Tensor) -> None:
        super().__init__(detector)
        self.register_buffer("tone", tone)
        self.register_buffer("count", count)

    def score_canvas(self, canvas: Canvas) -> Scores:
        difference = (canvas.pixels.mean(dim=1) - self.tone[0]).abs()
        return Scores(difference.mean(dim=(1, 2)), difference)


def artifact_of(scorer):
    calibration = calibrate([0.1 * k for k in range(12)])
    training = Training(images=12, held_out=12, fingerprint="ab" * 32, created="2026-01-01T00:00:00+00:00")
    return Artifact(scorer.eval(), calibration, MapCalibration(0.5, calibration.ng), training)


def content_of(artifact):
    """Everything that a model is, in a comparable form."""
    state = {key: (str(v.dtype), v.tolist()) for key, v in artifact.scorer.state_dict().items()}
    settings = artifact.scorer.detector, artifact.scorer.description()
    return state, settings, artifact.calibration, artifact.map_calibration, artifact.training


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file of a model, and what is in it."""
    patch = pytest.MonkeyPatch()
    patch.setitem(catalog.DETECTORS, "tone", f"{__name__}:ToneDetector")
    path = tmp_path_factory.mktemp("tiny") / "tone.safetensors"
    artifact = artifact_of(ToneDetector(input=SPEC).fit([]))
    save(path, artifact)
    yield path, content_of(artifact)
    patch.undo()


@pytest.fixture(scope="module")
def scorer():
    return SubspaceDetector(input=SPEC).fit([sample_images(SPEC, 8, seed=0)])


@pytest.mark.parametrize(
    "detector",
    [
        SubspaceDetector(input=SPEC, score="mahalanobis", smoothing=2.0, seed=3),
        MemoryBankDetector(
            input=InputSpec(channels=1, dtype="uint16", value_range=(0.0, 4095.0), size=(64, 96), resize="stretch"),
            bank_size=64,
            components=16,
            backbone=BackboneSpec(layers=("stages.3",)),
        ),
    ],
    ids=["subspace", "memory_bank"],
)
def test_round_trip_keeps_everything(detector, tmp_path):
    scorer = detector.fit([sample_images(detector.input, 6, seed=0)])
    saved = artifact_of(scorer)
    digest = save(tmp_path / "new folder" / "m.safetensors", saved)
    path = tmp_path / "new folder" / "m.safetensors"
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load(path)
    assert content_of(loaded) == content_of(saved)
    assert loaded.provenance() == saved.provenance()
    assert not loaded.scorer.training
    test = sample_images(detector.input, 2, seed=1)
    with torch.inference_mode():
        assert torch.equal(loaded.scorer(test).score, scorer(test).score)
        assert torch.equal(loaded.scorer(test).map, scorer(test).map)
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"], "no temporary file may stay behind"


def damaged(tiny, tmp_path, content):
    """What a load of the damaged file gives: None for an ArtifactError, otherwise what is in the model."""
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    try:
        return content_of(load(path))
    except ArtifactError:
        return None


def flipped(content, index, bits):
    changed = bytearray(content)
    changed[index] ^= bits
    return bytes(changed)


def test_damage_to_any_byte_is_noticed(tiny, tmp_path):
    path, wanted = tiny
    content = path.read_bytes()
    found = [damaged(tiny, tmp_path, flipped(content, index, 0x01)) for index in range(len(content))]
    silently_different = [index for index, got in enumerate(found) if got not in (None, wanted)]
    assert silently_different == []
    assert sum(got is None for got in found) > 0.95 * len(content)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_gives_a_silently_different_model(tiny, tmp_path_factory, data):
    path, wanted = tiny
    content = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 2))):
        content = flipped(content, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255)))
    assert damaged(tiny, tmp_path_factory.getbasetemp(), content) in (None, wanted)


def test_damage_to_the_tensors_of_a_real_model_is_noticed(scorer, tmp_path):
    path = tmp_path / "m.safetensors"
    save(path, artifact_of(scorer))
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for index in (header, header + 1001, len(content) // 2, len(content) - 1):
        path.write_bytes(flipped(content, index, 0x10))
        with pytest.raises(ArtifactError, match="the tensors were changed after the file was written"):
            load(path)


def test_truncated_files_are_refused(tiny, tmp_path):
    content = tiny[0].read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 20, len(content) - 1):
        assert damaged(tiny, tmp_path, content[:length]) is None, length
    assert damaged(tiny, tmp_path, content + b"\0") is None


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not a model of this suite: it has no manifest"):
        load(WEIGHTS)
    text = tmp_path / "notes.safetensors"
    text.write_text("a text file, and long enough to be taken for a header of some length")
    with pytest.raises(ArtifactError, match=r"notes\.safetensors is truncated or not a safetensors file"):
        load(text)
    with pytest.raises(ArtifactError, match=r"no model file at .*nowhere\.safetensors"):
        load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ArtifactError, match="no model file at"):
        load(tmp_path)


def rewritten(source, target, change):
    """A file whose manifest was changed and whose hashes are right again."""
    with safe_open(source, "pt") as file:
        manifest = json.loads(file.metadata()["manifest"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    manifest = change(manifest) or manifest
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    save_file(tensors, target, {"manifest": text, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()})
    return target


def test_a_rewritten_file_without_a_change_still_loads(tiny, tmp_path):
    assert content_of(load(rewritten(tiny[0], tmp_path / "m.safetensors", lambda manifest: None))) == tiny[1]


def test_a_newer_schema_says_what_to_do(tiny, tmp_path):
    path = rewritten(tiny[0], tmp_path / "m.safetensors", lambda manifest: manifest.update(schema=SCHEMA + 1))
    with pytest.raises(ArtifactError, match=r"schema 2 cannot be read, this version reads schema 1: install a newer"):
        load(path)


def test_a_newer_schema_is_recognised_before_anything_else_of_it(tiny, tmp_path):
    path = rewritten(tiny[0], tmp_path / "m.safetensors", lambda m: {"format": m["format"], "schema": 9, "new": []})
    with pytest.raises(ArtifactError, match="schema 9 cannot be read"):
        load(path)


CHANGES = {
    "unknown key": (lambda m: m.update(extra=1), r"the manifest must hold .*; got .*'extra'"),
    "missing key": (lambda m: m.pop("training") and None, "the manifest must hold .*'training'"),
    "no schema": (lambda m: m.pop("schema") and None, "schema"),
    "other format": (lambda m: m.update(format="another suite"), "format must be 'anomaly-suite model'; got 'another"),
    "no JSON": (lambda m: "not JSON {", "manifest"),
    "a list": (lambda m: [m], "manifest"),
    "unknown detector": (lambda m: m.update(detector="oracle"), "unknown detector 'oracle'"),
    "unknown setting": (lambda m: m["settings"].update(magic=1), "unknown setting of tone 'magic'"),
    "settings that are none": (lambda m: m.update(settings=3), "does not describe a complete model"),
    "setting that is not allowed": (lambda m: m["settings"]["input"].update(size=[1, 1]), "size of InputSpec must be"),
    "damaged calibration": (lambda m: m["calibration"]["scores"].reverse(), "the stored calibration is damaged"),
    "no map threshold": (lambda m: m["map_calibration"].pop("threshold") and None, "threshold"),
    "unknown entry of the training": (lambda m: m["training"].update(when=1), "when"),
    "other tensors": (lambda m: m.update(tensors_sha256="0" * 64), "the tensors were changed"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_manifest_that_describes_no_complete_model_is_refused(tiny, tmp_path, change, words):
    path = rewritten(tiny[0], tmp_path / "m.safetensors", change)
    with pytest.raises(ArtifactError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_tensors_that_are_not_those_of_the_detector_are_refused(scorer, tmp_path, change):
    path = tmp_path / "m.safetensors"
    save(path, artifact_of(scorer))
    with safe_open(path, "pt") as file:
        manifest = json.loads(file.metadata()["manifest"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    if change == "missing":
        del tensors["matrix"]
    else:
        tensors["matrix2"] = tensors["matrix"].clone()
    manifest["tensors_sha256"] = fingerprint(tensors)
    text = json.dumps(manifest)
    save_file(tensors, path, {"manifest": text, "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()})
    with pytest.raises(ArtifactError, match=r"state of subspace must hold \['level', 'matrix', 'offset', "):
        load(path)


@pytest.mark.parametrize("name", ["m.pt", "m", "m.safetensors.bak"])
def test_other_file_names_are_refused(tiny, tmp_path, name):
    with pytest.raises(ArtifactError, match=r"must end in \.safetensors; got "):
        save(tmp_path / name, load(tiny[0]))
    assert list(tmp_path.iterdir()) == []


def full_disk(*_given, **_named):
    raise OSError(28, "No space left on device")


def half_written_file(*given, **named):
    file = NamedTemporaryFile(*given, **named)  # noqa: SIM115  # handed to the code under test
    write = file.write
    file.write = lambda content: write(content[: len(content) // 2]) and full_disk()
    return file


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tiny, tmp_path, monkeypatch, step):
    path = tmp_path / "m.safetensors"
    old = load(tiny[0])
    save(path, old)
    before = path.read_bytes()
    if step == "write":
        monkeypatch.setattr("anomaly.artifact.NamedTemporaryFile", half_written_file)
    else:
        monkeypatch.setattr(Path, "replace", full_disk)
    newer = replace(old, training=replace(old.training, images=99))
    with pytest.raises(ArtifactError, match=r"m\.safetensors cannot be written: No space left on device"):
        save(path, newer)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"], "a failed write must not litter the folder"
    save(path, newer)
    assert load(path).training.images == 99


def test_a_folder_that_cannot_be_made_is_an_artifact_error(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        save(tmp_path / "file" / "m.safetensors", load(tiny[0]))


def test_no_path_of_this_machine_is_in_the_file(tmp_path):
    folder = tmp_path / "secret-customer-folder"
    folder.mkdir()
    weights = folder / "own-weights.safetensors"
    weights.write_bytes(WEIGHTS.read_bytes())
    detector = SubspaceDetector(input=SPEC, backbone=BackboneSpec(weights=str(weights)))
    save(tmp_path / "m.safetensors", artifact_of(detector.fit([sample_images(SPEC, 4, seed=0)])))
    content = (tmp_path / "m.safetensors").read_bytes()
    assert b"secret-customer-folder" not in content
    assert str(tmp_path).encode() not in content
    assert b"own-weights.safetensors" in content, "the name of the file is its provenance"
    assert load(tmp_path / "m.safetensors").scorer.description()["backbone"]["source"] == "own-weights.safetensors"


def test_scale_of_the_colours_always_has_an_extent():
    calibration = calibrate([1.0, 1.0, 1.0])
    low, high = MapCalibration(1.0, calibration.ng).scale
    assert low == 1.0 < high
    assert MapCalibration(0.5, calibration.ng).scale == (0.5, 1.5)


def test_provenance_names_detector_input_backbone_and_training(scorer):
    rows = artifact_of(scorer).provenance()
    assert rows["detector"] == "subspace"
    assert rows["input"] == "3 x uint8, 0 to 255 (grey value)"
    assert rows["canvas"] == "64 x 64 px (H x W), pad"
    assert rows["backbone"] == "bundled: stages.2, stages.3"
    assert rows["backbone weights"] == "package, licence Apache-2.0"
    assert rows["trained on"] == "12 normal images, 12 held out for calibration"
    assert rows["training fingerprint"] == "ab" * 32
