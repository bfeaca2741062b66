"""A synthetic wafer from frames to KLARF, and its picture."""

import math
import runpy
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest

from anomaly import catalog
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import InputSpec
from inspection.wafer import (
    InspectedWafer,
    Side,
    Signature,
    SyntheticWafer,
    WaferDefect,
    WaferFileError,
    WaferInspector,
    klarf,
    wafer_svg,
    write_picture,
)

SMALL = {"diameter_mm": 60.0, "frame_px": 256, "overlap_px": 12}


@pytest.fixture(scope="module")
def inspector():
    detector = catalog.build(
        catalog.detector_class("subspace"), {"input": InputSpec(channels=1, size=(256, 256)), "smoothing": 2.0}
    )
    good, held = ([SyntheticWafer(seed=seed, **SMALL).frames() for seed in seeds] for seeds in ((0, 1), (10, 11)))
    return WaferInspector.learn(detector, SyntheticWafer(**SMALL).geometry, good, held)


@pytest.fixture(scope="module")
def inspected(inspector):
    source = SyntheticWafer(seed=21, defects=4, **SMALL)
    wafer, timing = inspector.inspect(source.frames(), lot="L", wafer="W21", slot=3)
    return source, wafer, timing


def test_planted_defects_are_found_within_a_pixel(inspected):
    source, wafer, timing = inspected
    nearest = [min(math.hypot(p.x_um - d.x_um, p.y_um - d.y_um) for d in wafer.defects) for p in source.planted]
    found = [distance / source.pixel_um for distance in nearest if distance < 10 * source.pixel_um]
    assert len(found) >= 2, nearest  # of 4: half the canvas and 18 frames held out find less than the example does
    assert max(found) <= 1, found
    assert len(wafer.defects) <= 6
    assert timing.frames == len(source.views) == 9
    assert timing.total > 0
    assert all(defect.p_value is not None and defect.frame for defect in wafer.defects)


@pytest.mark.parametrize("version", klarf.VERSIONS)
def test_its_file_is_read_back_equal(inspected, version, tmp_path):
    _, wafer, _ = inspected
    klarf.write(tmp_path / "w.klarf", klarf.klarf_file(wafer, version))
    (back,) = klarf.read(tmp_path / "w.klarf").wafers
    assert back == klarf.as_stored(wafer)
    for stored, found in zip(back.defects, wafer.defects, strict=True):
        assert math.hypot(stored.x_um - found.x_um, stored.y_um - found.y_um) < 0.002


def test_what_could_not_be_compared_is_not_inspected(inspector, inspected):
    source, wafer, _ = inspected
    whole = wafer.geometry.dies()
    # A die at the edge of so small a wafer has too few dies in sight; all others were compared.
    assert set(wafer.inspected) < set(whole)
    assert {die for die in whole if max(abs(die.column), abs(die.row)) <= 1} <= set(wafer.inspected)
    some = [pair for pair in source.frames() if pair[0].frame != "frame004"]
    partly, _ = inspector.inspect(some)
    assert set(partly.inspected) < set(wafer.inspected)
    with pytest.raises(InputError, match="at least one frame"):
        inspector.inspect([])


def test_batches_change_nothing(inspector, inspected):
    source, wafer, _ = inspected
    other, _ = replace(inspector, batch_size=2).inspect(source.frames(), lot="L", wafer="W21", slot=3)
    assert len(other.defects) == len(wafer.defects)
    for a, b in zip(other.defects, wafer.defects, strict=True):
        assert (a.x_um, a.y_um, a.peak) == pytest.approx((b.x_um, b.y_um, b.peak), rel=1e-3, abs=1e-2)


def picture_wafer(inspected):
    _, wafer, _ = inspected
    kinds = {0: "Unclassified", 1: "Scratch <deep>", 2: "x" * 60}
    marked = tuple(replace(defect, class_number=n % 3) for n, defect in enumerate(wafer.defects))
    return replace(wafer, classes=kinds, defects=marked)


