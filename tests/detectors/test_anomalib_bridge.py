"""Models of anomalib keep our contract, need no network, and say clearly what they lack."""

import inspect
import socket
from pathlib import Path

import pytest
import torch

from anomaly.catalog import build, detector_class
from anomaly.detectors.anomalib_bridge import detector as bridge
from anomaly.detectors.anomalib_bridge.models import MODELS
from anomaly.detectors.anomalib_bridge.weights import fill, offline
from anomaly.errors import ArtifactError, BackboneError, MissingExtraError, SettingError, UnknownNameError
from anomaly.images.synthetic import write_dataset
from anomaly.input_spec import InputSpec
from anomaly.testing import check_detector, sample_images, with_square

RGB = InputSpec(size=(64, 64), resize="stretch")
GREY = InputSpec(channels=1, dtype="uint16", value_range=(0.0, 4095.0), size=(128, 96), resize="stretch")


def settings(model: str, **given):
    return build(detector_class(f"anomalib:{model}"), {"input": RGB, **given})


def test_the_class_of_a_model_is_found_without_importing_anomalib():
    cls = detector_class("anomalib:Patchcore")
    assert cls is detector_class("anomalib:Patchcore")
    assert cls.name == "anomalib:Patchcore"
    given = settings("Patchcore", arguments={"layers": ("layer2", "layer3")}, seed=3)
    assert given.arguments == {"layers": ["layer2", "layer3"]}
    assert "anomalib" not in inspect.getsource(inspect.getmodule(bridge)).split("def _engine")[0].split("import ")[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("anomalib:PatchCore", "Did you mean 'Patchcore'"),
        ("anomalib:", "unknown model of anomalib ''"),
        ("torchvision:resnet18", "unknown detector"),
    ],
)
def test_an_unknown_model_is_refused_with_the_valid_names(name, said):
    with pytest.raises(UnknownNameError, match=said):
        detector_class(name)


@pytest.mark.parametrize("model", [name for name, needs in MODELS.items() if needs.refused])
def test_a_model_that_cannot_be_a_detector_says_why(model):
    with pytest.raises(SettingError, match=f"anomalib's {model} cannot be a detector here: it "):
        detector_class(f"anomalib:{model}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input": InputSpec(size=(64, 64))}, r"input.resize .* must be 'stretch' \(--resize stretch\)"),
        ({"input": InputSpec(channels=5, size=(64, 64), resize="stretch")}, "input.channels .* must be 1 or 3"),
        ({"epochs": 0}, "epochs of anomalib:Stfpm must be 1 or more; got 0"),
        ({"batch_size": 0}, "batch_size of anomalib:Stfpm must be 1 or more; got 0"),
    ],
)
def test_settings_are_checked(given, said):
    with pytest.raises(SettingError, match=said):
        build(detector_class("anomalib:Stfpm"), {"input": RGB} | given)
    with pytest.raises(SettingError, match="JSON values"):
        detector_class("anomalib:Stfpm")(arguments={"backbone": torch.nn.Identity()})


def test_without_anomalib_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(bridge, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"anomalib:Padim.*pip install 'anomaly-suite\[anomalib\]'"):
        settings("Padim").fit([sample_images(RGB, 2, seed=0)])


def test_offline_refuses_connections_of_this_thread_only():
    with offline("anomalib:Test"):
        for connect in (
            lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.getaddrinfo("example.invalid", 443),
        ):
            with pytest.raises(BackboneError, match="anomalib:Test wants to download from"):
                connect()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9), timeout=2)


def test_weights_are_loaded_whole_or_not_at_all():
    network = torch.nn.Sequential()
    network.add_module("conv", torch.nn.Conv2d(3, 4, 1))
    network.add_module("fc", torch.nn.Linear(4, 2))
    good = {"model.conv.weight": torch.ones(4, 3, 1, 1), "conv_bias": torch.zeros(4), "later.weight": torch.ones(1)}
    fill(network, good, "net", {"later.weight"})
    assert bool((network.conv.weight == 1).all())
    for changed, said in [
        ({"conv_bias": None}, "missing conv.bias"),
        ({"other": torch.ones(1)}, "unknown other"),
        ({"conv_bias": torch.zeros(5)}, r"of another shape conv.bias \(5,\) instead of \(4,\)"),
    ]:
        tensors = {key: value for key, value in (good | changed).items() if value is not None}
        with pytest.raises(BackboneError, match=said):
            fill(network, tensors, "net", {"later.weight"})


