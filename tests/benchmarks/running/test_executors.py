"""Who does the work of a run: here, a stand-in for Ray, and Ray itself on this machine where it is installed."""

import subprocess
import sys
import types
from importlib.util import find_spec

import pytest

from anomaly.errors import MissingExtraError, SettingError
from benchmarks.running import executors

REAL = """
import os, subprocess
from pathlib import Path
from benchmarks.running.executors import on_ray

def work(job):
    if job == "fails":
        raise subprocess.CalledProcessError(3, "fit")
    if job == "dies":
        os._exit(1)
    return {"job": job, "pid": os.getpid()}

def listening():
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A":
                found.append((cells[1].rpartition(":")[0], cells[9]))
    return set(found)

before, during, found = listening(), set(), {}
for job, answer in on_ray(1)(["a", "b", "fails", "dies"], work):
    during |= listening()
    found[job] = answer
    print("ROW", job, type(answer).__name__)
assert {found[job]["job"] for job in "ab"} == {"a", "b"}
assert os.getpid() not in {found[job]["pid"] for job in "ab"}
assert found["fails"].returncode == 3
assert found["dies"].cmd == "WorkerCrashedError", found["dies"]
import ray
assert not ray.is_initialized()
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
ours = during - before
assert ours, "Ray listens nowhere?"
assert {address for address, inode in ours} <= LOOPBACK, ours
print("WHOLE")
"""


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'anomaly-suite[ray]'")
def test_ray_does_the_jobs_on_the_loopback_interface_and_a_dead_worker_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "script.py").write_text(REAL)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "WHOLE" in done.stdout


def test_ray_is_asked_for_only_where_it_is(monkeypatch):
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install"):
        executors.on_ray(1)


@pytest.fixture
def stand_in(monkeypatch):
    """Has what is used of Ray: two CPU machines, one with GPUs; no process."""
    calls = {"remote": None, "init": None, "shut": 0}

    class Remote:
        def __init__(self, function):
            self.remote = lambda *given: object.__new__(type("Ref", (), {"value": function(*given)}))

    def remote(**given):
        calls["remote"] = given
        return Remote

    def begin(*given, **named):
        calls["init"] = (given, named)

    def end():
        calls["shut"] += 1

    ray = types.ModuleType("ray")
    ray.exceptions = types.SimpleNamespace(RayError=KeyError, RayTaskError=IndexError)
    ray.is_initialized = lambda: False
    ray.init, ray.shutdown, ray.remote = begin, end, remote
    ray.nodes = lambda: [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}},
    ]
    ray.wait = lambda waiting: (waiting[-1:], waiting[:-1])
    ray.get = lambda one: one.value
    ray.calls = calls
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(executors, "find_spec", lambda name: "there")
    for name, value in executors._LOCAL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return ray


def test_jobs_come_back_with_their_answers_and_reserve_a_gpu(stand_in):
    found = dict(executors.on_ray(2)(["a", "b"], lambda job: {"job": job}))
    assert found == {"a": {"job": "a"}, "b": {"job": "b"}} == dict(executors.here(["a", "b"], lambda job: {"job": job}))
    assert stand_in.calls["remote"] == {"num_cpus": 2, "num_gpus": 1, "max_retries": 0}
    assert stand_in.calls["init"] == (("local",), {"include_dashboard": False})
    assert stand_in.calls["shut"] == 1


def test_the_cluster_of_the_environment_is_used(stand_in, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert dict(executors.on_ray(1)(["a"], lambda job: {"job": job})) == {"a": {"job": "a"}}
    assert stand_in.calls["init"] == (("10.0.0.1:6379",), {})


def test_more_threads_than_any_machine_has_are_refused_instead_of_waiting_for_ever(stand_in):
    with pytest.raises(SettingError, match=r"threads.*at most 2"):
        list(executors.on_ray(3)(["a"], lambda job: {"job": job}))
    assert stand_in.calls["shut"] == 1


def test_without_jobs_no_cluster_is_started(stand_in):
    assert list(executors.on_ray(1)([], lambda job: {"job": job})) == []
    assert stand_in.calls["init"] is None
