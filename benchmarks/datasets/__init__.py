"""Public data sets: their layouts, splits, masks and boxes; their cards; is a copy whole; how to get one."""

from benchmarks.datasets.cards import Card, read_card
from benchmarks.datasets.examples import ANOMALOUS, NORMAL, TEST, TRAIN, UNKNOWN, VALIDATION, Example, Region, truth
from benchmarks.datasets.registry import SETS, PublicSet, find_set, load, load_copy

__all__ = [
    "ANOMALOUS",
    "NORMAL",
    "SETS",
    "TEST",
    "TRAIN",
    "UNKNOWN",
    "VALIDATION",
    "Card",
    "Example",
    "PublicSet",
    "Region",
    "find_set",
    "load",
    "load_copy",
    "read_card",
    "truth",
]
