"""Every set has a card that is valid and current; what a card must not say is refused with the reason."""

import pytest
import yaml

from anomaly.errors import DatasetError
from benchmarks.datasets.cards import folder, parse_card, read_card
from benchmarks.datasets.index import index
from benchmarks.datasets.registry import SETS

EXAMPLE = "mpdd"


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_valid_card(name):
    card = read_card(name)
    assert card.name == name
    assert card.categories == len(SETS[name].categories)
    known = {one or "all" for one in SETS[name].categories} | {"all"}
    assert set(card.counts) <= known
    text = (folder() / f"{name}.md").read_text(encoding="utf-8")
    assert f"# {card.title}\n" in text
    assert all(len(line) <= 200 for line in text.splitlines())


def test_no_card_is_left_over_and_the_table_is_current():
    cards = {path.stem for path in folder().glob("*.md")} - {"README", "distillation_photographs"}
    assert cards == set(SETS)
    assert (folder() / "README.md").read_text(encoding="utf-8") == index(), "run: anomaly bench datasets --index"


def test_shortcuts_are_in_the_card_of_every_copy_at_hand():
    for name, own in SETS.items():
        card = read_card(name)
        assert bool(card.shortcuts) == bool(own.copies), name
        assert card.loader_ran_on != "generated tree" or not own.copies


def test_unverified_facts_are_not_used_as_facts():
    for name in SETS:
        card = read_card(name)
        if "counts" in card.unverified:
            assert not card.counts, name
        if "sizes" in card.unverified:
            assert card.size_limits is None, name


def test_files_to_download_are_of_sets_whose_licence_allows_it():
    for name in SETS:
        card = read_card(name)
        if card.archives:
            assert card.licence.startswith("CC BY"), name
            assert "licence" not in card.unverified
            assert all(archive.sha256 or archive.md5 for archive in card.archives.values())


@pytest.fixture
def head():
    text = (folder() / f"{EXAMPLE}.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n", 2)[1])


def as_text(head):
    return f"---\n{yaml.safe_dump(head)}---\n# Title\n"


def test_a_head_survives_writing(head):
    assert parse_card(as_text(head), "x.md") == read_card(EXAMPLE)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"licence": ""}, "licence"),
        ({"kind": "food"}, "industrial"),
        ({"traps": []}, "traps"),
        ({"colour": "blue"}, "colour"),
        ({"source": "somewhere"}, "source"),
        ({"unverified": ["price"]}, "unverified names price"),
        ({"counts": {"tubes": {"train/odd": 1}}}, "train/odd"),
        ({"counts": {"tubes": {"train/normal": -1}}}, "greater than or equal to 0"),
        ({"loader_ran_on": "real files"}, "real_files"),
        ({"measured_on": "a copy"}, "go together"),
        ({"shortcuts": [{"what": "x", "auroc": 0.9, "low": 0.5, "high": 0.8}]}, "outside its interval"),
        ({"archives": {"a.zip": {"url": "http://plain.org"}}}, "archives"),
    ],
)
def test_a_wrong_head_is_refused_with_the_reason(change, reason, head):
    with pytest.raises(DatasetError, match=reason):
        parse_card(as_text(head | change), "x.md")


@pytest.mark.parametrize("text", ["# Title\n", "---\nname: x\n", "---\n a: [\n---\n"])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(DatasetError, match=r"x\.md"):
        parse_card(text, "x.md")


def test_a_missing_card_is_named():
    with pytest.raises(DatasetError, match="there is no card"):
        read_card("nothing")
