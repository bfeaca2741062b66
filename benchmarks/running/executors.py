"""Who does the work of a run: this machine row by row, or a Ray cluster with rows side by side.

An executor takes jobs and a function and yields each job with what came of it, as soon as it is there. Ray is optional
and was tried on one machine, not on a cluster of several: each must see code, data and weights at the same paths.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from subprocess import CalledProcessError
from typing import Any, TypeVar

from anomaly.errors import MissingExtraError, SettingError

Job = TypeVar("Job")
Found = dict[str, Any]
Work = Callable[[Job], Found]
Executor = Callable[[Sequence[Job], Work[Job]], Iterator[tuple[Job, Found | CalledProcessError]]]

_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds to the loopback interface, as Ray does on Windows and macOS
    "RAY_USAGE_STATS_ENABLED": "0",  # sends no report of its usage to its makers
    "RAY_raylet_start_wait_time_s": "120",  # on two busy cores the usual 30 s were not enough
}
"""Environment of a local instance where the user has said nothing else; read when Ray is imported."""


def here(jobs: Sequence[Job], work: Work[Job]) -> Iterator[tuple[Job, Found | CalledProcessError]]:
    """Does one job after the other on this machine; one that fails does not stop the others."""
    for job in jobs:
        yield job, _tried(work, job)


def require_ray() -> None:
    """Refuses where Ray is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("ray") is None:
        raise MissingExtraError.of("ray", "ray", "bench run --ray")


def on_ray(threads: int) -> Executor[Any]:
    """Returns an executor that hands each job to the cluster of RAY_ADDRESS, or to an instance of this machine alone.

    That instance ends with the jobs, has no dashboard and listens on the loopback interface only. Where the cluster has
    GPUs a job reserves one of them, because Ray hides them from jobs that do not.

    Args:
        threads: CPUs that one job reserves.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    require_ray()

    def execute(jobs: Sequence[Any], work: Work[Any]) -> Iterator[tuple[Any, Found | CalledProcessError]]:
        if not jobs:
            return
        with _cluster() as ray:
            remote = ray.remote(num_cpus=threads, num_gpus=_gpus_of_a_job(ray, threads), max_retries=0)(_tried)
            waiting = {remote.remote(work, job): job for job in jobs}
            while waiting:
                ready, _ = ray.wait(list(waiting))
                for one in ready:
                    yield waiting.pop(one), _answer(ray, one)

    return execute


@contextmanager
def _cluster() -> Iterator[Any]:
    """Gives the module of Ray, connected; ends what it began."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in _LOCAL.items():
            os.environ.setdefault(name, value)
    import ray  # type: ignore[import-not-found, unused-ignore]

    if ray.is_initialized():
        yield ray
        return
    if address:
        ray.init(address)
    else:
        ray.init("local", include_dashboard=False)
    try:
        yield ray
    finally:
        ray.shutdown()


def _gpus_of_a_job(ray: Any, threads: int) -> int:
    """Returns 1 where machines of the cluster have a GPU, else 0.

    Raises:
        SettingError: no machine has the CPUs that a job reserves; Ray would wait for one for ever.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(any(machine.get("GPU", 0) >= 1 for machine in machines))
    usable = [machine.get("CPU", 0) for machine in machines if machine.get("GPU", 0) >= gpus]
    if max(usable, default=0) < threads:
        allowed = f"at most {max(usable, default=0):g}, the CPUs of the largest machine of the Ray cluster"
        raise SettingError.of("bench run --ray", "threads", allowed, threads)
    return gpus


def _answer(ray: Any, one: Any) -> Found | CalledProcessError:
    try:
        found: Found | CalledProcessError = ray.get(one)
    except ray.exceptions.RayTaskError:
        raise  # an error of ours, as it would be without Ray
    except ray.exceptions.RayError as error:  # the worker died, ran out of memory, or its machine is gone
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return CalledProcessError(1, type(error).__name__)
    return found


def _tried(work: Work[Job], job: Job) -> Found | CalledProcessError:
    try:
        return work(job)
    except CalledProcessError as error:  # its traceback has been printed
        return error