def test_picture_shows_dies_defects_and_legend(inspected, tmp_path):
    wafer = picture_wafer(inspected)
    signatures = [
        Signature("edge", 0.01, (1,), (0.9, 1.0)),
        Signature("scratch", 0.02, (2,), (0.0, 0.0, 0.4, 0.3)),
        Signature("cluster", 0.03, (3,), (0.2, 0.1, 0.1)),
    ]
    root = ET.fromstring(wafer_svg(wafer, signatures))
    text = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Wafer W21 · Lot L" in text
    assert f"{100 * wafer.yield_fraction:.1f} %" in text
    assert {"notch", "Scratch <deep>", "edge, p = 0.01", "scratch, p = 0.02", "cluster, p = 0.03"} <= set(text)
    shapes = sum(1 for _ in root.iter("{http://www.w3.org/2000/svg}polygon"))
    assert shapes >= len(wafer.inspected)
    write_picture(tmp_path / "w.png", wafer, signatures)
    image = cv2.imread(str(tmp_path / "w.png"))
    assert image.shape == (1400, 1920, 3)
    for rgb in ((0xD3, 0xE8, 0xD5), (0xF3, 0xB7, 0xA7), (0xE0, 0x00, 0x7A)):  # passed, failed, signature
        assert (image[100:1300, 100:1250] == rgb[::-1]).all(axis=2).any()


def test_a_defect_is_drawn_where_it_lies(tmp_path):
    geometry = SyntheticWafer(**SMALL).geometry
    x, y = 15_000.0, -8_000.0
    defect = WaferDefect.at(geometry, x, y, id=1, size_x_um=1.0, size_y_um=1.0, area_um2=1.0)
    wafer = InspectedWafer(geometry=geometry, inspected=geometry.dies(), defects=(defect,))
    write_picture(tmp_path / "w.png", wafer)
    image = cv2.imread(str(tmp_path / "w.png"))[:, :1300]
    rows, columns = np.nonzero((image == (0x1E, 0x26, 0xB3)).all(axis=2))
    scale = 2 * 290 / geometry.radius_um
    assert (columns.mean(), rows.mean()) == pytest.approx((2 * 348 + x * scale, 2 * 376 - y * scale), abs=1.5)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("flat", [False, True])
def test_empty_wafers_are_drawn_too(side, flat):
    geometry = replace(SyntheticWafer(**SMALL).geometry, notch=side, flat=flat)
    svg = wafer_svg(InspectedWafer(geometry=geometry, inspected=()))
    assert ("flat" if flat else "notch") in svg
    assert "none found" in svg


def test_other_pictures_are_refused(inspected, tmp_path):
    with pytest.raises(WaferFileError, match=r"\.svg or \.png"):
        write_picture(tmp_path / "w.jpg", inspected[1])
    with pytest.raises(WaferFileError, match="cannot be written"):
        write_picture(tmp_path / "no" / "w.svg", inspected[1])
    with pytest.raises(SettingError, match="defects"):
        SyntheticWafer(defects=1000)
    with pytest.raises(SettingError, match=r"at most about .* on a wafer of 60 mm; got 40"):
        list(SyntheticWafer(defects=40, **SMALL).frames())


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    example = Path(__file__).parents[3] / "examples" / "wafer.py"
    arguments = ["--out", str(tmp_path), "--quick", "--canvas", "256", "--good", "1", "--defects", "4"]
    monkeypatch.setattr("sys.argv", ["wafer.py", *arguments])
    runpy.run_path(str(example), run_name="__main__")
    printed = capsys.readouterr().out
    assert "KLARF 1.2 read back equal: True" in printed
    assert "KLARF 1.8 read back equal: True" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "wafer.e142.xml", "wafer.g85.xml", "wafer.k18", "wafer.klarf", "wafer.png", "wafer.svg",
    ]  # fmt: skip
