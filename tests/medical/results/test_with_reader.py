"""From files through the real reader to results: what one part hands over fits the other."""

import pytest

from medical.objects import Volume
from medical.outcome import Analysed
from medical.pseudonyms import Pseudonyms
from medical.reading import PixelReader, take_inventory
from tests.medical.phantoms import ct_series, enhanced_ct, save
from tests.medical.results import cases
from tests.medical.results.test_geometry import SPACING, check

SHAPE = (8, 32, 40)


@pytest.fixture(scope="module")
def pixels():
    with PixelReader() as reader:
        yield reader


def analysed(volume: Volume) -> Analysed:
    values = cases.heat(SHAPE)
    return Analysed(volume.instances, None, 1.25, 0.004, values, cases.CONTOUR, cases.SCALE, volume.affine)


@pytest.mark.parametrize("orientation", ["oblique", "sagittal"])
@pytest.mark.parametrize("several", [False, True])
def test_what_the_reader_hands_over_is_placed(several, orientation, pixels, tmp_path):
    if several:
        made = [enhanced_ct(SHAPE, SPACING, orientation, shuffled=True)]
    else:
        made = ct_series(SHAPE, SPACING, orientation)[::-1]
    save(made, tmp_path / "in")
    (study,) = take_inventory([tmp_path / "in"], Pseudonyms(bytes(32)), pixels=pixels).studies
    volume = pixels.volume(study.series[0])
    assert volume.values[5, 8, 28] == 300, "in the lesion"
    check(analysed(volume), tmp_path / "out", SHAPE, SPACING, orientation)
