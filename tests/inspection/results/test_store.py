"""The store: what comes back is what went in, from SQLite and PostgreSQL, from several processes, after any fault."""

import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from inspection.parts import JUDGED, Defect, PartResult, Reason
from inspection.results.errors import PartConflictError, StoreError
from inspection.results.records import Picture, Run, Verdict
from inspection.results.store import ResultsStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ANY_TEXT = st.text(st.characters(codec=None), max_size=12)
REAL = st.floats(allow_nan=False, allow_infinity=False)
P_VALUE = st.floats(0, 1, exclude_min=True)
ZONES = st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: timezone(timedelta(seconds=seconds)))
PIXEL = st.integers(0, 2**40)
DEFECTS = st.builds(
    Defect,
    id=st.integers(0, 2**40),
    box_px=st.tuples(PIXEL, PIXEL, PIXEL, PIXEL),
    **dict.fromkeys(("x_mm", "y_mm", "area_mm2", "length_mm", "width_mm", "peak", "mean"), REAL),
    p_value=P_VALUE,
    severity=ANY_TEXT,
)


@st.composite
def part_results(draw: st.DrawFn) -> PartResult:
    reason = draw(st.sampled_from(Reason))
    judged = reason in JUDGED
    return PartResult(
        part=draw(ANY_TEXT),
        source=draw(ANY_TEXT),
        captured=draw(st.datetimes(timezones=ZONES)),
        decision=draw(st.sampled_from(Decision if judged else [Decision.REVIEW, Decision.NG])),
        reason=reason,
        detail=draw(ANY_TEXT),
        score=draw(REAL) if judged else None,
        p_value=draw(P_VALUE) if judged else None,
        defects=tuple(draw(st.lists(DEFECTS, max_size=3))),
        recipe=draw(ANY_TEXT),
        model=draw(ANY_TEXT),
        milliseconds=draw(st.dictionaries(ANY_TEXT, REAL, max_size=3)),
    )


