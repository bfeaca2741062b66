"""Is a copy of a public set whole and unchanged? Folders, counts, sizes of images, and the SHA-256 of every file.

No publisher gives hashes of the files, so the first check of a copy that has all its images writes a manifest (the
format of `sha256sum`) and every later one compares with it.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anomaly.errors import DatasetError, ImageFileError
from anomaly.progress import Progress, silent
from benchmarks.datasets.cards import ANY, counted, read_card
from benchmarks.datasets.examples import Example, listed
from benchmarks.datasets.registry import find_set, load


@dataclass
class Checked:
    """What a check found.

    Attributes:
        name: the set.
        root: its folder.
        counts: images found: category -> "split/label" -> number.
        faults: what is wrong; empty for a whole copy.
        notes: what could not be checked, and what was written.
    """

    name: str
    root: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        """Returns the outcome as text."""
        total = sum(sum(own.values()) for own in self.counts.values())
        lines = [f"{self.name} in {self.root}: {total:,} images"]
        lines += [f"  {name}: {_numbers(own)}" for name, own in self.counts.items()]
        lines += [f"FAULT  {fault}" for fault in self.faults] + [f"note   {note}" for note in self.notes]
        return "\n".join([*lines, "not whole" if self.faults else "whole, as far as it could be checked"])


def check(name: str, root: Path, manifest: Path, hashes: bool = True, progress: Progress = silent) -> Checked:
    """Checks a copy in the layout of its authors.

    Args:
        name: name in the registry.
        root: folder of the copy.
        manifest: file of hashes; written if it is not there and nothing else is wrong.
        hashes: whether files are hashed at all, which reads all of them.
        progress: told of files.

    Raises:
        UnknownNameError: no such set.
        DatasetError: the folder is not there, or the manifest cannot be read or written.
    """
    chosen, found = find_set(name), Checked(name, root)
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder; check the path")
    examples: list[Example] = []
    for category in chosen.categories:
        try:
            examples += load(name, root, category)
        except DatasetError as error:
            found.faults.append(str(error).partition("\nexpected layout")[0])
    found.counts = counted(examples)
    _compare_counts(found, chosen.categories)
    _check_sizes(found, examples, progress)
    if found.faults:
        found.notes.append(f"expected layout:\n{read_card(name).layout}")
    if hashes:
        _check_hashes(found, manifest, progress)
    return found


def default_manifest(name: str, root: Path) -> Path:
    """Returns the manifest of a copy in the cache of the user, since the copy itself may be read-only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    return cache / "anomaly-suite" / "manifests" / f"{name}-{place}.sha256"


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(path: Path) -> dict[str, str]:
    """Reads a manifest: file, relative to the set -> SHA-256.

    Raises:
        DatasetError: it is not of the format of sha256sum.
    """
    found = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            value, gap, name = line.partition("  ")
            if len(value) != 64 or not gap:
                raise ValueError(f"{line!r} is not '<64 digits>  <file>'")
            found[name] = value
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no manifest: {error}") from error
    return found


def _compare_counts(found: Checked, categories: Iterable[str]) -> None:
    expected = read_card(found.name).counts
    if not expected:
        found.notes.append("the card has no verified counts to compare with")
    for name in [name or "all" for name in categories if (name or "all") in expected]:
        wrong = _differences(expected[name], found.counts.get(name, {}))
        if wrong:
            found.faults.append(f"{name}: {wrong}")
    whole = _summed(found.counts.values())
    if "all" in expected and "all" not in found.counts and (wrong := _differences(expected["all"], whole)):
        found.faults.append(f"all together: {wrong}")


def _differences(expected: Mapping[str, int], have: Mapping[str, int]) -> str:
    wrong = [
        f"{number:,} {part} images instead of {expected[part]:,}"
        for part, number in ((part, _images_of(part, have)) for part in expected)
        if number != expected[part]
    ]
    return ", ".join(wrong)


def _images_of(part: str, have: Mapping[str, int]) -> int:
    split, _, label = part.partition("/")
    if label != ANY:
        return have.get(part, 0)
    return sum(number for own, number in have.items() if own.startswith(f"{split}/"))


def _check_sizes(found: Checked, examples: list[Example], progress: Progress) -> None:
    from anomaly.images import IMAGE_SUFFIXES, image_info

    files = list(dict.fromkeys(e.path for e in examples if e.path.suffix.lower() in IMAGE_SUFFIXES))
    limits = read_card(found.name).size_limits
    odd: list[str] = []
    step = progress("headers of images", len(files))
    for path in files:
        name = path.relative_to(found.root).as_posix()
        try:
            info = image_info(path)
        except ImageFileError as error:
            odd.append(f"{name} {error.reason}")
        else:
            if limits and not (limits[0] <= info.height <= limits[1] and limits[2] <= info.width <= limits[3]):
                odd.append(f"{name} has {info.height} x {info.width} px")
        step(1)
    if odd:
        allowed = "" if limits is None else f" (allowed: {limits[0]} to {limits[1]} x {limits[2]} to {limits[3]} px)"
        found.faults.append(f"{len(odd)} images are not as they should be{allowed}: {listed(odd)}")
    if files and limits is None:
        found.notes.append("the card has no verified limits of image sizes; only the headers were read")


def _check_hashes(found: Checked, manifest: Path, progress: Progress) -> None:
    known = read_manifest(manifest) if manifest.is_file() else None
    if known is None and found.faults:
        found.notes.append("no manifest was written, since this copy is not whole")
        return
    files = sorted(p for p in found.root.rglob("*") if p.is_file() and p != manifest and not p.name.startswith("."))
    step = progress("hashes of files", len(files))
    have = {}
    for path in files:
        have[path.relative_to(found.root).as_posix()] = sha256_of(path)
        step(1)
    if known is None:
        _write(manifest, have)
        found.notes.append(f"first check of this copy: {len(have):,} hashes written to {manifest}")
        return
    parts = {
        "changed": [name for name in known if name in have and have[name] != known[name]],
        "missing": [name for name in known if name not in have],
        "new": [name for name in have if name not in known],
    }
    found.faults += [
        f"{len(names)} files {what} since {manifest}: {listed(names)}" for what, names in parts.items() if names
    ]
    if not any(parts.values()):
        found.notes.append(f"{len(have):,} files are those of {manifest}")


def _write(manifest: Path, hashes: Mapping[str, str]) -> None:
    partial = manifest.with_name(f".{manifest.name}.part")
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(f"{value}  {name}\n" for name, value in hashes.items()), encoding="utf-8")
        partial.replace(manifest)
    except OSError as error:
        raise DatasetError(f"{manifest} cannot be written: {error.strerror or error}; name another file") from error


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for own in counts:
        for part, number in own.items():
            found[part] = found.get(part, 0) + number
    return found


def _numbers(own: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {part}" for part, number in own.items())
