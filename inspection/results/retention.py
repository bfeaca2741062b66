"""Deletes old pictures, by age and by size; results stay for ever.

Without `delete_unreviewed`, pictures of NG and REVIEW parts stay until somebody has given a verdict, however old they
are and however much room they take; then a problem is reported instead.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, tuple_

from anomaly.calibration import Decision
from inspection.results.database import Database
from inspection.results.pictures import PictureFolder
from inspection.results.records import microseconds
from inspection.results.settings import PictureSettings
from inspection.results.tables import pictures, results, verdicts

_PAGE = 200
_DAY_US = 86_400e6


class Retention:
    """Keeps one folder of pictures within its limits."""

    def __init__(self, database: Database, folder: PictureFolder, settings: PictureSettings) -> None:
        """Keeps all three."""
        self._database = database
        self._folder = folder
        self._settings = settings

    def apply(self, now: datetime | None = None) -> str:
        """Deletes what may be deleted.

        Args:
            now: the time from which ages count; None = the present.

        Returns:
            What could not be done, "" where all limits are kept.

        Raises:
            StoreError: the database cannot be used.
        """
        now = now or datetime.now(UTC)
        failed = ""
        oldest = round(max(0.0, microseconds(now) - self._settings.keep_days * _DAY_US))
        for row in self._deletable(pictures.c.written_us < oldest):
            failed = self._delete(row) or failed
        failed = self._shrink(self._settings.keep_gigabytes * 1e9) or failed
        self._remove_empty_days(now.date())
        return failed

    def _shrink(self, most: float) -> str:
        with self._database.reading() as connection:
            mine = select(func.coalesce(func.sum(pictures.c.bytes), 0)).where(pictures.c.folder == self._folder.id)
            total = int(connection.execute(mine).scalar_one())
        failed = ""
        if total > most:
            for row in self._deletable():
                problem = self._delete(row)
                failed = problem or failed
                total -= 0 if problem else row.bytes
                if total <= most:
                    return failed
        if total > most and not failed:
            failed = (
                f"pictures take {total / 1e9:.2f} GB, keep_gigabytes allows {most / 1e9:.2f}; the rest waits for "
                "review. Give verdicts, raise the limit, or set delete_unreviewed"
            )
        return failed

    def _deletable(self, *wanted: ColumnElement[bool]) -> Iterator[Any]:
        """Iterates the pictures that may be deleted, the oldest first."""
        mine: list[ColumnElement[bool]] = [pictures.c.folder == self._folder.id, *wanted]
        if not self._settings.delete_unreviewed:
            reviewed = select(verdicts.c.id).where(verdicts.c.result == results.c.id).exists()
            mine.append(or_(results.c.decision == Decision.OK.value, reviewed))
        query = select(pictures).join(results, results.c.id == pictures.c.result).where(*mine)
        place = tuple_(pictures.c.written_us, pictures.c.result, pictures.c.kind)
        page_after = query.order_by(*place.clauses).limit(_PAGE)
        last: tuple[int, int, str] = (-1, -1, "")
        while True:
            with self._database.reading() as connection:
                page = connection.execute(page_after.where(place > last)).all()
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1].written_us, page[-1].result, page[-1].kind

    def _delete(self, row: Any) -> str:
        """Deletes a file, then its row: a row without a file is deleted the next time."""
        try:
            (self._folder.path / row.path).unlink(missing_ok=True)
        except OSError as error:
            return f"{self._folder.path / row.path} cannot be deleted: {error.strerror}"
        here = (pictures.c.result == row.result) & (pictures.c.kind == row.kind)
        with self._database.writing() as connection:
            connection.execute(pictures.delete().where(here))
        return ""

    def _remove_empty_days(self, today: date) -> None:
        """Removes empty folders of days before yesterday, into which nobody writes any more."""
        for day in self._folder.path.glob("????-??-??"):
            with suppress(ValueError, OSError):
                if date.fromisoformat(day.name) < today - timedelta(days=1):
                    for run in day.iterdir():
                        with suppress(OSError):
                            run.rmdir()
                    day.rmdir()
