from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.calibration import Decision
from inspection.recipe.faults import RecipeError, models_in
from inspection.recipe.recipe import Recipe, sha256_of
from inspection.recipe.text import attributes, recipe_text

HASH = "0" * 64
LEAST = f"""
version = 1
product = "lid"
[model]
file = "lid.safetensors"
sha256 = "{HASH}"
calibration = "lid.calibration.json"
calibration_sha256 = "{HASH}"
[frame]
pixel_size_mm = 0.05
"""


def read(text, path=Path("lid.toml")):
    return Recipe.from_toml(text.encode(), path)


def faults(text):
    with pytest.raises(RecipeError) as caught:
        read(text)
    return caught.value.faults


def test_a_password_in_a_url_is_not_repeated_in_the_error():
    (fault,) = faults(LEAST + '\n[results]\ndatabase = "postgresql://line:s3cr:e@t@host/results"\n')
    assert "s3cr" not in fault
    assert "e@t" not in fault


def test_what_a_recipe_leaves_out_has_its_default():
    recipe = read(LEAST)
    assert recipe.thresholds.review_rate == 0.10
    assert recipe.registration is None
    assert recipe.tiling is None
    assert recipe.line.unjudged == Decision.NG
    assert recipe.results.database == "results.sqlite"
    assert [severity.name for severity in recipe.defects.severity] == ["defect"]


def test_a_recipe_is_read_with_its_hash_and_folder(tmp_path):
    path = tmp_path / "lid.toml"
    path.write_text(LEAST)
    recipe = Recipe.read(path)
    assert recipe.sha256 == sha256_of(path)
    assert recipe.folder == tmp_path
    assert Recipe.read(path) == recipe


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[thresholds]\nng_rate = 3", "thresholds.ng_rate: must be less than 1; got 3"),
        ("[thresholds]\nng_rate = nan", "thresholds.ng_rate"),
        ('[thresholds]\nng_rate = "0.1"', 'thresholds.ng_rate: must be a valid number; got "0.1"'),
        ("[thresholds]\nng_rate = 0.2", "thresholds: ng_rate must be at most review_rate, 0.1; got 0.2"),
        ("[runtime]\nthread = 3", "runtime.thread: no such key; did you mean 'threads'? allowed here: batch, device"),
        ("[runtme]\nthreads = 3", "runtme: no such key; did you mean 'runtime'?"),
        ("[tiling]\nsize = 64\noverlap = 40", "tiling: overlap must be at most half of size, 32; got 40"),
        ("[regions]\ninspect = [[[0, 0], [1, 1]]]", "regions.inspect[1]: "),
        ("[regions]\ninspect = [[[0, 0], [1, 1], [-2, 5]]]", "regions.inspect[1][3][1]: must be greater than or equal"),
        ('[regions]\nmask = "m.png"', "regions: mask and mask_sha256 must be given together"),
        ("[[defects.severity]]\npeak = 3.0", "defects.severity[1].name: is missing"),
        ('[[defects.severity]]\nname = "a"\npeak = 3.0', "defects: severity class 'a', the first, must have no limits"),
        ('[[defects.severity]]\nname = "a"\ndecision = "BAD"', "defects.severity[1].decision: must be 'OK', 'REVIEW'"),
        ("[registration]\nmax_residual = 2.0", "registration.golden: is missing"),
        ("[line]\nqueue = 0", "line.queue: must be greater than or equal to 1; got 0"),
        ("[results]\nalarm_messages = 0", "results.alarm_messages: "),
    ],
)
def test_a_fault_is_one_line_with_key_value_and_what_is_allowed(line, fault):
    found = faults(f"{LEAST}{line}\n")
    assert any(told.startswith(fault) for told in found), found
    assert all("\n" not in told for told in found)


def test_all_faults_are_told_at_once():
    text = LEAST.replace('product = "lid"\n', "").replace("0.05", "-1") + "[line]\nfoo = 1\n"
    found = faults(text)
    assert [told.partition(":")[0] for told in found] == ["product", "frame.pixel_size_mm", "line.foo"]


