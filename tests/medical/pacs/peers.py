"""What the tests with real peers start: Orthanc, the service, and a proxy that stops traffic at a chosen moment."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

HERE = Path(__file__).parent
PLUGINS = Path("/usr/share/orthanc/plugins")
HTTP_PORT, DICOM_PORT, OUR_PORT, PROXY_PORT = 8042, 4242, 11112, 4243
WEB = f"http://127.0.0.1:{HTTP_PORT}/dicom-web"


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Orthanc:
    """A real PACS that knows us as ANOMALY."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": HTTP_PORT,
            "DicomPort": DICOM_PORT,
            "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomModalities": {"ANOMALY": ["ANOMALY", "127.0.0.1", OUR_PORT]},
            "DicomAlwaysAllowGet": True,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "ConcurrentJobs": 2,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.web = httpx.Client(base_url=f"http://127.0.0.1:{HTTP_PORT}", trust_env=False, timeout=20)

    def start(self):
        log = (self.folder / "orthanc.log").open("ab")
        self.process = subprocess.Popen(["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        log.close()
        until(lambda: reachable(HTTP_PORT) and reachable(DICOM_PORT))

    def stop(self):
        if self.process is not None:
            self.process.kill()  # it would wait for its open associations
            self.process.wait()
            self.process = None

    def empty(self):
        for study in self.web.get("/studies").json():
            self.web.delete(f"/studies/{study}")

    def add(self, file):
        return self.web.post("/instances", content=file.read_bytes()).raise_for_status().json()

    def uids(self):
        """SOP Instance UIDs of everything it holds, by QIDO-RS."""
        found = self.web.get("/dicom-web/instances", params={"limit": 1000}).raise_for_status()
        return sorted(one["00080018"]["Value"][0] for one in (found.json() if found.content else []))

    def modalities(self, study):
        """Modalities of the series of a study, by QIDO-RS."""
        found = self.web.get(f"/dicom-web/studies/{study}/series").raise_for_status().json()
        return sorted(one["00080060"]["Value"][0] for one in found)

    def send(self):
        """Sends all that it holds to us by its own C-STORE."""
        body = {"Resources": self.web.get("/studies").json(), "Synchronous": True, "Timeout": 20}
        return self.web.post("/modalities/ANOMALY/store", json=body)

    def changes(self):
        """How often it stored a new instance since it began: a second arrival of the same object is none."""
        changes = self.web.get("/changes", params={"limit": 10000}).json()["Changes"]
        return sum(change["ChangeType"] == "NewInstance" for change in changes)


class Service:
    """`anomaly triage serve` in a process of its own."""

    def __init__(self, folder, **changes):
        self.folder, self.process, self.log = folder, None, folder / "service.log"
        (folder / "marks").mkdir(parents=True, exist_ok=True)
        self.config = folder / "pacs.toml"
        self.key = changes.pop("key", "")
        model = changes.pop("model", None)
        settings = config(folder, **changes)
        if model is not None:
            settings = settings.replace("small_analyser:make", "medical.serving:analyser")
            settings = settings.replace(f'folder = "{folder / "marks"}"', f'model = "{model}"')
        self.config.write_text(settings)

    def start(self):
        env = {**os.environ, "PYTHONPATH": str(HERE), **({"ANOMALY_MEDICAL_KEY": self.key} if self.key else {})}
        command = [sys.executable, "-c", "from anomaly.cli import main; main()", "triage", "serve", "--config"]
        before = self.events("started")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, str(self.config)], stderr=log, stdout=log, env=env)
        until(lambda: len(self.events("started")) > len(before), 60)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0

    def lines(self):
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def events(self, name):
        return [line for line in self.lines() if line["event"] == name]

    def marks(self):
        return list((self.folder / "marks").iterdir())

    def rows(self):
        from medical.pacs.database import Database
        from medical.pacs.overview import Overview

        database = Database.open(self.folder / "spool" / "queue.sqlite")
        try:
            return Overview(database).rows(finished=True)
        finally:
            database.close()

    def result_uids(self):
        import sqlite3

        with sqlite3.connect(self.folder / "spool" / "queue.sqlite") as connection:
            found = sorted(row[0] for row in connection.execute("SELECT uid FROM results"))
        connection.close()
        return found

    def wait_for(self, state, count=1, seconds=60):
        until(lambda: [row.state for row in self.rows()].count(state) >= count, seconds)


TO_ORTHANC = """
type = "dicom"
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = PORT
verify = "VERIFY"
timeout_seconds = 5
"""
TO_WEB = f"""
type = "dicomweb"
name = "web"
url = "{WEB}"
"""


def config(
    folder,
    *,
    wait=0.5,
    port=DICOM_PORT,
    analyser="",
    verify="commitment",
    extra="",
    tls="",
    sender="127.0.0.1",
    destination=TO_ORTHANC,
):
    return f"""
complete_after_seconds = {wait}
[node]
ae_title = "ANOMALY"
port = {OUR_PORT}
{tls}
[[peers]]
ae_title = "ORTHANC"
host = "127.0.0.1"
[[peers]]
ae_title = "STORESCU"
host = "{sender}"
[spool]
folder = "spool"
free_gigabytes = 0
[analysis]
analyser = "small_analyser:make"
arguments = {{ folder = "{folder / "marks"}"{analyser} }}
{extra}
[[destinations]]
{destination.replace("PORT", str(port)).replace("VERIFY", verify)}
[retries]
first_seconds = 0.2
longest_seconds = 0.5
"""


def reachable(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    """Passes a connection on until the peer has answered `answers` times with data; then keeps that answer back.

    What was sent has arrived, and who sent it does not know.
    """

    def __init__(self, answers):
        self.answers, self.kept = answers, threading.Event()
        self.server = socket.create_server(("127.0.0.1", PROXY_PORT))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            peer = socket.create_connection(("127.0.0.1", DICOM_PORT))
            threading.Thread(target=self._pass, args=(client, peer), daemon=True).start()
            threading.Thread(target=self._answer, args=(peer, client), daemon=True).start()

    def _pass(self, source, target):
        with source, target:
            try:
                while data := source.recv(1 << 16):
                    target.sendall(data)
            except OSError:
                return

    def _answer(self, source, target):
        try:
            while data := source.recv(1 << 16):
                if data[:1] == b"\x04":  # P-DATA-TF, PS3.8 9.3.5
                    self.answers -= 1
                    if self.answers < 0:
                        self.kept.set()
                        return
                target.sendall(data)
        except OSError:
            return

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.server.close()


def storescu(files, *, title="STORESCU", called="ANOMALY", options=()):
    command = ["storescu", "-aet", title, "-aec", called, *options, "127.0.0.1", str(OUR_PORT), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
