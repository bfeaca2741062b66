"""Results over MQTT 5 with QoS 1: a message has arrived when the broker has sent its PUBACK without an error.

MQTT 5 and not 3.1.1, because only there a broker says so when it refuses a message (OASIS MQTT 5.0, section 3.4.2.1).
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from anomaly.errors import SettingError
from inspection.results.errors import DeliveryError
from inspection.results.messages import Message
from inspection.results.settings import MqttSettings

ONLINE, OFFLINE = b"online", b"offline"
ANSWER_SECONDS = 10.0
"""Longest wait for the broker to acknowledge one more message."""
KEEPALIVE_SECONDS = 10


class MqttPublisher:
    """Publishes results to `topic`/results and keeps "online" or "offline" at `topic`/status, retained.

    Attributes:
        address: names the receiver across restarts.
    """

    def __init__(
        self, settings: MqttSettings, folder: Path, *, username: str | None = None, password: str | None = None
    ) -> None:
        """Keeps the settings; relative paths of certificates are relative to `folder`.

        Raises:
            SettingError: a certificate or key cannot be used.
        """
        self.address = settings.address
        self._settings = settings
        self._credentials = username, password
        self._tls = _tls(settings, folder) if settings.tls else None
        self._client: Any = None
        self._changed = threading.Condition()
        self._connected = False
        self._lost = ""
        self._answers: dict[int, str] = {}

    def open(self) -> None:
        """Connects and says "online"; the broker says "offline" for us when the connection breaks.

        Raises:
            DeliveryError: the broker is not there or refuses.
        """
        self.close()
        self._connected, self._lost = False, ""
        self._client = self._made()
        place = f"{self._settings.host}:{self._settings.port}"
        try:
            self._client.connect(self._settings.host, self._settings.port, KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:
            raise DeliveryError(f"no MQTT broker answers at {place}: {error}") from error
        self._client.loop_start()
        self._wait(lambda: self._connected)
        if not self._connected:
            raise DeliveryError(self._lost or f"the MQTT broker at {place} does not answer")
        self._publish([("status", ONLINE, True)])

    def deliver(self, messages: Sequence[Message]) -> None:
        """Publishes results and waits until the broker has acknowledged all.

        Raises:
            DeliveryError: it has not acknowledged all, or has refused one.
        """
        self._publish([("results", message.body(), False) for message in messages])

    def check(self) -> None:
        """Raises DeliveryError if the connection is lost."""
        with self._changed:
            if self._lost or not self._connected:
                raise DeliveryError(self._lost or "not connected to the MQTT broker")

    def close(self) -> None:
        """Says "offline" if it still can, and disconnects."""
        if self._client is None:
            return
        if self._connected and not self._lost:
            try:
                self._publish([("status", OFFLINE, True)])
            except DeliveryError:  # the broker says it for us: the connection is broken
                self._connected = False
        if self._connected and not self._lost:
            self._client.disconnect()
        else:
            self._drop()
        self._client.loop_stop()
        self._client = None

    def _drop(self) -> None:
        """Breaks the connection without a goodbye, so that the broker publishes the last will."""
        connection = self._client.socket()
        if connection is not None:
            with suppress(OSError):  # the other side may have been faster
                connection.shutdown(socket.SHUT_RDWR)

    def _made(self) -> Any:
        from paho.mqtt import client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        client.will_set(f"{self._settings.topic}/status", OFFLINE, qos=1, retain=True)
        username, password = self._credentials
        if username is not None:
            client.username_pw_set(username, password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.connect_timeout = ANSWER_SECONDS
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _publish(self, payloads: Sequence[tuple[str, bytes, bool]]) -> None:
        """Publishes (topic, payload, retain) and waits for every PUBACK."""
        self.check()
        self._answers.clear()
        sent = [
            self._client.publish(f"{self._settings.topic}/{topic}", payload, qos=1, retain=retain).mid
            for topic, payload, retain in payloads
        ]
        self._wait(lambda: len(self._answers) == len(sent))
        with self._changed:
            answers = [self._answers.get(mid) for mid in sent]
        delivered = next((k for k, answer in enumerate(answers) if answer != ""), len(sent))
        if delivered < len(sent):
            refused = answers[delivered]
            silent = self._lost or f"the MQTT broker has not acknowledged for {ANSWER_SECONDS:.0f} s"
            raise DeliveryError(f"the MQTT broker refuses messages: {refused}" if refused else silent, delivered)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Waits until `done()`, until the connection is lost, or until nothing has come for a while."""
        with self._changed:
            seen, limit = len(self._answers), time.monotonic() + ANSWER_SECONDS
            while not done() and not self._lost and time.monotonic() < limit:
                self._changed.wait(0.5)
                if len(self._answers) > seen:
                    seen, limit = len(self._answers), time.monotonic() + ANSWER_SECONDS

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        with self._changed:
            if code.is_failure:
                self._lost = f"the MQTT broker refuses the connection: {code}"
            else:
                self._connected = True
            self._changed.notify_all()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        with self._changed:
            self._lost = self._lost or f"the connection to the MQTT broker is lost: {code}"
            self._changed.notify_all()

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: Any, _properties: Any) -> None:
        with self._changed:
            self._answers[mid] = str(code) if code.is_failure else ""
            self._changed.notify_all()


def _tls(settings: MqttSettings, folder: Path) -> ssl.SSLContext:
    """A context that checks the broker's certificate and name."""
    try:
        context = ssl.create_default_context(cafile=folder / settings.ca_file if settings.ca_file else None)
        if settings.certificate is not None and settings.key is not None:
            context.load_cert_chain(folder / settings.certificate, folder / settings.key)
    except (OSError, ssl.SSLError) as error:
        given = [str(path) for path in (settings.ca_file, settings.certificate, settings.key) if path]
        raise SettingError(
            f"the certificates of the MQTT connection cannot be used ({', '.join(given)}): {error}"
        ) from error
    return context
