"""The pixels of summaries: what they show, where, and what they must not show."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from anomaly.calibration import Decision
from medical.results import Kind, ResultSettings, write_results
from medical.results.page import ALERT, HEIGHT, MARGIN, VIEW, WIDTH, draw_page, share_in_words
from medical.results.picture import letters, shown
from medical.results.sources import read_sources
from tests.medical.phantoms import ORIENTATIONS, ct_series, projection
from tests.medical.results import cases


def summary(found, folder, with_heatmaps=False):
    settings = ResultSettings(with_heatmaps=with_heatmaps, kinds=(Kind.SC,))
    (one,) = write_results(found, cases.ALGORITHM, folder, settings, cases.PSEUDONYMS)
    return pydicom.dcmread(one.path)


def coloured(pixels):
    """Share of pixels with colour in the lower part of the view, where no words are."""
    view = pixels[130 : 76 + VIEW - 50, MARGIN + 30 : MARGIN + VIEW - 30].astype(int)
    return float((view.max(axis=2) - view.min(axis=2) > 24).mean())


def test_colours_only_with_heatmaps(tmp_path):
    found = cases.outcome(cases.image(projection((320, 240)), tmp_path / "in"))
    plain, marked = summary(found, tmp_path / "a"), summary(found, tmp_path / "b", with_heatmaps=True)
    assert (plain.Rows, plain.Columns, plain.PhotometricInterpretation) == (HEIGHT, WIDTH, "RGB")
    assert coloured(plain.pixel_array) == 0
    assert coloured(marked.pixel_array) > 0.005
    assert plain.BurnedInAnnotation == "NO"
    assert plain.SourceImageSequence[0].ReferencedSOPInstanceUID == found.analysed[0].instances[0].uid


def test_the_warning_is_in_the_pixels_of_every_page(tmp_path):
    seen = cases.outcome(cases.image(projection(), tmp_path / "a"))
    unseen = cases.not_analysed(cases.refused(ct_series(tilt=12), tmp_path / "b"))
    amber = np.array([int(ALERT[i : i + 2], 16) for i in (1, 3, 5)])
    bands = [summary(found, tmp_path / "out").pixel_array[:52] for found in (seen, unseen)]
    for band in bands:
        assert 0.8 < (band == amber).all(axis=2).mean() < 0.98, "an amber band with words"
        np.testing.assert_array_equal(band, bands[0])


def test_monochrome1_looks_as_monochrome2(tmp_path):
    pages = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        made = projection((64, 48), "CR", photometric=photometric, bits=8)
        pages.append(summary(cases.outcome(cases.image(made, tmp_path / photometric)), tmp_path / "out").pixel_array)
    assert np.abs(pages[0].astype(int) - pages[1]).max() <= 2


def test_pixels_keep_their_shape_and_the_slice_is_the_middle_one(tmp_path):
    analysed = cases.volume(ct_series((8, 20, 20), (2.5, 1.2, 0.6)), tmp_path / "in", spacing=(2.5, 1.2, 0.6))
    found = cases.outcome(analysed)
    image = shown(analysed, read_sources(found), with_heatmaps=False)
    assert (image.words, image.plane) == ("slice 5 of 8, the middle one", None)
    assert image.aspect == pytest.approx(2)
    page = draw_page(found, cases.ALGORITHM, image, analysed)
    middle = page[76 + VIEW // 2, MARGIN : MARGIN + VIEW].max(axis=1) > 60
    assert middle.mean() < 0.5, "twice as high as wide"


def test_with_heatmaps_the_slice_is_the_one_with_the_maximum(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    analysed = replace(analysed, instances=analysed.instances[::-1])
    image = shown(analysed, read_sources(cases.outcome(analysed)), with_heatmaps=True)
    best = int(analysed.map.max(axis=(1, 2)).argmax())
    np.testing.assert_array_equal(image.plane, analysed.map[best])
    assert image.words == f"slice {best + 1} of 8, the one least like normal"
    assert str(image.header.SOPInstanceUID) == ct_series()[best].SOPInstanceUID


EDGES = {
    "axial": ("R", "L", "A", "P"),
    "sagittal": ("A", "P", "H", "F"),
    "coronal": ("R", "L", "H", "F"),
    "reversed": ("L", "R", "A", "P"),
}


@pytest.mark.parametrize("orientation", EDGES)
def test_letters_at_the_edges(orientation, tmp_path):
    analysed = cases.volume(ct_series(orientation=orientation), tmp_path / "in", orientation)
    image = shown(analysed, read_sources(cases.outcome(analysed)), with_heatmaps=False)
    assert image.edges == EDGES[orientation]


def test_letters_of_directions_and_projections(tmp_path):
    assert letters(ORIENTATIONS["oblique"][:3]) == "L"
    assert letters((0.7, 0.7, 0.1)) in ("LP", "PL")
    assert letters((0.1, -0.6, 0.79)) == "HA"
    for stated, edges in ((["L", "F"], ("R", "L", "H", "F")), (["", ""], ("",) * 4), (["X", "F"], ("",) * 4)):
        made = projection()
        made.PatientOrientation = stated
        analysed = cases.image(made, tmp_path / "in")
        assert shown(analysed, read_sources(cases.outcome(analysed)), with_heatmaps=False).edges == edges


def test_an_image_that_cannot_be_decoded_leaves_the_words(tmp_path):
    made = projection()
    found = cases.outcome(cases.image(made, tmp_path / "in"))
    del made.PixelData
    made.save_as(found.analysed[0].instances[0].path)
    page = summary(found, tmp_path / "out").pixel_array
    assert page[150:900, MARGIN + VIEW + 40 :].max() > 200
    assert coloured(page) == 0


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.003, "About 3 in 1,000 "),
        (0.25, "About 2.5 in 10 "),
        (1.0, "About 10 in 10 "),
        (0.00004, "About 4 in 100,000 "),
    ],
)
def test_shares_in_words(share, words):
    assert share_in_words(share).startswith(words)


def test_pages_differ_by_decision_and_show_long_lists(tmp_path):
    analysed = cases.image(projection(), tmp_path / "in")
    pages = [draw_page(cases.outcome(analysed, decision=d), cases.ALGORITHM, None, None) for d in Decision]
    assert len({page.tobytes() for page in pages}) == 3
    many = tuple(
        replace(one, refusal=replace(one.refusal, reason=reason))
        for reason in list(type(cases.refused(projection(), tmp_path / "b")[0].refusal.reason))
        for one in cases.refused(projection(), tmp_path / "b")
    )
    page = draw_page(cases.outcome(analysed, refused=many), cases.ALGORITHM, None, None)
    assert page.shape == (HEIGHT, WIDTH, 3)
    assert (page[HEIGHT - 90 : HEIGHT - 86, MARGIN + VIEW + 40 :] == page[HEIGHT - 90, -1]).all(), "clear of the footer"
