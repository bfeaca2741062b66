"""The queue under every order of events and crashes that hypothesis finds: nothing lost, nothing twice."""

import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from medical.pacs.database import Database
from medical.pacs.errors import AnalysisError, QueueError
from medical.pacs.headers import Header
from medical.pacs.outgoing import Outgoing
from medical.pacs.overview import Overview
from medical.pacs.queue import Queue, ResultFile
from medical.pacs.states import Cause, Receipt, State

SECOND = 1_000_000
TIMEOUT = 10 * SECOND
ATTEMPTS = 3
DESTINATIONS = ("one", "two")
STUDIES, OBJECTS = ("1.1", "1.2"), (1, 2, 3)


class CrashError(Exception):
    """Within a transaction, before it commits."""


def name_of(uid):
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def header(study, uid, digest="a"):
    return Header(uid, "1.2.840.10008.5.1.4.1.1.2", study, f"{study}.9", "1.2.840.10008.1.2.1", digest, 100)


class Machine(RuleBasedStateMachine):
    """A service that may be killed between any two transactions, and a model of what it must not forget."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="queue-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.now = 10**15
        self.accepted = {}  # SOP Instance UID -> study
        self.committed = {}  # result UID -> the objects that it was made of
        self.held = {name: [] for name in DESTINATIONS}  # what each destination took, in order
        self.offers = set()  # (destination, uid): offered before the crash or failure
        self.job, self.parcels = None, {}
        self.open()

    def open(self):
        self.database = Database.open(self.folder / "queue.sqlite", create=True)
        clock = lambda: self.now  # noqa: E731
        self.queue = Queue(self.database, name_of, clock)
        self.outgoing, self.overview = Outgoing(self.database, clock), Overview(self.database, clock)

    def teardown(self):
        self.run_out()
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(study=st.sampled_from(STUDIES), number=st.sampled_from(OBJECTS), crash=st.booleans())
    def receive(self, study, number, crash):
        uid, placed = f"{study}.{number}", []

        def place(where):
            if crash:
                raise CrashError
            placed.append(where)

        try:
            receipt = self.queue.received(header(study, uid), "PEER", f"{uid}.dcm", place)
        except CrashError:
            return
        assert (receipt is Receipt.NEW) == bool(placed)
        if uid not in self.accepted:
            assert receipt is Receipt.NEW
        self.accepted[uid] = study

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def other_content_is_refused_and_the_first_stays(self, data):
        uid = data.draw(st.sampled_from(sorted(self.accepted)))
        assert self.queue.received(header(self.accepted[uid], uid, "b"), "PEER", "x", pytest.fail) is Receipt.OTHER

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def own_results_that_come_back_are_ignored(self, data):
        uid = data.draw(st.sampled_from(sorted(self.committed)))
        assert self.queue.received(header(STUDIES[0], uid), "PEER", "x", pytest.fail) is Receipt.OWN

    @rule(seconds=st.sampled_from((1, 5, 20, 4000)))
    def time_passes(self, seconds):
        self.now += seconds * SECOND

    @rule()
    def complete(self):
        self.queue.complete(TIMEOUT)

    @precondition(lambda self: self.job is None)
    @rule()
    def claim(self):
        self.job = self.queue.claim()
        if self.job is not None:
            assert 1 <= self.job.attempt <= ATTEMPTS

    @precondition(lambda self: self.job is not None)
    @rule(crash=st.booleans(), results=st.integers(0, 2))
    def analysis_ends(self, crash, results):
        job, self.job = self.job, None
        objects = tuple(sorted(file.name.removesuffix(".dcm") for file in job.files))
        study = self.accepted[objects[0]]
        made = [
            ResultFile(header(study, f"2.{abs(hash((objects, n))) % 10**12}", str(objects)), f"r{n}")
            for n in range(results)
        ]

        def place(_):
            if crash:
                raise CrashError

        try:
            kept = self.queue.analysed(job, "ANALYSED", "", made, DESTINATIONS, place)
        except CrashError:
            self.kill()
            return
        of_study = {uid for uid, owner in self.accepted.items() if owner == study}
        assert kept == (set(objects) == of_study), "results of objects that are not all, or lost ones of all"
        if kept:
            self.committed |= {one.header.uid: objects for one in made}

    @precondition(lambda self: self.job is None and self.accepted)
    @rule(results=st.integers(1, 2))
    def what_waits_is_analysed(self, results):
        """Several steps at once, so that short sequences get to deliveries."""
        self.now += 4000 * SECOND
        self.complete()
        self.claim()
        if self.job is not None:
            self.analysis_ends(False, results)

    @precondition(lambda self: self.job is not None)
    @rule()
    def analysis_fails(self):
        job, self.job = self.job, None
        state = self.queue.not_analysed(job, Cause.ANALYSER_ENDED, "ended", ATTEMPTS, 5 * SECOND)
        assert state in (State.COMPLETE, State.NOT_ANALYSED, State.SUPERSEDED)
        assert (state is State.NOT_ANALYSED) <= (job.attempt == ATTEMPTS)

    @precondition(lambda self: self.job is not None)
    @rule()
    def graceful_stop(self):
        self.queue.put_back(self.job)
        self.kill()

    @rule(destination=st.sampled_from(DESTINATIONS), fate=st.sampled_from(("well", "down", "lost", "killed", "part")))
    def deliver(self, destination, fate):
        parcel = self.outgoing.next(destination)
        if parcel is None:
            return
        there = set(self.held[destination])
        offered = [item for item in parcel.items if item.offered]
        found = [item for item in offered if item.uid in there]
        self.outgoing.verified(destination, parcel, found)
        rest = [item for item in parcel.items if item not in found]
        for item in rest:
            assert item.uid not in there, "it is sent twice"
        if fate == "down":
            self.outgoing.failed(destination, parcel, "down", 5 * SECOND)
            return
        self.outgoing.offered(destination, rest)
        sent = rest[:1] if fate == "part" else [] if fate == "lost" else rest
        self.held[destination] += [item.uid for item in sent]
        if fate == "killed":
            self.kill()
        else:
            self.outgoing.verified(destination, parcel, sent)
            if len(sent) < len(rest):
                self.outgoing.failed(destination, parcel, "lost", 5 * SECOND)

    @rule()
    def kill(self):
        self.database.close()
        self.job = None
        self.open()
        self.queue.resume(ATTEMPTS)

    @rule()
    def retry(self):
        if self.job is None:
            self.overview.retry(None)

    @rule()
    def files_are_removed(self):
        removed = []
        self.overview.remove_done(3600 * SECOND, removed.append)
        for row in self.overview.rows(finished=True):
            if row.study in removed:
                assert row.state in (State.DELIVERED, State.NOT_ANALYSED, State.SUPERSEDED)

    @invariant()
    def nothing_is_twice(self):
        for name in DESTINATIONS:
            assert len(self.held[name]) == len(set(self.held[name]))
            assert set(self.held[name]) <= set(self.committed)

    @invariant()
    def every_object_is_known(self):
        assert self.queue.known(self.accepted) == set(self.accepted)

    @invariant()
    def delivered_means_that_everybody_holds_it(self):
        waiting = {name: 0 for name in DESTINATIONS}
        for row in self.overview.rows(finished=True):
            if row.state == State.DELIVERED:
                assert not row.waiting
            for name, count in row.waiting.items():
                waiting[name] += count

    def run_out(self):
        """With nothing failing any more everything ends: each study analysed or refused, each result everywhere."""
        self.kill()
        for _ in range(60):
            self.now += 10_000 * SECOND
            self.queue.complete(TIMEOUT)
            self.job = self.queue.claim()
            if self.job is not None:
                self.analysis_ends(False, 1)
            for name in DESTINATIONS:
                self.deliver(name, "well")
        for row in self.overview.rows(finished=True):
            assert row.state in (State.DELIVERED, State.NOT_ANALYSED, State.SUPERSEDED)
        for name in DESTINATIONS:
            assert set(self.held[name]) == set(self.committed)


# a failure of so long a sequence takes minutes to be made shorter: it is shown as it was found
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
Machine.TestCase.settings = settings(max_examples=10, stateful_step_count=40, deadline=None, phases=PHASES)
TestQueue = Machine.TestCase


@pytest.fixture
def queue(tmp_path):
    database = Database.open(tmp_path / "queue.sqlite", create=True)
    yield Queue(database, name_of)
    database.close()


def whole(queue, study, *uids):
    for uid in uids:
        queue.received(header(study, uid), "PEER", f"{uid}.dcm", lambda _: None)
    queue.complete(0)
    return queue.claim()


def test_results_must_have_uids_of_their_own(queue):
    job = whole(queue, "1.1", "1.1.1")
    for uid in ("1.1.1",):
        with pytest.raises(AnalysisError) as caught:
            queue.analysed(job, "ANALYSED", "", [ResultFile(header("1.1", uid), "r")], ("one",), lambda _: None)
        assert caught.value.cause is Cause.ANALYSER_RESULT
    assert queue.analysed(job, "ANALYSED", "", [ResultFile(header("1.1", "2.1"), "r")], ("one",), lambda _: None)
    late = whole(queue, "1.1", "1.1.2")
    with pytest.raises(AnalysisError):
        queue.analysed(late, "ANALYSED", "", [ResultFile(header("1.1", "2.1", "b"), "r")], ("one",), lambda _: None)


def test_a_late_object_to_a_study_whose_files_were_removed_asks_for_the_whole_study(tmp_path):
    now = [10**15]
    database = Database.open(tmp_path / "queue.sqlite", create=True)
    queue, overview = Queue(database, name_of, lambda: now[0]), Overview(database, lambda: now[0])
    job = whole(queue, "1.1", "1.1.1", "1.1.2")
    assert queue.analysed(job, "ANALYSED", "", [], (), lambda _: None)
    now[0] += SECOND
    assert overview.remove_done(0, lambda _: None) == 1
    again = queue.received(header("1.1", "1.1.1"), "PEER", "x", pytest.fail)
    assert again is Receipt.SAME  # a study that is done is not done twice
    assert whole(queue, "1.1", "1.1.3") is None
    (row,) = overview.rows()
    assert row.state == State.NOT_ANALYSED
    assert "OBJECTS_REMOVED" in row.error
    job = whole(queue, "1.1", "1.1.1", "1.1.2", "1.1.3")
    assert len(job.files) == 3
    database.close()


def test_a_foreign_or_newer_database_is_refused(tmp_path):
    import sqlite3

    file = tmp_path / "queue.sqlite"
    with sqlite3.connect(file) as foreign:
        foreign.execute("CREATE TABLE photographs (id)")
    foreign.close()
    with pytest.raises(QueueError, match=r"no queue of the PACS service .it has the tables photographs"):
        Database.open(file, create=True)
    file.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(QueueError, match="no SQLite database"):
        Database.open(file)
    with pytest.raises(QueueError, match="no such file"):
        Database.open(tmp_path / "other.sqlite")