@pytest.fixture(scope="module")
def metal(tmp_path_factory) -> Path:
    """8 training images, 4 good and 6 defective test images with masks, 96 x 128 px, as MVTec AD names its folders."""
    root = tmp_path_factory.mktemp("data") / "bottle"
    write_dataset(root, "brushed_metal", 8, 4, 6, (96, 128), seed=1)
    return root


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
class TestWithAnomalib:
    """With anomalib itself, whose imports warn of its own and timm's deprecations."""

    @pytest.fixture(autouse=True)
    def _anomalib(self):
        pytest.importorskip("anomalib")

    @pytest.fixture(scope="class")
    def weights(self, tmp_path_factory) -> str:
        """Random weights of a ResNet-18; the contract needs no trained ones."""
        import timm
        from safetensors.torch import save_file

        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
        save_file(timm.create_model("resnet18").state_dict(), path)
        return str(path)

    def test_the_table_names_every_image_model_and_its_arguments(self):
        from anomalib.models import image

        assert set(MODELS) == set(image.__all__)
        for name, needs in MODELS.items():
            arguments = inspect.signature(getattr(image, name)).parameters
            assert not needs.folder or needs.folder in arguments
            assert all(word.strip("'") in arguments for word in needs.weights.split() if word.startswith("'"))

    @pytest.mark.parametrize(
        ("model", "arguments", "spec", "differentiable"),
        [
            ("Patchcore", {"backbone": "resnet18", "coreset_sampling_ratio": 0.1}, RGB, False),
            ("Padim", {"backbone": "resnet18", "n_features": 20}, GREY, False),
            ("Stfpm", {"backbone": "resnet18", "layers": ["layer1", "layer2"]}, RGB, True),
            ("Dfm", {"backbone": "resnet18"}, RGB, False),
            ("Cfa", {"backbone": "resnet18"}, RGB, False),
        ],
    )
    def test_models_keep_the_contract(self, model, arguments, spec, differentiable, weights, tmp_path: Path):
        given = {"input": spec, "arguments": arguments, "weights": weights, "epochs": 1, "batch_size": 6}
        check_detector(settings(model, **given), tmp_path, differentiable=differentiable)

    def test_a_fitted_model_lies_in_memory_as_its_file_holds_it(self, weights):
        given = {"input": GREY, "arguments": {"backbone": "resnet18", "n_features": 20}, "weights": weights}
        state = settings("Padim", **given).fit([sample_images(GREY, 4, seed=1)]).state_dict()
        assert [name for name, tensor in state.items() if not tensor.is_contiguous()] == []

    def test_supersimplenet_trains_and_stays_below_one(self, weights):
        """Not `check_detector`: with one pass on random features it does not know a foreign square from noise yet."""
        spec = InputSpec(channels=1, size=(128, 128), resize="stretch")
        given = {"input": spec, "weights": weights, "epochs": 1, "arguments": {"backbone": "resnet18"}}
        scorer = settings("Supersimplenet", **given).fit([sample_images(spec, 4, seed=1)])
        assert not any(parameter.requires_grad for parameter in scorer.parameters())
        images = sample_images(spec, 2, seed=2)
        state = {key: value.clone() for key, value in scorer.state_dict().items()}
        restored = scorer.detector.restore(state, scorer.description())
        with torch.inference_mode():
            scores = scorer(images)
            assert torch.equal(restored(images).score, scores.score)
        assert float(scores.score.min()) > 0  # a sigmoid within the network, as docs/anomalib.md says
        assert float(scores.score.max()) < 1

    def test_what_depends_on_the_batch_is_scored_image_by_image(self, weights):
        arguments = {"backbone": "resnet18", "layers": ["layer3"], "coupling_blocks": 1}
        scorer = settings("Cflow", weights=weights, epochs=1, arguments=arguments).fit([sample_images(RGB, 4, seed=1)])
        images = sample_images(RGB, 3, seed=2)
        images[0] = with_square(images[0], RGB)
        with torch.inference_mode():
            together, alone = scorer(images), [scorer(image[None]) for image in images]
            pixels = (scorer.input.canvas(images).pixels - scorer.mean) / scorer.std
            theirs = scorer.network(pixels).pred_score.flatten()
        assert torch.allclose(together.score, torch.cat([s.score for s in alone]), rtol=1e-4)
        assert not torch.allclose(theirs, together.score, rtol=1e-2)  # else the exception is needed no more

    @pytest.mark.slow
    def test_efficient_ad_trains_with_a_given_teacher_and_a_given_folder(self, weights, tmp_path: Path):
        import cv2
        import numpy as np
        from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel
        from safetensors.torch import save_file

        teacher = tmp_path / "teacher.safetensors"
        save_file(EfficientAdModel(384).teacher.state_dict(), teacher)
        (tmp_path / "natural" / "any").mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 255, (80, 80, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "natural" / "any" / f"{i}.png"), pixels)
        spec = InputSpec(size=(256, 256), resize="stretch")
        given = {"input": spec, "weights": str(teacher), "epochs": 1}
        with pytest.raises(SettingError, match=r"arguments\['imagenet_dir'\] .* must be an existing folder"):
            settings("EfficientAd", **given).fit([])
        detector = settings("EfficientAd", **given, arguments={"imagenet_dir": str(tmp_path / "natural")})
        scorer = detector.fit([sample_images(spec, 4, seed=1)])
        assert "imagenet_dir" not in scorer.detector.arguments
        assert scorer.description()["backbone"]["source"] == "teacher.safetensors"
        state = {key: value.clone() for key, value in scorer.state_dict().items()}
        assert float(state["network.quantiles.qb_st"]) > 0  # taken on the image held out, after the training
        images = sample_images(spec, 2, seed=2)
        with torch.inference_mode():
            restored = scorer.detector.restore(state, scorer.description())(images)
            assert torch.equal(restored.map, scorer(images).map)

    def test_what_is_missing_is_said_before_an_image_is_read(self, weights, tmp_path: Path):
        def frames():
            pytest.fail("an image was asked for")
            yield

        with pytest.raises(BackboneError, match=r"anomalib:Patchcore needs a file of pretrained weights"):
            settings("Patchcore").fit(frames())
        with pytest.raises(SettingError, match="weights of anomalib:Ganomaly must be left out"):
            settings("Ganomaly", weights=weights).fit(frames())
        with pytest.raises(UnknownNameError, match="unknown argument of anomalib's Patchcore 'backbon'"):
            settings("Patchcore", weights=weights, arguments={"backbon": "resnet18"}).fit(frames())
        with pytest.raises(BackboneError, match="do not belong to the network 'resnet34'"):
            settings("Patchcore", weights=weights, arguments={"backbone": "resnet34"}).fit(frames())
        with pytest.raises(SettingError, match="does not accept arguments"):
            settings("Cfa", weights=weights, arguments={"backbone": "resnet99"}).fit(frames())

    def test_the_global_generators_are_left_alone(self, weights):
        torch.manual_seed(5)
        wanted = torch.rand(1)
        torch.manual_seed(5)
        given = {"arguments": {"backbone": "resnet18", "layer": "layer1"}, "weights": weights}
        settings("Dfm", **given).fit([sample_images(RGB, 3, seed=0)])
        assert torch.equal(torch.rand(1), wanted)

    def test_foreign_tensors_are_refused(self, weights):
        given = {"arguments": {"backbone": "resnet18", "layer": "layer1"}, "weights": weights}
        scorer = settings("Dfm", **given).fit([sample_images(RGB, 3, seed=0)])
        state = {key: value for key, value in scorer.state_dict().items() if "conv1" not in key}
        with pytest.raises(ArtifactError, match="does not fit"):
            scorer.detector.restore(state, scorer.description())
        with pytest.raises(ArtifactError, match="must hold 'anomalib'"):
            scorer.detector.restore(scorer.state_dict(), {})

    @pytest.mark.parametrize("module", ["Folder", "MVTecAD"])
    def test_our_detector_runs_in_the_engine(self, module, metal, tmp_path: Path):
        from anomalib import data
        from anomalib.engine import Engine

        from anomaly.detectors.anomalib_bridge.module import AnomalibDetector

        common = {"train_batch_size": 3, "eval_batch_size": 4, "num_workers": 0, "val_split_mode": "same_as_test"}
        if module == "MVTecAD":
            images = data.MVTecAD(root=metal.parent, category="bottle", **common)
        else:
            kinds = sorted(path.name for path in (metal / "test").iterdir() if path.name != "good")
            folders = {"normal_dir": "train/good", "normal_test_dir": "test/good"}
            folders |= {"abnormal_dir": [f"test/{k}" for k in kinds], "mask_dir": [f"ground_truth/{k}" for k in kinds]}
            images = data.Folder("metal", root=metal, **folders, **common)
        model = AnomalibDetector("subspace", {"variance": 0.8}, size=(64, 96))
        with pytest.raises(SettingError, match="not fitted yet"):
            model.model(torch.rand(1, 3, 64, 96))
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        engine = Engine(default_root_dir=tmp_path, accelerator="cpu", **quiet)
        engine.fit(model, datamodule=images)
        (found,) = engine.test(model, datamodule=images)
        assert {"image_AUROC", "pixel_AUROC", "image_F1Score", "pixel_F1Score"} <= set(found)
        assert found["image_AUROC"] > 0.5
        assert model.detector.variance == 0.8

        frames = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            scores = model.model(frames)
            assert torch.equal(scores.anomaly_map, model.model.scorer(frames).map)
        assert float(scores.pred_score.max()) > 1  # raw; anomalib's post-processor scales what its metrics see
        (checkpoint,) = tmp_path.rglob("*.ckpt")
        loaded = AnomalibDetector.load_from_checkpoint(checkpoint)
        with torch.inference_mode():
            assert torch.equal(loaded.model(frames).pred_score, scores.pred_score)

    def test_the_engine_fits_on_every_training_image_once(self, metal, tmp_path: Path, monkeypatch):
        from anomalib import data
        from anomalib.engine import Engine

        from anomaly.detectors.anomalib_bridge.module import AnomalibDetector

        images = data.MVTecAD(
            root=metal.parent, category="bottle", train_batch_size=3, eval_batch_size=4, num_workers=0
        )
        model = AnomalibDetector("subspace", size=(64, 96))
        seen = []
        honest = type(model.detector).fit

        def fit(self, batches):
            batches = list(batches)
            seen.extend(tuple(batch.shape) for batch in batches)
            return honest(self, batches)

        monkeypatch.setattr(type(model.detector), "fit", fit)
        Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False).fit(model, datamodule=images)
        assert seen == [(3, 3, 64, 96), (3, 3, 64, 96), (2, 3, 64, 96)]
