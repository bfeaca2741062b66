"""How flags are spread over sex, age, view and scanner among normal patients.

The thresholds were set on the same patients, so the table does not say how many normals will be flagged; it says
whether the flags fall on some groups more than on others. Intervals: Clopper and Pearson, The use of confidence or
fiducial limits, 1934.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from medical.contract import view_of
from medical.objects import UNKNOWN, Instance
from medical.vocabulary import is_term

CONFIDENCE = 0.95
_DECADE = 10
_OLDEST = 90
"""Years; older ages are so rare that they identify (45 CFR 164.514(b)(2)(i)(C))."""
OTHERS = "others"
"""Values that one patient alone has and that are no terms of the standard: a name may have been typed in there."""


class Member(NamedTuple):
    """A normal patient that was held out.

    Attributes:
        instance: an object of theirs.
        flagged: whether their highest score is above the threshold of REVIEW.
    """

    instance: Instance
    flagged: bool


class Subgroup(NamedTuple):
    """One row.

    Attributes:
        attribute: "sex", "age", "view" or "scanner".
        value: e.g. "F", "60-69", "PA".
        patients: held-out normal patients in the group.
        flagged: how many of them are flagged.
        low: lower end of the 95 % interval of the share.
        high: upper end of it.
    """

    attribute: str
    value: str
    patients: int
    flagged: int
    low: float
    high: float


def _age(instance: Instance) -> str:
    if instance.age is None:
        return UNKNOWN
    if instance.age >= _OLDEST:
        return f"{_OLDEST} and above"
    first = int(instance.age // _DECADE) * _DECADE
    return f"{first}-{first + _DECADE - 1}"


_ATTRIBUTES: dict[str, Callable[[Instance], str]] = {
    "sex": lambda instance: instance.sex,
    "age": _age,
    "view": view_of,
    "scanner": lambda instance: instance.scanner,
}


def subgroups(members: Iterable[Member]) -> tuple[Subgroup, ...]:
    """Returns the table; attributes that nothing is known of are left out."""
    listed = list(members)
    rows = []
    for attribute, value_of in _ATTRIBUTES.items():
        found: dict[str, list[bool]] = {}
        for member in listed:
            found.setdefault(value_of(member.instance), []).append(member.flagged)
        if set(found) != {UNKNOWN}:
            rows += [_row(attribute, value, flags) for value, flags in sorted(_shared(attribute, found).items())]
    return tuple(rows)


def _shared(attribute: str, found: dict[str, list[bool]]) -> dict[str, list[bool]]:
    """The table is shown to everybody who has the model."""
    kept: dict[str, list[bool]] = {}
    for value, flags in found.items():
        known = attribute in ("sex", "age") or len(flags) > 1 or is_term(value)
        kept.setdefault(value if known else OTHERS, []).extend(flags)
    return kept


def interval(hits: int, total: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of a share, after Clopper and Pearson; total is 1 or more."""
    from scipy.stats import binomtest

    found = binomtest(hits, total).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def _row(attribute: str, value: str, flags: list[bool]) -> Subgroup:
    return Subgroup(attribute, value, len(flags), sum(flags), *interval(sum(flags), len(flags)))
