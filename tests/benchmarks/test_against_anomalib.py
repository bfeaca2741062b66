"""The comparison compares the same things: weights, canvases, size of the bank."""

import pytest
import torch

from anomaly.backbones import load_backbone
from anomaly.errors import BackboneError, DatasetError
from benchmarks import against_anomalib
from benchmarks.against_anomalib import BANK, PEER, SUBSPACE, Plan
from benchmarks.environment import FACTS
from benchmarks.isolated import FIGURES


@pytest.fixture(scope="module")
def plan(folder, tmp_path_factory):
    """Random ResNet-18 weights; what is compared needs no trained ones."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file(timm.create_model("resnet18", features_only=True, out_indices=(2, 3)).state_dict(), path)
    return Plan(str(folder), train=4, seed=0, weights=str(path), ratio=0.02, model="")


def test_our_model_comes_back_as_it_was_fitted(plan, tmp_path):
    path = str(tmp_path / "model.safetensors")
    settings = {"backbone": {"name": "resnet18", "layers": ["layer2", "layer3"], "weights": plan.weights}}
    figures = against_anomalib.fit_ours(BANK, settings | {"bank_size": 40}, **plan._replace(model=path)._asdict())
    assert tuple(figures) == FIGURES
    assert figures["features_wall_s"] > 0
    scorer = against_anomalib.load_ours(BANK, path)
    assert len(scorer.get_buffer("bank")) == 40
    images = plan.images(4)
    assert scorer.score_canvas(images.input.canvas(next(images.frames()))).map.shape == (4, 256, 256)


def test_the_table_says_who_needs_more_and_who_is_better():
    peer = {"fit_cpu_s": 100.0, "image_auroc": 0.8}
    ours = {"fit_cpu_s": 4.0, "image_auroc": 0.85}
    lines = against_anomalib.table({PEER: peer, BANK: ours, SUBSPACE: ours}).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["fit, CPU s"] == ["100.0", "4.0", "4.0", "25.0 x", "25.0 x"]
    assert cells["image AUROC, the method's own score"] == ["0.8000", "0.8500", "0.8500", "+0.0500", "+0.0500"]
    assert cells["pixel AUROC"] == ["-"] * 5


def test_more_images_than_there_are_is_an_error(plan, tmp_path):
    with pytest.raises(DatasetError, match="8 training images"):
        against_anomalib.compare(plan._replace(train=9), 1, None, 1, tmp_path)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
class TestPeer:
    """With anomalib itself, whose imports warn of its own and timm's deprecations."""

    @pytest.fixture(autouse=True)
    def _anomalib(self):
        pytest.importorskip("anomalib")

    def test_its_features_equal_ours(self, plan):
        images = plan.images(4)
        canvas = images.input.canvas(next(images.frames()))
        peer, backbone = against_anomalib.new_peer(plan), load_backbone(plan.backbone())
        assert peer.feature_difference(backbone, canvas) < 1e-5
        with torch.no_grad():
            next(backbone.network.parameters()).mul_(1.01)
        with pytest.raises(BackboneError, match="nothing is compared"):
            peer.feature_difference(backbone, canvas)

    @pytest.mark.shared
    def test_its_features_equal_ours_with_the_shared_weights(self, plan, shared):
        trained = plan._replace(weights=str(shared / "weights" / f"{against_anomalib.WEIGHTS}.safetensors"))
        images = trained.images(4)
        canvas = images.input.canvas(next(images.frames()))
        backbone = load_backbone(trained.backbone())
        assert against_anomalib.new_peer(trained).feature_difference(backbone, canvas) < 1e-5

    @pytest.mark.slow
    def test_all_methods_are_measured_on_banks_of_one_size(self, plan, tmp_path):
        found, lines = against_anomalib.compare(plan, 1, None, 2, tmp_path)
        assert set(found) == {PEER, BANK, SUBSPACE}
        for figures in found.values():
            assert set(figures) >= set(against_anomalib.COLUMNS)
        assert "81 (peer) and 81 (ours) of 4096 patches" in lines[1]
        assert not set(FACTS) & set(found[PEER])
        assert "pixel AUROC" in against_anomalib.table(found)
