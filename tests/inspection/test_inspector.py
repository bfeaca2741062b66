"""The inspector on a model whose answers are known: the map is how far a pixel is from grey, averaged over 3 x 3."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.calibration import Decision
from anomaly.deploy.manifest import Frame, Manifest
from anomaly.deploy.runtime import Runtime, Scores
from anomaly.errors import CalibrationError
from inspection.geometry.regions import Regions
from inspection.geometry.registration import Golden, unwarped
from inspection.geometry.tiling import Tiling
from inspection.inspector import RecipeInspector
from inspection.measuring import Measuring, top_mean, way_of
from inspection.part_calibration import GoodPart, PartCalibration
from inspection.parts import Part, Reason
from inspection.recipe.recipe import Recipe
from inspection.recipe.sections import DefectsSection, SeverityClass, ThresholdsSection

HASH = "0" * 64
LEAST = f"""
version = 1
product = "lid"
model = {{file = "m.onnx", sha256 = "{HASH}", calibration = "c.json", calibration_sha256 = "{HASH}"}}
frame = {{pixel_size_mm = 0.1}}
"""


class GreyRuntime(Runtime):
    """Score: the highest map value. A frame with a pixel of 1 breaks the model, one with 2 gives NaN."""

    def __init__(self, size=None, layout="NCHW", channels=1):
        height, width = size or (None, None)
        frame = Frame(channels=channels, height=height, width=width, dtype="uint8", layout=layout, batch=(1, 4))
        manifest = Manifest(
            target="eager", precision="fp32", frame=frame, canvas=(32, 32), covered=size, review=1.0, ng=2.0,
            calibrated_on=20, promise="", score_typical=0.0, map_typical=0.0, map_threshold=1.0, model={}, parity={},
        )  # fmt: skip
        super().__init__(manifest, "test")
        self.batches = []

    def covered(self, height, width):
        return height, width

    def run(self, batch):
        self.batches.append(len(batch))
        if (batch == 1).any():
            raise RuntimeError("the model broke")
        grey = batch.mean(axis=1 if self.frame.layout == "NCHW" else 3, dtype=np.float32)
        maps = np.stack([cv2.blur(np.abs(g - 128), (3, 3), borderType=cv2.BORDER_CONSTANT) for g in grey])
        score = maps.max(axis=(1, 2))
        score[(grey == 2).any(axis=(1, 2))] = np.nan
        return Scores.of([score, maps, np.ones(len(batch)), np.zeros(len(batch))])


def calibration(scores=range(1, 101)):
    parts = tuple(GoodPart(f"{i}.png", HASH, float(score), float(score), f"{i}") for i, score in enumerate(scores))
    return PartCalibration(HASH, HASH, HASH, "image", (), parts)


def inspector(runtime=None, text="", **measuring):
    recipe = Recipe.from_toml((LEAST + text).encode(), Path("lid.toml"))
    thresholds = calibration().thresholds(recipe.thresholds, recipe.defects)
    return RecipeInspector(
        recipe, runtime or GreyRuntime(), Measuring(**{"regions": Regions(), **measuring}), thresholds
    )


def part(image, id="1"):
    return Part(id=id, source="test", captured=datetime.now(UTC), image=image)


def grey(height=60, width=80, level=128):
    return np.full((height, width), level, np.uint8)


def spotted(*places, level=255, **size):
    image = grey(**size)
    for y, x in places:
        image[y : y + 6, x : x + 6] = level
    return image


def test_a_good_part_is_ok_and_a_spot_is_a_defect_in_millimetres():
    good, bad = inspector()([part(grey()), part(spotted((20, 30)), "2")])
    assert (good.result.decision, good.result.reason) == (Decision.OK, Reason.SCORE)
    assert good.result.defects == ()
    assert good.result.p_value == 1
    assert (bad.result.decision, bad.result.part) == (Decision.NG, "2")
    (defect,) = bad.result.defects
    assert (defect.x_mm, defect.y_mm) == (pytest.approx(3.3), pytest.approx(2.3))
    assert defect.peak == bad.result.score == 127
    assert bad.result.p_value == pytest.approx(1 / 101)
    assert bad.map is not None
    assert bad.map.shape == bad.image.shape == (60, 80)
    assert (bad.result.recipe, bad.result.model) == (inspector().recipe.sha256, HASH)
    assert set(bad.result.milliseconds) == {"prepare", "score", "defects"}


def test_what_is_wrong_with_a_part_is_its_result_and_never_ok():
    broken, nan = spotted((5, 5), level=1), spotted((5, 5), level=2)
    parts = [
        part(grey(), "a"),
        part(broken, "b"),
        part(nan, "c"),
        Part(id="d", source="s", captured=datetime.now(UTC), problem="the file is empty"),
        part(grey().astype(np.uint16), "e"),
        part(np.zeros((60, 80, 4), np.uint8), "f"),
        part(np.zeros((0, 80), np.uint8), "g"),
        part(grey(61), "h"),
        part(grey(), "i"),
    ]
    found = inspector(frame=(60, 80))(parts)
    assert [f.result.part for f in found] == list("abcdefghi")
    reasons = [f.result.reason for f in found]
    assert reasons == [Reason.SCORE, Reason.ERROR, Reason.ERROR, *[Reason.UNREADABLE] * 5, Reason.SCORE]
    for f in found[1:-1]:
        assert f.result.decision == Decision.NG
        assert f.result.score is None
        assert f.result.detail
    assert found[1].result.detail == "RuntimeError: the model broke"
    assert found[3].result.detail == "the file is empty"
    assert "a frame of 61 x 80 px (H x W); the recipe expects 60 x 80" in found[7].result.detail
    reviewed = inspector(text='[line]\non_unjudged = "REVIEW"\n', frame=(60, 80))(parts[1:2])
    assert reviewed[0].result.decision == Decision.REVIEW


def test_parts_of_equal_shape_go_through_the_model_together_in_any_order():
    runtime = GreyRuntime()
    images = [spotted((i, i), height=60 + 10 * (i % 2)) for i in range(1, 8)]
    together = inspector(runtime)([part(image, str(i)) for i, image in enumerate(images)])
    assert sorted(runtime.batches) == [3, 4]
    for i, image in enumerate(images):
        (alone,) = inspector()([part(image, str(i))])
        assert alone.result.score == together[i].result.score
        assert (alone.map == together[i].map).all()
        assert alone.result.defects == together[i].result.defects


@pytest.mark.parametrize("tiling", [None, Tiling(32, 8)])
def test_ignored_pixels_never_score(tiling):
    region = ((0.0, 0.0), (40.0, 0.0), (40.0, 60.0), (0.0, 60.0))
    ignoring = inspector(regions=Regions(ignore=(region,)), tiling=tiling)
    clean, spoiled = ignoring([part(grey()), part(spotted((20, 10), (40, 20)), "2")])
    assert spoiled.result.score == clean.result.score
    assert spoiled.result.defects == ()
    assert (spoiled.map[:, :40] == spoiled.map[:, 40:].min()).all()
    (seen,) = ignoring([part(spotted((20, 60)))])
    assert seen.result.decision == Decision.NG
    (inside,) = inspector(regions=Regions(inspect=(region,)), tiling=tiling)([part(spotted((20, 60)))])
    assert inside.result.defects == ()
    (nothing,) = inspector(regions=Regions(inspect=(((90.0, 0.0), (95.0, 0.0), (95.0, 9.0)),)))([part(grey())])
    assert nothing.result.reason == Reason.UNREADABLE


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 200), st.integers(0, 270), st.sampled_from([2, 8, 20]))
def test_a_defect_across_tiles_is_one_with_the_size_it_has_untiled(y, x, overlap):
    image = spotted((y, x), height=210, width=280)
    whole, tiled = (inspector(tiling=tiling)([part(image)])[0] for tiling in (None, Tiling(64, overlap)))
    assert len(tiled.result.defects) == 1
    assert tiled.result.defects == whole.result.defects
    assert (tiled.map == whole.map).all()
    assert tiled.result.score >= whole.result.score  # a tile of which the spot touches the border may score more


def test_a_registered_part_has_its_defects_where_they_are_in_its_own_frame():
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (120, 160)).astype(np.float32), (0, 0), 3)
    golden = np.clip(128 + 6 * noise / noise.std(), 100, 156).astype(np.uint8)[..., None]
    matrix = np.array([[np.cos(0.05), -np.sin(0.05), 9.0], [np.sin(0.05), np.cos(0.05), -4.0]])
    frame = unwarped(golden[..., 0].astype(np.float32), matrix, golden.shape, 128.0).round().astype(np.uint8)
    spoiled = frame.copy()
    spoiled[70:80, 90:100] = 255
    registering = inspector(golden=Golden(golden, "euclidean", 30.0, 6.0, 0.6))
    good, bad, other = registering([part(frame), part(spoiled, "2"), part(np.rot90(frame, 2).copy(), "3")])
    assert (good.result.decision, good.result.defects) == (Decision.OK, ())
    assert bad.result.decision == Decision.REVIEW  # its score is diluted, its defect is not
    (defect,) = bad.result.defects
    assert (defect.x_mm, defect.y_mm) == (pytest.approx(9.5, abs=0.1), pytest.approx(7.5, abs=0.1))
    assert bad.map.shape == spoiled.shape
    assert (good.result.reason, bad.result.reason) == (Reason.SCORE, Reason.DEFECTS)
    assert other.result.reason == Reason.NOT_REGISTERED
    assert other.result.decision == Decision.NG
    assert "at most 0.6 is allowed" in other.result.detail


def test_interleaved_colour_and_fixed_sizes_are_served():
    image = np.dstack([spotted((20, 20), height=32, width=32)] * 3)
    planes = inspector(GreyRuntime(channels=3))([part(image)])[0]
    interleaved = inspector(GreyRuntime((32, 32), "NHWC", 3))([part(image)])[0]
    from_grey = inspector(GreyRuntime(channels=3))([part(image[..., 0])])[0]
    assert planes.result.score == interleaved.result.score == from_grey.result.score
    assert (planes.map == interleaved.map).all()


def test_a_defect_alone_can_make_a_part_ng():
    """Everything is judged but one pixel: the score is then the mean of the highest 1 %, and a spot is diluted."""
    mask = np.ones((600, 800), bool)
    mask[0, 0] = False
    speck, pit = "name = 'speck'\ndecision = 'OK'", "name = 'pit'\narea_mm2 = 0.1\ndecision = 'NG'"
    classes = f"[[defects.severity]]\n{speck}\n[[defects.severity]]\n{pit}\n"
    judging = inspector(text=classes, regions=Regions(mask=mask))
    large, small = grey(600, 800), grey(600, 800)
    large[100:106, 100:106] = small[100:103, 100:103] = 255
    as_pit, as_speck = (found.result for found in judging([part(large), part(small, "2")]))
    assert (as_pit.decision, as_pit.reason) == (Decision.NG, Reason.DEFECTS)
    assert as_pit.detail == "1 defect, the most severe: pit, 0.16 mm2"
    assert (as_speck.decision, as_speck.reason) == (Decision.OK, Reason.SCORE)
    assert [defect.severity for defect in as_speck.defects] == ["speck"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_mean_of_the_highest_is_what_sorting_gives(seed, count):
    random = np.random.default_rng(seed)
    values, judged = random.normal(size=(11, 13)).astype(np.float32), random.random((11, 13)) > 0.3
    expected = np.sort(values[judged])[::-1][:count].mean(dtype=np.float64)
    assert top_mean(values, judged, count) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("decision", ["OK", "REVIEW", "NG"])
@pytest.mark.parametrize("dependence", ["the same", "independent", "opposite"])
def test_score_and_defects_together_keep_the_promised_rate(decision, dependence):
    """However both depend on each other: calibrate on normals, count rejects among many more, on average over draws."""
    random = np.random.default_rng(5)
    rates, defects = (
        ThresholdsSection(review_rate=0.2, ng_rate=0.1),
        DefectsSection(severity=(SeverityClass(name="defect", decision=decision),)),
    )
    order, shares = tuple(Decision), []
    for _ in range(60):
        score = random.random(2400)
        highest = {"the same": score, "independent": random.random(2400), "opposite": 1 - score}[dependence]
        parts = tuple(GoodPart(str(i), HASH, score[i], highest[i], str(i)) for i in range(400))
        found = replace(calibration(), parts=parts).thresholds(rates, defects)
        levels = np.array([order.index(d) for d in found.score.decide_all(score[400:])])
        raised = np.where(highest[400:] > found.defects.ng.value, order.index(defects.worst), 0)
        levels = np.maximum(levels, raised)
        shares.append(((levels > 0).mean(), (levels > 1).mean()))
    review, ng = np.mean(shares, axis=0)
    assert review <= 0.2
    assert ng <= 0.1
    if dependence == "independent":
        assert review > 0.1  # the promise is not kept by rejecting nothing
        assert ng > 0.02


def test_a_calibration_is_read_as_written_and_counts_groups_once(tmp_path):
    whole = replace(calibration(), unit="lot", fitted=(HASH,))
    whole.write(tmp_path / "c.json")
    assert PartCalibration.read(tmp_path / "c.json") == whole
    lots = replace(whole, parts=tuple(p._replace(group=str(i // 4)) for i, p in enumerate(whole.parts)))
    thresholds = lots.thresholds(ThresholdsSection(), DefectsSection())
    assert len(thresholds.score.scores) == 25
    assert thresholds.score.unit == "lot"
    empty = replace(whole, parts=())
    empty.write(tmp_path / "e.json")
    with pytest.raises(CalibrationError, match="holds no good part"):
        PartCalibration.read(tmp_path / "e.json")


def test_the_way_of_measuring_changes_with_what_changes_scores_and_with_nothing_else():
    base = Recipe.from_toml(LEAST.encode(), Path("lid.toml"))
    golden = f"[registration]\ngolden = 'g.png'\ngolden_sha256 = '{HASH}'\nmax_shift_mm = 1.0\nmax_residual = 0.3\n"
    same = [
        "[line]\nqueue = 9\n",
        "[thresholds]\nng_rate = 0.02\n",
        "[runtime]\nbatch = 2\n",
        "[[defects.severity]]\nname = 'a'\n",
    ]
    other = ["[tiling]\nsize = 64\noverlap = 8\n", "[regions]\nignore = [[[0, 0], [1, 0], [1, 1]]]\n", golden]

    def way(text):
        return way_of(Recipe.from_toml((LEAST + text).encode(), Path("lid.toml")))

    assert {way(text) for text in same} == {way_of(base)}
    assert len({way(text) for text in other} | {way_of(base)}) == 4
    assert way(golden) == way(golden.replace("0.3", "0.4"))
    polygon = "[regions]\nunit = 'mm'\nignore = [[[0, 0], [1, 0], [1, 1]]]\n"
    assert way(polygon) != way_of(Recipe.from_toml((LEAST.replace("0.1", "0.2") + polygon).encode(), Path("lid.toml")))
