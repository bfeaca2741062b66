"""DICOMweb (PS3.18) by dicomweb-client, its errors without what servers answer: QIDO-RS, WADO-RS and STOW-RS."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.errors import SettingError
from medical.pacs.errors import PeerError
from medical.pacs.headers import valid_uid
from medical.pacs.settings import Web

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STUDY, SERIES, INSTANCE, SOP_CLASS, COUNT = "0020000D", "0020000E", "00080018", "00080016", "00201208"
_PAGE = 100


class WebPeer:
    """A DICOMweb server."""

    def __init__(self, settings: Web) -> None:
        """Connects at the first question.

        Raises:
            SettingError: an environment variable of `headers_env` is not set.
        """
        from dicomweb_client import DICOMwebClient
        from requests import Session

        headers = {header: _variable(name) for header, name in settings.headers_env.items()}
        session = Session()
        session.trust_env = False  # no proxy and no .netrc unless written in the settings
        session.verify = str(settings.ca) if settings.ca else True
        if settings.certificate and settings.key:
            session.cert = (str(settings.certificate), str(settings.key))
        self._client = DICOMwebClient(
            settings.url.rstrip("/"), session=session, headers=headers, timeout=settings.timeout_seconds
        )
        self._client.set_http_retry_params(retry=False)
        self._name = settings.url

    def studies(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """Returns the studies that match, as DICOM JSON (PS3.18 annex F), page by page.

        Raises:
            PeerError: the server cannot be reached, refuses, or answers nonsense.
        """
        found: list[dict[str, Any]] = []
        with self._explained("QIDO-RS"):
            while True:
                page = self._client.search_for_studies(
                    search_filters=dict(query), fields=["NumberOfStudyRelatedInstances"], limit=_PAGE, offset=len(found)
                )
                found += page
                if len(page) < _PAGE:
                    return found

    def instances(self, study: str, series: str | None = None, uid: str | None = None) -> list[dict[str, Any]]:
        """Returns the objects of a study, or of a series, or one of them, as DICOM JSON.

        Raises:
            PeerError: as `studies`.
        """
        filters = {} if uid is None else {"SOPInstanceUID": uid}
        found: list[dict[str, Any]] = []
        with self._explained("QIDO-RS"):
            while True:
                page = self._client.search_for_instances(
                    study, series, search_filters=filters, limit=_PAGE, offset=len(found)
                )
                found += page
                if len(page) < _PAGE:
                    return found

    def stored(self, objects: Sequence[tuple[str, str, str]]) -> frozenset[str]:
        """Returns which objects the server finds; each is study, series and SOP Instance UID.

        Raises:
            PeerError: as `studies`.
        """
        found = (self.instances(*one) for one in objects)
        answers = frozenset(value(one, INSTANCE) for answer in found for one in answer)
        return answers & {uid for _, _, uid in objects}

    def fetch(self, study: str, series: str, uid: str, target: Path) -> None:
        """Writes an object to a file, in the transfer syntax in which the server keeps it.

        Raises:
            PeerError: as `studies`.
        """
        if not all(map(valid_uid, (study, series, uid))):
            raise PeerError(f"{self._name} named an object by a UID that is none (PS3.5 9.1)")
        with self._explained("WADO-RS"):
            got: Dataset = self._client.retrieve_instance(study, series, uid)
            got.save_as(target, enforce_file_format=True)

    def store(self, file: Path) -> None:
        """Sends an object by STOW-RS; what the server answers is not believed but looked for afterwards.

        Raises:
            PeerError: the server cannot be reached, or refuses.
        """
        from pydicom import dcmread

        with self._explained("STOW-RS"):
            answer = self._client.store_instances([dcmread(file)])
            failed = [int(one.get("FailureReason", 0)) for one in answer.get("FailedSOPSequence") or []]
        if failed:
            raise PeerError(f"{self._name} refused an object with failure reason {failed[0]:04X} (PS3.18 annex I.2)")

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Names the kind of an error only: its text repeats addresses with UIDs, and answers."""
        from requests import HTTPError, RequestException

        try:
            yield
        except PeerError:
            raise
        except HTTPError as error:
            status = error.response.status_code if error.response is not None else "unknown"
            raise PeerError(f"{self._name}: {what} was answered with HTTP status {status}") from None
        except RequestException as error:
            raise PeerError(f"{self._name}: {what} failed: {type(error).__name__}; is it running?") from None
        except OSError as error:
            raise PeerError(f"{self._name}: {what} failed: {type(error).__name__}") from None
        except Exception as error:  # answers that are no DICOM raise many kinds
            raise PeerError(
                f"{self._name}: {what} gave an answer that cannot be read ({type(error).__name__})"
            ) from None


def value(found: Mapping[str, Any], tag: str) -> str:
    """Returns the first value of an attribute in DICOM JSON; "" where there is none."""
    values = found.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _variable(name: str) -> str:
    text = os.environ.get(name)
    if not text:
        raise SettingError(f"the environment variable {name}, which headers_env names, is not set")
    return text
