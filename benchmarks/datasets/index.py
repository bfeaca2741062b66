"""The table of all cards, data_cards/README.md, made from their heads by `anomaly bench datasets --index`."""

from pathlib import Path

from benchmarks.datasets.cards import Card, folder, read_card
from benchmarks.datasets.registry import SETS
from benchmarks.tables import markdown

_HEAD = """# Data cards

One card per public data set: Markdown with a YAML head that is checked on every read. Made by

    anomaly bench datasets --index

from the heads of the cards; a test fails if this page is older than they are. `anomaly bench datasets NAME` shows a
card, [docs/datasets.md](../docs/datasets.md) says how to get, check and load a set, [docs/audit.md](../docs/audit.md)
how the shortcuts were measured.
"""

_TAIL = """Get: with `anomaly bench download`, or by hand as the card says. Loader ran on: real files in the layout of
the authors; a rearranged copy for development, and a generated tree of the authors' layout; or a generated tree only.
Every loader is tested on a whole, a partial, an empty and a wrong tree. Strongest shortcut: image AUROC of one global
number, measured here, where a copy was at hand. Unverified: heads of the card that could not be looked up.

The photographs that the bundled backbone was distilled on have [a card of their own](distillation_photographs.md).
"""


def index() -> str:
    """Returns the page as Markdown."""
    cards = [read_card(name) for name in SETS]
    parts = [_HEAD]
    for kind, title in (("industrial", "Industrial"), ("medical", "Medical")):
        own = [card for card in cards if card.kind == kind]
        header = ["set", "licence", "get", "marks", "strongest shortcut", "loader ran on", "unverified"]
        parts.append(f"## {title}\n\n{markdown(header, [_row(card) for card in own], texts=len(header))}\n")
    return "\n".join([*parts, _TAIL])


def write_index() -> Path:
    """Writes the page beside the cards and returns its path."""
    path = folder() / "README.md"
    path.write_text(index(), encoding="utf-8")
    return path


def _row(card: Card) -> list[str]:
    strongest = max(card.shortcuts, key=lambda one: one.auroc, default=None)
    measured = f"{strongest.what} {strongest.auroc:.2f}" if strongest else "not measured"
    unverified = ", ".join(card.unverified) or "nothing"
    get = "`download`" if card.archives else "by hand"
    return [f"[{card.title}]({card.name}.md)", card.licence, get, card.marks, measured, card.loader_ran_on, unverified]
