"""The tables of a results database, the same in SQLite and PostgreSQL. Reading them with SQL: docs/results.md.

A message to a receiver is no copy of a result: the outbox says, per receiver and run, up to which result it has been
acknowledged. A result is therefore waiting for delivery from the moment its transaction commits, the outbox takes no
room however long a receiver is away, and there is no limit at which messages would have to be dropped.
"""

import re

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

VERSION = 1
"""Version of the tables; a program refuses a database that is newer."""

_ESCAPE = "\x1b"
_UNSTORABLE = re.compile("[\x00\x1b\ud800-\udfff]")
_ESCAPED = re.compile("\x1b([0-9a-f]{4})")


def escaped(text: str) -> str:
    """Returns the text as it is stored and sent: what no database takes becomes ESC and four hexadecimal digits."""
    return _UNSTORABLE.sub(lambda found: f"{_ESCAPE}{ord(found[0]):04x}", text)


class AnyText(TypeDecorator[str]):
    """Text of any content; NUL, ESC and half surrogates (from file names that are not UTF-8) are stored `escaped`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Returns the text as it is stored."""
        return value if value is None else escaped(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Returns the text as it was given."""
        return value if value is None else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


_Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

meta = Table(
    "anomaly_results",
    metadata,
    Column("version", Integer, primary_key=True, comment="version of the tables"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", AnyText, nullable=False, unique=True),
    Column("recipe", String, nullable=False, comment="sha256 of the recipe"),
    Column("model", String, nullable=False, comment="sha256 of the model file"),
    Column("version", String, nullable=False, comment="of anomaly-suite"),
    Column("started", String, nullable=False, comment="ISO 8601 with zone"),
    Column("ended", String, comment="ISO 8601 with zone; NULL while it runs, or if it was cut off"),
)

results = Table(
    "results",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("part", AnyText, nullable=False),
    Column("source", AnyText, nullable=False),
    Column("captured", String, nullable=False, comment="ISO 8601 with zone"),
    Column("captured_us", BigInteger, nullable=False, comment="microseconds since 1970 UTC"),
    Column("decision", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("detail", AnyText, nullable=False),
    Column("score", Double),
    Column("p_value", Double),
    Column("recipe", AnyText, nullable=False),
    Column("model", AnyText, nullable=False),
    Column("milliseconds", AnyText, nullable=False, comment="JSON object"),
    UniqueConstraint("run", "part"),
    Index("results_run_id", "run", "id"),
    Index("results_captured", "captured_us"),
)

defects = Table(
    "defects",
    metadata,
    Column("result", ForeignKey("results.id"), primary_key=True),
    Column("position", Integer, primary_key=True, comment="0, 1, ... the most severe first"),
    Column("id", BigInteger, nullable=False, comment="number of the defect within its part"),
    *(Column(name, Double, nullable=False) for name in ("x_mm", "y_mm")),
    *(Column(name, BigInteger, nullable=False) for name in ("top_px", "left_px", "bottom_px", "right_px")),
    *(
        Column(name, Double, nullable=False)
        for name in ("area_mm2", "length_mm", "width_mm", "peak", "mean", "p_value")
    ),
    Column("severity", AnyText, nullable=False),
)

pictures = Table(
    "pictures",
    metadata,
    Column("result", ForeignKey("results.id"), primary_key=True),
    Column("kind", String, primary_key=True, comment="raw or overlay"),
    Column("folder", String, nullable=False, comment="id of the folder of pictures"),
    Column("path", AnyText, nullable=False, comment="relative to that folder"),
    Column("bytes", BigInteger, nullable=False),
    Column("written_us", BigInteger, nullable=False, comment="microseconds since 1970 UTC"),
    Index("pictures_folder_written", "folder", "written_us"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("result", ForeignKey("results.id"), nullable=False),
    Column("verdict", String, nullable=False, comment="OK or NG"),
    Column("who", AnyText, nullable=False),
    Column("given", String, nullable=False, comment="ISO 8601 with zone"),
    Column("given_us", BigInteger, nullable=False, comment="microseconds since 1970 UTC"),
    UniqueConstraint("result", "who", "given_us"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("receiver", AnyText, primary_key=True),
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("delivered", BigInteger, nullable=False, comment="id of the last result that was acknowledged; 0 = none"),
)
