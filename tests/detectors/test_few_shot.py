from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import catalog
from anomaly.detectors.few_shot import with_turned
from anomaly.errors import SettingError
from anomaly.fitting import Plan, few_images_note, fit_files
from anomaly.images import find_dataset
from anomaly.images.synthetic import write_dataset
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

SPEC = InputSpec(size=(64, 64))
FAMILIES = {
    "subspace": {},
    "gaussian": {"local_components": 8},
    "memory_bank": {"bank_size": 10_000, "components": 300},
}


def detector(name, **settings):
    return catalog.build(catalog.detector_class(name), {"input": SPEC} | FAMILIES[name] | settings)


def arrangements(image):
    """Every flip and right-angle rotation, made of transpositions and mirrored axes only."""
    found = []
    for turned in (image, image.transpose(-1, -2)):
        found += [turned, turned.flip(-1), turned.flip(-2), turned.flip(-1).flip(-2)]
    return found


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    limit=st.integers(0, 8),
    square=st.booleans(),
    as_list=st.booleans(),
)
def test_copies_come_after_few_images_only_and_are_all_arrangements(sizes, limit, square, as_list):
    batches = [torch.rand(n, 2, 3, 5) for n in sizes]
    got = list(with_turned([list(b) if as_list else b for b in batches], limit, square=square))
    for batch, wanted in zip(got, batches, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(batch, wanted, strict=True))
    few = sum(sizes) <= limit
    assert len(got) == len(batches) * ((8 if square else 4) if few else 1)
    if few:
        all_of_them = {(*image.shape, *image.flatten().tolist()) for batch in got for image in batch}
        wanted = arrangements if square else lambda image: arrangements(image)[:4]
        assert all_of_them == {(*t.shape, *t.flatten().tolist()) for b in batches for i in b for t in wanted(i)}


def test_no_batch_waits_for_the_next():
    read = []

    def images():
        for i in range(3):
            read.append(i)
            yield torch.zeros(1, 1, 2, 2)

    stream = with_turned(images(), 8, square=True)
    next(stream)
    assert read == [0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fit_on_few_images_is_the_fit_on_their_turned_copies(name):
    few, test = sample_images(SPEC, 2, seed=1), sample_images(SPEC, 3, seed=2)
    copies = torch.cat([torch.stack(arrangements(image)) for image in few])
    got, wanted = detector(name).fit([few]), detector(name, few_images=0).fit([copies])
    plain = detector(name, few_images=0).fit([few])
    with torch.inference_mode():
        assert torch.allclose(got(test).score, wanted(test).score, rtol=5e-3)
        assert not torch.allclose(got(test).score, plain(test).score, rtol=5e-2)


@pytest.mark.parametrize("name", ["subspace", "gaussian"])
def test_sums_hold_no_turned_copies_nor_does_a_fit_on_more_images(name):
    images = sample_images(SPEC, 9, seed=1)
    patches = 64 if name == "subspace" else 1
    assert detector(name).summarise([images[:3]]).count.max() == 3 * patches
    assert detector(name).fit([images[:8]]).sums.count.max() == 64 * patches
    assert detector(name).fit([images]).sums.count.max() == 9 * patches


def test_a_canvas_that_is_not_square_takes_no_quarter_turns():
    wide = replace(SPEC, size=(32, 64))
    fitted = replace(detector("gaussian"), input=wide).fit([sample_images(wide, 2, seed=1)])
    assert fitted.sums.count.max() == 8


def test_frames_of_16_bits_are_turned_too():
    spec = InputSpec(channels=1, dtype="uint16", value_range=(0.0, 4095.0), size=(64, 64))
    fitted = replace(detector("gaussian"), input=spec).fit([sample_images(spec, 1, seed=1)])
    assert fitted.sums.count.max() == 8


@pytest.mark.parametrize("bad", [-1, 65])
def test_settings_are_checked(bad):
    with pytest.raises(SettingError, match="few_images"):
        detector("subspace", few_images=bad)


def test_the_user_is_told_when_images_are_few(tmp_path):
    write_dataset(tmp_path / "few", "cast", 8, 1, 1, (64, 64), seed=0)
    write_dataset(tmp_path / "more", "cast", 12, 1, 1, (64, 64), seed=0)
    few, more = (fit_files(detector("subspace"), find_dataset(tmp_path / n).train, Plan(), []) for n in ("few", "more"))
    assert few_images_note(few).startswith("FEW IMAGES: learned from 6 image(s) and their flips and turns")
    assert few_images_note(more) is None
    assert few.scorer.sums.count == 6 * 8 * 64
