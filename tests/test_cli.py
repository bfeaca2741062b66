"""The command as users have it: the installed script in a process of its own, or its `main` where only words matter."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.artifact import load
from anomaly.catalog import DETECTORS, VOLUME_DETECTORS
from anomaly.cli import app
from anomaly.images.synthetic import write_dataset

COMMAND = Path(sys.executable).with_name("anomaly")
needs_command = pytest.mark.skipif(not COMMAND.is_file(), reason=f"the command is not installed at {COMMAND}")
SUBCOMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
SIZE = (64, 96)


def run(*arguments, cwd=None):
    """Runs the installed command; its words without colours."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, env=quiet, cwd=cwd)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 24 normal parts to learn from, 6 good and 6 defective ones to test with."""
    root = tmp_path_factory.mktemp("data") / "cast"
    write_dataset(root, "cast", 24, 6, 6, SIZE, seed=0)
    return root


@pytest.fixture(scope="module")
def broken_folder(data, tmp_path_factory):
    """The normal parts with a corrupt and a truncated file among them."""
    folder = tmp_path_factory.mktemp("broken") / "parts"
    shutil.copytree(data / "train" / "good", folder)
    files = sorted(folder.iterdir())
    files[3].write_bytes(b"this is no image")
    files[10].write_bytes(files[10].read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A model file and what the fit printed with --json."""
    if not COMMAND.is_file():
        pytest.skip(f"the command is not installed at {COMMAND}")
    path = tmp_path_factory.mktemp("model") / "cast.safetensors"
    done = run("fit", data, "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    return path, done


# Help


@needs_command
def test_help_imports_neither_torch_nor_timm():
    assert "fit" in run("--help").stdout
    program = (
        "import sys, anomaly.cli\nsys.argv = ['anomaly', '--help']\n"
        "try:\n    anomaly.cli.main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', [m for m in ('torch', 'timm', 'numpy', 'cv2', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("HEAVY []"), done.stderr
    assert "Learns what normal looks like" in done.stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_every_subcommand_has_an_example(call, name):
    status, out, _ = call(name, "--help")
    assert status == 0
    assert "Example" in out
    assert f"anomaly {name} " in out


def test_every_subcommand_is_known():
    assert {"fit", "score", "evaluate", "info", "demo", "distill"} <= set(SUBCOMMANDS)


def test_help_of_fit_names_every_detector_and_every_model_of_anomalib(call):
    from anomaly.catalog import DETECTORS
    from anomaly.detectors.anomalib_bridge.models import MODELS

    status, out, _ = call("fit", "--help")
    words = out.replace("│", " ").replace(",", " ").replace(";", " ").replace(".", " ").split()
    assert status == 0
    assert set(DETECTORS) <= set(words)
    assert {name for name, needs in MODELS.items() if not needs.refused} <= set(words)


def test_version_and_exit_status_of_help(call):
    status, out, _ = call("--version")
    assert (status, out.strip()) == (0, "0.1.0")


# The main job


@needs_command
def test_fit_prints_one_json_object_on_standard_output(model, data):
    path, done = model
    found = json.loads(done.stdout)
    assert found["model"] == str(path)
    assert found["failed"] == []
    assert found["detector"] == "subspace"
    assert found["trained on"] == "18 normal images, 6 held out for calibration"
    assert found["canvas"] == "64 x 96 px (H x W), pad"
    assert f"learning from {data / 'train' / 'good'} only" in done.stderr


def test_fit_over_broken_files_goes_on_names_them_at_the_end_and_says_so_with_its_status(call, broken_folder, tmp_path):
    status, out, err = call("fit", broken_folder, "-o", tmp_path / "m.safetensors")
    assert status == 1
    last = [line for line in err.splitlines() if line.strip()][-3:]
    assert last[0] == "2 file(s) could not be used:"
    assert {Path(line.split(": ")[0].strip()).name for line in last[1:]} == {"000003.png", "000010.png"}
    assert "REVIEW above" in out
    training = load(tmp_path / "m.safetensors").training
    assert training.images + training.held_out == 22


@needs_command
def test_score_over_broken_files_writes_tables_heatmaps_and_report_that_agree(model, broken_folder, tmp_path):
    out = tmp_path / "results"
    done = run("score", model[0], broken_folder, "--out", out, "--json")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert summary["report"] == str(out / "report.html")
    assert summary["headline"].startswith("22 parts scored:")
    assert [Path(row["path"]).name for row in summary["failed"]] == ["000003.png", "000010.png"]
    assert "000003.png" in done.stderr.splitlines()[-2]
    assert "000010.png" in done.stderr.splitlines()[-1]
    with (out / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(table) == len(lines) == 24
    for row, line in zip(table, lines, strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in line.items()}
    scored = [line for line in lines if line["decision"] != "NOT_SCORED"]
    assert len(scored) == 22
    heatmaps = {path.relative_to(out).as_posix() for path in (out / "heatmaps").iterdir()}
    assert heatmaps == {line["heatmap"] for line in scored}
    picture = cv2.imread(str(out / scored[0]["heatmap"]))
    assert picture is not None
    assert min(picture.shape[:2]) >= 64
    page = (out / "report.html").read_text()
    for line in lines:
        assert Path(line["path"]).name in page
    artifact = load(model[0])
    for line in scored:
        assert line["decision"] == artifact.calibration.decide(line["score"])
        assert line["p_value"] == float(artifact.calibration.p_value(line["score"]))
        assert (line["height"], line["width"]) == SIZE


def test_evaluate_prints_metrics_shortcuts_kinds_and_promise(model, data, call, tmp_path):
    status, out, _ = call("evaluate", model[0], data, "--out", tmp_path / "results")
    assert status == 0
    assert "12 test images, 6 of them defective" in out
    for words in ("Shortcuts: image AUROC", "mean grey", "AUROC against good", "Promised of normal parts:"):
        assert words in out
    status, out, _ = call("evaluate", model[0], data, "--json")
    summary = json.loads(out)
    assert status == 0
    assert (summary["images"], summary["defective"], summary["failed"]) == (12, 6, [])
    assert {"kind", "images", "OK", "REVIEW", "NG", "image_auroc"} == set(summary["kinds"][0])
    with (tmp_path / "results" / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert sum(row["label"] == "1" for row in table) == 6
    assert {row["kind"] for row in table} == {kind["kind"] for kind in summary["kinds"]}
    assert str(round(summary["metrics"]["image_auroc"], 3))[:4] in (tmp_path / "results" / "report.html").read_text()


def test_info_shows_provenance_and_promise(model, call):
    status, out, _ = call("info", model[0])
    assert status == 0
    for words in ("detector: subspace", "canvas: 64 x 96 px", "backbone weights: package", "NG above", "REVIEW above"):
        assert words in out
    status, out, _ = call("info", model[0], "--json")
    found = json.loads(out)
    artifact = load(model[0])
    assert found["ng_threshold"] == artifact.calibration.ng.value
    assert found["review_threshold"] == artifact.calibration.review.value


def test_groups_of_a_manifest_are_never_split_and_counted_once(data, call, tmp_path):
    folder = data / "train" / "good"
    manifest = tmp_path / "parts.csv"
    names = sorted(path.name for path in folder.iterdir())
    manifest.write_text("file,wafer\n" + "".join(f"{name},w{index // 4}\n" for index, name in enumerate(names)))
    path = tmp_path / "m.safetensors"
    status, out, _ = call("fit", folder, "-o", path, "--manifest", manifest, "--group", "wafer", "--hold-out", 0.34)
    assert status == 0
    assert "2 normals held out of the fit, one score per wafer" in out
    artifact = load(path)
    assert artifact.training.held_out == 8
    assert len(artifact.calibration.scores) == 2


def test_settings_of_a_memory_bank_reach_the_model(data, call, tmp_path):
    path = tmp_path / "m.safetensors"
    given = ("--detector", "memory_bank", "--set", "bank_size=128", "--set", "reduction=k_means", "--seed", "3")
    given += ("--layers", "stages.3", "--size", "64x64", "--resize", "stretch")
    status, _, _ = call("fit", data, "-o", path, *given)
    assert status == 0
    detector = load(path).scorer.detector
    assert (detector.name, detector.bank_size, detector.reduction, detector.seed) == ("memory_bank", 128, "k_means", 3)
    assert detector.backbone.layers == ("stages.3",)
    assert (detector.input.size, detector.input.resize) == ((64, 64), "stretch")
    assert load(path).scorer.bank.shape == (128, 192)


def test_twelve_bits_in_sixteen_need_a_value_range_and_keep_it(call, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "parts"
    folder.mkdir()
    for n in range(8):
        cv2.imwrite(str(folder / f"{n}.png"), rng.integers(1000, 3000, (64, 64)).astype(np.uint16))
    path = tmp_path / "m.safetensors"
    status, _, _ = call("fit", folder, "-o", path, "--value-range", "0,4095")
    assert status == 0
    spec = load(path).scorer.input
    assert (spec.dtype, spec.channels, spec.value_range) == ("uint16", 1, (0.0, 4095.0))
    cv2.imwrite(str(folder / "bright.png"), np.full((64, 64), 5000, dtype=np.uint16))
    status, out, err = call("score", path, folder, "--out", tmp_path / "results")
    assert status == 1
    assert "8 parts scored" in out
    assert "bright.png: has values 5000 to 5000, the model takes 0 to 4095" in err


# Errors


@pytest.fixture(scope="module")
def damaged(model, tmp_path_factory):
    content = bytearray(model[0].read_bytes())
    content[-5] ^= 1
    path = tmp_path_factory.mktemp("damaged") / "m.safetensors"
    path.write_bytes(content)
    return path


ERRORS = {
    "detector": (["fit", "{data}", "--detector", "patchcor"], "unknown detector 'patchcor'. Valid: autoencoder"),
    "backbone": (["fit", "{data}", "--backbone", "resnet19"], "unknown backbone 'resnet19'. Did you mean 'resnet18'?"),
    "layer": (["fit", "{data}", "--layers", "layer9"], "unknown layer of backbone 'bundled' 'layer9'"),
    "weights": (["fit", "{data}", "--weights", "nowhere.pth"], "no weights file at nowhere.pth"),
    "setting": (["fit", "{data}", "--set", "bank=1"], "unknown setting of subspace 'bank'"),
    "value of a setting": (["fit", "{data}", "--set", "variance=7.0"], "variance of subspace must be above 0"),
    "assignment": (["fit", "{data}", "--set", "variance"], "--set must be name=value; got 'variance'"),
    "size": (["fit", "{data}", "--size", "big"], "--size must be two numbers, like 1x2; got 'big'"),
    "small size": (["fit", "{data}", "--size", "8x8"], "size of InputSpec must be (height, width), 32 to 4096 each"),
    "resize": (["fit", "{data}", "--resize", "crop"], "--resize must be one of pad, stretch; got 'crop'"),
    "value range": (["fit", "{data}", "--value-range", "5"], "--value-range must be two numbers, like 1,2; got '5'"),
    "hold-out": (["fit", "{data}", "--hold-out", "1.5"], "fraction of hold_out must be in (0, 1); got 1.5"),
    "folder": (["fit", "nowhere"], "nowhere does not exist"),
    "group without manifest": (["fit", "{data}", "--group", "lot"], "--manifest and --group go together"),
    "manifest": (["fit", "{data}", "--manifest", "no.csv", "--group", "lot"], "no.csv is not a readable CSV file"),
    "model": (["score", "nowhere.safetensors", "{data}", "--out", "out"], "no model file at nowhere.safetensors"),
    "tampered model": (["score", "{damaged}", "{data}", "--out", "out"], "the tensors were changed after the file was"),
    "tampered model, info": (["info", "{damaged}"], "the tensors were changed after the file was written"),
    "images to score": (["score", "{model}", "nowhere", "--out", "out"], "nowhere does not exist"),
    "foreign results": (["score", "{model}", "{data}", "--out", "{data}"], "the results of an earlier run (it holds"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line_and_status_2(call, model, data, damaged, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(data=data / "train" / "good", model=model[0], damaged=damaged) for argument in arguments]
    if given[0] == "fit":
        given += ["-o", "m.safetensors"]
    status, out, err = call(*given)
    assert status == 2
    assert out == ""
    lines = err.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert message in lines[-1]
    assert lines[:-1] == [], "the error is the only line"
    assert not (tmp_path / "m.safetensors").exists()


def test_calls_in_one_process_register_the_frontends_once(call):
    def registered():
        call("--version")
        return [group.name for group in app.registered_groups], len(app.registered_commands)

    first = registered()
    assert {"inspect", "triage", "bench"} <= set(first[0])
    assert registered() == first


@needs_command
def test_the_installed_command_shows_no_traceback(data, tmp_path):
    done = run("fit", data / "train" / "good", "-o", tmp_path / "m.safetensors", "--detector", "patchcor")
    assert done.returncode == 2
    assert done.stdout == ""
    names = ", ".join(sorted([*DETECTORS, *VOLUME_DETECTORS]))
    assert done.stderr.splitlines() == [f"Error: unknown detector 'patchcor'. Valid: {names}"]
    done = run("fit")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Missing argument" in done.stderr


def test_demo_of_an_unknown_surface_lists_the_valid_ones(call, tmp_path):
    status, out, err = call("demo", "--surface", "wood", "--out", tmp_path / "demo")
    assert (status, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert last == "Error: unknown surface 'wood'. Valid: brushed_metal, cast, wafer, wafer_edge, woven_fabric"


@needs_command
@pytest.mark.slow
def test_demo_runs_the_whole_job_and_says_where_to_look(tmp_path):
    done = run("demo", "--images", 20, "--out", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines()[-4:-1]:
        assert Path(line.split(maxsplit=1)[1]).exists()
    report = tmp_path / "demo" / "wafer-20-results" / "report.html"
    assert f"Open {report} in a browser" in done.stdout
    assert report.stat().st_size > 10_000
    assert "20 test images, 10 of them defective" in done.stdout
