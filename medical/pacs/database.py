"""Opens the database of the queue: SQLite, as `anomaly.database` says, in a file that only its owner may read."""

import os
from pathlib import Path

import anomaly.database
from anomaly.database import Schema, sqlite_engine, table_names
from medical.pacs.errors import QueueError
from medical.pacs.tables import VERSION, meta, metadata

_SCHEMA = Schema("queue of the PACS service", metadata, meta, VERSION)


class Database(anomaly.database.Database):
    """An open database of one spool folder; whatever goes wrong is a `QueueError`."""

    @classmethod
    def open(cls, file: Path, *, create: bool = False) -> "Database":
        """Opens a database and checks its tables.

        Args:
            file: the SQLite file.
            create: whether it is made where it is missing, with mode 0600.

        Raises:
            QueueError: it cannot be opened, holds other things, or is of a newer version.
        """
        if create:
            _make_private(file)
        elif not file.is_file():
            raise QueueError(f"{file}: there is no such file; has the service run with these settings?")
        opened = cls(sqlite_engine(file), str(file), QueueError)
        try:
            with opened.writing() if create else opened.reading() as connection:
                opened.check(connection, _SCHEMA, table_names(connection), create=create)
            if create:
                opened.log_ahead()
        except BaseException:
            opened.close()
            raise
        return opened


def _make_private(file: Path) -> None:
    """SQLite gives its further files (WAL, shared memory) the mode of the first."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise QueueError(f"{file}: it cannot be made ({type(error).__name__}); may this user write there?") from None
