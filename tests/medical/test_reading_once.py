"""A fit decodes every object once, however many steps its detector trains for: detectors keep what they train on."""

from collections import Counter

import pytest

from anomaly.fitting import Plan
from anomaly.options import DetectorOptions
from medical.choosing import Wishes, choose
from medical.fitting import StudyFit
from tests.medical.studies import write_chests, write_heads

CHESTS, HEADS = 8, 4


class Counting:
    """The reader, which counts how often each object is decoded."""

    def __init__(self, decoder):
        self.decoder, self.reads = decoder, Counter()

    def image(self, instance, frame=1):
        self.reads[instance.uid, frame] += 1
        return self.decoder.image(instance, frame)

    def volume(self, series):
        self.reads[series.uid, 0] += 1
        return self.decoder.volume(series)


@pytest.mark.parametrize(
    ("detector", "settings"),
    [
        ("feature_autoencoder", ["steps=12", "channels=8", "widths=[8,8]"]),  # many epochs
        ("autoencoder", ["steps=12", "batch=2", "resolution=32", "widths=[4,8]", "code=4", "measure=l1"]),
        ("student", ["steps=4"]),
    ],
)
def test_images_are_decoded_once(decoder, studies_in, tmp_path, detector, settings):
    studies = studies_in(write_chests(tmp_path, range(CHESTS)))
    counting = fit(decoder, studies, Wishes(size=(64, 64)), detector, settings)
    assert counting.reads == {key: 1 for key in counting.reads}
    assert len(counting.reads) == CHESTS


def test_volumes_are_decoded_once(decoder, studies_in, tmp_path):
    studies = studies_in(write_heads(tmp_path, range(HEADS)))
    wishes = Wishes(geometry="volume", window=(-1000.0, 400.0), voxel=(2.5, 1.0, 1.0))
    small = ["steps=6", "patch=[4,16,16]", "widths=[4,8]", "batch=2"]
    counting = fit(decoder, studies, wishes, "volume_autoencoder", small)
    assert list(counting.reads.values()) == [1] * HEADS


def fit(decoder, studies, wishes, detector, settings):
    counting, choice = Counting(decoder), choose(studies, wishes)
    options = DetectorOptions(detector, "bundled", "", None, settings, 0)
    StudyFit(counting, choice.contract, Plan(fraction=0.4), voxel=choice.voxel).fit(
        options.build(choice.input), studies
    )
    return counting
