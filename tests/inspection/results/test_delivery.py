"""Every result reaches every receiver, in order, across refusals, restarts and kills; nothing is dropped."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from inspection.parts import Defect, Inspected, PartResult, Reason
from inspection.results.errors import DeliveryError
from inspection.results.files import CsvPublisher, JsonlPublisher
from inspection.results.messages import Message, ResultMessage, message_id, schema
from inspection.results.publisher import MemoryPublisher
from inspection.results.records import Run, StoredResult
from inspection.results.reporting import Reporter, open_store
from inspection.results.settings import ResultsSettings

WRITER = Path(__file__).with_name("writer.py")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCRATCH = Defect(
    id=1,
    x_mm=1.5,
    y_mm=2.5,
    box_px=(1, 2, 3, 4),
    area_mm2=0.5,
    length_mm=2.0,
    width_mm=0.25,
    peak=9.0,
    mean=7.0,
    p_value=0.01,
    severity="scratch",
)


def seen(part: object, **values: Any) -> Inspected:
    standard = {"decision": Decision.OK, "reason": Reason.SCORE, "score": 1.5, "p_value": 0.25}
    return Inspected(PartResult(part=str(part), source="camera", captured=NOON, **standard | values))


def settings(*publishers: dict[str, Any], **values: Any) -> ResultsSettings:
    return ResultsSettings.model_validate({"pictures": {"overlay": ()}, "publishers": publishers, **values})


def run() -> Run:
    return Run.now(recipe="r", model="m")


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it has not happened in time"
        time.sleep(0.02)


def parts(publisher: MemoryPublisher) -> list[str]:
    return [message.content.part for message in publisher.received]


def test_results_are_delivered_in_order_and_leave_the_outbox(tmp_path: Path) -> None:
    receivers = [MemoryPublisher("one"), MemoryPublisher("two")]
    with Reporter.open(settings(), tmp_path, run(), publishers=receivers) as reporter:
        for k in range(0, 250, 25):
            reporter.report([seen(part) for part in range(k, k + 25)])
        reporter.report([seen(3)])  # once more: no second message
    for receiver in receivers:
        assert parts(receiver) == [str(part) for part in range(250)]
        assert len({message.id for message in receiver.received}) == 250
        assert not receiver.is_open
    with open_store(settings(), tmp_path) as store, store.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT min(delivered), max(delivered) FROM outbox").one() == (250, 250)


def test_what_a_receiver_refuses_waits_with_an_alarm_and_comes_when_it_is_back(tmp_path: Path) -> None:
    receiver, other = MemoryPublisher("broken"), MemoryPublisher("well")
    with Reporter.open(settings(alarm_messages=5), tmp_path, run(), publishers=[receiver, other]) as reporter:
        receiver.fails = "no paper"
        reporter.report([seen(part) for part in range(6)])
        wait_for(lambda: bool(parts(other)) and len(reporter.problems()) == 2)
        refused, alarm = reporter.problems()
        assert (refused.where, refused.what, refused.waiting) == ("broken", "no paper", 6)
        assert "6 messages wait, more than 5" in alarm.what
        first = refused.since
        time.sleep(0.6)
        assert reporter.problems()[0].since == first
        receiver.fails = ""
        wait_for(lambda: reporter.problems() == [])
    assert parts(receiver) == parts(other) == ["0", "1", "2", "3", "4", "5"]


def test_the_rest_is_kept_for_the_next_start_and_comes_before_what_is_new(tmp_path: Path) -> None:
    receiver = MemoryPublisher()
    receiver.fails = "away"
    reporter = Reporter.open(settings(), tmp_path, run(), publishers=[receiver])
    reporter.report([seen("old 1"), seen("old 2")])
    begin = time.monotonic()
    reporter.close(limit_seconds=0.5)
    assert time.monotonic() - begin < 3
    receiver.fails = ""
    with Reporter.open(settings(), tmp_path, run(), publishers=[receiver]) as reporter:
        reporter.report([seen("new")])
    assert parts(receiver) == ["old 1", "old 2", "new"]


class Stutterer(MemoryPublisher):
    """Acknowledges three messages, then breaks, again and again; like a peer that crashes."""

    def deliver(self, messages: Any) -> None:
        super().deliver(messages[:3])
        if len(messages) > 3:
            raise DeliveryError("crashed", 3)


def test_an_acknowledged_beginning_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspection.results.delivery.FIRST_PAUSE", 0.01)
    receiver = Stutterer()
    with Reporter.open(settings(), tmp_path, run(), publishers=[receiver]) as reporter:
        reporter.report([seen(part) for part in range(10)])
    assert parts(receiver) == [str(part) for part in range(10)]


def test_messages_for_a_receiver_that_left_the_recipe_are_not_forgotten(tmp_path: Path) -> None:
    gone = MemoryPublisher("gone")
    gone.fails = "away"
    reporter = Reporter.open(settings(), tmp_path, run(), publishers=[gone])
    reporter.report([seen("a")])
    reporter.close(limit_seconds=0.1)
    with Reporter.open(settings(), tmp_path, run(), publishers=[]) as reporter:
        (problem,) = reporter.problems()
        assert (problem.where, problem.waiting) == ("gone", 1)
        assert "add it again" in problem.what


def test_of_two_lines_with_one_receiver_one_delivers_for_both(tmp_path: Path) -> None:
    one, other = MemoryPublisher("shared"), MemoryPublisher("shared")
    first = Reporter.open(settings(), tmp_path, run(), publishers=[one])
    wait_for(lambda: one.is_open)
    with Reporter.open(settings(), tmp_path, run(), publishers=[other]) as second:
        first.report([seen("a")])
        second.report([seen("b")])
        wait_for(lambda: parts(one) == ["a", "b"])
        first.close()
        second.report([seen("c")])
        wait_for(lambda: parts(other) == ["c"])


def test_the_message_says_all_and_its_schema_file_is_current() -> None:
    result = seen("7\udc80", decision=Decision.NG, reason=Reason.DEFECTS, defects=(SCRATCH,), milliseconds={"a": 1.5})
    message = Message.of(StoredResult(id=1, run="r1", result=result.result))
    sent = json.loads(message.body())
    assert ResultMessage.model_validate_json(message.body()) == message.content
    assert (sent["part"], sent["decision"], sent["milliseconds"]) == ("7\x1bdc80", "NG", {"a": 1.5})
    assert sent["defects"][0]["box_px"] == [1, 2, 3, 4]
    assert sent["id"] == message_id("r1", "7\udc80") != message_id("r17", "\udc80")
    stored = json.loads((Path(__file__).parents[3] / "docs" / "results.schema.json").read_text())
    assert stored == schema(), "write it again: see docs/results.md"


def stored(part: str, **values: Any) -> Message:
    return Message.of(StoredResult(id=1, run="r", result=seen(part, **values).result))


def test_csv_has_one_header_and_one_line_per_part_whatever_the_id(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    hostile = ["plain", 'a,"b"', "two\nlines", "=cmd()", "\0", "é"]
    for begin in (0, 3):
        publisher = CsvPublisher(path)
        publisher.open()
        publisher.deliver([stored(part, defects=(SCRATCH,)) for part in hostile[begin : begin + 3]])
        publisher.close()
    assert len(path.read_text().splitlines()) == 7
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["part"] for row in rows] == ["plain", 'a,"b"', "two\\u000alines", "'=cmd()", "\\u001b0000", "é"]
    assert {row["worst_severity"] for row in rows} == {"scratch"}
    assert float(rows[0]["score"]) == 1.5


@pytest.mark.parametrize("kind", [CsvPublisher, JsonlPublisher])
def test_half_a_line_of_a_killed_writer_is_cut_off_and_foreign_files_are_not_touched(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    publisher = kind(path)
    publisher.open()
    publisher.deliver([stored("a")])
    publisher.close()
    whole = path.read_bytes()
    path.write_bytes(whole + publisher.line(stored("b"))[:-5])
    publisher.open()
    assert path.read_bytes() == whole
    publisher.deliver([stored("b")])
    publisher.check()
    path.rename(tmp_path / "rotated")
    with pytest.raises(DeliveryError, match="moved or deleted"):
        publisher.check()
    publisher.close()
    for content in (b"my diary", b"part,score\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(DeliveryError, match="holds something else"):
            kind(path).open()
        assert path.read_bytes() == content


def test_jsonl_and_csv_of_a_recipe_lie_beside_it(tmp_path: Path) -> None:
    chosen = settings({"type": "csv", "path": "out/a.csv"}, {"type": "jsonl", "path": "out/a.jsonl"})
    with Reporter.open(chosen, tmp_path, run()) as reporter:
        reporter.report([seen("a"), seen("b", decision=Decision.NG)])
    lines = [json.loads(line) for line in (tmp_path / "out" / "a.jsonl").read_text().splitlines()]
    assert [(line["part"], line["decision"]) for line in lines] == [("a", "OK"), ("b", "NG")]
    assert len((tmp_path / "out" / "a.csv").read_text().splitlines()) == 3


@pytest.mark.peer
def test_the_outbox_works_in_postgresql_too(postgresql: Any, tmp_path: Path) -> None:
    chosen = settings(database=postgresql.database())
    one, other = MemoryPublisher("shared"), MemoryPublisher("shared")
    one.fails = "away"
    reporter = Reporter.open(chosen, tmp_path, run(), publishers=[one])
    reporter.report([seen("old")])
    reporter.close(limit_seconds=0.1)
    one.fails = ""
    with Reporter.open(chosen, tmp_path, run(), publishers=[one]) as first:
        wait_for(lambda: parts(one) == ["old"])
        with Reporter.open(chosen, tmp_path, run(), publishers=[other]) as second:
            second.report([seen(part) for part in range(150)])
            first.report([seen("last")])
            wait_for(lambda: len(one.received) == 152)
    assert [part for part in parts(one) if part not in ("old", "last")] == [str(part) for part in range(150)]
    assert (parts(one)[0], parts(other)) == ("old", [])
    assert not list(tmp_path.glob("*.sqlite*"))


@pytest.mark.peer
def test_a_right_to_deliver_that_was_lost_is_not_used(postgresql: Any, tmp_path: Path) -> None:
    chosen = settings(database=postgresql.database())
    one, other = MemoryPublisher("shared"), MemoryPublisher("shared")
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    locks = f"FROM pg_locks WHERE locktype = 'advisory' AND database = {here}"
    with (
        Reporter.open(chosen, tmp_path, run(), publishers=[one]) as first,
        Reporter.open(chosen, tmp_path, run(), publishers=[other]) as second,
    ):
        wait_for(lambda: one.is_open or other.is_open)
        with first.store.database.writing() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {locks}")
        wait_for(lambda: not (one.is_open and other.is_open))
        for part in range(20):
            (first, second)[part % 2].report([seen(part)])
        wait_for(lambda: len(one.received) + len(other.received) == 20)
        assert not (one.is_open and other.is_open)
        assert sorted(map(int, parts(one) + parts(other))) == list(range(20))
        with first.store.database.reading() as connection:
            assert connection.exec_driver_sql(f"SELECT count(*) {locks}").scalar_one() == 1


class Hook(BaseHTTPRequestHandler):
    """Answers 503 to the first requests, then 204; keeps what it took."""

    refusals = 3
    taken: list[tuple[str, str, dict[str, Any]]] = []  # noqa: RUF012 - one server per test resets it

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refuse, Hook.refusals = Hook.refusals > 0, Hook.refusals - 1
        if not refuse:
            Hook.taken.append((self.headers["Idempotency-Key"], self.headers["Authorization"], json.loads(body)))
        self.send_response(503 if refuse else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.refusals, Hook.taken = 3, []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/results"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_that_fails_at_first_gets_everything_once(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINE_TOKEN", "Bearer 123")
    chosen = settings({"type": "webhook", "url": hook, "headers_env": {"Authorization": "LINE_TOKEN"}})
    with Reporter.open(chosen, tmp_path, run()) as reporter:
        reporter.report([seen(part) for part in range(5)])
        wait_for(lambda: any("503" in problem.what for problem in reporter.problems()))
        wait_for(lambda: len(Hook.taken) == 5)
    assert [body["part"] for _, _, body in Hook.taken] == ["0", "1", "2", "3", "4"]
    assert all(key == body["id"] and secret == "Bearer 123" for key, secret, body in Hook.taken)
    assert "Bearer" not in "".join(path.read_text(errors="replace") for path in tmp_path.glob("results.sqlite*"))


def test_a_secret_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    chosen = settings({"type": "webhook", "url": "http://127.0.0.1:1/", "headers_env": {"X": "NOT_SET_ANYWHERE"}})
    with pytest.raises(SettingError, match="NOT_SET_ANYWHERE"):
        Reporter.open(chosen, tmp_path, run())


def killed_writer(folder: Path, chosen: ResultsSettings, lines: int) -> list[str]:
    """Ids that a writer had reported before it was killed in full flight."""
    command = [sys.executable, str(WRITER), str(folder), chosen.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported = [writer.stdout.readline().strip() for _ in range(lines)]
        os.kill(writer.pid, signal.SIGKILL)
        reported += writer.stdout.read().split()
    return reported


def test_after_kill_9_all_that_was_reported_is_there_and_is_delivered(tmp_path: Path) -> None:
    chosen = settings({"type": "jsonl", "path": "all.jsonl"})
    reported = killed_writer(tmp_path, chosen, 40)
    with open_store(chosen, tmp_path) as store:
        kept = [one.result.part for one in store.results()]
    assert kept[: len(reported)] == reported
    assert len(kept) <= len(reported) + 1
    with Reporter.open(chosen, tmp_path, run()) as reporter:
        reporter.report([seen("after")])
    lines = [json.loads(line)["part"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(lines)) == [*kept, "after"]
