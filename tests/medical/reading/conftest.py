"""Headers and pixels of objects that a test made, through the real worker process; one for all tests."""

import pytest

from medical.pseudonyms import Pseudonyms
from medical.reading import PixelReader, take_inventory
from tests.medical import phantoms


@pytest.fixture(scope="session")
def pixels():
    with PixelReader() as reader:
        yield reader


@pytest.fixture
def pseudonyms():
    return Pseudonyms(b"k" * 32)


@pytest.fixture
def inventory(tmp_path, pseudonyms, pixels):
    """Writes objects and takes their inventory."""

    def taken(*datasets):
        phantoms.save(list(datasets), tmp_path / "objects")
        return take_inventory([tmp_path / "objects"], pseudonyms, pixels=pixels)

    return taken


@pytest.fixture
def instance(inventory):
    """Writes one object and returns its instance, or its refusal."""

    def only(dataset):
        (entry,) = inventory(dataset).files
        return getattr(entry.found, "refusal", entry.found)

    return only
