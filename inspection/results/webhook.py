"""Results over HTTP: each is posted as JSON, in order; an answer 2xx acknowledges it, any other is tried again."""

from collections.abc import Mapping, Sequence
from typing import Any

from inspection.results.errors import DeliveryError
from inspection.results.messages import Message
from inspection.results.settings import WebhookSettings


class WebhookPublisher:
    """Posts results. The header Idempotency-Key holds the id of the message.

    Proxies of the environment are not used, redirects are not followed: a result goes where the recipe says.

    Attributes:
        address: names the receiver across restarts.
    """

    def __init__(self, settings: WebhookSettings, headers: Mapping[str, str]) -> None:
        """Keeps the settings and the headers with their secret values."""
        self.address = settings.address
        self._settings = settings
        self._headers = dict(headers)
        self._client: Any = None

    def open(self) -> None:
        """Makes the client; the connection is made by the first message."""
        import httpx

        self.close()
        self._client = httpx.Client(headers=self._headers, timeout=self._settings.timeout_seconds, trust_env=False)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Posts messages one by one.

        Raises:
            DeliveryError: one was not answered with 2xx.
        """
        import httpx

        for delivered, message in enumerate(messages):
            headers = {"Content-Type": "application/json", "Idempotency-Key": message.id}
            try:
                answer = self._client.post(self._settings.url, content=message.body(), headers=headers)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = str(error) or type(error).__name__
                raise DeliveryError(f"{self._settings.url} does not answer: {reason}", delivered) from error
            if not answer.is_success:
                said = " ".join(answer.text[:200].split())
                reason = f"{self._settings.url} answers {answer.status_code} {answer.reason_phrase}: {said}"
                raise DeliveryError(reason.rstrip(": "), delivered)

    def check(self) -> None:
        """Does nothing: there is no lasting connection."""

    def close(self) -> None:
        """Closes the client."""
        if self._client is not None:
            self._client.close()
            self._client = None
