"""Attributions on toy networks against answers computed by hand."""

import numpy as np
import pytest
import torch

from anomaly.errors import InputError, SettingError, UnknownNameError
from explain.cam import GradCam, GuidedGradCam
from explain.explanation import Explanation
from explain.gradients import GradientShap, IntegratedGradients
from explain.layers import choose_layer, layers_of
from explain.methods import CONTROLS, METHODS, methods_named
from explain.perturbation import KernelShap, Lime, Occlusion


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_ig_of_a_linear_score_is_weight_times_difference(noise, toys):
    weights = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    baseline = torch.full_like(noise, 0.5)
    found = IntegratedGradients(steps=3).explain(toys.subject_of(toys.WeightedSum(weights), noise, baseline))
    np.testing.assert_allclose(found.map, (weights * (noise[0] - 0.5)).numpy(), atol=1e-6)
    assert found.check.name == "completeness"
    assert found.check.value < 1e-4


def test_ig_of_a_square_is_pixel_times_sum(noise, toys):
    # d/dx_i S^2 = 2 S; along the way from 0 the sum is a S, so the integral of 2 a S is S: x_i * S
    found = IntegratedGradients(steps=8).explain(toys.subject_of(toys.SquaredSum(), noise))
    np.testing.assert_allclose(found.map, (noise[0] * noise.sum()).numpy(), rtol=1e-4)
    assert found.check.holds


def test_ig_with_too_few_steps_says_so(noise, toys):
    subject = toys.subject_of(toys.Exponential(), noise)
    coarse, fine = (IntegratedGradients(steps=steps).explain(subject) for steps in (1, 32))
    assert not coarse.check.holds
    assert fine.check.holds
    assert fine.map.sum() == pytest.approx(np.exp(8 * float(noise.mean())) - 1, rel=1e-3)


def test_grad_cam_by_hand(noise, toys):
    # channel 0 of a cell with mean m is 2 m, channel 1 is relu(-m) = 0; mean gradients are 3 and 5: 6 m
    found = GradCam(layer="relu").explain(toys.subject_of(toys.TwoChannels(), noise))
    cells = torch.nn.functional.avg_pool2d(noise, 8)[0]
    wanted = torch.nn.functional.interpolate(6 * cells[None, None], size=(32, 32), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found.map, wanted.numpy(), rtol=1e-5)
    assert found.settings["layer"] == "relu"
    assert found.settings["grid"] == [4, 4]


def test_guided_grad_cam_is_grad_cam_times_the_guided_gradient(noise, toys):
    # the gradient of a pixel is 3 * 2 / 64 through channel 0; channel 1 is shut
    subject = toys.subject_of(toys.TwoChannels(), noise)
    found = GuidedGradCam(layer="relu").explain(subject)
    np.testing.assert_allclose(found.map, GradCam(layer="relu").explain(subject).map * 6 / 64, rtol=1e-5)


def test_guided_grad_cam_refuses_networks_without_relu(noise, toys):
    scorer = toys.TwoChannels()
    scorer.relu = torch.nn.GELU()
    with pytest.raises(SettingError, match="1 x gelu"):
        GuidedGradCam().explain(toys.subject_of(scorer, noise))


def test_guided_grad_cam_refuses_rectifiers_that_are_no_modules(noise, toys):
    scorer = toys.TwoChannels()
    scorer.pool.forward = lambda pixels: torch.nn.functional.avg_pool2d(pixels, 8).relu()
    with pytest.raises(SettingError, match="1 x relu that is no module"):
        GuidedGradCam().explain(toys.subject_of(scorer, noise))


def test_occlusion_of_side_by_side_windows_is_what_each_window_adds(square):
    _, subject, inside = square
    found = Occlusion(window=0.25, overlap=1).explain(subject)
    np.testing.assert_allclose(found.map, inside.astype(np.float32), atol=1e-6)


