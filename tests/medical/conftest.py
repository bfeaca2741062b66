"""One decoding process, one model of chests, one of heads, for all tests that need them."""

import io
import json
import logging
import sys
import threading
import warnings

import pytest

from anomaly.fitting import Plan
from anomaly.options import DetectorOptions
from medical.choosing import Wishes, choose
from medical.fitting import StudyFit
from medical.model import Aggregation
from medical.pseudonyms import Pseudonyms
from tests.medical.studies import write_chests, write_heads

KEY = b"k" * 32


@pytest.fixture
def logged():
    """What the log says between set-up and now, line by line; everything global is put back."""
    from medical.privacy.logs import set_up_logging

    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.showwarning, sys.excepthook, threading.excepthook
    stream = io.StringIO()
    set_up_logging(stream, ["PEER", "SENDER", "pacs"])
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers, warnings.showwarning, sys.excepthook, threading.excepthook = before[0], *before[2:]
    root.setLevel(before[1])


@pytest.fixture(scope="session")
def decoder():
    from medical.reading import PixelReader

    with PixelReader() as reader:
        yield reader


@pytest.fixture(scope="session")
def studies_in(decoder):
    """Takes the inventory of a folder and returns its studies."""
    from medical.reading import take_inventory

    return lambda folder: list(take_inventory([folder], Pseudonyms(KEY), pixels=decoder).studies)


@pytest.fixture(scope="session")
def fitted(decoder, studies_in):
    """Fits a model on a folder."""

    def fit(folder, wishes, detector="subspace", settings=(), **more):
        studies = studies_in(folder)
        choice = choose(studies, wishes)
        options = DetectorOptions(detector, "bundled", "", None, settings, 0)
        fit = StudyFit(decoder, choice.contract, Plan(fraction=0.4), Aggregation(**more), choice.voxel)
        return fit.fit(options.build(choice.input), studies)

    return fit


@pytest.fixture(scope="session")
def chest_model(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = fitted(write_chests(folder / "normals", range(24)), Wishes(size=(128, 96)))
    return model.save(folder / "chest.safetensors"), folder / "chest.safetensors"


@pytest.fixture(scope="session")
def head_model(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    return fitted(write_heads(folder, range(6)), Wishes(window=(-1200.0, 1000.0), size=(64, 64)), top=2)
