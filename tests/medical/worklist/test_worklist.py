"""The three files say the same, say all of it, and can be opened without harm."""

import csv
import json
import re
import stat
from collections import Counter
from dataclasses import replace
from datetime import datetime
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings

from anomaly.errors import SettingError
from medical.outcome import DISCLAIMER, Priority
from medical.refusals import Reason, Refusal
from medical.worklist import About, effective_order, write_worklist
from medical.worklist.rows import FORMULA
from medical.worklist.words import NOT_NORMAL, places, rarity
from tests.medical.worklist.json_schema import faults
from tests.medical.worklist.outcomes import ABOUT, CALIBRATION, morning, outcome, refused_file
from tests.medical.worklist.test_order import lists

HOSTILE = [
    '=HYPERLINK("http://x")',
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "<script>alert(1)</script>",
    '"><img src=x>',
]


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def written(tmp_path, found, **more):
    paths = write_worklist(found, tmp_path, ABOUT, **more)
    with paths.csv.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return table, json.loads(paths.json.read_text()), paths.html.read_text()


@settings(max_examples=25, deadline=None)
@given(lists)
def test_all_files_hold_every_study_in_the_same_order(tmp_path_factory, found):
    table, document, html = written(tmp_path_factory.mktemp("w"), found)
    wanted = [one.study for one in effective_order(found)]
    assert [row["study_instance_uid"] for row in table] == wanted
    assert [row["study_instance_uid"] for row in document["studies"]] == wanted
    assert re.findall(r'class="uid">([^<]*)<', html) == wanted
    assert [row["rank"] for row in document["studies"]] == list(range(1, len(found) + 1))
    counts = document["counts"]
    assert counts["flagged"] + counts["not_flagged"] + counts["not_analysed"] == len(found)
    assert sum(counts["not_analysed_by_reason"].values()) == counts["not_analysed"]


def test_the_json_follows_its_schema(tmp_path, pytestconfig):
    document = written(tmp_path, [*morning(), outcome(99, float("nan"))])[1]
    schema = json.loads((pytestconfig.rootpath / "docs/worklist.schema.json").read_text())
    assert list(faults(document, schema, schema)) == []
    document["studies"][0] |= {"priority": "SOON", "rank": 0, "p_value": 2.0, "patient": "x"}
    del document["studies"][1]["words"]
    assert len(list(faults(document, schema, schema))) == 5


def test_the_page_says_what_it_must(tmp_path):
    html = unescape(written(tmp_path, morning())[2])
    for said in (
        DISCLAIMER,
        NOT_NORMAL,
        "3 studies are flagged, 2 were not analysed",
        "places 2 to 4",
        "1 AGE, 1 MODALITY",
        "anomaly-suite subspace",
        "sha256 3f3f3f3f3f3f",
        "raised from LOW",
        "None of 400 normal patients held out scores this high",
        "SOP_CLASS (2 objects)",
        "MR; the model reads CR, DX",
        *CALIBRATION.in_words().splitlines(),
    ):
        assert said in html, said
    assert not re.search(r"\b(is|are|looks?) normal\b", html)


