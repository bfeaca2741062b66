"""Spatial signatures: false alarms on random wafers, power on planted ones."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from anomaly.errors import SettingError
from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.geometry import WaferGeometry
from inspection.wafer.region import Region
from inspection.wafer.scans import clark_evans, reference, scan_line
from inspection.wafer.signatures import SCANS, SignatureTest

TEST = SignatureTest(simulations=199, most=1)
BACKGROUND = 24


def random_points(rng, count):
    return Region().sample(rng, count)


def planted(kind, rng, count=16):
    """Points of one structure, on random ones."""
    t = rng.random(count)
    if kind == "scratch":
        start, angle = random_points(rng, 1)[0] * 0.5, rng.uniform(0, 2 * math.pi)
        line = start + 0.6 * t[:, None] * (math.cos(angle), math.sin(angle))
        structure = line + rng.normal(0, 0.003, (count, 2))
    elif kind == "cluster":
        structure = random_points(rng, 1)[0] * 0.6 + rng.normal(0, 0.05, (count, 2))
    else:
        radius = {"ring": 0.55, "edge": 0.975}[kind] + rng.normal(0, 0.008, count)
        structure = radius[:, None] * np.stack([np.cos(2 * math.pi * t), np.sin(2 * math.pi * t)], axis=1)
    points = np.concatenate([structure, random_points(rng, BACKGROUND)])
    return points[np.hypot(points[:, 0], points[:, 1]) < 1]


def test_random_wafers_raise_no_more_alarms_than_promised():
    rng = np.random.default_rng(11)
    wafers, alarms = 120, 0
    for _ in range(wafers):
        alarms += bool(TEST.points(random_points(rng, 40)).signatures)
    # A test of level 5 % would give more than this once in a thousand such experiments.
    assert alarms <= binom.ppf(0.999, wafers, TEST.level)


@pytest.mark.parametrize("kind", SCANS)
def test_planted_structures_are_named(kind):
    rng = np.random.default_rng(3)
    named, recall = 0, []
    for _ in range(8):
        points = planted(kind, rng)
        report = TEST.points(points)
        if report.signatures and report.signatures[0].kind == kind:
            named += 1
            own = len(points) - BACKGROUND
            recall.append(sum(i < own for i in report.signatures[0].defects) / own)
    assert named >= 7
    assert np.mean(recall) > 0.7


def test_two_structures_on_one_wafer_are_both_named():
    rng = np.random.default_rng(8)
    t = rng.uniform(0, 2 * math.pi, 25)
    ring = 0.97 * np.stack([np.cos(t), np.sin(t)], axis=1)
    cluster = rng.normal((0.3, 0.2), 0.03, (20, 2))
    report = SignatureTest(simulations=199).points(np.concatenate([ring, cluster, random_points(rng, 15)]))
    assert {signature.kind for signature in report.signatures[:2]} == {"edge", "cluster"}
    everything = [number for signature in report.signatures for number in signature.defects] + list(report.random)
    assert sorted(everything) == list(range(60))


def test_p_values_are_those_of_the_simulation():
    report = TEST.points(random_points(np.random.default_rng(1), 30))
    assert report.signatures == ()
    assert 0.05 < report.p_value <= 1
    assert len(report.random) == 30
    few = TEST.points(random_points(np.random.default_rng(1), 4))
    assert (few.signatures, few.p_value) == ((), 1.0)


def test_the_same_seed_gives_the_same_answer():
    points = planted("ring", np.random.default_rng(5))
    assert TEST.points(points) == TEST.points(points.copy())


def test_line_finds_exactly_the_points_on_it():
    rng = np.random.default_rng(0)
    line = np.stack([np.linspace(-0.3, 0.25, 12), np.full(12, 0.1)], axis=1)
    points = np.concatenate([line, [[0.0, 0.5], [0.3, -0.4], [-0.6, 0.2]]])
    found = scan_line(points, reference(random_points(rng, 20_000)))
    assert np.flatnonzero(found.members).tolist() == list(range(12))
    assert found.shape == pytest.approx((-0.3, 0.1, 0.25, 0.1))


def test_clark_evans_by_hand():
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    assert clark_evans(grid, area=400.0) == pytest.approx(2.0)  # a square grid: 1 against 0.5
    assert clark_evans(np.repeat(grid[:10], 2, axis=0), area=400.0) == 0.0


def test_dies_not_inspected_are_no_hole_in_randomness():
    """Only the left half was inspected: random defects there are no signature, though the disc is half empty."""
    geometry = WaferGeometry(pitch_um=(8000, 8000))
    inspected = tuple(die for die in geometry.dies() if die.column < 0)
    rng = np.random.default_rng(2)
    radius = geometry.usable_radius_um
    points = Region.of(InspectedWafer(geometry=geometry, inspected=inspected)).sample(rng, 60) * radius
    defects = tuple(
        WaferDefect.at(geometry, x, y, id=10 + n, size_x_um=1.0, size_y_um=1.0, area_um2=1.0)
        for n, (x, y) in enumerate(points)
    )
    wafer = InspectedWafer(geometry=geometry, inspected=inspected, defects=defects)
    report = TEST.wafer(wafer)
    assert report.signatures == ()
    assert sorted(report.random) == list(range(10, 70))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match="at least 79 for this level"):
        SignatureTest(simulations=78)
    with pytest.raises(SettingError, match="level"):
        SignatureTest(level=0)
    with pytest.raises(SettingError, match="inspected dies"):
        TEST.wafer(InspectedWafer(geometry=WaferGeometry(pitch_um=(8000, 8000)), inspected=()))
