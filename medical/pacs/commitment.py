"""Reports of storage commitments (PS3.4 annex J): a peer says which objects it will keep safely.

The report answers a transaction and may come on the association of the request or on a new one; after a restart a new
transaction asks again, so that nothing of it needs to be stored.
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Report:
    """What a peer says of the objects of one transaction.

    Attributes:
        held: SOP Instance UIDs that it keeps.
        failed: SOP Instance UID -> Failure Reason (0008,1197), PS3.3 C.14.1.1.
    """

    held: frozenset[str]
    failed: dict[str, int]


class Reports:
    """Hands reports from the server, which gets them, to the delivery, which waits for them."""

    def __init__(self) -> None:
        """Waits for nothing."""
        self._waiting: set[str] = set()
        self._reports: dict[str, Report] = {}
        self._news = threading.Condition()

    def expect(self, transaction: str) -> None:
        """Says that the report of a transaction will be waited for; to be called before the request is sent."""
        with self._news:
            self._waiting.add(transaction)

    def received(self, information: "Dataset") -> None:
        """Takes the Event Information of an N-EVENT-REPORT (PS3.4 table J.3-3); others than expected are ignored."""
        transaction = str(information.get("TransactionUID", ""))
        held = frozenset(
            str(one.get("ReferencedSOPInstanceUID", "")) for one in information.get("ReferencedSOPSequence") or []
        )
        failed = {
            str(one.get("ReferencedSOPInstanceUID", "")): int(one.get("FailureReason", 0))
            for one in information.get("FailedSOPSequence") or []
        }
        with self._news:
            if transaction in self._waiting:
                self._reports[transaction] = Report(held - failed.keys(), failed)
                self._news.notify_all()

    def wait(self, transaction: str, seconds: float) -> Report | None:
        """Returns the report of an expected transaction; None if it does not come in time."""
        with self._news:
            self._news.wait_for(lambda: transaction in self._reports, seconds)
            self._waiting.discard(transaction)
            return self._reports.pop(transaction, None)