def test_the_page_asks_for_nothing_from_outside(tmp_path):
    picture = np.zeros((900, 700, 3), np.uint8)
    found = morning()
    page = Page(written(tmp_path, found, pictures={found[1].study: [picture, picture]})[2])
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "form")
        for name in ("src", "href", "xlink:href", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg")), (tag, attributes)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert sum(tag == "img" for tag, _ in page.tags) == 2


def test_hostile_text_stays_text(tmp_path):
    found = [
        outcome(i, None, modality=text, refusal=Refusal(Reason.MODALITY, text), refused=[refused_file(detail=text)])
        for i, text in enumerate(HOSTILE)
    ]
    table, document, html = written(tmp_path, found, identifiers={one.study: one.modality for one in found})
    page = Page(html)
    kinds = Counter(tag for tag, _ in page.tags)
    assert kinds["script"] == 1
    assert kinds["img"] == 0
    assert [row["modality"] for row in document["studies"]] == HOSTILE
    text = "".join(page.words)
    assert all(one in text for one in HOSTILE)
    for row in table:
        for name in ("modality", "identifier"):
            assert not row[name].lstrip(" ").startswith(FORMULA)
            assert row[name].removeprefix("'") in HOSTILE


def test_numbers_stay_numbers_in_the_csv(tmp_path):
    row = written(tmp_path, [outcome(1, -1.5)])[0][0]
    assert float(row["score"]) == -1.5
    assert float(row["p_value"]) == CALIBRATION.p_value(-1.5)
    assert row["disclaimer"] == DISCLAIMER


def test_what_was_not_analysed_keeps_its_priority_and_says_why(tmp_path):
    unread = outcome(1, site=Priority.HIGH, refusal=Refusal(Reason.GANTRY_TILT, "12 degrees"), objects=30)
    row = written(tmp_path, [unread])[1]["studies"][0]
    assert (row["priority"], row["raised"], row["decision"], row["score"]) == ("HIGH", False, "", None)
    assert (row["status"], row["not_analysed"]) == ("NOT_ANALYSED", 30)
    assert row["reasons"] == ["GANTRY_TILT: 12 degrees"]


def test_objects_that_are_no_images_are_counted_and_are_no_part_that_was_missed(tmp_path):
    others = [refused_file(Reason.NO_IMAGE, kind="Basic Text SR")] * 2 + [refused_file(Reason.RESULT, kind="=SEG")]
    table, document, html = written(tmp_path, [outcome(1, 0.5, others=tuple(others), objects=5)])
    (row,) = document["studies"]
    assert (row["status"], row["objects"], row["not_analysed"], row["reasons"]) == ("ANALYSED", 5, 0, [])
    assert row["no_images"] == {"Basic Text SR": 2, "=SEG": 1}
    assert table[0]["no_images"] == "2 x Basic Text SR, 1 x =SEG"
    words = " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())
    assert "5 objects 3 are no images 2 Basic Text SR, 1 =SEG" in words
    assert "in part only" not in words


def test_no_identifier_but_the_one_that_was_given(tmp_path):
    found = [replace(one, refused=(refused_file(),)) for one in morning()]
    write_worklist(found, tmp_path, ABOUT, identifiers={found[0].study: "ACC-77"})
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert "/not/shown" not in text
        assert text.count("ACC-77") == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_refuses_identifiers_of_unknown_studies_and_times_without_a_zone(tmp_path):
    with pytest.raises(SettingError, match="1 studies that are not in the worklist"):
        write_worklist(morning(), tmp_path, ABOUT, identifiers={"1.2.3": "x"})
    with pytest.raises(SettingError, match="time zone"):
        About(ABOUT.algorithm, CALIBRATION, datetime(2026, 1, 1))


def test_an_empty_worklist_is_written(tmp_path):
    table, document, html = written(tmp_path / "new", [])
    assert (table, document["studies"]) == ([], [])
    assert "No studies" in html


@pytest.mark.parametrize(
    ("p_value", "words"),
    [
        (1 / 401, "none of 400 normal patients held out scores this high"),
        (2 / 401, "about 1 in 200 normal patients scores this high"),
        (0.1, "about 1 in 10 normal patients scores this high"),
        (0.5, "about 5 in 10 normal patients score this high"),
        (1.0, "about 10 in 10 normal patients score this high"),
    ],
)
def test_rarity_in_words(p_value, words):
    assert rarity(p_value, CALIBRATION) == words


def test_places_in_words():
    assert [places(ranks) for ranks in ([], [3], [2, 3, 4], [1, 5], [1, 3, 5, 7, 9, 11, 13])] == [
        "",
        "place 3",
        "places 2 to 4",
        "places 1, 5",
        "places 1, 3, 5, 7, 9 and 2 more",
    ]


def test_files_of_no_study_are_said(tmp_path):
    strays = [refused_file(Reason.NOT_DICOM, "no mark"), refused_file(Reason.NOT_DICOM, "no mark"), refused_file()]
    paths = write_worklist(morning(), tmp_path, ABOUT, strays=strays)
    found = json.loads(paths.json.read_text())["files_of_no_study"]
    assert found["files"] == 3
    assert found["reasons"][0] == "NOT_DICOM (2 objects): no mark"
    words = unescape(re.sub("<[^>]*>", "", paths.html.read_text()))
    assert "3 files belong to no readable study and are in no row below: a study may be missing" in words
    assert "NOT_DICOM (2 objects): no mark" in words
    assert "/not/shown" not in paths.html.read_text() + paths.json.read_text()
    paths = write_worklist(morning(), tmp_path, ABOUT)
    assert "no readable study" not in paths.html.read_text()


def test_a_worklist_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    paths = write_worklist(morning(), tmp_path, ABOUT)
    before = paths.csv.read_bytes(), paths.json.read_bytes()
    paths.html.unlink()
    paths.html.mkdir()  # nothing can take its name
    with pytest.raises(OSError, match="directory"):
        write_worklist(morning()[:2], tmp_path, ABOUT)
    assert (paths.csv.read_bytes(), paths.json.read_bytes()) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
