"""The tables of the queue.

What they hold of a study: its UIDs, without which nothing can be matched; no name, no patient ID, no date of the study,
no accession number.
A study with the objects that it had at one time is a revision; a late object opens the next one (see `states`).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

VERSION = 1
"""Version of the tables; a program refuses a database that is newer."""

metadata = MetaData()

meta = Table("anomaly_pacs", metadata, Column("version", Integer, primary_key=True, comment="version of the tables"))

studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String, nullable=False, unique=True, comment="Study Instance UID"),
    Column("pseudonym", String, nullable=False, unique=True, comment="keyed hash of the UID; also its folder"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", ForeignKey("studies.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="1, 2, ..."),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False, default=0, comment="attempts to analyse it that have begun"),
    Column("next_us", BigInteger, nullable=False, default=0, comment="no attempt before; microseconds since 1970 UTC"),
    Column("outcome", String, comment="status that the analyser gave"),
    Column("summary", String, comment="its words; without patient data"),
    Column("cause", String, comment="code of why it was not analysed, or failed"),
    Column("detail", String),
    Column("opened_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False, comment="when the last object came"),
    Column("changed_us", BigInteger, nullable=False, comment="when it got its state"),
    UniqueConstraint("study", "number"),
    Index("revisions_state", "state"),
)

objects = Table(
    "objects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", ForeignKey("studies.id"), nullable=False, index=True),
    Column("revision", Integer, nullable=False, comment="number of the first revision that holds it"),
    Column("uid", String, nullable=False, unique=True, comment="SOP Instance UID"),
    Column("sop_class", String, nullable=False),
    Column("digest", String, nullable=False, comment="sha256 of the data set as it came, without file meta"),
    Column("bytes", BigInteger, nullable=False),
    Column("name", String, nullable=False, comment="file in the folder of the study"),
    Column("source", String, nullable=False, comment="calling AE title, folder or dicomweb"),
    Column("received_us", BigInteger, nullable=False),
    Column("present", Boolean, nullable=False, comment="false: the file was removed when the study was done"),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", ForeignKey("revisions.id"), nullable=False, index=True),
    Column("study_uid", String, nullable=False),
    Column("series_uid", String, nullable=False),
    Column("uid", String, nullable=False, unique=True, comment="SOP Instance UID"),
    Column("sop_class", String, nullable=False),
    Column("transfer_syntax", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("name", String, nullable=False, comment="file in the folder of the study"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("result", ForeignKey("results.id"), primary_key=True),
    Column("destination", String, primary_key=True),
    Column("offered_us", BigInteger, comment="when it was about to be sent for the last time; NULL before"),
    Column("verified_us", BigInteger, comment="when it was found there; NULL before"),
)

pauses = Table(
    "pauses",
    metadata,
    Column("revision", ForeignKey("revisions.id"), primary_key=True),
    Column("destination", String, primary_key=True),
    Column("attempts", Integer, nullable=False, comment="attempts to deliver that failed"),
    Column("next_us", BigInteger, nullable=False, comment="no attempt before"),
    Column("error", String, nullable=False, comment="of the last attempt; without patient data"),
)
