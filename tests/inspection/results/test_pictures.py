"""Pictures: lossless, safely named, whole or not there, and deleted only when they may be."""

import os
import subprocess
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from anomaly.images.files import read_image
from inspection.parts import Inspected, PartResult, Reason
from inspection.results.pictures import Look, PictureFolder, _name
from inspection.results.records import Picture, Run, Verdict
from inspection.results.reporting import Reporter
from inspection.results.retention import Retention
from inspection.results.settings import PictureSettings, ResultsSettings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LOOK = Look(scale=(0.0, 4.0), contour=2.0)
RNG = np.random.default_rng(0)


def seen(part: str, decision: Decision = Decision.NG, image: Any = None, **values: Any) -> Inspected:
    frame = RNG.integers(0, 255, (40, 60), np.uint8) if image is None else image
    anomaly_map = np.zeros(frame.shape[:2], np.float32)
    anomaly_map[10:15, 20:30] = 4
    standard = {"reason": Reason.SCORE, "score": 3.5, "p_value": 0.01}
    return Inspected(
        PartResult(part=part, source="", captured=NOW, decision=decision, **standard | values), frame, anomaly_map
    )


def folder_of(tmp_path: Path, **values: Any) -> PictureFolder:
    return PictureFolder(PictureSettings(**{"free_gigabytes": 0.0} | values), tmp_path, LOOK)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_the_raw_frame_comes_back_as_it_was(dtype: Any, channels: int | None, tmp_path: Path) -> None:
    shape = (30, 41) if channels is None else (30, 41, channels)
    frame = (RNG.random(shape) * 60000 if dtype != np.uint8 else RNG.random(shape) * 255).astype(dtype)
    folder = folder_of(tmp_path, overlay=())
    (picture,) = folder.write("run", seen("a", image=frame))
    path = folder.locate(picture)
    assert path is not None
    assert path.stat().st_size == picture.bytes
    pixels = read_image(path)
    assert pixels.dtype == dtype
    assert np.array_equal(pixels, frame if frame.ndim == 3 else frame[..., None])


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
@hypothesis_settings(max_examples=300, deadline=None)
def test_names_are_harmless_and_tell_parts_apart(one: str, other: str) -> None:
    name = _name(one)
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not name.startswith(".")
    assert len(name) <= 80
    assert (_name(other).casefold() == name.casefold()) == (other == one)


