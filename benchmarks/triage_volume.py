"""What a CT volume of 300 slices costs from files to results: seconds and memory of reading, scoring and writing.

The volume is generated (512 x 512, 16 bits, native pixels): an ellipsoid with noise. The model scores slices with the
bundled backbone; it was fitted on a few smaller volumes of the same kind, for the cost does not depend on how well it
knows normal. Each step's peak is that of the whole process so far; the decoding process has its own line.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import facts
from benchmarks.tables import markdown

SIDE = 512
_ROOT = "1.2.826.0.1.3680043.10.1234"
_CT = "1.2.840.10008.5.1.4.1.1.2"


def write_volume(folder: Path, seed: int, slices: int, side: int) -> Path:
    """Writes a CT series of one patient and returns its folder."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(slices):
        radius = 0.9 - 0.4 * abs(2 * index / slices - 1)
        values = np.where(rows**2 / radius + columns**2 < radius**2, 1064, 24) + random.normal(0, 12, (side, side))
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(_CT)
        meta.MediaStorageSOPInstanceUID = generate_uid(f"{_ROOT}.", [str(seed), str(index)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made: Any = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        made.StudyInstanceUID = generate_uid(f"{_ROOT}.", [str(seed), "study"])
        made.SeriesInstanceUID = generate_uid(f"{_ROOT}.", [str(seed), "series"])
        made.FrameOfReferenceUID = generate_uid(f"{_ROOT}.", [str(seed), "frame"])
        made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "", f"volume {seed}", "", "O"
        made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20260101", "120000", "1", ""
        made.ReferringPhysicianName, made.Manufacturer, made.SeriesNumber = "", "generated", 1
        made.Modality, made.BodyPartExamined, made.ImageType = "CT", "HEAD", ["ORIGINAL", "PRIMARY", "AXIAL"]
        made.PatientAge, made.PositionReferenceIndicator, made.InstanceNumber = "050Y", "", index + 1
        made.ImageOrientationPatient, made.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, float(index)]
        made.PixelSpacing, made.SliceThickness, made.AcquisitionNumber = [0.5, 0.5], 1, 1
        made.RescaleIntercept, made.RescaleSlope, made.RescaleType, made.KVP = -1024, 1, "HU", "120"
        made.SamplesPerPixel, made.PhotometricInterpretation, made.Rows, made.Columns = 1, "MONOCHROME2", side, side
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
        made.PixelData = values.clip(0).astype("<u2").tobytes()
        made.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return folder


class Steps:
    """Measures one step after the other."""

    def __init__(self) -> None:
        """Begins with nothing measured."""
        self.rows: list[tuple[str, float, float, float]] = []

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measures the block: wall and CPU seconds, and the peak of the process so far in MiB."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.rows.append((name, time.perf_counter() - wall, time.process_time() - cpu, peak))

    def table(self) -> str:
        """Returns the steps as a Markdown table."""
        header = ("step", "seconds", "CPU seconds", "peak so far, MiB")
        rows = [(name, f"{wall:.1f}", f"{cpu:.1f}", f"{peak:.0f}") for name, wall, cpu, peak in self.rows]
        return markdown(header, rows)


def measure(slices: int, detector: str, say: Callable[[str], None] = print) -> str:
    """Fits a small model, then reads, scores and writes one volume; returns the table."""
    import torch

    from anomaly.fitting import Plan
    from anomaly.options import DetectorOptions
    from medical.choosing import Wishes, choose
    from medical.fitting import StudyFit
    from medical.model import Aggregation
    from medical.pseudonyms import Pseudonyms
    from medical.reading import PixelReader, take_inventory
    from medical.results import Kind, ResultSettings, write_results
    from medical.triage import Triage

    names, steps = Pseudonyms(b"b" * 32), Steps()
    with tempfile.TemporaryDirectory() as temporary, PixelReader() as reader:
        folder = Path(temporary)
        for seed in range(1, 5):
            write_volume(folder / "normal" / str(seed), seed, 12, 256)
        with take_inventory([folder / "normal"], names, pixels=reader) as inventory:
            studies = list(inventory.studies)
            choice = choose(studies, Wishes(window=(-200.0, 200.0)))
            fit = StudyFit(reader, choice.contract, Plan(fraction=0.5), Aggregation(top=3))
            options = DetectorOptions(detector, "bundled", "", None, [], 0)
            model = fit.fit(options.build(choice.input), studies)
        model = model.save(folder / "model.safetensors")
        write_volume(folder / "volume", 9, slices, SIDE)
        say(f"{slices} slices of {SIDE} x {SIDE}; {torch.get_num_threads()} thread(s)")
        with steps.measured("headers"):
            inventory = take_inventory([folder / "volume"], names, pixels=reader)
        (study,) = inventory.studies
        with steps.measured("pixels to a volume"):
            volume = reader.volume(study.series[0])
        del volume
        with steps.measured("pixels again, and score"):
            (outcome,) = Triage(model, reader, names, keep_maps=True).outcomes([study])
        if outcome.refusal is not None:
            raise SystemExit(f"the volume was not analysed: {outcome.refusal}")
        for kind in Kind:
            with steps.measured(f"write {kind.upper()}"):
                settings = ResultSettings(with_heatmaps=True, kinds=(kind,))
                write_results(outcome, model.algorithm(), folder / "dicom", settings, names)
    return steps.table()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--detector", default="memory_bank")
    arguments = parser.parse_args()
    print(measure(arguments.slices, arguments.detector))
    print(" | ".join(f"{name}: {value}" for name, value in facts().items()))


if __name__ == "__main__":
    main()
