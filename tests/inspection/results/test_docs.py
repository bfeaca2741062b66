"""The how-to: its recipe is valid, its queries run in both databases and say what they promise."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from anomaly.calibration import Decision
from inspection.parts import Defect, PartResult, Reason
from inspection.results.records import Picture, Run, Verdict
from inspection.results.settings import ResultsSettings
from inspection.results.store import ResultsStore

PAGE = (Path(__file__).parents[3] / "docs" / "results.md").read_text()
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_recipe_is_valid_also_with_what_is_commented_out() -> None:
    (recipe,) = blocks("toml")
    for text in (recipe, re.sub(r"^# (?=[a-z_]+ =)", "", recipe, flags=re.MULTILINE)):
        settings = ResultsSettings(**tomllib.loads(text)["results"])
        assert [publisher.type for publisher in settings.publishers] == ["mqtt", "webhook", "csv", "jsonl"]
        assert ResultsSettings.model_validate_json(settings.model_dump_json()) == settings


def judged(part: str, decision: Decision, *defects: Defect) -> PartResult:
    return PartResult(
        part=part,
        source="",
        captured=NOON,
        decision=decision,
        reason=Reason.SCORE,
        score=1.0,
        p_value=0.5,
        defects=defects,
    )


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def test_the_queries_say_what_they_promise(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = tmp_path / "x.sqlite" if kind == "sqlite" else request.getfixturevalue("postgresql").database()
    sizes = dict.fromkeys(("x_mm", "y_mm", "length_mm", "width_mm", "peak", "mean"), 1.0)
    small, large = (
        Defect(id=k, box_px=(0, 0, 1, 1), area_mm2=area, p_value=0.5, severity="minor", **sizes)
        for k, area in ((1, 0.25), (2, 4.0))
    )
    late = PartResult(part="late", source="", captured=NOON, decision=Decision.NG, reason=Reason.TIMEOUT)
    raw = Picture(kind="raw", folder="f", path="raw.png", bytes=1, written=NOON)
    run = Run.now(recipe="r", model="m")
    with ResultsStore.open(place, create=True) as store:
        store.start(run, ["webhook"])
        parts = [judged("ok", Decision.OK), judged("ng", Decision.NG, small, large), late, judged("?", Decision.REVIEW)]
        store.write(run.id, parts, {"ng": [raw]})
        store.add_verdicts([Verdict(run=run.id, part="late", verdict=Decision.OK, who="Ana", given=NOON)])
        answers: list[list[Any]] = []
        for query in blocks("sql"):
            with store.database.reading() as connection:
                answers.append([tuple(row) for row in connection.exec_driver_sql(query)])
    yields, latest, review, waiting = answers
    assert [(*row[:2], float(row[2]), row[3]) for row in yields] == [(run.id, 4, 0.25, 1)]
    assert {(row[0], row[4], row[5]) for row in latest} == {("ng", 4.0, "raw.png"), ("late", None, None)}
    assert [row[1] for row in review] == ["ng", "?"]
    assert waiting == [("webhook", 4)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"database": "postgresql://line:secret@10.0.0.5/x"}, "must not hold the password"),
        ({"database": "mysql://10.0.0.5/x"}, "must be the path of a SQLite file"),
        ({"pictures": {"keep_day": 1}}, "Extra inputs are not permitted"),
        ({"pictures": {"raw": ["BAD"]}}, "'OK', 'REVIEW' or 'NG'"),
        ({"publishers": [{"type": "mqtt"}]}, "client_id"),
        ({"publishers": [{"type": "mqtt", "client_id": "a", "topic": "a/#"}]}, "none of"),
        ({"publishers": [{"type": "mqtt", "client_id": "a", "password_env": "pass word!"}]}, "not the secret itself"),
        ({"publishers": [{"type": "mqtt", "client_id": "a", "ca_file": "x"}]}, "need tls"),
        ({"publishers": [{"type": "webhook", "url": "http://u:p@127.0.0.1/"}]}, "headers_env"),
        ({"publishers": [{"type": "webhook", "url": "ftp://127.0.0.1/"}]}, "http://"),
        ({"publishers": [{"type": "csv", "path": "a"}, {"type": "csv", "path": "./a"}]}, "same receiver twice"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResultsSettings.model_validate(wrong)
