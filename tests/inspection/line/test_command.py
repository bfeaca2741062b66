"""`anomaly inspect run` from recipe and source to stored results, summary and exit status."""

import json
import os
import signal
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anomaly.errors import SettingError
from benchmarks.line_fault_tools import image_files, recipe_in
from inspection.cli import app
from inspection.line.running import is_stored
from inspection.line.sources.memory import FileKey, OpenFile
from inspection.line.testing import in_thread
from inspection.recipe.recipe import Recipe
from inspection.results.reporting import open_store

SOURCE = """
import os, signal, time
from pathlib import Path
from anomaly.images import list_images
from inspection.line.sources.base import Serial
from inspection.line.sources.files import ImageFiles

def images():
    import threading
    folder = Path(__file__).parent / "images"
    yield from ImageFiles([folder], Serial()).parts(threading.Event())

def fails():
    yield from images()
    raise OSError("the camera is gone")

def told_to_stop():
    for part in images():
        yield part
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        time.sleep(0.01)
        yield part_again()

def part_again(count=[0]):
    from inspection.line.testing import part
    count[0] += 1
    return part(f"again-{count[0]}", problem="no image")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    recipe_in(folder)
    image_files(folder, 6)
    (folder / "e2_camera.py").write_text(SOURCE)
    return folder


@pytest.fixture
def invoked(folder, monkeypatch):
    """Runs the command in the folder on a source; returns exit status, summary and standard error."""
    monkeypatch.chdir(folder)

    def invoke(source: str, *options: str):
        result = CliRunner().invoke(app, ["run", "part.toml", "--source", source, *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def results_of(folder: Path, run: str):
    recipe = Recipe.read(folder / "part.toml")
    with open_store(recipe.results, folder) as store:
        return [stored.result for stored in store.results(run=run)]


def test_a_folder_is_inspected_and_every_part_stored(folder, invoked):
    status, output, _ = invoked("images", "--json")
    summary = json.loads(output)
    assert status == 0
    assert (summary["state"], summary["seen"], summary["reported"], summary["judged"]) == ("DONE", 6, 6, 6)
    assert summary["error"] is None
    results = results_of(folder, summary["run"])
    assert sorted(result.part for result in results) == [f"{number:04d}.png" for number in range(6)]
    recipe = Recipe.read(folder / "part.toml")
    assert {(result.recipe, result.model) for result in results} == {(recipe.sha256, recipe.model.sha256)}


def test_people_get_words_and_progress_lines(invoked):
    status, output, error = invoked("images/0000.png")
    assert status == 0
    assert "1 of 1 parts have a stored result" in output
    assert "DONE: 1 parts" in error


def test_a_part_that_cannot_be_judged_makes_the_exit_status_1(folder, invoked):
    (folder / "list.txt").write_text("images/0000.png\nimages/gone.png\n")
    status, output, _ = invoked("list.txt", "--json")
    assert status == 1
    assert json.loads(output)["reasons"]["UNREADABLE"] == 1
    (bad,) = [one for one in results_of(folder, json.loads(output)["run"]) if one.part == "images/gone.png"]
    assert bad.decision == "NG"
    assert bad.recipe == Recipe.read(folder / "part.toml").sha256


def test_a_source_that_fails_makes_the_exit_status_2_with_everything_stored(folder, invoked):
    status, output, error = invoked("python:e2_camera:fails", "--json")
    summary = json.loads(output)
    assert status == 2
    assert summary["state"] == "FAILED"
    assert "the camera is gone" in summary["error"]
    assert "the camera is gone" in error
    assert len(results_of(folder, summary["run"])) == 6


def test_sigterm_stops_the_line_and_handlers_come_back(folder, invoked):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    status, output, _ = invoked("python:e2_camera:told_to_stop", "--json")
    summary = json.loads(output)
    assert status == 1, "what came after the signal had no image"
    assert summary["state"] == "DONE"
    assert summary["seen"] == summary["reported"] == len(results_of(folder, summary["run"]))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_source_that_is_none_is_refused_before_anything_is_run(invoked):
    with pytest.raises(SettingError, match="names no source"):
        invoked("nowhere")


def test_a_result_is_found_by_part_and_time_of_capture(folder, invoked):
    _, output, _ = invoked("images/0001.png", "--json")
    (result,) = results_of(folder, json.loads(output)["run"])
    key = FileKey("0001.png", 1, 1)
    recipe = Recipe.read(folder / "part.toml")
    with open_store(recipe.results, folder) as store:
        assert is_stored(store, OpenFile(key, result.part, result.captured.isoformat()))
        later = result.captured + timedelta(microseconds=1)
        assert not is_stored(store, OpenFile(key, result.part, later.isoformat()))
        assert not is_stored(store, OpenFile(key, "another", result.captured.isoformat()))


def test_a_watched_folder_goes_on_where_it_was(folder, invoked):
    def stop_when_idle() -> None:
        """Stops the line once the number of results has stood still for a second."""
        before, since = -1, time.monotonic()
        while time.monotonic() < since + 1.0 or before == started:
            now = stored()
            before, since = (before, since) if now == before else (now, time.monotonic())
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    def stored() -> int:
        with open_store(Recipe.read(folder / "part.toml").results, folder) as store:
            return len(list(store.results()))

    started = stored()
    first_thread, _ = in_thread(stop_when_idle)
    _, output, _ = invoked("watch:images", "--json")
    first_thread.join()
    assert json.loads(output)["judged"] == 6
    (memory,) = (folder / "line").glob("watched-*.sqlite")
    rows = sqlite3.connect(memory)
    with rows:  # as a kill leaves it: the results are durable, and nobody has remembered so
        assert rows.execute("UPDATE files SET reported = 0").rowcount == 6
    rows.close()
    image = folder / "images" / "new.png"
    image.write_bytes((folder / "images" / "0000.png").read_bytes())
    started = stored()
    second_thread, _ = in_thread(stop_when_idle)
    _, output, _ = invoked("watch:images", "--json")
    second_thread.join()
    image.unlink()
    assert [result.part for result in results_of(folder, json.loads(output)["run"])] == ["new.png"]
