"""A run: rows that are there are kept, a killed run goes on, a changed one is refused, equal seeds agree."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly.errors import SettingError, UnknownNameError
from benchmarks.running import rows, work
from benchmarks.running import run as running
from benchmarks.running.coverage import COLUMNS
from benchmarks.running.parts import Part
from benchmarks.running.run import RESULTS, Settings, Wish, run
from benchmarks.running.work import QUALITY, SHORTCUT

SETTINGS = Settings(threads=1, runs=1)

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from conftest import at_once
from benchmarks.running import work
from benchmarks.running.run import Settings, Wish, run
calls = []
def until(task, arguments, threads):
    calls.append(task)
    if len(calls) == 4:  # the second row is fitted, not scored
        os.kill(os.getpid(), signal.SIGKILL)
    return at_once(task, arguments, threads)
work.run_isolated = until
wish = Wish((sys.argv[1],), ("subspace", "gaussian"))
run(wish, Settings(threads=1, runs=1), Path(sys.argv[2]), fresh=False, ray=False)
"""


def go(wish, out, fresh=False, settings=SETTINGS):
    return run(wish, settings, out, fresh=fresh, ray=False)


def rows_of(out):
    with (out / RESULTS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_goes_on_and_equal_seeds_agree(folder, tmp_path, in_process, monkeypatch):
    out = tmp_path / "killed"
    script = [sys.executable, "-c", KILLED, str(folder), str(out), str(Path(__file__).parent)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = rows_of(out)
    assert [row["detector"] for row in left if not row["detector"].startswith(SHORTCUT)] == ["subspace"]

    fitted = []
    original = rows.measured
    monkeypatch.setattr(rows, "measured", lambda job, **known: fitted.append(job.detector) or original(job, **known))
    wish = Wish((str(folder),), ("subspace", "gaussian"))
    assert go(wish, out) == []
    assert fitted == ["gaussian"]
    assert [row for row in rows_of(out) if row in left] == left

    assert go(wish, tmp_path / "again") == []
    both = [{row["detector"]: row for row in rows_of(one)} for one in (out, tmp_path / "again")]
    assert both[0].keys() == both[1].keys()
    for name, row in both[0].items():
        for column in (*QUALITY, *COLUMNS):
            assert row[column] == both[1][name][column], (name, column)

    row = both[0]["gaussian"]
    assert (row["train"], row["test"], row["held_out_units"]) == ("6", "8", "2")
    assert float(row["image_auroc_low"]) <= float(row["image_auroc"]) <= float(row["image_auroc_high"])
    assert int(row["ng_normals"]) == 4
    assert all(float(row[cost]) > 0 for cost in ("fit_cpu_s", "ms_1_image_p99", "images_per_s_8", "file_mib"))
    assert row["commit"]
    assert row["gpu_peak_mib"] == "" or float(row["gpu_peak_mib"]) >= 0


@pytest.fixture
def pretended(monkeypatch):
    """Rows without any fit."""
    done = []

    def pretend(job, threads, runs):
        done.append((job.category, job.detector, job.seed))
        return {"image_auroc": 0.5}

    monkeypatch.setattr(rows, "measured", pretend)
    return done


def test_later_calls_add_rows_and_a_change_needs_fresh(folder, tmp_path, pretended, monkeypatch):
    out, data = tmp_path / "out", (str(folder),)
    go(Wish(data, ("subspace",)), out)
    go(Wish(data, ("subspace", "memory_bank"), seeds=(0, 1)), out)
    assert pretended == [("", "subspace", 0), ("", "memory_bank", 0), ("", "subspace", 1), ("", "memory_bank", 1)]
    assert len(json.loads((out / "run.json").read_text())["asked"]) == 2

    with pytest.raises(SettingError, match=r"limit: None -> 6.*--fresh"):
        go(Wish(data, ("subspace",)), out, settings=Settings(threads=1, runs=1, limit=6))
    monkeypatch.setattr(running, "source", lambda: "changed")
    with pytest.raises(SettingError, match=r"commit .*source: .* -> changed"):
        go(Wish(data, ("subspace",)), out)
    assert len(pretended) == 4
    go(Wish(data, ("subspace",)), out, fresh=True)
    assert len(pretended) == 5
    assert len(list(out.glob("earlier-*-results.csv"))) == 1  # nothing is lost


def test_rows_without_their_settings_are_not_continued(folder, tmp_path, pretended):
    (tmp_path / RESULTS).write_text("what\n")
    with pytest.raises(SettingError, match="--fresh"):
        go(Wish((str(folder),), ("subspace",)), tmp_path)


def test_two_runs_never_write_to_one_folder(folder, tmp_path, pretended):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(SettingError, match="another run"):
        go(Wish((str(folder),), ("subspace",)), tmp_path)


def test_groups_are_never_on_both_sides_of_what_is_held_out(folder):
    job = work.jobs([Part(str(folder))], ["subspace"], ["bundled"], limit=None, seed=0, epochs=1, held_out=0.25)[0]
    protocol = job.protocol(None)
    fitted, held = job.split(protocol)
    assert (len(fitted), len(held)) == (6, 2)
    assert sorted([*fitted, *held]) == sorted(protocol.images.train)
    for index, path in enumerate(sorted(protocol.images.train)):
        protocol.groups[path] = f"lot {index // 4}"
    fitted, held = job.split(protocol)
    assert (len(fitted), len(held)) == (4, 4)
    assert not {protocol.groups[path] for path in fitted} & {protocol.groups[path] for path in held}


def test_a_row_that_fails_is_told_and_stops_no_other(folder, tmp_path, monkeypatch):
    def pretend(job, threads, runs):
        if job.detector == "subspace":
            raise subprocess.CalledProcessError(1, "fit")
        return {"image_auroc": 0.5}

    monkeypatch.setattr(rows, "measured", pretend)
    failed = go(Wish((str(folder),), ("subspace", "gaussian")), tmp_path)
    assert failed == ["metal: subspace (bundled) failed, see above"]
    assert rows_of(tmp_path)[-1]["detector"] == "gaussian"


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ({"detectors": ("subspac",)}, UnknownNameError, "Did you mean 'subspace'"),
        ({"detectors": ()}, SettingError, "at least one detector or peer"),
        ({"peers": ("Patchcore",)}, SettingError, "anomalib:Patchcore"),
        ({"peers": ("anomalib:Patchcor",)}, UnknownNameError, "Patchcore"),
        ({"peers": ("anomalib:EfficientAd",)}, SettingError, "weights"),
    ],
)
def test_bad_wishes(bad, error, says):
    with pytest.raises(error, match=says):
        Wish(**{"data": ("bsdata",), "detectors": ("subspace",)} | bad)


@pytest.mark.parametrize("bad", [{"limit": 3}, {"threads": 0}, {"held_out": 1.0}, {"runs": 0}, {"epochs": 0}])
def test_bad_settings(bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        Settings(**bad)


def test_help_has_examples_and_errors_are_one_line(call, tmp_path):
    status, out, _ = call("bench", "run", "--help")
    assert status == 0
    assert "anomaly bench run --data mvtec_ad=/data/mvtec" in " ".join(out.split())
    status, _, err = call("bench", "run", "--data", "no_set", "--out", tmp_path / "out")
    assert status == 2
    assert "no_set" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert call("bench", "run", "--data", "bsdata", "--seeds", "a", "--out", tmp_path)[0] == 2