def test_files_that_are_no_recipe_and_other_versions_are_refused(tmp_path):
    assert faults("a = = 3")[0].startswith("is no TOML file")
    assert faults(LEAST.replace("version = 1", "version = 2"))[0].startswith("version: must be 1; got 2: install")
    assert faults(LEAST.replace("version = 1", ""))[0] == "version: is missing"
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        Recipe.read(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes("product = 'ä'".encode("latin-1"))
    with pytest.raises(RecipeError, match="is no TOML file"):
        Recipe.read(tmp_path / "latin.toml")


def test_a_file_that_does_not_match_its_hash_is_refused(tmp_path):
    (tmp_path / "lid.safetensors").write_bytes(b"model")
    digest = sha256_of(tmp_path / "lid.safetensors")
    recipe = read(LEAST, tmp_path / "lid.toml")
    assert recipe.file("model.file", "lid.safetensors", digest) == tmp_path / "lid.safetensors"
    with pytest.raises(RecipeError, match=r"model.file: .* is not the file that the recipe was made with") as caught:
        recipe.file("model.file", "lid.safetensors", HASH)
    assert digest in str(caught.value)
    with pytest.raises(RecipeError, match=r"model.file: .*gone.* cannot be read"):
        recipe.file("model.file", "gone", HASH)


def sections(model, name=""):
    for key, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield f"{name}{key}", inner
            yield from sections(inner, f"{name}{key}.")


@pytest.mark.parametrize(("name", "section"), list(sections(Recipe)))
def test_every_key_is_explained_in_its_docstring_and_in_the_docs(name, section):
    assert set(section.model_fields) - {"type"} <= set(attributes(section)), name
    if name.startswith(("results", "line")):
        return  # the docs of results and line explain them
    documented = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text()
    for key in section.model_fields:
        assert f"`{key}`" in documented, f"{name}.{key}"


WORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@given(
    WORDS,
    st.floats(1e-4, 10),
    st.floats(0.01, 0.2),
    st.lists(st.tuples(WORDS, st.floats(0, 9), st.sampled_from(["OK", "NG"])), max_size=3, unique_by=lambda t: t[0]),
)
def test_written_recipes_are_read_back(product, pixel, rate, classes):
    severity = [{"name": name, "decision": decision} for name, _, decision in classes[:1]]
    severity += [{"name": name, "peak": peak, "decision": decision} for name, peak, decision in classes[1:]]
    values = {
        "model": {"file": "a", "sha256": HASH, "calibration": "b", "calibration_sha256": HASH},
        "frame": {"pixel_size_mm": pixel, "height": 4, "width": 5},
        "thresholds": {"ng_rate": rate, "review_rate": 0.3},
        "tiling": {"size": 64, "overlap": 16},
    } | ({"defects": {"severity": severity}} if severity else {})
    recipe = read(recipe_text(product, values, {"model": ["because # of that"]}))
    assert recipe.product == product
    assert recipe.frame.pixel_size_mm == pixel
    assert (recipe.frame.height, recipe.frame.width) == (4, 5)
    assert recipe.thresholds.ng_rate == rate
    assert recipe.tiling is not None
    assert recipe.tiling.size == 64
    assert recipe.registration is None
    if severity:
        assert [found.name for found in recipe.defects.severity] == [found["name"] for found in severity]


def test_the_defaults_that_a_written_recipe_shows_are_the_defaults():
    values = {
        "model": {"file": "a", "sha256": HASH, "calibration": "b", "calibration_sha256": HASH},
        "frame": {"pixel_size_mm": 0.1},
    }
    text = recipe_text("lid", values, {})
    shown = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and "none" not in line else line
        for line in text.partition("# [registration]")[0].splitlines()
    ]
    assert read("\n".join(shown)).model_dump() == read(text).model_dump()
    line = text.partition("[line]\n")[2].partition("[results]")[0]
    shown = [row.removeprefix("# ") for row in line.splitlines() if " = " in row and row.startswith("# ")]
    keys = [row for row in shown if row.split(" = ")[0].isidentifier()]
    assert read(f"{LEAST}[line]\n" + "\n".join(keys)).line == read(LEAST).line
    assert len(keys) >= 9
