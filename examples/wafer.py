"""A synthetic 300 mm wafer from frames to KLARF: learn on good wafers, inspect one with known defects, write its files.

    python examples/wafer.py --out wafer-demo

writes wafer.png, wafer.svg, wafer.klarf (1.2), wafer.k18 (1.8), wafer.e142.xml and wafer.g85.xml, and prints what was
found, how far from where it was planted, and where the time went. `--quick` takes a 100 mm wafer.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from anomaly import catalog
from anomaly.input_spec import InputSpec
from inspection.wafer import (
    InspectedWafer,
    Planted,
    SignatureTest,
    SyntheticWafer,
    Timing,
    WaferInspector,
    bin_map,
    e142,
    g85,
    klarf,
    write_map,
    write_picture,
)
from inspection.wafer.inspecting import Frames

NEAR_UM = 1_000.0  # a defect found farther away than this is another one
BUDGET_MS = 360.0  # 10,000 wafers an hour


def learn(good: int, canvas: int, diameter_mm: float) -> WaferInspector:
    """Fits the subspace detector on good wafers and calibrates it on two others."""
    kind = catalog.detector_class("subspace")
    detector = catalog.build(kind, {"input": InputSpec(channels=1, size=(canvas, canvas)), "smoothing": 2.0})

    def wafers(seeds: Sequence[int]) -> Iterator[Frames]:
        return (SyntheticWafer(seed=seed, diameter_mm=diameter_mm).frames() for seed in seeds)

    geometry = SyntheticWafer(diameter_mm=diameter_mm).geometry
    return WaferInspector.learn(detector, geometry, wafers(range(good)), wafers((1000, 1001)))


def distances_px(planted: Sequence[Planted], wafer: InspectedWafer, pixel_um: float) -> list[float | None]:
    """Distance of each planted defect to the nearest one found, pixels; None where there is none near it."""
    found = []
    for defect in planted:
        nearest = min((math.hypot(defect.x_um - d.x_um, defect.y_um - d.y_um) for d in wafer.defects), default=math.inf)
        found.append(nearest / pixel_um if nearest < NEAR_UM else None)
    return found


def report(wafer: InspectedWafer, timing: Timing, distances: Sequence[float | None]) -> None:
    """Prints what was found and where the time went."""
    near = [distance for distance in distances if distance is not None]
    print(f"planted {len(distances)}, found {len(near)}, other detections {len(wafer.defects) - len(near)}")
    if near:
        within = sum(distance <= 1 for distance in near)
        print(f"within one pixel: {within} of {len(near)}; median {sorted(near)[len(near) // 2]:.2f} px")
    print(f"yield {100 * wafer.yield_fraction:.1f} % of {len(wafer.inspected)} dies")
    for step in ("comparing", "scoring", "locating", "merging"):
        seconds = getattr(timing, step)
        print(f"{step:>10} {1000 * seconds:8.1f} ms {100 * seconds / timing.total:5.1f} %")
    print(f"{'total':>10} {1000 * timing.total:8.1f} ms for {timing.frames} frames; the budget is {BUDGET_MS:.0f} ms")


def write_files(folder: Path, wafer: InspectedWafer) -> None:
    """Writes picture, maps and KLARF, and reads the KLARF back."""
    folder.mkdir(parents=True, exist_ok=True)
    spatial = SignatureTest().wafer(wafer)
    for name in ("wafer.png", "wafer.svg"):
        write_picture(folder / name, wafer, spatial.signatures)
    write_map(folder / "wafer.e142.xml", e142(bin_map(wafer, partial_dies=True)))
    write_map(folder / "wafer.g85.xml", g85(bin_map(wafer, partial_dies=True)))
    for name, version in (("wafer.klarf", klarf.VERSIONS[1]), ("wafer.k18", klarf.VERSIONS[2])):
        klarf.write(folder / name, klarf.klarf_file(wafer, version, time="2026-11-22T17:06:00"))
        equal = klarf.read(folder / name).wafers == (klarf.as_stored(wafer),)
        print(f"KLARF {version} read back equal: {equal}")
    names = ", ".join(f"{s.kind} (p = {s.p_value:.2g})" for s in spatial.signatures) or "none"
    print(f"signatures: {names}; smallest corrected p-value {spatial.p_value:.2g}")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("wafer-demo"))
    parser.add_argument("--wafers", type=int, default=1, help="wafers to inspect; files are written of the last")
    parser.add_argument("--good", type=int, default=2, help="good wafers to learn from")
    parser.add_argument("--canvas", type=int, default=512, help="side of the detector's canvas in pixels")
    parser.add_argument("--defects", type=int, default=24, help="defects to plant on a wafer")
    parser.add_argument("--quick", action="store_true", help="a 100 mm wafer")
    arguments = parser.parse_args()
    diameter = 100.0 if arguments.quick else 300.0
    inspector = learn(arguments.good, arguments.canvas, diameter)
    print(f"threshold of blobs: {inspector.calibration.ng.in_words()}")
    for seed in range(2000, 2000 + arguments.wafers):
        source = SyntheticWafer(seed=seed, defects=arguments.defects, diameter_mm=diameter)
        frames = list(source.frames())
        wafer, timing = inspector.inspect(
            frames, lot="DEMO", wafer=str(seed), slot=1, device="synthetic", time="2026-11-22T17:05:00"
        )
        report(wafer, timing, distances_px(source.planted, wafer, source.pixel_um))
    write_files(arguments.out, wafer)


if __name__ == "__main__":
    main()
