"""Images of another kind are not familiar, those of the training are, and the numbers survive the model file."""

import numpy as np
import pytest
import torch

from anomaly.errors import ArtifactError, CalibrationError, InputError
from medical.familiarity import Familiarity, layout_of, learn
from tests.medical.studies import chest


def layouts(images):
    return np.stack([layout_of(torch.from_numpy(np.ascontiguousarray(i)).float()[None]) for i in images])


@pytest.fixture(scope="module")
def known():
    return learn(layouts([chest(seed) for seed in range(24)]), layouts([chest(seed) for seed in range(24, 40)]))


def refused(known, images):
    return [not known.knows(distance) for distance in known.distance(layouts(images))]


def test_normals_and_abnormals_are_familiar(known):
    assert not any(refused(known, [chest(seed) for seed in range(40, 56)]))
    assert not any(refused(known, [chest(seed, abnormal=True) for seed in range(40, 48)]))


@pytest.mark.parametrize("turn", [lambda i: 1 - i, np.rot90, lambda i: i[::-1], lambda i: np.full_like(i, 0.5)])
def test_other_kinds_are_not(known, turn):
    assert all(refused(known, [turn(chest(seed)) for seed in range(40, 48)]))


def test_distances_are_residuals_of_a_principal_component_analysis(known):
    new = layouts([chest(99)])
    standard = (new - known.center) / known.spread
    projector = np.eye(standard.shape[1]) - np.linalg.pinv(known.components) @ known.components
    assert known.distance(new)[0] == pytest.approx(np.sqrt(np.mean((standard @ projector) ** 2)), rel=1e-4)


def test_it_survives_the_model_file(known):
    again = Familiarity.from_dict(known.to_dict())
    new = layouts([chest(7)])
    assert again.distance(new) == known.distance(new)
    assert again.limit == known.limit
    for change, words in (
        ({"version": 2}, "version"),
        ({"backbone": "0"}, "another version"),
        ({"center": "?"}, "damaged"),
    ):
        with pytest.raises(ArtifactError, match=words):
            Familiarity.from_dict({**known.to_dict(), **change})


def test_too_few_normals_and_bad_values_are_errors():
    with pytest.raises(CalibrationError, match="two normals"):
        learn(layouts([chest(0)]), layouts([chest(1)]))
    with pytest.raises(InputError):
        layout_of(torch.full((1, 32, 32), 2.0))


def test_normals_that_all_lie_alike_leave_room_for_disease():
    alike = layouts([chest(0)] * 6)
    assert learn(alike[:4], alike[4:]).limit == 1.0
