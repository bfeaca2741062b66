"""Who does the work of a run: this machine row by row, or a Ray cluster with rows side by side.

An executor takes jobs and a function and yields each job with what came of it, as soon as it is there. Ray is optional
and was tried with a stand-in only, never on a cluster: every machine must see code, data and weights at the same paths.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from subprocess import CalledProcessError
from typing import Any, TypeVar

from anomaly.errors import MissingExtraError

Job = TypeVar("Job")
Found = dict[str, Any]
Work = Callable[[Job], Found]
Executor = Callable[[Sequence[Job], Work[Job]], Iterator[tuple[Job, Found | CalledProcessError]]]


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
        raise MissingExtraError(
            "--ray needs the package 'ray': pip install ray; without --ray rows run one by one here"
        )


def on_ray(threads: int) -> Executor[Any]:
    """Returns an executor that hands each job to the cluster of RAY_ADDRESS, or to a local one.

    Args:
        threads: CPUs that one job reserves.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    require_ray()

    def execute(jobs: Sequence[Any], work: Work[Any]) -> Iterator[tuple[Any, Found | CalledProcessError]]:
        import ray  # type: ignore[import-not-found, unused-ignore]

        ray.init(ignore_reinit_error=True)
        remote = ray.remote(num_cpus=threads)(_tried)
        waiting = {remote.remote(work, job): job for job in jobs}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for one in ready:
                yield waiting.pop(one), ray.get(one)

    return execute


def _tried(work: Work[Job], job: Job) -> Found | CalledProcessError:
    try:
        return work(job)
    except CalledProcessError as error:  # its traceback has been printed
        return error
