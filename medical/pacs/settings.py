"""The settings of the PACS service: a TOML file, checked when it is read. `example.toml` beside this file explains it.

Relative paths are relative to the folder of the file. A secret never stands in the file: settings that end in `_env`
name the environment variable that holds it.
"""

import ipaddress
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from anomaly.settings_file import HeadersEnv, Section, WebAddress
from medical.pacs.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MEGABYTE, GIGABYTE = 10**6, 10**9


def _absolute(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", ".")).absolute() / path


FilePath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]


def ae_title(text: str) -> str:
    """Checks an AE title: 1 to 16 printable ASCII characters without backslash, no blanks around (PS3.5 6.2).

    Raises:
        ValueError: it is none.
    """
    if not 1 <= len(text) <= 16 or text != text.strip() or any(not " " <= c <= "~" or c == "\\" for c in text):
        raise ValueError(r"must be 1 to 16 ASCII characters without \ and without blanks around")
    return text


AeTitle = Annotated[str, AfterValidator(ae_title)]


class Tls(Section):
    """Certificates (PEM) for DICOM over TLS and HTTPS; both sides show theirs (PS3.15 B.9, BCP 195).

    Attributes:
        certificate: of this service, with its chain.
        key: its private key, without a passphrase; only its owner may read it.
        ca: certificates that sign those of the peers; nothing else is trusted.
    """

    certificate: FilePath
    key: FilePath
    ca: FilePath


class Node(Section):
    """This service.

    Attributes:
        ae_title: its AE title; associations that call another one are refused.
        address: IP address that it listens on. The loopback unless another one is written.
        port: TCP port.
        tls: certificates; without them everything is sent in the clear.
        associations: how many peers may send at once.
    """

    ae_title: AeTitle
    address: str = "127.0.0.1"
    port: int = Field(default=11112, ge=1, le=65535)
    tls: Tls | None = None
    associations: int = Field(default=10, ge=1, le=100)

    @field_validator("address")
    @classmethod
    def _ip(cls, address: str) -> str:
        ipaddress.ip_address(address)
        return address

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


class Peer(Section):
    """Who may send: an AE title together with the host that it comes from.

    Attributes:
        ae_title: calling AE title.
        host: IP address, or a name that is looked up when the service starts.
    """

    ae_title: AeTitle
    host: str = Field(min_length=1)


class SpoolSettings(Section):
    """Where objects and the queue are kept, and how much.

    Attributes:
        folder: private folder of one service, on a disk of this machine.
        key_file: file with the key of encryption and pseudonyms; else the environment variable ANOMALY_MEDICAL_KEY.
        keep_hours: how long files stay after the study is done; rows of the queue stay.
        max_object_megabytes: larger objects are refused.
        max_waiting_studies: no further studies are taken while more than this wait for their analysis.
        free_gigabytes: nothing is taken while the disk has less room.
    """

    folder: FilePath
    key_file: FilePath | None = None
    keep_hours: float = Field(default=24.0, ge=0)
    max_object_megabytes: float = Field(default=2000.0, gt=0)
    max_waiting_studies: int = Field(default=1000, ge=1)
    free_gigabytes: float = Field(default=5.0, ge=0)


class FolderSettings(Section):
    """A drop folder.

    Attributes:
        path: files that lie in it, or in folders within it, are taken and removed; refused ones go to `refused`.
        settle_seconds: a file is taken when it has not changed for so long.
        every_seconds: how often the folder is looked at.
    """

    path: FilePath
    settle_seconds: float = Field(default=5.0, ge=0)
    every_seconds: float = Field(default=2.0, gt=0)


class Web(Section):
    """A DICOMweb server.

    Attributes:
        url: root of QIDO-RS, WADO-RS and STOW-RS, e.g. http://127.0.0.1:8042/dicom-web; no user and password.
        headers_env: header -> name of the environment variable with its value, e.g. {Authorization = "PACS_TOKEN"}.
        timeout_seconds: longest wait for an answer.
        ca: certificates that sign that of the server; those of the operating system where none are given.
        certificate: of this service, where the server asks for one.
        key: its private key.
    """

    url: WebAddress
    headers_env: HeadersEnv = Field(default_factory=dict)
    timeout_seconds: float = Field(default=60.0, gt=0)
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None

    @model_validator(mode="after")
    def _together(self) -> "Web":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key must be given together")
        return self


class WebIntake(Web):
    """A DICOMweb server that is asked for new studies.

    Attributes:
        query: attributes of QIDO-RS, e.g. {ModalitiesInStudy = "CR"}; StudyDate = "today" is the day of the query,
            "yesterday" both that day and the one before.
        every_seconds: how often.
    """

    query: dict[str, str] = Field(min_length=1)
    every_seconds: float = Field(default=60.0, gt=0)


