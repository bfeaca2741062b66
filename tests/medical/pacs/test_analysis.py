"""The process that analyses: whatever happens in it, the service gets a result or a coded cause."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medical.pacs.analysis import AnalysisProcess, AnalysisStopped
from medical.pacs.errors import AnalysisError
from medical.pacs.headers import read_header
from medical.pacs.settings import AnalysisSettings
from medical.pacs.states import Cause
from tests.medical import phantoms


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = []

    def start(timeout=1.0, stopping=None, target="small_analyser:make", **arguments):
        arguments = {"folder": str(tmp_path), **arguments} if target == "small_analyser:make" else arguments
        settings = AnalysisSettings(analyser=target, arguments=arguments, timeout_minutes=timeout)
        made.append(AnalysisProcess(settings, stopping or threading.Event()))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def study(tmp_path):
    return phantoms.save(phantoms.ct_series((2, 8, 8)), tmp_path / "study")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_results_of_one_study_after_the_other_come_from_one_process(process, study, out):
    started = process(results=2)
    first = started.run(study, out)
    running = started._process
    second = started.run(study[:1], out)
    assert started._process is running
    assert first.outcome_status == "ANALYSED"
    assert [first.summary, second.summary] == ["2 objects", "1 objects"]
    assert len(first.files_to_send) == 2
    assert read_header(first.files_to_send[0]).study == read_header(study[0]).study


@pytest.mark.parametrize(
    ("fault", "cause", "words"),
    [("error", Cause.ANALYSER_ERROR, "ValueError"), ("crash", Cause.ANALYSER_ENDED, "status -11")],
)
def test_an_attempt_that_fails_has_a_cause_without_patient_data(process, study, out, fault, cause, words):
    with pytest.raises(AnalysisError) as caught:
        process(fault=fault).run(study, out)
    assert caught.value.cause is cause
    assert words in str(caught.value)
    assert "PLANTED" not in str(caught.value)


def test_the_process_starts_anew_after_a_crash(process, study, out):
    started = process(fault="crash once")
    with pytest.raises(AnalysisError):
        started.run(study, out)
    assert started.run(study, out).outcome_status == "ANALYSED"


def test_an_analysis_that_hangs_is_ended(process, study, out):
    with pytest.raises(AnalysisError) as caught:
        process(fault="hang", timeout=0.02).run(study, out)
    assert caught.value.cause is Cause.ANALYSER_TIMEOUT


def test_a_stop_does_not_wait_for_the_analysis(process, study, out):
    stopping = threading.Event()
    threading.Timer(0.3, stopping.set).start()
    begun = time.monotonic()
    with pytest.raises(AnalysisStopped):
        process(fault="hang", stopping=stopping).run(study, out)
    assert time.monotonic() - begun < 10


def test_an_analyser_that_is_none_is_told(process, study, out):
    with pytest.raises(AnalysisError) as caught:
        process(target="collections:OrderedDict").run(study, out)
    assert caught.value.cause is Cause.ANALYSER_ERROR


def test_the_process_ends_with_its_service(tmp_path, study):
    """Even in the middle of an analysis, and even if the service was killed: its input ends."""
    code = f"""
import json, sys
from medical.pacs.analysis import AnalysisProcess
from medical.pacs.settings import AnalysisSettings
import threading
s = AnalysisSettings(analyser="small_analyser:make", arguments={{"folder": {str(tmp_path)!r}, "fault": "hang"}})
p = AnalysisProcess(s, threading.Event())
threading.Thread(target=p.run, args=([], __import__("pathlib").Path({str(tmp_path)!r})), daemon=True).start()
while p._process is None: pass
print(p._process.pid, flush=True)
threading.Event().wait()
"""
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    service = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(path)})
    child = int(service.stdout.readline())
    until(lambda: list(tmp_path.glob("begun-*")))
    service.kill()
    service.wait()
    service.stdout.close()
    until(lambda: not alive(child))


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
