"""Data cards: data_cards/<name>.md, Markdown with a YAML head of facts that `Card` checks; and the table of all cards.

After Gebru et al., Datasheets for Datasets, Communications of the ACM 2021, cut down to what decides whether and how a
set may be used here. A fact that nobody could look up is named in `unverified`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anomaly.errors import DatasetError
from benchmarks.datasets.examples import ANOMALOUS, NORMAL, UNKNOWN, Example

_ROOT = Path(__file__).resolve().parents[2]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
ANY = "any"
"""In counts: whatever the label."""

LABELS = {NORMAL: "normal", ANOMALOUS: "anomalous", UNKNOWN: "unknown"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Strict):
    """A file that anybody may fetch without signing up.

    Attributes:
        url: where.
        sha256: of the file, in hexadecimal; None where only its MD5, or nothing, is published.
        md5: the same with MD5.
    """

    url: Annotated[str, Field(pattern="^https://")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None


class Shortcut(_Strict):
    """What one global number tells about the label, measured here by `anomaly bench audit`.

    Attributes:
        what: the number.
        auroc: image AUROC, whichever side is higher.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    what: Text
    auroc: Annotated[float, Field(ge=0.5, le=1)]
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "Shortcut":
        if not self.low <= self.auroc <= self.high:
            raise ValueError(f"{self.what}: {self.auroc} is outside its interval {self.low} to {self.high}")
        return self


class Card(_Strict):
    """The head of a card.

    Attributes:
        name: as in the registry.
        title: as its authors write it.
        kind: industrial or medical.
        images: what is in the pictures, one line.
        source: its page.
        get: how to get it, in words.
        archives: files to download without signing up, by name; empty where there are none.
        licence: its name, or "none stated".
        licence_text: where it stands; None if nowhere.
        redistribution: may copies be passed on?
        must_not_use: who must not use it, or what for.
        citation: what its authors ask for.
        split: the official split.
        marks: masks, boxes, polygons or image labels only.
        categories: how many products, organs or subsets.
        counts: number of images: category (or "all") -> "train/normal", "test/anomalous", "test/any", ... -> number.
        sizes: sizes of the images in words.
        size_limits: smallest height, largest height, smallest width, largest width in pixels, if known.
        traps: what misleads.
        shortcuts: measured here when a copy was at hand.
        measured_on: which copy; None if there was none.
        loader_ran_on: "real files" in the layout of the authors; "rearranged copy": only a loader of that copy ran on
            real files; or "generated tree".
        real_files: which real files; None for a generated tree.
        unverified: names of the heads above that could not be looked up.
        checked_in: where the rest was looked up.
        layout: the folders as they come.
    """

    name: Annotated[str, Field(pattern="^[a-z0-9_]+$")]
    title: Text
    kind: Literal["industrial", "medical"]
    images: Text
    source: Annotated[str, Field(pattern="^https?://")]
    get: Text
    archives: dict[str, Archive] = {}
    licence: Text
    licence_text: str | None = None
    redistribution: Text
    must_not_use: Text
    citation: Text
    split: Text
    marks: Text
    categories: Annotated[int, Field(ge=1)]
    counts: dict[str, dict[str, Count]] = {}
    sizes: Text
    size_limits: tuple[Count, Count, Count, Count] | None = None
    traps: Annotated[list[Text], Field(min_length=1)]
    shortcuts: list[Shortcut] = []
    measured_on: str | None = None
    loader_ran_on: Literal["real files", "rearranged copy", "generated tree"]
    real_files: str | None = None
    unverified: list[str] = []
    checked_in: Annotated[list[Text], Field(min_length=1)]
    layout: Text

    @model_validator(mode="after")
    def _consistent(self) -> "Card":
        heads = set(type(self).model_fields)
        strange = [head for head in self.unverified if head.partition(" ")[0] not in heads]
        if strange:
            raise ValueError(f"unverified names {', '.join(strange)}; each entry begins with a head of the card")
        if bool(self.shortcuts) != bool(self.measured_on):
            raise ValueError("shortcuts and measured_on go together: say on which copy they were measured")
        if (self.loader_ran_on == "generated tree") == bool(self.real_files):
            raise ValueError("real_files says on which files a loader ran, and only if it was no generated tree")
        labels = (*LABELS.values(), ANY)
        parts = {f"{split}/{label}" for split in ("train", "validation", "test") for label in labels}
        odd = sorted({part for own in self.counts.values() for part in own} - parts)
        if odd:
            raise ValueError(f"counts has {', '.join(odd)}; allowed: {', '.join(sorted(parts))}")
        return self


def folder() -> Path:
    """Returns the folder of the cards: in the checkout, or in the installed package.

    Raises:
        DatasetError: it is in neither.
    """
    for place in (_ROOT / "data_cards", Path(__file__).resolve().parents[1] / "data_cards"):
        if place.is_dir():
            return place
    raise DatasetError(f"the data cards are missing: no folder {_ROOT / 'data_cards'}; use a checkout of the project")


def read_card(name: str) -> Card:
    """Reads the head of a card.

    Raises:
        DatasetError: there is none, or its head is not valid; says what is wrong.
    """
    path = folder() / f"{name}.md"
    if not path.is_file():
        raise DatasetError(f"there is no card {path}")
    return parse_card(path.read_text(encoding="utf-8"), str(path))


def parse_card(text: str, origin: str) -> Card:
    """Reads the head of the text of a card.

    Args:
        text: Markdown that begins with "---", YAML and "---".
        origin: its file, for messages.

    Raises:
        DatasetError: no head, no YAML, or not what `Card` asks for.
    """
    import yaml  # type: ignore[import-untyped] # no stubs in the lock file

    pieces = text.split("---\n", 2)
    if len(pieces) != 3 or pieces[0]:
        raise DatasetError(f"{origin} must begin with '---', a YAML head and '---'")
    try:
        return Card.model_validate(yaml.safe_load(pieces[1]))
    except yaml.YAMLError as error:
        raise DatasetError(f"the head of {origin} is no YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise DatasetError(f"the head of {origin} is not valid: {faults}") from error


def counted(examples: list[Example]) -> dict[str, dict[str, int]]:
    """Counts images as the cards do: category -> "split/label" -> number."""
    found: dict[str, dict[str, int]] = {}
    for example in examples:
        own = found.setdefault(example.category or "all", {})
        part = f"{example.split}/{LABELS[example.label]}"
        own[part] = own.get(part, 0) + 1
    return found