class AnalysisSettings(Section):
    """What analyses a study.

    Attributes:
        analyser: "module:function"; it is called once in a process of its own and returns an `Analyser`.
        arguments: keyword arguments for it, e.g. {model = "chest.safetensors"}.
        folder: its working directory, so that relative paths among the arguments are relative to this file.
        attempts: after so many attempts that ended without a result the study is not_analysed.
        timeout_minutes: longest time for one study.
    """

    analyser: str
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict)
    folder: FilePath = Field(default=Path(), validate_default=True)
    attempts: int = Field(default=3, ge=1, le=20)
    timeout_minutes: float = Field(default=30.0, gt=0)

    @field_validator("analyser")
    @classmethod
    def _target(cls, analyser: str) -> str:
        if not _TARGET.fullmatch(analyser):
            raise ValueError("must look like package.module:function")
        return analyser


class DicomDestination(Section):
    """Results go out by C-STORE.

    Attributes:
        name: what the queue calls it; results wait under this name, across restarts.
        ae_title: called AE title.
        host: IP address or name.
        port: TCP port.
        tls: whether the association is encrypted, with the certificates of [node.tls].
        verify: "commitment" (storage commitment, PS3.4 annex J) or "find" (C-FIND of the SOP Instance UID).
        timeout_seconds: longest wait for an answer, and for the report of a storage commitment.
    """

    type: Literal["dicom"]
    name: str
    ae_title: AeTitle
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    tls: bool = False
    verify: Literal["commitment", "find"] = "commitment"
    timeout_seconds: float = Field(default=60.0, gt=0)


class WebDestination(Web):
    """Results go out by STOW-RS and are looked for by QIDO-RS.

    Attributes:
        name: as in `DicomDestination`.
    """

    type: Literal["dicomweb"]
    name: str


Destination = Annotated[DicomDestination | WebDestination, Field(discriminator="type")]


class Retries(Section):
    """When a delivery that failed is tried again: the pause doubles, with a random fifth, and never gives up.

    Attributes:
        first_seconds: first pause.
        longest_seconds: longest pause.
    """

    first_seconds: float = Field(default=5.0, gt=0)
    longest_seconds: float = Field(default=600.0, gt=0)


class PacsSettings(Section):
    """All settings of the service.

    Attributes:
        node: this service.
        peers: who may send by C-STORE; nobody else.
        spool: where objects and the queue are kept.
        complete_after_seconds: a study is complete when nothing has come for so long. DICOM has no better sign.
        folder: drop folder.
        web: DICOMweb server that is asked for new studies.
        analysis: what analyses a study.
        destinations: who gets the results, each of them all.
        retries: when a delivery is tried again.
    """

    node: Node
    peers: Annotated[tuple[Peer, ...], Field(strict=False)] = ()
    spool: SpoolSettings
    complete_after_seconds: float = Field(default=60.0, gt=0)
    folder: FolderSettings | None = None
    web: WebIntake | None = None
    analysis: AnalysisSettings
    destinations: Annotated[tuple[Destination, ...], Field(strict=False, min_length=1)]
    retries: Retries = Field(default_factory=Retries)

    @model_validator(mode="after")
    def _whole(self) -> "PacsSettings":
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names) or not all(map(_NAME.fullmatch, names)):
            raise ValueError("destinations need different names of a-z, 0-9, - and _, at most 32")
        if self.node.tls is None and any(d.type == "dicom" and d.tls for d in self.destinations):
            raise ValueError("destinations with tls = true need [node.tls]")
        if not (self.peers or self.folder or self.web):
            raise ValueError("nothing can come in: give [[peers]], [folder] or [web]")
        return self


def read_settings(path: Path) -> PacsSettings:
    """Reads and checks a file of settings; its relative paths become absolute.

    Raises:
        ConfigError: it cannot be read, is no TOML, or a setting has a value that is not allowed.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            path, [f"cannot be read: {type(error).__name__}; see: anomaly triage serve --example"]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"is no TOML: {error}"]) from None
    try:
        return PacsSettings.model_validate(values, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise ConfigError(path, [_line(fault["loc"], fault["msg"]) for fault in error.errors()]) from None


def example() -> str:
    """Returns the commented example file."""
    return files("medical.pacs").joinpath("example.toml").read_text("utf-8")


def _line(keys: tuple[int | str, ...], message: str) -> str:
    """Says where and what; never the value, which may be a secret in the wrong place."""
    told = (
        message.removeprefix("Value error, ")
        .replace("Input should be", "must be")
        .replace("Field required", "is missing")
    )
    told = told.replace("Extra inputs are not permitted", "there is no such key")
    place = ".".join(f"[{key + 1}]" if isinstance(key, int) else key for key in keys).replace(".[", "[")
    return f"{place}: {told}" if place else told
