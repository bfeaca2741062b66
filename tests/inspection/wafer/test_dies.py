"""Dies as images, their comparison, frames compared with themselves, blobs."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label, shift

from anomaly import catalog
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import InputSpec
from inspection.wafer import (
    Alignment,
    Blob,
    DieComparison,
    DieImage,
    DieIndex,
    FrameDifference,
    FrameView,
    Registration,
    SyntheticWafer,
    WaferGeometry,
    cut_dies,
    find_blobs,
    locate,
    median_die,
    register,
    stitch,
)

SMALL = {"diameter_mm": 60.0, "frame_px": 256, "overlap_px": 12}


@pytest.fixture(scope="module")
def wafers():
    """Frames of small wafers: seed -> list of (view, frame)."""
    good = {seed: list(SyntheticWafer(seed=seed, **SMALL).frames()) for seed in (0, 1)}
    return good | {7: list(SyntheticWafer(seed=7, defects=4, **SMALL).frames())}


def test_frames_cover_the_wafer_and_are_drawn_alike(wafers):
    settings = SyntheticWafer(seed=7, defects=4, **SMALL)
    again = list(settings.frames())
    assert [view for view, _ in again] == [view for view, _ in wafers[7]]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(again, wafers[7], strict=True))
    view, whole = stitch(wafers[7])
    assert not np.isnan(whole).any()
    for corner in (0.0, 1.5, 3.0, 4.5):
        row, column = view.to_frame(30_000 * np.cos(corner), 30_000 * np.sin(corner))
        assert 0 <= row <= view.height
        assert 0 <= column <= view.width


def test_planted_defects_are_where_they_are_said_to_be(wafers):
    clean = SyntheticWafer(seed=7, **SMALL)
    for planted in SyntheticWafer(seed=7, defects=4, **SMALL).planted:
        for (view, frame), (_, usual) in zip(wafers[7], clean.frames(), strict=True):
            row, column = view.to_frame(planted.x_um, planted.y_um)
            if 8 < row < view.height - 8 and 8 < column < view.width - 8 and planted.kind != "scratch":
                change = np.abs(frame.astype(float) - usual)[
                    int(row) - 8 : int(row) + 9, int(column) - 8 : int(column) + 9
                ]
                y, x = np.indices(change.shape)
                middle = (change * y).sum() / change.sum() - 8, (change * x).sum() / change.sum() - 8
                assert middle == pytest.approx((row - 0.5 - int(row), column - 0.5 - int(column)), abs=0.1)


def test_dies_are_cut_on_the_grid(wafers):
    geometry = SyntheticWafer(**SMALL).geometry
    view, whole = stitch(wafers[0])
    dies = cut_dies(view, whole, geometry)
    assert [die.die for die in dies] == list(geometry.dies())
    golden = median_die(dies)
    for die in dies:  # every die shows the same product
        assert np.corrcoef(die.pixels.ravel(), golden.ravel())[0, 1] > 0.95
    one_frame = cut_dies(*wafers[0][4], geometry)
    assert {die.die for die in one_frame} < set(geometry.dies())


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.4, -0.7), (1.6, 2.3), (-2.5, 0.25)])
def test_registration_finds_fractions_of_a_pixel(moved):
    rng = np.random.default_rng(0)
    golden = np.kron(rng.normal(100, 30, (18, 16)), np.ones((5, 5))).astype(np.float32)
    die = DieImage(DieIndex(0, 0), shift(golden, moved, order=3, mode="reflect").astype(np.float32))
    (found,) = register([die], golden)
    assert found.shift_px == pytest.approx([-moved[0], -moved[1]], abs=0.05)
    inner = (slice(8, -8), slice(8, -8))
    before, after = np.abs(die.pixels - golden)[inner].mean(), np.abs(found.pixels - golden)[inner].mean()
    if any(moved):
        assert after < 0.6 * before


def test_a_die_too_far_off_is_not_moved():
    golden = np.kron(np.random.default_rng(1).normal(100, 30, (18, 16)), np.ones((5, 5))).astype(np.float32)
    die = DieImage(DieIndex(0, 0), np.roll(golden, 6, axis=1))
    (found,) = register([die], golden, Registration(max_shift_px=3))
    assert abs(found.shift_px[1]) == pytest.approx(6, abs=0.3)
    np.testing.assert_array_equal(found.pixels, die.pixels)
    with pytest.raises(InputError, match="the reference"):
        register([die], golden[:-1])


@pytest.mark.parametrize("reference", ["neighbours", "golden"])
def test_the_die_with_a_defect_scores_highest(wafers, reference):
    geometry = SyntheticWafer(**SMALL).geometry
    cut = {seed: cut_dies(*stitch(frames), geometry) for seed, frames in wafers.items()}
    golden = median_die(cut[0] + cut[1]) if reference == "golden" else None
    how = DieComparison(reference=reference)
    detector = catalog.build(catalog.detector_class("subspace"), {"input": InputSpec(channels=1, size=(96, 96))})
    scorer = how.fit(detector, [cut[0], cut[1]], golden)
    scores = how.score(scorer, cut[7], golden)
    assert scores[0].map.shape == cut[7][0].pixels.shape
    planted = {geometry.die_at(p.x_um, p.y_um) for p in SyntheticWafer(seed=7, defects=4, **SMALL).planted}
    order = [one.die for one in sorted(scores, key=lambda one: -one.score)]
    assert planted & set(order[: len(planted)]) == planted & set(order)


def test_a_lighter_die_is_no_defect_unless_asked_for():
    rng = np.random.default_rng(3)
    pattern = np.kron(rng.normal(100, 30, (8, 8)), np.ones((6, 6)))
    dies = [
        DieImage(DieIndex(n % 5, n // 5), (pattern + rng.normal(0, 1, (48, 48))).astype(np.float32)) for n in range(25)
    ]
    dies[12] = dies[12]._replace(pixels=dies[12].pixels + 20)
    even, raw = (list(DieComparison(even_tone=tone).differences(dies))[12].pixels.mean() for tone in (True, False))
    assert abs(even) < 1
    assert raw == pytest.approx(20, abs=1)


def test_comparisons_that_cannot_be_are_refused():
    dies = [DieImage(DieIndex(n, 0), np.zeros((40, 40), np.float32)) for n in range(5)]
    with pytest.raises(InputError, match="8 neighbours need more"):
        list(DieComparison().differences(dies))
    with pytest.raises(InputError, match="a golden die is not given"):
        list(DieComparison(reference="golden").differences(dies))
    with pytest.raises(SettingError, match="neighbours"):
        DieComparison(neighbours=2)
    with pytest.raises(InputError, match="at least one die"):
        median_die([])
    with pytest.raises(InputError, match="one alignment"):
        stitch([])


def test_the_pattern_goes_and_the_defect_stays():
    """Against a plain reference: integer pitch, exact repeats, one defect; every pixel has four dies in sight."""
    rng = np.random.default_rng(2)
    die = rng.integers(0, 200, (20, 16)).astype(np.uint8)
    frame = np.tile(die, (6, 8))
    frame[50:53, 60:62] += 50
    geometry = WaferGeometry(pitch_um=(160, 200), diameter_mm=10, edge_exclusion_mm=0)
    view = FrameView(frame="f", stage_um=(0, 0), height=120, width=128, alignment=Alignment(pixel_um=(10, 10)))
    found = FrameDifference(margin_um=0)(view, torch.from_numpy(frame), geometry)
    expected = np.zeros((120, 128))
    expected[50:53, 60:62] = 50
    np.testing.assert_allclose(found.pixels.numpy(), expected, atol=1e-3)
    assert found.judged.all()


def test_fractions_of_a_pixel_of_pitch_are_compensated():
    pitch = 16.4
    y, x = np.mgrid[:120, :160].astype(float)
    frame = (100 + 40 * np.sin(2 * np.pi * x / pitch) + 30 * np.cos(2 * np.pi * y / 20.0)).astype(np.float32)
    geometry = WaferGeometry(pitch_um=(pitch * 10, 200), diameter_mm=10, edge_exclusion_mm=0)
    view = FrameView(frame="f", stage_um=(0, 0), height=120, width=160, alignment=Alignment(pixel_um=(10, 10)))
    change = FrameDifference(margin_um=0)(view, torch.from_numpy(frame), geometry).pixels.abs().max()
    rough = FrameDifference(margin_um=0)(view, torch.from_numpy(frame), WaferGeometry(
        pitch_um=(160, 200), diameter_mm=10, edge_exclusion_mm=0)).pixels.abs().max()  # fmt: skip
    assert float(change) < 1.5
    assert float(rough) > 3 * float(change)


def test_what_has_no_reference_is_not_judged():
    geometry = WaferGeometry(pitch_um=(1600, 2000), diameter_mm=10, edge_exclusion_mm=0)
    view = FrameView(frame="f", stage_um=(0, 0), height=120, width=120, alignment=Alignment(pixel_um=(10, 10)))
    found = FrameDifference()(view, torch.zeros(120, 120), geometry)  # a frame smaller than a die
    assert not found.judged.any()
    assert float(found.pixels.abs().max()) == 0


def test_blobs_agree_with_another_labelling():
    rng = np.random.default_rng(0)
    anomaly_map = rng.normal(size=(60, 70)).astype(np.float32)
    mask = np.ones((60, 70), bool)
    mask[:10] = False
    found = find_blobs(anomaly_map, 1.0, mask, lambda peak: 0.5)
    labels, count = label((anomaly_map > 1.0) & mask, structure=np.ones((3, 3)))
    assert len(found) == count
    areas = sorted((labels == n).sum() for n in range(1, count + 1))
    assert sorted(blob.area for blob in found) == areas
    highest = max(found, key=lambda blob: blob.peak)
    assert highest.peak == anomaly_map[mask].max()
    assert highest.p_value == 0.5
    assert all(blob.box[0] <= blob.row <= blob.box[2] and blob.box[1] <= blob.column <= blob.box[3] for blob in found)


@pytest.mark.parametrize("place", [(40.5, 50.5), (40.0, 50.25), (43.3, 47.9)])
def test_a_blob_moves_to_what_differs(place):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:100, :100] + 0.5
    spot = 60 * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * 1.5**2))
    difference = (spot + rng.normal(0, 3, (100, 100))).astype(np.float32)
    blob = Blob(row=44.0, column=46.0, box=(38, 40, 48, 54), area=100, peak=9.0, mean=5.0, p_value=0.1)
    found = locate(difference, blob)
    assert (found.row, found.column) == pytest.approx(place, abs=0.25)
    assert (found.peak, found.p_value) == (9.0, 0.1)
    assert 20 < found.area < 60
    assert locate(np.zeros((100, 100), np.float32), blob) == blob
