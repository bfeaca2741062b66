"""Receivers of results: what one must be able to do, one for tests that keeps all in memory, and how settings make one.

A new kind of receiver needs settings (`settings.py`), a class with the four methods of `Publisher`, and a line in
`make_publisher`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from anomaly.errors import SettingError
from inspection.results.errors import DeliveryError
from inspection.results.messages import Message
from inspection.results.settings import CsvSettings, JsonlSettings, MqttSettings, PublisherSettings


class Publisher(Protocol):
    """Delivers messages to one receiver. Its methods are called by one thread.

    Attributes:
        address: names the receiver across restarts; what waits in the outbox waits under this name.
    """

    address: str

    def open(self) -> None:
        """Connects.

        Raises:
            DeliveryError: the receiver is not there.
        """
        ...

    def deliver(self, messages: Sequence[Message]) -> None:
        """Sends messages in order and returns when the receiver has acknowledged all of them.

        Raises:
            DeliveryError: it has not; says how many it has, from the first. `close` and `open` are called next.
        """
        ...

    def check(self) -> None:
        """Is called about once a second while there is nothing to deliver.

        Raises:
            DeliveryError: the connection is lost.
        """
        ...

    def close(self) -> None:
        """Lets go of the receiver, also of a lost one; never raises."""
        ...


class MemoryPublisher:
    """A receiver for tests, in memory.

    Attributes:
        address: its name.
        received: all messages that it has acknowledged.
        fails: while this is not empty, it acknowledges nothing and gives this as the reason.
        is_open: whether it is open.
    """

    def __init__(self, address: str = "memory") -> None:
        """Starts empty and willing."""
        self.address = address
        self.received: list[Message] = []
        self.fails = ""
        self.is_open = False

    def open(self) -> None:
        """Opens, unless it `fails`."""
        self.check()
        self.is_open = True

    def deliver(self, messages: Sequence[Message]) -> None:
        """Keeps the messages, unless it `fails`."""
        for delivered, message in enumerate(messages):
            if self.fails:
                raise DeliveryError(self.fails, delivered)
            self.received.append(message)

    def check(self) -> None:
        """Raises if it `fails`."""
        if self.fails:
            raise DeliveryError(self.fails)

    def close(self) -> None:
        """Closes."""
        self.is_open = False


def make_publisher(settings: PublisherSettings, folder: Path) -> Publisher:
    """Returns the publisher of settings; nothing is connected yet.

    Args:
        settings: of one receiver.
        folder: of the recipe; relative paths are relative to it.

    Raises:
        SettingError: an environment variable that holds a secret is not set.
    """
    if isinstance(settings, MqttSettings):
        from inspection.results.mqtt import MqttPublisher

        return MqttPublisher(
            settings, folder, username=secret(settings.username_env), password=secret(settings.password_env)
        )
    if isinstance(settings, CsvSettings | JsonlSettings):
        from inspection.results.files import CsvPublisher, JsonlPublisher

        path = folder.absolute() / settings.path
        return CsvPublisher(path) if isinstance(settings, CsvSettings) else JsonlPublisher(path)
    from inspection.results.webhook import WebhookPublisher

    return WebhookPublisher(settings, {header: secret(name) or "" for header, name in settings.headers_env.items()})


def secret(name: str | None) -> str | None:
    """Returns the value of an environment variable; None for None.

    Raises:
        SettingError: it is not set or empty.
    """
    if name is None:
        return None
    value = os.environ.get(name, "")
    if not value:
        raise SettingError(f"the recipe reads a secret from the environment variable {name}, which is not set")
    return value
