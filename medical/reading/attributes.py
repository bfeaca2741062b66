"""Values of attributes that may be missing, empty, multiple, malformed or oddly encoded, read without surprise.

Runs in the worker process. pydicom converts a value when it is asked for; a malformed one raises anything then.
"""

import math
import re
from typing import Any

from pydicom.dataset import Dataset

from medical.objects import UNKNOWN

_LONGEST = 1024
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


def value(source: Dataset, name: str) -> Any:
    """Returns the value; None where it is missing, empty or malformed."""
    try:
        found = source.get(name)
    except RecursionError:
        raise
    except Exception:  # whatever a malformed value made the converter raise
        return None
    return None if found is None or (isinstance(found, str) and not found.strip()) else found


def values(source: Dataset, name: str) -> list[Any]:
    """Returns all values of a multiple attribute; [] where it is missing, empty or malformed."""
    found = value(source, name)
    if found is None:
        return []
    return [found] if isinstance(found, str | int | float | bytes) or not hasattr(found, "__iter__") else list(found)


def text(source: Dataset, name: str) -> str:
    """Returns the first value in upper case, printable characters only; "" where there is none."""
    found = values(source, name)
    first = str(found[0]).upper() if found and found[0] is not None else ""
    first = "".join(one for one in first if one.isprintable()).strip()
    return first if len(first) <= _LONGEST else ""


def known(source: Dataset, name: str, allowed: tuple[str, ...] = ()) -> str:
    """Returns the text; "unknown" where there is none or it is not one of the allowed ones."""
    found = text(source, name)
    return found if found and (not allowed or found in allowed) else UNKNOWN


def integer(source: Dataset, name: str) -> int | None:
    """Returns a single whole number; None where there is none."""
    found = values(source, name)
    try:
        return int(found[0]) if len(found) == 1 else None
    except (TypeError, ValueError, OverflowError):
        return None


def numbers(source: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """Returns exactly `count` finite numbers; None where they are not there."""
    try:
        found = tuple(float(one) for one in values(source, name))
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def items(source: Dataset, name: str) -> list[Dataset]:
    """Returns the items of a sequence; [] where it is missing or malformed."""
    return [item for item in values(source, name) if isinstance(item, Dataset)]


def valid_uid(uid: str) -> bool:
    """Whether the text is a UID after PS3.5 section 9.1: at most 64 digits and dots, no component with a leading 0."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def uid(source: Dataset, name: str) -> str:
    """Returns the text of a UID, valid or not; "" where it is missing or multiple."""
    found = values(source, name)
    return str(found[0]).strip("\0 ") if len(found) == 1 else ""
