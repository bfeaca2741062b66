"""Downloads from a real server on the loopback go on where they broke off, and keep only the file that was promised."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from anomaly.errors import DatasetError
from benchmarks.datasets.cards import Archive, read_card
from benchmarks.datasets.download import fetch, terms

BODY = bytes(range(256)) * 40
DIGEST = hashlib.sha256(BODY).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves `BODY`, honours Range, breaks the first answer off in the middle if told to."""

    asked: list = []  # noqa: RUF012 - one server per test, emptied by the fixture
    breaks = False
    ranges = True

    def do_GET(self):
        begin = 0
        asked = self.headers.get("Range")
        type(self).asked.append(asked)
        if asked and self.ranges:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
        if begin >= len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(BODY) - begin))
        self.end_headers()
        if self.breaks:
            type(self).breaks = False
            self.wfile.write(BODY[begin : begin + 1000])
            return
        self.wfile.write(BODY[begin:])

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    Server.asked, Server.breaks, Server.ranges = [], False, True
    http = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/file.zip"
    http.shutdown()
    http.server_close()
    thread.join()


def archive(url, **hashes):
    return Archive.model_construct(url=url, sha256=hashes.get("sha256"), md5=hashes.get("md5"))


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    target = tmp_path / "deep" / "file.zip"
    for _ in range(2):
        assert fetch(archive(server, sha256=DIGEST), target) == target
    assert target.read_bytes() == BODY
    assert Server.asked == [None]
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]


def test_it_goes_on_where_it_broke_off(server, tmp_path):
    Server.breaks = True
    target = tmp_path / "file.zip"
    with pytest.raises(DatasetError, match="run it again, it goes on"):
        fetch(archive(server, sha256=DIGEST), target)
    assert (tmp_path / "file.zip.part").stat().st_size == 1000
    fetch(archive(server, md5=hashlib.md5(BODY).hexdigest()), target)
    assert Server.asked == [None, "bytes=1000-"]
    assert target.read_bytes() == BODY


def test_a_server_without_ranges_begins_again(server, tmp_path):
    Server.ranges = False
    (tmp_path / "file.zip.part").write_bytes(BODY[:500])
    assert fetch(archive(server, sha256=DIGEST), tmp_path / "file.zip").read_bytes() == BODY


def test_a_part_that_is_all_of_it_only_needs_its_name(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(BODY)
    assert fetch(archive(server, sha256=DIGEST), tmp_path / "file.zip").read_bytes() == BODY


def test_another_file_than_promised_is_refused(server, tmp_path):
    with pytest.raises(DatasetError, match="not 0000"):
        fetch(archive(server, sha256="0" * 64), tmp_path / "file.zip")
    assert not (tmp_path / "file.zip").exists()


def test_progress_is_told(server, tmp_path):
    told = []
    fetch(
        archive(server, sha256=DIGEST),
        tmp_path / "file.zip",
        lambda what, steps: told.append((what, steps)) or (lambda n: None),
    )
    assert told == [("file.zip, MB", 1)]


def test_nobody_there(tmp_path):
    with pytest.raises(DatasetError, match="broke off"):
        fetch(archive("http://127.0.0.1:9/file.zip"), tmp_path / "file.zip")


def test_terms_show_licence_and_who_must_not_use_it():
    text = terms(read_card("kolektor_sdd"))
    assert "CC BY-NC-SA 4.0" in text
    assert "commercial" in text
    assert "Tabernik" in text
