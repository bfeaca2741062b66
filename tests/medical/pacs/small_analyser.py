"""A small real analyser: writes Secondary Captures into the study, with UIDs that depend on its objects.

It is loaded by name in the process that analyses, in the tests and by the service that they start.
"""

import os
import signal
import sys
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medical.pacs.analysis import AnalysisResult

ROOT = "1.2.826.0.1.3680043.10.1234.9."
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
COPIED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
          "StudyID", "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


class SmallAnalyser:
    def __init__(self, folder, results, seconds, fault, writer):
        self.folder, self.results, self.seconds, self.fault = Path(folder), results, seconds, fault
        self.write = {"pydicom": with_pydicom, "highdicom": with_highdicom}[writer]

    def analyse(self, files, out):
        print("PLANTED^PHANTOM on standard output")
        print("PLANTED^PHANTOM on standard error", file=sys.stderr)
        (self.folder / f"begun-{time.time_ns()}").touch()
        self._faulty()
        sources = [dcmread(file) for file in files]
        uids = sorted(str(source.SOPInstanceUID) for source in sources)
        time.sleep(self.seconds)
        made = []
        for number in range(self.results):
            series, uid = generate_uid(ROOT, [*uids, "series"]), generate_uid(ROOT, [*uids, str(number)])
            made.append(out / f"{number}.dcm")
            self.write(sources[0], series, uid, number + 1).save_as(made[-1], enforce_file_format=True)
        return AnalysisResult("ANALYSED", tuple(made), f"{len(files)} objects")

    def _faulty(self):
        if self.fault == "error":
            raise ValueError("PLANTED^PHANTOM in an exception")
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "crash once" and len(list(self.folder.glob("begun-*"))) == 1:
            os._exit(3)
        if self.fault == "hang":
            time.sleep(600)


def with_highdicom(source, series, uid, number):
    import highdicom
    import numpy as np

    return highdicom.sc.SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=np.full((8, 8), number, np.uint8),
        photometric_interpretation="MONOCHROME2",
        bits_allocated=8,
        coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
        patient_orientation=["L", "F"],
        series_instance_uid=series,
        series_number=900,
        sop_instance_uid=uid,
        instance_number=number,
        manufacturer="small",
    )


def with_pydicom(source, series, uid, number):
    """The same without the second that highdicom takes to load."""
    made = Dataset()
    for name in COPIED:
        setattr(made, name, source.get(name, ""))
    made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID = SECONDARY_CAPTURE, uid, series
    made.Modality, made.ConversionType, made.SeriesNumber, made.InstanceNumber = "OT", "WSD", 900, number
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows = made.Columns = made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelData = 7, bytes([number]) * 64
    made["PixelData"].VR = "OB"
    made.ensure_file_meta()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def make(folder, results=1, seconds=0.0, fault="", writer="pydicom"):
    return SmallAnalyser(folder, results, seconds, fault, writer)