def test_kernel_shap_of_an_additive_score_is_what_each_cell_adds(square):
    _, subject, inside = square
    found = KernelShap(cells=4, samples=120).explain(subject)
    np.testing.assert_allclose(found.map, inside.astype(np.float32), atol=1e-3)
    assert found.check.holds


def test_lime_of_an_additive_score_is_what_each_cell_adds(square):
    _, subject, inside = square
    found = Lime(cells=4, samples=120, penalty=0.0).explain(subject)
    np.testing.assert_allclose(found.map, inside.astype(np.float32), atol=1e-3)
    assert found.check.value == pytest.approx(1.0, abs=1e-4)


def test_gradient_shap_of_a_linear_score_averages_the_baselines(noise, toys):
    weights = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    found = GradientShap(samples=8).explain(toys.subject_of(toys.WeightedSum(weights), noise))
    np.testing.assert_allclose(found.map, (weights * noise[0]).numpy(), atol=1e-5)
    more = toys.subject_of(toys.WeightedSum(weights), noise, normals=torch.ones(3, 1, 32, 32))
    again = GradientShap(samples=512).explain(more)
    np.testing.assert_allclose(again.map, (weights * (noise[0] - 0.75)).numpy(), atol=0.25)
    assert again.settings["baselines"] == 4


@pytest.mark.parametrize("name", ["gradient_shap", "kernel_shap", "lime"])
def test_methods_that_draw_are_repeatable_and_leave_the_generators_alone(name, noise, toys):
    subject = toys.subject_of(toys.SquaredSum(), noise, seed=3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    wanted = torch.rand(1), np.random.rand(1)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    first, second = (METHODS[name]().explain(subject) for _ in range(2))
    np.testing.assert_array_equal(first.map, second.map)
    assert (torch.rand(1), np.random.rand(1)) == wanted  # noqa: NPY002


@pytest.mark.parametrize("name", ["gradcam", "guided_gradcam", "ig", "occlusion", "gradient_shap"])
def test_hooks_are_removed_also_after_errors(name, noise, hooks, toys):
    scorer = toys.TwoChannels()
    subject = toys.subject_of(scorer, noise)
    method = METHODS[name]()
    before = hooks(subject.score)
    method.explain(subject)
    assert hooks(subject.score) == before == 0
    assert scorer.relu.inplace
    scorer.fails = True
    with pytest.raises((RuntimeError, AssertionError)):
        method.explain(subject)
    assert hooks(subject.score) == 0
    assert scorer.relu.inplace
    assert all(not p.requires_grad for p in scorer.parameters())


def test_layers_are_listed_in_the_order_in_which_they_run(noise, toys):
    subject = toys.subject_of(toys.TwoChannels(), noise)
    assert [(layer.name, layer.grid) for layer in layers_of(subject)] == [
        ("pool", (4, 4)),
        ("convolution", (4, 4)),
        ("relu", (4, 4)),
    ]
    assert choose_layer(subject).name == "relu"
    with pytest.raises(UnknownNameError, match="convolution"):
        choose_layer(subject, "nosuch")


def test_an_explanation_is_finite_and_of_one_kind():
    with pytest.raises(InputError, match="finite"):
        Explanation("ig", np.full((4, 4), np.nan, np.float32))
    assert Explanation("ig", np.array([[-1.0, 0.0], [2.0, 4.0]], np.float32)).shown().max() == 1


def test_methods_by_name():
    assert [m.name for m in methods_named(["ig", "lime", "ig"])] == ["ig", "lime"]
    with pytest.raises(UnknownNameError, match="gradcam"):
        methods_named(["grad_cam"])
    assert {c.name for c in CONTROLS} == {"anomaly_map", "edges", "random"}


@pytest.mark.parametrize(
    ("method", "setting"), [(Occlusion, {"window": 0.0}), (Lime, {"cells": 1}), (IntegratedGradients, {"steps": 0})]
)
def test_settings_that_are_not_allowed(method, setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        method(**setting)
