"""The part of the service that analyses: takes the study that waits longest, stores results or the cause of none."""

import threading
from pathlib import Path

from medical.pacs.analysis import AnalysisProcess, AnalysisResult, AnalysisStopped
from medical.pacs.errors import AnalysisError, DamagedError, ObjectError, QueueError, SpoolError
from medical.pacs.headers import Header, read_header
from medical.pacs.queue import Job, Queue, ResultFile
from medical.pacs.settings import PacsSettings
from medical.pacs.spool import Spool
from medical.pacs.states import Cause, State
from medical.privacy.log_fields import Event
from medical.privacy.logs import log, words_of

IDLE_SECONDS, TROUBLE_SECONDS = 0.5, 5.0


class Analysing:
    """Analyses one study after the other."""

    def __init__(self, settings: PacsSettings, queue: Queue, spool: Spool, process: AnalysisProcess) -> None:
        """Keeps its parts."""
        self._settings, self._queue, self._spool, self._process = settings, queue, spool, process
        self._unsettled: Job | None = None

    def run(self, news: threading.Event, stopping: threading.Event, analysed: threading.Event) -> None:
        """Analyses until the service stops.

        Args:
            news: set when an object has come.
            stopping: set when the service stops.
            analysed: is set when there are results to deliver.
        """
        while not stopping.is_set():
            news.clear()
            try:
                busy = self.step()
            except Exception as error:  # e.g. the disk of the queue is full: the service must outlive that
                log(Event.WARNING, error=error)
                stopping.wait(TROUBLE_SECONDS)
                continue
            if busy:
                analysed.set()
            else:
                news.wait(IDLE_SECONDS)
        self._process.close()

    def step(self) -> bool:
        """Completes studies and makes one attempt to analyse one; False if none waits."""
        if self._unsettled is not None:  # the queue could not be told how its attempt ended
            self._queue.put_back(self._unsettled)
        done = self._queue.complete(int(self._settings.complete_after_seconds * 1e6))
        for study, sources in done.items():
            log(Event.COMPLETE, study=study, source=", ".join(sources))
        self._unsettled = job = self._queue.claim()
        if job is None:
            return False
        self._settle(job)
        self._unsettled = None
        return True

    def _settle(self, job: Job) -> None:
        try:
            self._attempt(job)
        except AnalysisStopped:
            self._queue.put_back(job)
        except DamagedError as error:
            self._queue.failed(job.revision, Cause.SPOOL_DAMAGED, str(error))
            log(Event.FAILED, study=job.study, cause=Cause.SPOOL_DAMAGED, error=error)
        except (SpoolError, OSError) as error:
            self._ended(job, Cause.SPOOL_ROOM, error, attempts=job.attempt + 1)
        except AnalysisError as error:
            self._ended(job, error.cause, error)
        except QueueError:
            raise
        except Exception as error:  # an answer that cannot be understood; the study is tried again, or not analysed
            self._ended(job, Cause.ANALYSER_ERROR, error)

    def _attempt(self, job: Job) -> None:
        log(Event.ANALYSING, study=job.study, count=len(job.files), attempt=job.attempt)
        with self._spool.private_folder() as out:
            with self._spool.lent(job.files) as files:
                result = self._process.run(files, out)
            made = self._made(result)
            placed = [(self._spool.prepare(file, one.name), one.name) for file, one in made]
            destinations = [destination.name for destination in self._settings.destinations]

            def place(study: str) -> None:
                for prepared, name in placed:
                    self._spool.place(prepared, study, name)

            try:
                files_of = [one for _, one in made]
                kept = self._queue.analysed(job, result.outcome_status, result.summary, files_of, destinations, place)
            finally:
                for prepared, _ in placed:
                    prepared.unlink(missing_ok=True)
        outcome = result.outcome_status if kept else State.SUPERSEDED
        log(Event.ANALYSED, study=job.study, count=len(made), outcome=outcome)

    def _made(self, result: AnalysisResult) -> list[tuple[Path, ResultFile]]:
        made, seen = [], set()
        for file in result.files_to_send:
            try:
                header: Header = read_header(file)
            except (ObjectError, OSError) as error:
                raise AnalysisError(Cause.ANALYSER_RESULT, f"a result cannot be sent: {words_of(error)}") from None
            if header.uid in seen:
                raise AnalysisError(Cause.ANALYSER_RESULT, "two results have the same SOP Instance UID")
            seen.add(header.uid)
            made.append((file, ResultFile(header, f"{self._spool.pseudonyms.of(header.uid)}.dcm")))
        return made

    def _ended(self, job: Job, cause: Cause, error: Exception, attempts: int | None = None) -> None:
        detail = error.detail if isinstance(error, AnalysisError) else words_of(error)
        pause = self._settings.retries.first_seconds * 2 ** (job.attempt - 1)
        longest = self._settings.retries.longest_seconds
        attempts = attempts or self._settings.analysis.attempts
        state = self._queue.not_analysed(job, cause, detail, attempts, int(min(pause, longest) * 1e6))
        log(Event.NO_RESULT, study=job.study, cause=cause, error=error, attempt=job.attempt, state=state)
