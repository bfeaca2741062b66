"""The section `[results]` of a recipe: where results are kept, which pictures are stored for how long, who is told.

    [results]
    database = "results.sqlite"

    [results.pictures]
    ok_share = 0.01
    keep_days = 90

    [[results.publishers]]
    type = "mqtt"
    topic = "plant/line-3"
    client_id = "line-3"

Relative paths are relative to the folder of the recipe. A secret never stands in the file: settings that end in `_env`
name the environment variable that holds it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from anomaly.settings_file import HeadersEnv, Section, VariableName, WebAddress

Decided = Literal["OK", "REVIEW", "NG"]
FilePath = Annotated[Path, Field(strict=False)]


class PictureSettings(Section):
    """Which pictures of parts are stored beside the results, and for how long.

    Attributes:
        folder: where they lie.
        raw: decisions whose raw frame is stored, lossless.
        overlay: decisions whose heatmap is stored.
        ok_share: share of the OK parts of which both are stored too, in [0, 1]; chosen by a hash of the part's id.
        keep_days: after how many days pictures may be deleted; inf = never for their age.
        keep_gigabytes: how much disk they may take in all, the oldest are deleted first; inf = no limit.
        delete_unreviewed: whether pictures of NG and REVIEW parts may be deleted before somebody has given a verdict.
        free_gigabytes: pictures are not written while the disk has less room than this; the room is for results.
    """

    folder: FilePath = Path("pictures")
    raw: Annotated[tuple[Decided, ...], Field(strict=False)] = ("NG", "REVIEW")
    overlay: Annotated[tuple[Decided, ...], Field(strict=False)] = ("NG", "REVIEW")
    ok_share: float = Field(default=0.0, ge=0, le=1)
    keep_days: float = Field(default=90.0, gt=0)
    keep_gigabytes: float = Field(default=50.0, gt=0)
    delete_unreviewed: bool = False
    free_gigabytes: float = Field(default=1.0, ge=0)


class MqttSettings(Section):
    """Publishes to `topic`/results with QoS 1; `topic`/status is "online" or, by last will, "offline" (retained).

    Attributes:
        host: the broker.
        port: its port, usually 1883, with TLS 8883.
        topic: where this line publishes; one line, one topic.
        client_id: name of this client, unique at the broker.
        tls: whether the connection is encrypted and the broker's certificate is checked.
        ca_file: certificates that are trusted; none = those of the operating system.
        certificate: certificate of this client, where the broker asks for one.
        key: its private key.
        username_env: name of the environment variable with the user's name.
        password_env: name of the environment variable with the password.
    """

    type: Literal["mqtt"]
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=1883, ge=1, le=65535)
    topic: str = Field(default="anomaly", min_length=1)
    client_id: str = Field(min_length=1)
    tls: bool = False
    ca_file: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    username_env: VariableName | None = None
    password_env: VariableName | None = None

    @field_validator("topic")
    @classmethod
    def _topic(cls, topic: str) -> str:
        if any(letter in topic for letter in "+#\0") or topic.startswith(("$", "/")) or topic.endswith("/"):
            raise ValueError("must have none of + and #, not begin with $ or /, and not end with /")
        return topic

    @model_validator(mode="after")
    def _belong_together(self) -> "MqttSettings":
        if not self.tls and (self.ca_file or self.certificate or self.key):
            raise ValueError("ca_file, certificate and key need tls = true")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key must be given together")
        if self.password_env and not self.username_env:
            raise ValueError("password_env needs username_env")
        return self

    @property
    def address(self) -> str:
        """What the outbox calls this peer; messages wait under this name, across restarts."""
        return f"mqtt://{self.client_id}@{self.host}:{self.port}/{self.topic}"


class WebhookSettings(Section):
    """Posts each result as JSON; any answer 2xx acknowledges it.

    Attributes:
        url: http:// or https:// address without user and password.
        headers_env: header -> name of the environment variable with its value, e.g. {Authorization = "LINE_TOKEN"}.
        timeout_seconds: longest wait for an answer.
    """

    type: Literal["webhook"]
    url: WebAddress
    headers_env: HeadersEnv = Field(default_factory=dict)
    timeout_seconds: float = Field(default=10.0, gt=0)

    @property
    def address(self) -> str:
        """What the outbox calls this peer; messages wait under this name, across restarts."""
        return self.url


class CsvSettings(Section):
    """Appends one row per part to a CSV file.

    Attributes:
        path: the file; it is made with a header where it is missing.
    """

    type: Literal["csv"]
    path: FilePath

    @property
    def address(self) -> str:
        """What the outbox calls this peer; messages wait under this name, across restarts."""
        return f"csv:{self.path.as_posix()}"


class JsonlSettings(Section):
    """Appends one JSON message per part and line to a file.

    Attributes:
        path: the file; it is made where it is missing.
    """

    type: Literal["jsonl"]
    path: FilePath

    @property
    def address(self) -> str:
        """What the outbox calls this peer; messages wait under this name, across restarts."""
        return f"jsonl:{self.path.as_posix()}"


PublisherSettings = Annotated[MqttSettings | WebhookSettings | CsvSettings | JsonlSettings, Field(discriminator="type")]


class ResultsSettings(Section):
    """Where results are kept, which pictures are stored, who is told.

    Attributes:
        database: a SQLite file, or the URL of a PostgreSQL database without its password, e.g.
            postgresql://line@10.0.0.5/results.
        database_password_env: name of the environment variable with the password of the PostgreSQL user.
        pictures: which pictures are stored and for how long.
        publishers: who receives the results.
        alarm_messages: an alarm is raised while more messages than this wait for one publisher. All of them stay.
    """

    database: str = Field(default="results.sqlite", min_length=1)
    database_password_env: VariableName | None = None
    pictures: PictureSettings = Field(default_factory=PictureSettings)
    publishers: Annotated[tuple[PublisherSettings, ...], Field(strict=False)] = ()
    alarm_messages: int = Field(default=10_000, ge=1)

    @field_validator("database")
    @classmethod
    def _database(cls, database: str) -> str:
        if "://" not in database:
            return database
        parts = urlsplit(database)
        if parts.scheme not in ("postgresql", "postgresql+psycopg"):
            raise ValueError("must be the path of a SQLite file or begin with postgresql://")
        if parts.password is not None or "password=" in parts.query.lower():
            raise ValueError("must not hold the password; name its environment variable in database_password_env")
        return database

    @field_validator("publishers")
    @classmethod
    def _distinct(cls, publishers: Sequence[PublisherSettings]) -> Sequence[PublisherSettings]:
        addresses = [publisher.address for publisher in publishers]
        twice = sorted({address for address in addresses if addresses.count(address) > 1})
        if twice:
            raise ValueError(f"must not name the same receiver twice: {', '.join(twice)}")
        return publishers
