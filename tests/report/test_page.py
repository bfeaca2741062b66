import re
from pathlib import Path

import numpy as np
import pytest

from anomaly.report import writer as writer_module
from anomaly.report.histogram import Axis, histogram
from anomaly.report.rows import Row
from anomaly.report.words import BADGES, number, shorten

HOSTILE = '<script>alert("1")</script>&amp;\'"><img src=x onerror=alert(2)>.png'
SCORES = {"low.png": (0.3, "OK"), "high.png": (7.0, "NG"), "middle.png": (0.97, "REVIEW"), "good.png": (2.0, "NG")}


@pytest.fixture
def report(tmp_path, writer, part) -> Path:
    """Two NG (one a false alarm), one REVIEW, one OK that is a missed defect, one that could not be scored."""
    with writer(tmp_path) as results:
        for name, (score, decision) in SCORES.items():
            label = int(name != "good.png")
            results.add(f"set/{name}", *part, score, 0.02, decision, label=label, kind="dent" if label else "good")
        results.failed("set/broken.png", "the file ends early")
        results.metrics = {"image AUROC": 0.9512}
    return tmp_path / "report.html"


def cards(html: str) -> list[str]:
    return re.findall(r'<span class="name"[^>]*>([^<]*)</span>', html)


def test_says_what_matters(report):
    html = report.read_text(encoding="utf-8")
    assert "4 parts scored: 2 NG, 1 REVIEW, 1 OK, 1 could not be scored" in html
    assert [name.split(" ")[0] for name in cards(html)] == ["high.png", "good.png", "middle.png", "low.png"]
    assert "1 missed defect<" in html
    assert "1 false alarm<" in html
    assert "the file ends early" in html
    assert "0.951" in html
    assert "plates.safetensors" in html
    assert "Calibrated on 60 normals" in html


def test_needs_nothing_but_itself(report):
    html = report.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    sources = re.findall(r'\bsrc="([^"]+)"', html)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    for link in re.findall(r'<a href="([^"]+)"', html):
        assert (report.parent / link).is_file()


def test_hostile_names_and_reasons_are_text(tmp_path, writer, part):
    with writer(tmp_path) as results:
        results.add(HOSTILE, *part, 2.0, 0.02, "NG", label=0, kind=HOSTILE)
        results.add("日本語 ü.png", *part, 2.0, 0.02, "NG")
        results.failed(HOSTILE, HOSTILE)
        results.metrics = {HOSTILE: 1.0}
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert(2)" in html
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "日本語 ü.png" in html


def test_the_highest_scores_are_pictured_and_the_rest_is_named(tmp_path, writer, part, monkeypatch):
    monkeypatch.setattr(writer_module, "MOST_THUMBNAILS", 3)
    with writer(tmp_path) as results:
        for k in (4, 0, 5, 1, 3, 2, 6):
            results.add(f"{k}.png", *part, float(k), 0.02, "NG" if k > 1 else "OK")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert cards(html) == ["6.png", "5.png", "4.png"]
    assert "the 3 highest scores" in html
    assert re.search(r"2 NG, 2 OK\.\s+Every part is in results\.csv", html)


def test_review_is_never_wrong():
    outcomes = {
        (label, word): Row(path="", decision=word, label=label).mistake for label in (0, 1, None) for word in BADGES
    }
    assert {key: value for key, value in outcomes.items() if value} == {
        (1, "OK"): "missed defect",
        (0, "NG"): "false alarm",
    }


@pytest.mark.parametrize("far", [1.2, 40.0, 1e7])
@pytest.mark.parametrize("shift", [0.0, -5.0, 1e5])
def test_axis_is_monotone_and_its_ticks_are_readable(far, shift):
    values = np.array([0.1, 0.5, far]) + shift
    axis = Axis.over(values, 1.0 + shift)
    places = [axis.position(v) for v in np.linspace(values.min(), values.max(), 50)]
    assert places[0] >= 0
    assert places[-1] <= 100
    assert (np.diff(places) > 0).all()
    ticks = sorted(place for _, place in axis.ticks())
    assert (np.diff(ticks) > 11).all()
    assert axis.position(1.0 + shift) > 5  # outliers do not squeeze the normal parts together


def test_histogram_of_nothing_but_equal_normals():
    assert "<svg" in histogram({}, np.zeros(3), 0.0, 0.0)


def test_histogram_shows_a_single_part_among_thousands():
    svg = histogram({"OK": np.full(5000, 0.5), "NG": np.array([2.0])}, np.linspace(0, 1, 80), 0.9, 1.0)
    assert re.search(r'<rect class="ng"[^>]* height="3.0"><title>1 NG', svg)


def test_words():
    assert [number(v) for v in (0.0, 0.01234, 1.0, 12.345, 12345.6, 2e6, 1e-5)] == [
        "0",
        "0.0123",
        "1.00",
        "12.3",
        "12,346",
        "2.00e+06",
        "1.00e-05",
    ]
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 3) == "abc"


@pytest.mark.peer
def test_works_in_a_browser_without_a_network(report, browse):
    shown = browse(f"{report.as_uri()}#image-2", "--dump-dom")
    assert "4 parts scored: 2 NG, 1 REVIEW, 1 OK, 1 could not be scored" in shown
    scores = [float(score) for score in re.findall(r'data-score="([^"]+)"', shown)]
    assert scores == sorted((score for score, _ in SCORES.values()), reverse=True)
    assert re.search(r"<dialog[^>]* open", shown)
    assert re.search(r'id="viewer-place"[^>]*>2 of 4<', shown)
    assert re.search(r'id="viewer-name">good\.png', shown)
