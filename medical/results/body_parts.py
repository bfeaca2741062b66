"""Body part and side of a result."""

from typing import Any

from medical.vocabulary import UNPAIRED


def give_body_part(result: Any, header: Any) -> None:
    """Copies Body Part Examined and Laterality (PS3.3 C.7.3.1); the latter is empty where needed and not stated."""
    part = str(header.get("BodyPartExamined") or "")
    if part:
        result.BodyPartExamined = part
    if part not in UNPAIRED:
        side = header.get("Laterality") or header.get("ImageLaterality") or ""
        result.Laterality = side if side in ("L", "R") else ""
