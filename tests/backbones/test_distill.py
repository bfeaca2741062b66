import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from anomaly.backbones.backbone import fingerprint
from anomaly.backbones.bundled import BundledSettings, load_bundled, save_bundled
from anomaly.backbones.distill import DistillSettings, component_weights, distill, provenance
from anomaly.backbones.distill_data import Projection, build_targets, make_crop, prepare_photographs
from anomaly.backbones.probe import ProbeSet, probe
from anomaly.errors import ArtifactError, DatasetError, SettingError
from anomaly.training import averaged_weights

SETTINGS = DistillSettings(
    architecture=BundledSettings((8, 8, 16, 16), (0, 0, 1, 1)),
    crops=24,
    size=48,
    components=(4, 4),
    batch=8,
    steps=40,
    learning_rate=1e-2,
    evaluate_every=20,
)


class Teacher(nn.Module):
    """Local colour means at two strides, and their squares."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        maps = [F.avg_pool2d(x, stride) for stride in (8, 16)]
        return [torch.cat([m, m.square()], 1) for m in maps]


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    rng = np.random.default_rng(0)
    for source, count in (("a", 6), ("b", 3)):
        (folder / source).mkdir(parents=True)
        for i in range(count):
            small = rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / source / f"{i}.png"), cv2.resize(small, (240, 260)))
    (folder / "a" / "again.png").write_bytes((folder / "a" / "0.png").read_bytes())
    (folder / "a" / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(folder / "a" / "small.png"), np.zeros((150, 300, 3), np.uint8))
    return folder


@pytest.fixture
def store(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("anomaly.backbones.distill_data.HELD_OUT_SHARE", 0.4)
    return prepare_photographs(photographs, tmp_path / "out")


def test_photographs_are_decoded_once_without_duplicates_and_small_ones(store, photographs, tmp_path):
    assert sorted(p.name for p in store.photographs) == sorted(
        [f"a/{i}.png" for i in range(6)] + [f"b/{i}.png" for i in range(3)]
    )
    assert {p.held_out for p in store.photographs} == {False, True}
    first = next(p for p in store.photographs if p.name == "a/0.png")
    expected = cv2.imread(str(photographs / "a" / "0.png"))[:, :, ::-1]
    assert np.array_equal(store.image(first), expected)
    again = prepare_photographs(photographs / "gone", tmp_path / "out")
    assert again.photographs == store.photographs


def test_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="folder must hold photographs"):
        prepare_photographs(tmp_path / "empty", tmp_path / "out")


def test_photographs_of_which_none_is_held_out_are_refused(photographs, tmp_path):
    with pytest.raises(DatasetError, match=r"must hold more photographs.*none of 9"):
        prepare_photographs(photographs, tmp_path / "out")


def test_crops_depend_on_the_generator_only():
    image = np.random.default_rng(0).integers(0, 255, (220, 300, 3), dtype=np.uint8)
    for seed in range(30):
        one, two = (make_crop(image, np.random.default_rng(seed), 64) for _ in range(2))
        assert one.shape == (64, 64, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, two)


def test_projection_whitens_and_orders():
    torch.manual_seed(0)
    features = torch.randn(5000, 3) @ torch.tensor([[3.0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0.1, 0]])
    projection = Projection.fit(features, 2)
    z = projection(features.T.reshape(1, 4, 50, 100)).reshape(-1, 2)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(2), atol=0.01, rtol=0)
    assert projection.variance[0] > projection.variance[1]
    assert projection.total == pytest.approx(4, abs=0.01)


def test_interrupted_targets_go_on_and_other_settings_are_refused(store, tmp_path):
    teacher = Teacher()
    common = {"size": 48, "components": (4, 4), "seed": 0}
    build_targets(store, teacher, tmp_path / "t", count=24, **common)
    calls = teacher.calls
    state_path = tmp_path / "t" / "train" / "state.json"
    state = json.loads(state_path.read_text())
    state_path.write_text(json.dumps(state | {"done": 8}))
    before = (tmp_path / "t" / "train" / "target1.f16").read_bytes()
    build_targets(store, teacher, tmp_path / "t", count=24, **common)
    assert (tmp_path / "t" / "train" / "target1.f16").read_bytes() == before
    assert teacher.calls < calls + 10
    with pytest.raises(SettingError, match="settings of the cached targets"):
        build_targets(store, teacher, tmp_path / "t", count=25, **common)


def _log(folder):
    with (folder / "run" / "training.csv").open() as source:
        return list(csv.DictReader(source))


def test_tiny_distillation_explains_more_of_the_teacher(store, photographs, tmp_path):
    result = distill(photographs, Teacher(), tmp_path / "out", SETTINGS, probe=lambda features: {"extra": 1.0})
    rows = _log(tmp_path / "out")
    assert [row["step"] for row in rows] == ["20", "40"]
    assert float(rows[1]["r2_0"]) > max(0.2, float(rows[0]["r2_0"]))
    assert rows[0]["extra"] == "1"
    table = tmp_path / "out" / "photographs.csv"
    save_bundled(result, tmp_path / "w.safetensors", provenance(SETTINGS, "toy", table))
    assert load_bundled(tmp_path / "w.safetensors").settings == SETTINGS.architecture
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert json.loads(file.metadata()["photographs"])["count"] == 9


def test_a_further_cycle_begins_with_the_averaged_weights_of_an_earlier_one(store, photographs, tmp_path):
    first, second = tmp_path / "out", tmp_path / "second"
    distill(photographs, Teacher(), first, SETTINGS)
    still = replace(SETTINGS, steps=1, learning_rate=1e-12)
    distill(photographs, Teacher(), second, still, start=first)
    last, begun_with = (_log(folder)[-1] for folder in (first, second))
    assert float(last["r2_0"]) > 0.2
    assert float(begun_with["r2_0"]) == pytest.approx(float(last["r2_0"]), abs=0.01)
    begun = provenance(still, "toy", first / "photographs.csv", start=first)["start"]
    assert begun == fingerprint(averaged_weights(first / "run"))
    with pytest.raises(ArtifactError, match="another architecture"):
        distill(photographs, Teacher(), tmp_path / "third", replace(SETTINGS, components=(3, 3)), start=first)
    with pytest.raises(ArtifactError, match=r"must hold the checkpoint\.safetensors"):
        distill(photographs, Teacher(), tmp_path / "fourth", SETTINGS, start=photographs)


def test_whitening_evens_out_the_weights():
    variance = torch.tensor([4.0, 1.0])
    assert component_weights(variance, 0.0).tolist() == pytest.approx([0.8, 0.2])
    assert component_weights(variance, 1.0).tolist() == [0.5, 0.5]


def test_probe_finds_what_differs_from_the_normals():
    torch.manual_seed(0)
    train = torch.randint(100, 110, (6, 3, 64, 64), dtype=torch.uint8)
    test = torch.randint(100, 110, (8, 3, 64, 64), dtype=torch.uint8)
    masks = np.zeros((8, 64, 64), dtype=bool)
    test[4:, :, 16:32, 16:32] = 200
    masks[4:, 16:32, 16:32] = True
    data = ProbeSet("toy", train, test, np.arange(8) >= 4, masks)
    torch.manual_seed(0)
    weights = [torch.randn(12, 3, 8, 8), torch.randn(12, 3, 16, 16)]
    figures = probe(lambda x: [F.conv2d(x, w, stride=w.shape[-1]) for w in weights], [data])
    assert figures["image_auroc_toy"] == 1
    assert figures["pixel_auroc"] > 0.9
