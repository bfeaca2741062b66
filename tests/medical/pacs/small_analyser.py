"""A small real analyser: writes a Secondary Capture that refers to the study, with UIDs that depend on its objects.

It is loaded by name in the process that analyses, in the tests and by the service that they start.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid

from medical.pacs.analysis import AnalysisResult

ROOT = "1.2.826.0.1.3680043.10.1234.9."


class SmallAnalyser:
    def __init__(self, folder, results, seconds, fault):
        self.folder, self.results, self.seconds, self.fault = Path(folder), results, seconds, fault

    def analyse(self, files, out):
        import highdicom

        print("PLANTED^PHANTOM on standard output")
        print("PLANTED^PHANTOM on standard error", file=sys.stderr)
        (self.folder / f"begun-{time.time_ns()}").touch()
        self._faulty()
        sources = [dcmread(file) for file in files]
        uids = sorted(str(source.SOPInstanceUID) for source in sources)
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            time.sleep(0.02)
        made = []
        for number in range(self.results):
            capture = highdicom.sc.SCImage.from_ref_dataset(
                ref_dataset=sources[0],
                pixel_array=np.full((8, 8), number, np.uint8),
                photometric_interpretation="MONOCHROME2",
                bits_allocated=8,
                coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
                patient_orientation=["L", "F"],
                series_instance_uid=generate_uid(ROOT, [*uids, "series"]),
                series_number=900,
                sop_instance_uid=generate_uid(ROOT, [*uids, str(number)]),
                instance_number=number + 1,
                manufacturer="small",
            )
            made.append(out / f"{number}.dcm")
            capture.save_as(made[-1], enforce_file_format=True)
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


def make(folder, results=1, seconds=0.0, fault=""):
    return SmallAnalyser(folder, results, seconds, fault)
