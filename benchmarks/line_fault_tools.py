"""What faults are brought about with: recipe and images, the real command, a small disk, a broker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anomaly.errors import DatasetError
from anomaly.fitting import Plan
from anomaly.images import list_images
from anomaly.images.synthetic import write_dataset
from inspection.recipe.choosing import Wishes
from inspection.recipe.making import make_recipe

SIZE = (64, 64)
BALLAST = "ballast"
_PATIENCE_S = 120.0
_REFUSED = 2


def recipe_in(folder: Path, more: str = "", **line: Any) -> Path:
    """Makes a recipe for small parts."""
    data, path = folder / "normals", folder / "part.toml"
    write_dataset(data, "brushed_metal", 24, 0, 0, SIZE, seed=0)
    make_recipe(list_images([data]), path, Wishes(pixel_size_mm=0.1, plan=Plan()), [])
    text = path.read_text(encoding="utf-8")
    for key, value in line.items():
        text = text.replace("\n[line]\n", f"\n[line]\n{key} = {json.dumps(value)}\n")
    text = text.replace("\n[results.pictures]\n", "\n[results.pictures]\nraw = []\noverlay = []\n")
    path.write_text(text + "\n" + more, encoding="utf-8")
    return path


def image_files(folder: Path, count: int) -> list[Path]:
    """Draws ten parts, and copies them until there are enough."""
    drawn, images = folder / "drawn", folder / "images"
    write_dataset(drawn, "brushed_metal", 10, 0, 0, SIZE, seed=7)
    images.mkdir()
    originals = list_images([drawn])
    return [Path(shutil.copy(originals[k % 10], images / f"{k:04d}.png")) for k in range(count)]


def moved(images: Sequence[Path], folder: Path) -> Path:
    """Moves files into a new folder; returns it."""
    folder.mkdir()
    for path in images:
        path.rename(folder / path.name)
    return folder


def started(recipe: Path, source: str) -> "subprocess.Popen[str]":
    """Starts the real command on a source."""
    command = [
        str(Path(sys.executable).with_name("anomaly")),
        "inspect",
        "run",
        str(recipe),
        "--source",
        source,
        "--json",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 - this suite's own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any], str]:
    """Waits for the command; returns exit status, summary and standard error."""
    output, error = process.communicate(timeout=_PATIENCE_S)
    if not output and process.returncode != _REFUSED:
        raise DatasetError(f"the command ended with {process.returncode}: {error[-500:]}")
    return process.returncode, json.loads(output) if output else {}, error


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Waits until a condition holds.

    Raises:
        DatasetError: the command ended before, or took too long.
    """
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.send_signal(signal.SIGKILL)
            raise DatasetError(f"the command ended too early or did nothing: {process.communicate()[1][-500:]}")
        time.sleep(0.05)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mounts a disk of 2 MiB while the block lasts.

    Raises:
        DatasetError: that is not allowed here.
    """
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    if mounted.returncode:
        raise DatasetError(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S603, S607 - fixed words


def fill(disk: Path) -> Path:
    """Leaves no byte free; returns the file that takes the room."""
    ballast = disk / BALLAST
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            return ballast
    raise DatasetError(f"{disk} cannot be filled")


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(program: str, port: int, folder: Path) -> Iterator[None]:
    """Runs mosquitto while the block lasts."""
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n", encoding="utf-8")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(settings)], stdout=log, stderr=log)  # noqa: S603 - a broker
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def subscriber(port: int, topic: str) -> Iterator[list[str]]:
    """Yields a list that receives the ids of messages."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    received: list[str] = []
    ready = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda *words: received.append(json.loads(words[2].payload)["id"])
    client.on_subscribe = lambda *words: ready.set()
    client.on_connect = lambda *words: client.subscribe(topic, qos=1)
    for _ in range(100):
        try:
            client.connect("127.0.0.1", port)
            break
        except OSError:
            time.sleep(0.1)
    client.loop_start()
    try:
        ready.wait(10)
        yield received
    finally:
        client.disconnect()
        client.loop_stop()
