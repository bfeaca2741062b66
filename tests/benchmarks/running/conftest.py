"""Runs whose fits and scorings stay in this process: the imports of a new one take longer than the work."""

import json

import pytest

from benchmarks.running import work


def at_once(task, arguments, threads):
    """Does what `run_isolated` does, in this process; everything passes through JSON as it does there."""
    function = getattr(work, task.partition(":")[2])
    return json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(work, "run_isolated", at_once)