@pytest.mark.parametrize(
    "part", ["../../etc/passwd", "/etc/passwd", "CON", "a" * 5000, "\0", "\udc80", ".", "..", "C:\\x", "~"]
)
def test_hostile_ids_stay_in_the_folder(part: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for picture in folder.write(part, seen(part)):
        path = folder.locate(picture)
        assert path is not None
        assert path.resolve().is_relative_to((tmp_path / "pictures").resolve())
        assert path.is_file()


def test_the_settings_choose_what_is_written(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, raw=("NG",), overlay=("NG", "REVIEW"), ok_share=0.25)

    def kinds(inspected: Inspected) -> list[str]:
        return [picture.kind for picture in folder.write("run", inspected)]

    assert kinds(seen("a")) == ["raw", "overlay"]
    assert kinds(seen("b", Decision.REVIEW)) == ["overlay"]
    late = Inspected(PartResult(part="c", source="", captured=NOW, decision=Decision.NG, reason=Reason.TIMEOUT))
    assert kinds(late) == []
    chosen = sum(bool(kinds(seen(f"ok {k}", Decision.OK))) for k in range(60))
    assert 5 <= chosen <= 28
    with pytest.raises(SettingError, match="look"):
        PictureFolder(PictureSettings(), tmp_path, None)


def test_the_overlay_shows_the_defect_and_the_words(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, raw=())
    (picture,) = folder.write("run", seen("17", image=np.full((40, 60), 90, np.uint8)))
    drawn = cv2.imread(str(folder.locate(picture)))
    assert drawn is not None
    assert drawn.shape[1] > 500
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def reporter(tmp_path: Path, **values: Any) -> Reporter:
    settings = ResultsSettings.model_validate({"pictures": {"free_gigabytes": 0.0} | values})
    return Reporter.open(settings, tmp_path, Run.now(recipe="r", model="m"), look=LOOK)


def test_a_result_is_stored_although_its_picture_cannot_be(tmp_path: Path) -> None:
    with reporter(tmp_path, free_gigabytes=1e9) as line:
        line.report([seen("a")])
        (problem,) = line.problems()
        assert problem.where == "pictures"
        assert "are free, which are kept for results" in problem.what
        (stored,) = line.store.results()
        assert (stored.result.part, stored.pictures) == ("a", ())


def test_a_stored_result_leads_to_its_pictures(tmp_path: Path) -> None:
    with reporter(tmp_path) as line:
        line.report([seen("a"), seen("b", Decision.OK)])
        line.report([seen("a"), seen("b", Decision.OK)])
        a, b = line.store.results()
    assert {picture.kind for picture in a.pictures} == {"raw", "overlay"}
    assert b.pictures == ()
    assert all((tmp_path / "pictures" / picture.path).is_file() for picture in a.pictures)
    moved = (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    found = PictureFolder(PictureSettings(folder=moved), tmp_path, LOOK)
    assert all((place := found.locate(picture)) and place.is_file() for picture in a.pictures)
    assert folder_of(tmp_path, folder=Path("other")).locate(a.pictures[0]) is None


def retained(line: Reporter, tmp_path: Path, days: float = 0, **values: Any) -> tuple[str, set[str]]:
    """Applies the retention some days later; what it says, and the parts that still have pictures."""
    settings = PictureSettings(**{"keep_days": inf, "keep_gigabytes": inf} | values)
    said = Retention(line.store.database, PictureFolder(settings, tmp_path, LOOK), settings).apply(
        datetime.now(UTC) + timedelta(days=days)
    )
    left = {stored.result.part: stored.pictures for stored in line.store.results() if stored.pictures}
    files = {path for path in (tmp_path / "pictures").rglob("*.png")}
    assert files == {tmp_path / "pictures" / picture.path for pictures in left.values() for picture in pictures}
    return said, set(left)


def pictures_of(line: Reporter) -> list[Picture]:
    """All stored pictures, the oldest first."""
    found = [picture for stored in line.store.results() for picture in stored.pictures]
    return sorted(found, key=lambda picture: picture.written)


def test_age_deletes_only_what_was_reviewed_or_is_ok(tmp_path: Path) -> None:
    with reporter(tmp_path, ok_share=1.0) as line:
        line.report([seen("ng"), seen("seen"), seen("review", Decision.REVIEW), seen("ok", Decision.OK)])
        verdict = Verdict(run=line.run.id, part="seen", verdict=Decision.NG, who="Ana", given=NOW)
        line.store.add_verdicts([verdict])
        everything = {"ng", "seen", "review", "ok"}
        assert retained(line, tmp_path, 10**5, keep_days=10.0**6) == ("", everything)
        assert retained(line, tmp_path, 29, keep_days=30.0) == ("", everything)
        assert retained(line, tmp_path, 31, keep_days=30.0) == ("", {"ng", "review"})
        assert retained(line, tmp_path, 31, keep_days=30.0, delete_unreviewed=True) == ("", set())
        assert [stored.result.part for stored in line.store.results()] == ["ng", "seen", "review", "ok"]
        assert not list((tmp_path / "pictures").glob("2*"))


def test_size_deletes_the_oldest_first_and_complains_when_review_is_behind(tmp_path: Path) -> None:
    with reporter(tmp_path, ok_share=1.0, overlay=()) as line:
        frame = RNG.integers(0, 255, (200, 200), np.uint8)
        line.report([seen(f"ok {k}", Decision.OK, frame) for k in range(4)])
        line.report([seen("ng", image=frame)])
        each = next(line.store.results()).pictures[0].bytes
        everything = pictures_of(line)
        limit = 3 * each
        assert retained(line, tmp_path, keep_gigabytes=sum(p.bytes for p in everything) / 1e9)[0] == ""
        assert pictures_of(line) == everything
        assert retained(line, tmp_path, keep_gigabytes=limit / 1e9)[0] == ""
        left = pictures_of(line)
        assert left == everything[-len(left) :]
        assert sum(p.bytes for p in left) <= limit < sum(p.bytes for p in everything[-len(left) - 1 :])
        said, parts = retained(line, tmp_path, keep_gigabytes=1e-9)
        assert "waits for review" in said
        assert parts == {"ng"}


def test_another_lines_pictures_are_not_touched(tmp_path: Path) -> None:
    with reporter(tmp_path) as line:
        line.report([seen("a", Decision.NG)])
        other = PictureSettings(folder=Path("other"), keep_days=1.0, delete_unreviewed=True)
        kept = Retention(line.store.database, PictureFolder(other, tmp_path, LOOK), other)
        assert kept.apply(datetime.now(UTC) + timedelta(days=9)) == ""
        assert len(next(line.store.results()).pictures) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_full_of_pictures_loses_no_result(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}")
    try:
        with reporter(tmp_path, folder=str(disk / "pictures"), overlay=()) as line:
            frame = RNG.integers(0, 255, (400, 400), np.uint8)
            line.report([seen(str(k), image=frame) for k in range(12)])
            stored = list(line.store.results())
            assert len(stored) == 12
            assert 0 < sum(bool(one.pictures) for one in stored) < 12
            assert "No space left" in line.problems()[0].what
            whole = [disk / "pictures" / picture.path for one in stored for picture in one.pictures]
            assert all(np.array_equal(read_image(path)[..., 0], frame) for path in whole)
            assert not list((disk / "pictures" / ".partial").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
