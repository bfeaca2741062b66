"""Small studies on disk: phantoms that vary a little, each a patient of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from tests.medical.phantoms import ROOT, body, ct_series, projection

CHEST, HEAD = (64, 48), (6, 32, 40)


def anomaly(*arguments: object) -> tuple[int, str, str]:
    """The installed command in a process of its own; exit status, standard output, standard error."""
    command = [str(Path(sys.executable).with_name("anomaly")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def chest(seed: int, abnormal: bool = False) -> np.ndarray:
    """(H, W) in 0..1 as shown on a screen; with a bright disc where abnormal."""
    random = np.random.default_rng(seed)
    wave = 0.05 * np.sin(np.linspace(0, 6 + random.uniform(-0.5, 0.5), CHEST[1]))
    values = 0.1 + (body(CHEST) + 1000) / 2000 * random.uniform(0.9, 1.0) + wave + random.normal(0, 0.02, CHEST)
    if abnormal:
        rows, columns = np.mgrid[: CHEST[0], : CHEST[1]]
        values[(rows - 40) ** 2 + (columns - 16) ** 2 < 8] += 0.25
    return np.clip(values, 0, 1)


def write_chests(folder: Path, seeds: range, *, abnormal: bool = False, patients: int | None = None, **header) -> Path:
    """One study per seed; `patients` makes that many patients of them; `header` sets attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        made = projection(CHEST, seed=f"chest {seed}", values=chest(seed, abnormal))
        made.PatientID = f"PLANTED-{seed % patients if patients else seed}"
        for name, value in header.items():
            setattr(made, name, value)
        made.save_as(folder / f"{seed}.dcm", enforce_file_format=True)
    return folder


def other(tail: str, seed: int) -> FileDataset:
    """An object of another SOP class, in a series of its own of the study of a chest; without pixels."""
    made = projection(CHEST, seed=f"chest {seed}")
    made.PatientID = f"PLANTED-{seed}"
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{tail}"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(ROOT, [str(seed), tail])
    made.SeriesInstanceUID = generate_uid(ROOT, [str(seed), tail, "series"])
    for name in ("Rows", "Columns", "PixelData"):
        delattr(made, name)
    return made


def add_others(folder: Path, seed: int, *tails: str) -> None:
    """Puts objects of other SOP classes beside the chests of a folder."""
    for tail in tails:
        other(tail, seed).save_as(folder / f"{seed} {tail}.dcm", enforce_file_format=True)


def head(seed: int, lesion: bool = False) -> np.ndarray:
    """(D, H, W) Hounsfield units, int16; with a bright block where there is a lesion."""
    random = np.random.default_rng(seed)
    values = body(HEAD) + random.normal(0, 20, HEAD)
    if lesion:
        values[2:4, 12:18, 10:16] = 900
    return values.round().astype(np.int16)


def write_heads(folder: Path, seeds: range, *, lesion: bool = False, **broken) -> Path:
    """One CT study of six slices per seed; `broken` as in `ct_series`."""
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir(parents=True, exist_ok=True)
        for number, made in enumerate(ct_series(HEAD, values=head(seed, lesion), seed=f"head {seed}", **broken)):
            made.PatientID = f"PLANTED-{seed}"
            made.save_as(place / f"{number}.dcm", enforce_file_format=True)
    return folder
