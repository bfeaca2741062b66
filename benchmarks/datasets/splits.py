"""A part to test on where the authors gave none with known labels: their validation part, or groups set aside."""

import hashlib
from collections.abc import Sequence

from benchmarks.datasets.examples import ANOMALOUS, NORMAL, TEST, TRAIN, VALIDATION, Example

SHARE = 30
"""Percent of the groups that are tested where the authors have neither a test nor a validation part."""

OFFICIAL = "split of the authors"
VALIDATED = "the authors' test part has no public labels, or there is none: their validation part is tested"
GROUPS = (
    f"the authors have no split: about {SHARE} % of the groups (patients, items), by SHA-256 of their names, are tested"
)


def with_test_part(examples: Sequence[Example]) -> tuple[list[Example], str]:
    """Returns the examples with a test part, and one line about where the split comes from.

    A group is on one side as a whole, always the same. Sets whose images name no groups stay as they are: a random
    split of their images would leak.
    """
    known = [example for example in examples if example.label in (NORMAL, ANOMALOUS)]
    if any(example.split == TEST for example in known):
        return list(examples), OFFICIAL
    if any(example.split == VALIDATION for example in known):
        return [_moved(e, VALIDATION) if e.label in (NORMAL, ANOMALOUS) else e for e in examples], VALIDATED
    learned = [example for example in known if example.split == TRAIN]
    if not learned or not all(example.group for example in learned):
        return list(examples), OFFICIAL
    return [_moved(e, TRAIN) if e.group and is_tested(e.group) else e for e in examples], GROUPS


def is_tested(group: str) -> bool:
    """Returns whether a group is one of the `SHARE` percent that are tested."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) % 100 < SHARE


def _moved(example: Example, source: str) -> Example:
    return example._replace(split=TEST) if example.split == source else example
