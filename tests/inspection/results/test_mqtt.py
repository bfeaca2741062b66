"""A real broker (Debian's mosquitto) gets every result, also across its restart, and says when the line has died."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from inspection.parts import Inspected, PartResult, Reason
from inspection.results.mqtt import MqttPublisher
from inspection.results.outbox import Outbox
from inspection.results.records import Run
from inspection.results.reporting import Reporter
from inspection.results.settings import MqttSettings, ResultsSettings

pytestmark = pytest.mark.peer
WRITER = Path(__file__).with_name("writer.py")


def seen(part: object) -> Inspected:
    return Inspected(
        PartResult(
            part=str(part), source="", captured=datetime.now(UTC), decision=Decision.NG, reason=Reason.ERROR, detail="x"
        )
    )


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it has not happened in time"
        time.sleep(0.02)


class Listener:
    """A subscriber with a session that the broker keeps while it is away."""

    def __init__(self, port: int) -> None:
        from paho.mqtt import client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self.parts: list[str] = []
        self.status: list[str] = []
        self.subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([("plant/line-3/#", 1)])
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.subscribed.wait(10)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if message.topic == "plant/line-3/status":
            self.status.append(message.payload.decode())
        elif message.topic == "plant/line-3/results":
            self.parts.append(json.loads(message.payload)["part"])

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(mosquitto: Any) -> Iterator[Listener]:
    opened = Listener(mosquitto.port)
    yield opened
    opened.close()


def settings(port: int) -> ResultsSettings:
    broker = {"type": "mqtt", "port": port, "topic": "plant/line-3", "client_id": "line-3"}
    return ResultsSettings.model_validate({"pictures": {"overlay": ()}, "publishers": [broker]})


def run() -> Run:
    return Run.now(recipe="r", model="m")


def test_every_result_is_received_across_a_restart_of_the_broker(
    mosquitto: Any, listener: Listener, tmp_path: Path
) -> None:
    reporter = Reporter.open(settings(mosquitto.port), tmp_path, run())
    for part in range(60):
        reporter.report([seen(part)])
        if part == 20:
            wait_for(lambda: "20" in listener.parts)
            mosquitto.stop()
        if part == 40:
            wait_for(lambda: any("MQTT broker" in problem.what for problem in reporter.problems()))
            assert max(problem.waiting for problem in reporter.problems()) > 0
            mosquitto.start()
    wait_for(lambda: "59" in listener.parts)
    reporter.close()
    wait_for(lambda: listener.status[-1] == "offline")
    assert list(dict.fromkeys(listener.parts)) == [str(part) for part in range(60)]
    assert listener.status[0] == "online"


def test_a_broker_that_is_away_at_the_start_and_the_end_gets_all_at_the_next_start(
    mosquitto: Any, listener: Listener, tmp_path: Path
) -> None:
    mosquitto.stop()
    reporter = Reporter.open(settings(mosquitto.port), tmp_path, run())
    reporter.report([seen("a"), seen("b")])
    reporter.close(limit_seconds=0.3)
    mosquitto.start()
    with Reporter.open(settings(mosquitto.port), tmp_path, run()) as reporter:
        reporter.report([seen("c")])
        wait_for(lambda: listener.parts == ["a", "b", "c"])


def test_when_the_line_is_killed_the_broker_says_so_and_the_rest_comes_later(
    mosquitto: Any, listener: Listener, tmp_path: Path
) -> None:
    chosen = settings(mosquitto.port)
    command = [sys.executable, str(WRITER), str(tmp_path), chosen.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported = [writer.stdout.readline().strip() for _ in range(30)]
        wait_for(lambda: "5" in listener.parts)
        os.kill(writer.pid, signal.SIGKILL)
        reported += writer.stdout.read().split()
    wait_for(lambda: listener.status == ["online", "offline"])
    with Reporter.open(chosen, tmp_path, run()) as reporter:
        reporter.report([seen("after")])
        wait_for(lambda: "after" in listener.parts)
    received = list(dict.fromkeys(listener.parts))
    assert received[: len(reported)] == reported
    assert received[-1] == "after"
    assert len(received) <= len(reported) + 2


def test_a_refused_message_stays_in_the_outbox(mosquitto: Any, tmp_path: Path) -> None:
    mosquitto.stop()
    rules = tmp_path / "acl"
    rules.write_text("topic write plant/line-3/status\n")
    mosquitto.extra = f"acl_file {rules}\n"
    mosquitto.start()
    reporter = Reporter.open(settings(mosquitto.port), tmp_path, run())
    reporter.report([seen("a")])
    wait_for(lambda: any("refuses messages: Not authorized" in problem.what for problem in reporter.problems()))
    assert reporter.problems()[0].waiting == 1
    reporter.close(limit_seconds=0.1)


def test_a_user_needs_the_password_of_the_environment(
    mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mosquitto.stop()
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "line", "secret"], check=True)
    mosquitto.extra = f"allow_anonymous false\npassword_file {passwords}\n"
    mosquitto.start()
    broker = {
        "type": "mqtt",
        "port": mosquitto.port,
        "client_id": "line-3",
        "username_env": "LINE_USER",
        "password_env": "LINE_PASSWORD",
    }
    chosen = ResultsSettings.model_validate({"pictures": {"overlay": ()}, "publishers": [broker]})
    monkeypatch.setenv("LINE_USER", "line")
    monkeypatch.setenv("LINE_PASSWORD", "wrong")
    reporter = Reporter.open(chosen, tmp_path, run())
    wait_for(lambda: any("refuses the connection: Not authorized" in p.what for p in reporter.problems()))
    reporter.close(limit_seconds=0.1)
    monkeypatch.setenv("LINE_PASSWORD", "secret")
    with Reporter.open(chosen, tmp_path, run()) as reporter:
        reporter.report([seen("a")])
        wait_for(lambda: Outbox(reporter.store.database).receivers() == [])


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")  # paho leaves it to the garbage collector
def test_tls_needs_a_certificate_that_is_trusted(mosquitto: Any, tmp_path: Path) -> None:
    mosquitto.stop()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    mosquitto.extra = f"certfile {certificate}\nkeyfile {key}\n"
    mosquitto.start()

    def publisher(**values: Any) -> MqttPublisher:
        return MqttPublisher(
            MqttSettings(type="mqtt", port=mosquitto.port, client_id="c", tls=True, **values), tmp_path
        )

    trusting = publisher(ca_file=Path("certificate.pem"))
    trusting.open()
    trusting.check()
    trusting.close()
    with pytest.raises(Exception, match=r"(?i)certificate verify failed"):
        publisher().open()
    with pytest.raises(SettingError, match=r"none\.pem"):
        publisher(ca_file=Path("none.pem"))
