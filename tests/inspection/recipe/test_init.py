"""`anomaly inspect init` from end to end, on generated surfaces."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from anomaly.artifact import load as load_model
from anomaly.calibration import Decision
from anomaly.errors import CalibrationError, DatasetError, SettingError
from anomaly.fitting import Plan
from anomaly.images import image_info, list_images, read_image
from anomaly.images.synthetic import write_dataset
from anomaly.scoring import score_files
from inspection.cli import app
from inspection.inspector import RecipeInspector
from inspection.part_calibration import PartCalibration
from inspection.parts import Part, Reason
from inspection.recipe import learning
from inspection.recipe.choosing import Wishes, choose_registration, choose_size
from inspection.recipe.faults import RecipeError
from inspection.recipe.making import make_recipe, recalibrated
from inspection.recipe.recipe import Recipe, sha256_of

RUN = CliRunner()


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surfaces") / "metal"
    write_dataset(folder, "brushed_metal", train=48, good=10, defective=10, size=(96, 128), seed=4)
    return folder


@pytest.fixture(scope="module")
def made(surfaces, tmp_path_factory):
    """A recipe as the command makes it, and what the command said."""
    output = tmp_path_factory.mktemp("made") / "metal.toml"
    arguments = ["init", str(surfaces / "train" / "good"), "-o", str(output), "--pixel-size-mm", "0.1"]
    result = RUN.invoke(app, [*arguments, "--review-rate", "0.3", "--ng-rate", "0.2"], catch_exceptions=False)
    assert result.exit_code == 0
    return output, result.output


def parts(folder):
    return [
        Part(id=path.stem, source=str(path), captured=datetime.now(UTC), image=read_image(path))
        for path in list_images([folder])
    ]


def thresholds_of(path):
    """The thresholds of a recipe, and the good parts that they come from."""
    recipe, calibration = Recipe.read(path), PartCalibration.read(path.with_suffix(".calibration.json"))
    return calibration.thresholds(recipe.thresholds, recipe.defects), calibration.parts


def copied(recipe, folder, name="metal.toml", **changes):
    """A copy of a recipe with its files, edited."""
    for file in recipe.parent.iterdir():
        shutil.copy(file, folder)
    text = (folder / recipe.name).read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return folder / name


def test_the_recipe_is_complete_and_the_command_says_what_it_chose(made):
    output, said = made
    recipe = Recipe.read(output)
    assert {file.name for file in output.parent.iterdir()} == {
        "metal.toml",
        "metal.safetensors",
        "metal.calibration.json",
    }
    assert (recipe.frame.height, recipe.frame.width) == (96, 128)
    assert recipe.thresholds.ng_rate == 0.2
    assert recipe.tiling is recipe.registration is None
    assert recipe.model.sha256 == sha256_of(output.with_name(recipe.model.file))
    for words in ("learned from 36 good images; 12 were held out", "Whole frames", "96 x 128 px", "REVIEW above"):
        assert words in said
        assert words in output.read_text().replace("\n# ", " ")


def test_good_parts_pass_and_defective_ones_do_not(made, surfaces):
    inspector = RecipeInspector.open(made[0])
    decisions = {
        folder.name: Counter(found.result.decision for found in inspector(parts(folder)))
        for folder in (surfaces / "test").iterdir()
    }
    good = decisions.pop("good")
    assert good[Decision.OK] >= 6
    assert sum(kind[Decision.OK] for kind in decisions.values()) <= 3, decisions
    assert inspector.scale[0] < inspector.contour < inspector.scale[1]
    assert inspector.value_range == (0, 255)


def test_the_score_of_a_part_that_is_judged_everywhere_is_the_models(made, surfaces):
    inspector, artifact = RecipeInspector.open(made[0]), load_model(made[0].with_suffix(".safetensors"))
    files = list_images([surfaces / "test" / "good"])[:4]
    scored = list(score_files(artifact.scorer, files, []))
    for found, by_model in zip(inspector(parts(surfaces / "test" / "good")[:4]), scored, strict=True):
        assert found.result.score == pytest.approx(by_model.score, rel=1e-5)
        assert np.allclose(found.map, by_model.map_on_image(), atol=1e-4)


def test_the_calibration_is_of_parts_that_the_model_has_not_seen(made, surfaces):
    recipe = Recipe.read(made[0])
    calibration = PartCalibration.read(recipe.folder / recipe.model.calibration)
    held = {part.sha256 for part in calibration.parts}
    every = {sha256_of(path) for path in list_images([surfaces / "train" / "good"])}
    assert len(held) == 12
    assert not held & set(calibration.fitted)
    assert held | set(calibration.fitted) == every
    artifact = load_model(recipe.folder / recipe.model.file)
    assert artifact.calibration.scores == tuple(sorted(part.score for part in calibration.parts))
    assert artifact.training.fingerprint == calibration.training


def test_what_does_not_belong_to_the_recipe_is_refused(made, tmp_path):
    path = copied(made[0], tmp_path)
    model = path.with_suffix(".safetensors")
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(RecipeError, match=r"model\.file: .* is not the file that the recipe was made with"):
        RecipeInspector.open(path)
    shutil.copy(made[0].with_suffix(".safetensors"), model)
    calibration = path.with_suffix(".calibration.json")
    calibration.write_text(calibration.read_text() + " ")
    with pytest.raises(RecipeError, match=r"model\.calibration: .* is not the file"):
        RecipeInspector.open(path)
    calibration.unlink()
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        RecipeInspector.open(path)


def test_an_edited_region_voids_the_promise_until_good_parts_are_measured_again(made, surfaces, tmp_path):
    polygon = "ignore = [[[0.0, 0.0], [6.4, 0.0], [6.4, 9.6], [0.0, 9.6]]]"
    path = copied(made[0], tmp_path, unit=('# unit = "px"', 'unit = "mm"'), ignore=("# ignore = []", polygon))
    with pytest.raises(RecipeError, match="its promise is void; measure good parts again: anomaly inspect calibrate"):
        RecipeInspector.open(path)
    good = str(surfaces / "train" / "good")
    result = RUN.invoke(app, ["calibrate", str(path), good], catch_exceptions=False)
    assert result.exit_code == 0
    assert "36 images were left out: the model has learned from them." in result.output
    assert "The old thresholds were those of another way to measure." in result.output
    inspector = RecipeInspector.open(path)
    assert len(inspector.thresholds.score.scores) == 12
    assert polygon in path.read_text()
    part = parts(surfaces / "test" / "good")[0]
    spoiled = part.image.copy()
    spoiled[40:50, 10:20] = 255
    (found,) = inspector([replace(part, image=spoiled)])
    assert (found.map[:, :64] == found.map[:, 64:].min()).all()
    assert all(defect.box_px[1] >= 64 for defect in found.result.defects)
    spoiled[40:50, 90:100] = 255
    (worse,) = inspector([replace(part, image=spoiled)])
    assert worse.result.decision == Decision.NG
    assert worse.result.score > 2 * found.result.score
    fitted = PartCalibration.read(path.with_suffix(".calibration.json")).fitted
    only_fitted = [p for p in list_images([surfaces / "train" / "good"]) if sha256_of(p) in fitted]
    with pytest.raises(CalibrationError, match="36 images the model has learned from 36"):
        recalibrated(path, only_fitted, Plan(), [])


def test_more_good_parts_give_thresholds_beside_the_old_ones(made, surfaces, tmp_path):
    path = copied(made[0], tmp_path)
    folders = [str(surfaces / "train" / "good"), str(surfaces / "test" / "good")]
    both = tmp_path / "both"
    for folder in folders:
        shutil.copytree(folder, both / folder.replace("/", "-"))
    result = RUN.invoke(app, ["calibrate", str(path), str(both)], catch_exceptions=False)
    assert result.exit_code == 0
    (old, _), (new, measured) = (thresholds_of(one) for one in (made[0], path))
    assert f"NG {old.score.ng.value:.6g} -> {new.score.ng.value:.6g}, DEFECT" in result.output
    by_hand = [
        sum(part.score > one.score.review.value or part.highest > one.defects.ng.value for part in measured)
        for one in (old, new)
    ]
    assert (
        f"Of the 22 good parts measured now the old ones reject {by_hand[0]}, the new ones {by_hand[1]} "
        in result.output
    )
    assert by_hand[0] != by_hand[1], "else the order of the two would not be tested"


def test_tiles_are_learned_and_judged_as_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "MOST_TILES", 128)
    folder = tmp_path / "cast"
    write_dataset(folder, "cast", train=16, good=2, defective=0, size=(160, 224), seed=1)
    wishes = Wishes(pixel_size_mm=0.02, tile=64, plan=Plan(review_rate=0.5, ng_rate=0.5))
    failures = []
    (folder / "train" / "good" / "broken.png").write_bytes(b"no image")
    made = make_recipe(list_images([folder / "train" / "good"]), folder / "cast.toml", wishes, failures)
    assert [failure.path.name for failure in failures] == ["broken.png"]
    assert made.recipe.tiling.model_dump() == {"size": 64, "overlap": 16}
    assert any("15 tiles of 64 px a frame (as asked)" in line for line in made.said)
    inspector = RecipeInspector.open(folder / "cast.toml")
    part = parts(folder / "test" / "good")[0]
    (good,) = inspector([part])
    spoiled = part.image.copy()
    spoiled[50:58, 60:70] = 0  # across the cut between tiles
    (bad,) = inspector([replace(part, image=spoiled)])
    assert bad.result.decision == Decision.NG
    assert bad.result.defects[0].x_mm == pytest.approx(65 * 0.02, abs=0.15)
    assert bad.result.defects[0].y_mm == pytest.approx(54 * 0.02, abs=0.15)
    untouched = np.ones(good.map.shape, bool)
    untouched[:128, :160] = False
    assert np.allclose(good.map[untouched], bad.map[untouched], atol=1e-4)


def test_maps_of_other_tile_grids_agree_away_from_borders(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "MOST_TILES", 128)
    folder = tmp_path / "cast"
    write_dataset(folder, "cast", train=12, good=1, defective=0, size=(192, 256), seed=2)
    wishes = Wishes(pixel_size_mm=0.02, tile=128, plan=Plan(review_rate=0.5, ng_rate=0.5))
    make_recipe(list_images([folder / "train" / "good"]), folder / "cast.toml", wishes, [])
    inspector = RecipeInspector.open(folder / "cast.toml")
    frame = parts(folder / "test" / "good")[0].image
    measuring = replace(inspector.measuring, frame=None)
    maps = [
        next(measuring.measured([measuring.view(frame[top:, left:])], inspector.runtime)).map[32 - top :, 64 - left :]
        for top, left in ((0, 0), (16, 32))
    ]
    inner = tuple(slice(32, -32) for _ in "hw")
    difference = np.abs(maps[0] - maps[1])[inner]
    assert np.median(difference) < 0.1 * inspector.contour
    assert np.quantile(difference, 0.99) < 0.4 * inspector.contour


def shifted(surfaces, folder, reach):
    """The same kind of part, with a mark to hold on to, never lying where it should."""
    random = np.random.default_rng(0)
    for path in list_images([surfaces])[:20]:
        image = read_image(path)[..., 0]
        image[20:40, 30:90], image[40:76, 30:44] = 40, 60
        moved = cv2.warpAffine(
            image,
            np.array([[1, 0, random.uniform(-reach, reach)], [0, 1, random.uniform(-reach, reach)]]),
            image.shape[::-1],
            borderMode=cv2.BORDER_REFLECT,
        )
        cv2.imwrite(str(folder / path.name), moved)


def test_parts_that_lie_anywhere_are_laid_over_the_golden_image(surfaces, tmp_path):
    (tmp_path / "good").mkdir()
    shifted(surfaces / "train" / "good", tmp_path / "good", 8)
    files = list_images([tmp_path / "good"])
    wishes = Wishes(pixel_size_mm=0.1, golden=files[0], plan=Plan(review_rate=0.5, ng_rate=0.5))
    failures = []
    made = make_recipe(files, tmp_path / "part.toml", wishes, failures)
    assert failures == []
    limits = made.recipe.registration
    assert (tmp_path / limits.golden).read_bytes() == files[0].read_bytes()
    assert 0.8 < limits.max_shift_mm < 4
    inspector = RecipeInspector.open(tmp_path / "part.toml")
    found = inspector(parts(tmp_path / "good")[1:5])
    assert all(f.result.reason in (Reason.SCORE, Reason.DEFECTS) for f in found)
    assert found[0].map.shape == (96, 128)
    (other,) = inspector([replace(parts(tmp_path / "good")[1], image=np.full((96, 128), 90, np.uint8))])
    assert other.result.reason == Reason.NOT_REGISTERED
    noise = tmp_path / "noise.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 255, (96, 128), np.uint8))
    with pytest.raises(DatasetError, match=r"cannot be laid over .*choose another golden image"):
        choose_registration(files, noise, lambda what, steps: lambda done: None)


def test_large_frames_are_tiled_by_themselves(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((1100, 1200), np.uint8))
    files = list_images([tmp_path])
    infos = [image_info(path) for path in files]
    chosen = choose_size(files, infos, Wishes(pixel_size_mm=1))
    assert chosen.tiling.size == 256
    assert chosen.input.size == (256, 256)
    assert "whole frames would be shrunk 4.5 times" in chosen.why[0]
    assert choose_size(files, infos, Wishes(pixel_size_mm=1, tile=0)).tiling is None
    with pytest.raises(DatasetError, match="200 px, too short for tiles"):
        choose_size(files, [infos[0]._replace(height=200)], Wishes(pixel_size_mm=1, tile=256))
    for wrong in ({"pixel_size_mm": 0}, {"pixel_size_mm": float("nan")}, {"pixel_size_mm": 1, "tile": 100}):
        with pytest.raises(SettingError):
            Wishes(**wrong)


def test_an_existing_recipe_is_never_overwritten(made, surfaces):
    before = made[0].read_bytes()
    files = list_images([surfaces / "train" / "good"])
    with pytest.raises(SettingError, match="exists already and may have been edited"):
        make_recipe(files, made[0], Wishes(pixel_size_mm=0.1), [])
    assert made[0].read_bytes() == before
    with pytest.raises(SettingError, match=r"must end in \.toml"):
        make_recipe(files, made[0].with_suffix(".json"), Wishes(pixel_size_mm=0.1), [])


def test_groups_are_never_split_and_count_once(surfaces, tmp_path):
    table = tmp_path / "lots.csv"
    files = list_images([surfaces / "train" / "good"])
    table.write_text("file,lot\n" + "".join(f"{path.name},{i // 6}\n" for i, path in enumerate(files)))
    output = tmp_path / "lots.toml"
    arguments = ["init", str(surfaces / "train" / "good"), "-o", str(output), "--pixel-size-mm", "0.1"]
    result = RUN.invoke(app, [*arguments, "--manifest", str(table), "--group", "lot"], catch_exceptions=False)
    assert "Calibrated on 2 normals held out of the fit, one score per lot" in result.output
    data = json.loads(output.with_suffix(".calibration.json").read_text())
    assert len(data["parts"]) == 12
    assert len({part["group"] for part in data["parts"]}) == 2
    result = RUN.invoke(app, [*arguments, "--group", "lot"])
    assert isinstance(result.exception, SettingError)


def test_help_shows_examples():
    for command in ("init", "calibrate"):
        result = RUN.invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert f"anomaly inspect {command}" in result.output