def ok(part: str, **values: object) -> PartResult:
    standard = PartResult(
        part=part,
        source="camera",
        captured=NOON,
        decision=Decision.OK,
        reason=Reason.SCORE,
        score=1.5,
        p_value=0.25,
        recipe="r",
        model="m",
    )
    return replace(standard, **values)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store can be made."""
    if request.param == "sqlite":
        return str(tmp_path / "results.sqlite")
    return str(request.getfixturevalue("postgresql").database())


@pytest.fixture
def store(place: str) -> Iterator[ResultsStore]:
    with ResultsStore.open(place, create=True) as opened:
        yield opened


def started(store: ResultsStore) -> str:
    run = Run.now(recipe="r", model="m")
    store.start(run)
    return run.id


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(part_results(), max_size=4, unique_by=lambda result: result.part))
def test_what_is_read_is_exactly_what_was_written(store: ResultsStore, results: list[PartResult]) -> None:
    run = started(store)
    store.write(run, results)
    stored = list(store.results(run=run))
    assert [s.result for s in stored] == results
    assert [s.result.captured.utcoffset() for s in stored] == [r.captured.utcoffset() for r in results]
    assert all(s.run == run for s in stored)


def test_text_of_any_kind_also_finds_its_row_again(store: ResultsStore) -> None:
    run = started(store)
    hostile = ["\0", "\x1b0000", "\udc80", "'; DROP TABLE results; --", "%", "é" * 3000, "\x1b", "\\", "../../etc"]
    store.write(run, [ok(part) for part in hostile])
    for part in hostile:
        assert [s.result.part for s in store.results(part=part)] == [part]


def test_writing_again_adds_no_second_row(store: ResultsStore) -> None:
    run = started(store)
    store.write(run, [ok("a"), ok("b"), ok("a")])
    store.write(run, [ok("b"), ok("c")])
    assert [s.result.part for s in store.results()] == ["a", "b", "c"]
    other = started(store)
    store.write(other, [ok("a")])
    assert len(list(store.results(part="a"))) == 2


def test_a_part_that_comes_again_with_another_result_is_refused_and_the_others_are_stored(store: ResultsStore) -> None:
    run = started(store)
    store.write(run, [ok("a")])
    with pytest.raises(PartConflictError, match=r"1 part.*'a'") as caught:
        store.write(run, [ok("a", decision=Decision.NG), ok("b")])
    assert caught.value.parts == ("a",)
    assert [s.result for s in store.results()] == [ok("a"), ok("b")]
    with pytest.raises(PartConflictError, match="'c'"):
        store.write(run, [ok("c"), ok("c", score=2.0)])


def test_the_filters_agree_with_plain_python(store: ResultsStore) -> None:
    decisions = list(Decision)
    results = [
        ok(
            str(k),
            decision=decisions[k % 3],
            recipe=f"r{k % 2}",
            model=f"m{k % 5}",
            captured=NOON.astimezone(timezone(timedelta(hours=k % 7 - 3))) + timedelta(minutes=k),
        )
        for k in range(60)
    ]
    run = started(store)
    store.write(run, results)
    since, until = NOON + timedelta(minutes=10), NOON + timedelta(minutes=40)

    def read(**filters: object) -> list[PartResult]:
        return [s.result for s in store.results(**filters)]

    assert read(recipe="r1") == [r for r in results if r.recipe == "r1"]
    assert read(model="m3", decision=Decision.NG) == [r for r in results if (r.model, r.decision) == ("m3", "NG")]
    assert read(decision=[Decision.NG, Decision.REVIEW]) == [r for r in results if r.decision != Decision.OK]
    assert read(since=since, until=until) == [r for r in results if since <= r.captured < until]
    assert read(limit=7) == results[:7]
    assert read(limit=0) == read(run="none") == read(decision=[]) == []
    with pytest.raises(SettingError, match="zone"):
        store.results(since=datetime(2026, 1, 1))
    with pytest.raises(SettingError, match="limit"):
        store.results(limit=-1)


def test_pages_join_without_a_gap_while_another_writes(store: ResultsStore) -> None:
    run = started(store)
    store.write(run, [ok(str(k)) for k in range(1203)])
    reader = store.results()
    first = next(reader)
    store.write(run, [ok("later")])
    assert [first.result.part, *(s.result.part for s in reader)] == [*map(str, range(1203)), "later"]
    assert len(list(store.results(limit=1001))) == 1001


def test_pictures_and_verdicts_belong_to_their_part(store: ResultsStore) -> None:
    run = started(store)
    raw = Picture(kind="raw", folder="f", path="x/a.png", bytes=10, written=NOON)
    store.write(run, [ok("a", decision=Decision.NG), ok("b")], {"a": [raw]})
    early = Verdict(run=run, part="a", verdict=Decision.NG, who="Ana", given=NOON)
    late = Verdict(run=run, part="a", verdict=Decision.OK, who="Bo", given=NOON + timedelta(seconds=1))
    store.add_verdicts([late, early])
    store.add_verdicts([early])
    a, b = store.results()
    assert (a.pictures, a.verdicts, a.verdict) == ((raw,), (early, late), late)
    assert (b.pictures, b.verdicts, b.verdict) == ((), (), None)
    with pytest.raises(StoreError, match="no part 'c'; no verdict was stored"):
        store.add_verdicts([replace(early, who="Cy"), replace(early, part="c")])
    assert next(store.results(part="a")).verdicts == (early, late)
    with pytest.raises(SettingError, match="OK or NG"):
        replace(early, verdict=Decision.REVIEW)


def test_runs_are_kept_and_a_run_cannot_be_two(store: ResultsStore) -> None:
    first, second = Run.now(recipe="r", model="m"), Run.now(recipe="s", model="m")
    for run in (first, second, first):
        store.start(run)
    store.end(first.id)
    assert store.runs() == [first, second]
    with pytest.raises(StoreError, match="another run"):
        store.start(replace(first, recipe="other"))
    with pytest.raises(StoreError, match="there is no run 'x'"):
        store.write("x", [ok("a")])


def test_several_processes_write_at_once(place: str, store: ResultsStore) -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from anomaly.calibration import Decision\n"
        "from inspection.parts import PartResult, Reason; from inspection.results.store import ResultsStore\n"
        "from inspection.results.records import Run\n"
        "with ResultsStore.open(sys.argv[1], create=True) as store:\n"
        "    run = Run.now(recipe='r', model='m'); store.start(run)\n"
        "    for k in range(40):\n"
        "        store.write(run.id, [PartResult(part=str(k), source='', captured=datetime.now(UTC),\n"
        "            decision=Decision.NG, reason=Reason.TIMEOUT)])\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, place]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(store.runs()) == 2
    for run in store.runs():
        assert [s.result.part for s in store.results(run=run.id)] == [str(k) for k in range(40)]


def test_a_newer_store_is_refused(place: str, store: ResultsStore) -> None:
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE anomaly_results SET version = 2")
    with pytest.raises(StoreError, match=r"version 2.*up to 1; update"):
        ResultsStore.open(place)


def test_foreign_missing_and_broken_files_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    text, foreign, empty = tmp_path / "text", tmp_path / "foreign", tmp_path / "empty"
    text.write_text("no database at all, but long enough to be read as the header of one" * 20)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE bills (id INTEGER)")
    connection.close()
    empty.touch()
    before = [path.read_bytes() for path in (text, foreign, empty)]
    for path, create, message in (
        (text, True, "no SQLite database"),
        (foreign, True, "no database of results.*bills"),
        (empty, False, "it is empty"),
        (tmp_path / "none", False, "no such file"),
        (tmp_path / "no" / "folder", True, "cannot be opened"),
    ):
        with pytest.raises(StoreError, match=message):
            ResultsStore.open(path, create=create)
    with pytest.raises(StoreError, match=r"bills"):
        ResultsStore.open(foreign)
    assert [path.read_bytes() for path in (text, foreign, empty)] == before
    assert not (tmp_path / "none").exists()
    with pytest.raises(SettingError, match="postgresql://"):
        ResultsStore.open("mysql://127.0.0.1/x")


def test_a_locked_store_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly.database.BUSY_SECONDS", 0.2)
    path = tmp_path / "results.sqlite"
    with ResultsStore.open(path, create=True) as store:
        run = started(store)
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program has locked it"):
            store.write(run, [ok("a")])
        assert list(store.results()) == []  # readers never wait
        blocker.close()
        store.write(run, [ok("a")])
        assert len(list(store.results())) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_says_so_and_nothing_stored_is_lost(small_disk: Path) -> None:
    with ResultsStore.open(small_disk / "results.sqlite", create=True) as store:
        run = started(store)
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 1_500_000)
        written: list[str] = []

        def write_on() -> None:
            for k in range(10_000):
                store.write(run, [ok(str(k), detail="d" * 3000)])
                written.append(str(k))

        with pytest.raises(StoreError, match="the disk is full"):
            write_on()
        assert [s.result.part for s in store.results()] == written
        ballast.unlink()
        store.write(run, [ok("after")])
        assert [s.result.part for s in store.results()] == [*written, "after"]


def test_a_disk_that_takes_no_writes_says_so(small_disk: Path) -> None:
    path = small_disk / "results.sqlite"
    with ResultsStore.open(path, create=True) as store:
        started(store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"cannot be (opened|written)"):
        started(ResultsStore.open(path))


def test_a_read_only_database_says_so(store: ResultsStore, place: str) -> None:
    run = started(store)
    if "://" in place:
        with store.database.reading() as connection:
            name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        with store.database.writing() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        store.close()
    else:
        with store.database.reading() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"read-only|cannot be written"):
        store.write(run, [ok("a")])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_no_database_keeps_is_refused_where_it_arises(value: float) -> None:
    with pytest.raises(SettingError, match="finite"):
        ok("a", score=value)


@pytest.mark.peer
def test_postgresql_names_what_is_wrong(postgresql: object) -> None:
    url = postgresql.database()  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match='"none" does not exist'):
        ResultsStore.open(url.rsplit("/", 1)[0] + "/none", create=True)
    with pytest.raises(StoreError, match="role"):
        ResultsStore.open(url.replace("line@", "nobody@"), create=True)
    with pytest.raises(StoreError, match=r"(?i)refused"):
        ResultsStore.open("postgresql://line@127.0.0.1:1/x", create=True)


@pytest.mark.peer
def test_a_restart_of_postgresql_is_survived(postgresql: object) -> None:
    with ResultsStore.open(postgresql.database(), create=True) as store:  # type: ignore[attr-defined]
        run = started(store)
        store.write(run, [ok("a")])
        postgresql.stop()  # type: ignore[attr-defined]
        with pytest.raises(StoreError):
            store.write(run, [ok("b")])
        postgresql.start()  # type: ignore[attr-defined]
        store.write(run, [ok("b")])
        assert [s.result.part for s in store.results()] == ["a", "b"]
