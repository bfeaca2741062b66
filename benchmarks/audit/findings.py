"""The audit itself: one AUROC per global number and trait of the file, leaks, and what they mean in plain words.

A score that does not clearly beat the best of these numbers proves nothing: the label can be read from the acquisition
(Geirhos et al., Shortcut learning in deep neural networks, Nature Machine Intelligence 2020).

Numbers: AUROC of the number itself, whichever side is higher, with the 95 % interval of DeLong, DeLong and
Clarke-Pearson (Comparing the areas under two or more correlated ROC curves, Biometrics 1988). Traits (the same table,
the same camera or not): AUROC of the share of anomalous images among those with the same trait. That share has seen
the labels, so it is above one half by chance alone; "by chance" is what 95 % of random relabellings stay below.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError
from anomaly.metrics import auroc
from anomaly.progress import Progress, silent
from benchmarks.audit.fingerprints import Fingerprint, fingerprints
from benchmarks.audit.leakage import Leakage, leakage
from benchmarks.datasets.examples import ANOMALOUS, NORMAL, TEST, TRAIN, VALIDATION, Example
from benchmarks.tables import markdown

STRONG, CLEAR, WEAK = 0.8, 0.65, 0.55
"""Lower ends of the interval (for a trait: the AUROC, if above chance) from which a shortcut is called so."""

MOVED = 0.7
"""AUROC of train normals against test normals from which they are said to differ."""

_CHANCE_ROUNDS = 200
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Finding:
    """One number or trait.

    Attributes:
        what: its name.
        auroc: of normal against anomalous images, 0.5..1.
        low: lower end of the 95 % interval; None for a trait.
        high: upper end; None for a trait.
        chance: what a trait reaches by chance; None for a number.
        higher: whether anomalous images have more of it; None for a trait.
        moved: AUROC of train normals against test normals, 0.5..1; None without both.
    """

    what: str
    auroc: float
    low: float | None
    high: float | None
    chance: float | None
    higher: bool | None
    moved: float | None

    @property
    def certain(self) -> float:
        """What can be relied on: the lower end, or the AUROC of a trait that beats chance; otherwise one half."""
        if self.low is not None:
            return max(0.5, self.low)
        return self.auroc if self.chance is not None and self.auroc > self.chance else 0.5

    @property
    def says(self) -> str:
        """Returns "STRONG", "clear", "weak" or "no"."""
        levels = ((STRONG, "STRONG"), (CLEAR, "clear"), (WEAK, "weak"))
        return next((word for level, word in levels if self.certain >= level), "no")


@dataclass(frozen=True)
class Audit:
    """What an audit of one set found.

    Attributes:
        name: the set, and its category.
        normal: normal images that were compared.
        anomalous: anomalous images that were compared.
        part: which part they are: "test", "validation" or "all".
        findings: strongest first.
        constant: numbers and traits that are the same everywhere.
        leaks: what train and test share.
    """

    name: str
    normal: int
    anomalous: int
    part: str
    findings: tuple[Finding, ...]
    constant: tuple[str, ...]
    leaks: Leakage

    def verdict(self) -> list[str]:
        """Returns what it means, in plain words, the worst first."""
        return [*_shortcut_words(self), *_moved_words(self), *_leak_words(self.leaks)]

    def as_json(self) -> dict[str, Any]:
        """Returns every figure."""
        rows = [asdict(finding) | {"says": finding.says} for finding in self.findings]
        return asdict(self) | {"findings": rows, "verdict": self.verdict()}

    def in_words(self) -> str:
        """Returns table and verdict as text."""
        head = f"{self.name}: {self.normal} normal and {self.anomalous} anomalous images ({self.part})"
        columns = [
            "global number or trait of the file",
            "AUROC",
            "95 % interval",
            "by chance",
            "train/test",
            "shortcut",
        ]
        rows = []
        for one in self.findings:
            interval = "" if one.low is None else f"{one.low:.2f} to {one.high:.2f}"
            side = {True: " (more)", False: " (less)", None: ""}[one.higher]
            chance, moved = (f"{v:.2f}" if v is not None else "" for v in (one.chance, one.moved))
            rows.append([f"{one.what}{side}", f"{one.auroc:.3f}", interval, chance, moved, one.says])
        lines = [head, "", markdown(columns, rows)] if rows else [head]
        if self.constant:
            lines += ["", f"the same in all images: {', '.join(self.constant)}"]
        lines += ["", *(f"- {line}" for line in self.verdict())]
        return "\n".join([*lines, *(f"  {a}  =  {b}  ({bits} bits, r {r:.2f})" for a, b, bits, r in self.leaks.pairs)])


def audit(name: str, examples: Sequence[Example], progress: Progress = silent) -> Audit:
    """Audits one experiment: the images of one category.

    Args:
        name: what to call it.
        examples: its images; those with an unknown label only count for leaks.
        progress: told of images.

    Raises:
        DatasetError: images cannot be read, or there are not normal and anomalous ones.
    """
    chosen, part = _judged(name, examples)
    prints = fingerprints(examples, progress)
    labels = np.array([examples[i].label for i in chosen])
    own = [prints[i] for i in chosen]
    learned = [p for p, e in zip(prints, examples, strict=True) if e.split == TRAIN and e.label == NORMAL]
    findings, constant = [], []
    for what in _common(own, "numbers"):
        values = np.array([one.numbers[what] for one in own])
        if np.unique(values).size == 1:
            constant.append(what)
        else:
            findings.append(
                _number(what, values, labels, [one.numbers[what] for one in learned if what in one.numbers])
            )
    for what in _common(own, "traits"):
        texts = [one.traits[what] for one in own]
        if len(set(texts)) == 1:
            constant.append(what)
        else:
            findings.append(_trait(what, texts, labels))
    findings.sort(key=lambda finding: (-finding.certain, -finding.auroc))
    normal, anomalous = int((labels == NORMAL).sum()), int((labels == ANOMALOUS).sum())
    leaks = leakage(examples, prints)
    return Audit(name, normal, anomalous, part, tuple(findings), tuple(constant), leaks)


def _judged(name: str, examples: Sequence[Example]) -> tuple[list[int], str]:
    """Returns the images on which a benchmark would be judged: test, else validation, else all."""
    for part, splits in (("test", {TEST}), ("validation", {VALIDATION}), ("all", {TRAIN, VALIDATION, TEST})):
        chosen = [i for i, e in enumerate(examples) if e.split in splits and e.label in (NORMAL, ANOMALOUS)]
        if len({examples[i].label for i in chosen}) == 2:
            return chosen, part
    have = {e.kind for e in examples}
    raise DatasetError(
        f"{name} has no normal and anomalous images to tell apart; it has: {', '.join(sorted(have)[:10])}"
    )


def _common(prints: Sequence[Fingerprint], field: str) -> list[str]:
    """Returns what is known of every image, in a fixed order."""
    names = list(getattr(prints[0], field))
    return [name for name in names if all(name in getattr(one, field) for one in prints)]


def _number(what: str, values: NDArray[np.float64], labels: NDArray[Any], learned: list[float]) -> Finding:
    raw = auroc(values, labels)
    higher = raw >= 0.5
    low, high = interval(values if higher else -values, labels)
    normal = values[labels == NORMAL]
    moved = None
    if learned and len(normal):
        side = auroc(np.concatenate([learned, normal]), np.repeat([0, 1], [len(learned), len(normal)]))
        moved = max(side, 1 - side)
    return Finding(what, max(raw, 1 - raw), low, high, None, higher, moved)


def interval(scores: NDArray[np.float64], labels: NDArray[Any]) -> tuple[float, float]:
    """Returns the 95 % interval of an AUROC after DeLong et al., cut off at 0 and 1.

    Args:
        scores: (N,) scores of independent images.
        labels: (N,) 1 = anomalous; two of each class at least, else the interval is 0 to 1.
    """
    normal, anomalous = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    if min(normal.size, anomalous.size) < 2:
        return 0.0, 1.0
    places = [(all_.searchsorted(own, "left") + all_.searchsorted(own, "right")) / (2 * all_.size)
              for own, all_ in ((anomalous, normal), (normal, anomalous))]  # fmt: skip
    spread = _NORMAL_95 * float(np.sqrt(sum(part.var(ddof=1) / part.size for part in places)))
    middle = float(places[0].mean())
    return max(0.0, middle - spread), min(1.0, middle + spread)


def _trait(what: str, texts: Sequence[str], labels: NDArray[Any]) -> Finding:
    codes = np.unique(np.array(texts), return_inverse=True)[1]
    random = np.random.default_rng(0)
    chance = [_share_auroc(codes, random.permutation(labels)) for _ in range(_CHANCE_ROUNDS)]
    limit = float(np.quantile(chance, 0.95))
    return Finding(what, _share_auroc(codes, labels), None, None, limit, None, None)


def _share_auroc(codes: NDArray[np.intp], labels: NDArray[Any]) -> float:
    """Returns the AUROC of the share of anomalous images among those with the same code; at least one half.

    Args:
        codes: (N,) 0 to K - 1, each of which occurs.
        labels: (N,) 1 = anomalous.
    """
    anomalous = np.bincount(codes, weights=labels)
    normal = np.bincount(codes) - anomalous
    order = np.unique(anomalous / (anomalous + normal), return_inverse=True)[1]
    anomalous, normal = np.bincount(order, weights=anomalous), np.bincount(order, weights=normal)
    below = np.cumsum(normal) - normal
    return float((anomalous * (below + normal / 2)).sum() / (anomalous.sum() * normal.sum()))


def _shortcut_words(found: Audit) -> list[str]:
    guilty = [one for one in found.findings if one.says in ("STRONG", "clear")]
    if not guilty:
        best = found.findings[0] if found.findings else None
        if best is None:
            return ["No shortcut: no global number differs between any two images."]
        return [f"No clear shortcut. The best single number, {best.what}, reaches an AUROC of {best.auroc:.2f}."]
    worst = guilty[0]
    others = f" (also: {', '.join(one.what for one in guilty[1:])})" if guilty[1:] else ""
    force = "alone tells" if worst.says == "STRONG" else "alone partly tells"
    return [
        f"SHORTCUT: {worst.what} {force} anomalous from normal, AUROC {worst.auroc:.2f}{others}. An image AUROC that "
        "does not clearly beat it proves nothing; print it beside every result, and trust pixel metrics more."
    ]


def _moved_words(found: Audit) -> list[str]:
    moved = sorted(
        ((one.moved, one.what) for one in found.findings if one.moved is not None and one.moved >= MOVED), reverse=True
    )
    if not moved:
        return []
    names = ", ".join(f"{what} {value:.2f}" for value, what in moved)
    return [
        f"MOVED: normal test images differ from the training images ({names}): false alarms measure that move too, and "
        "thresholds from training normals may not hold."
    ]


def _leak_words(leaks: Leakage) -> list[str]:
    lines = []
    if not leaks.split and leaks.near:
        lines.append(
            f"NO OFFICIAL SPLIT, and {leaks.near} of {leaks.compared} images have a near-duplicate ({leaks.exact} with "
            "the same pixels): a random split leaks. Split by group or in blocks."
        )
    elif not leaks.split:
        lines.append("No official split; no near-duplicates were found.")
    elif leaks.near:
        force = "LEAK" if leaks.exact else "TWINS"
        lines.append(
            f"{force}: {leaks.near} of {leaks.compared} test images have a near-duplicate in the training part "
            f"({leaks.exact} with the same pixels); {100 * leaks.usual:.0f} % of the training images have one among "
            "themselves. Look at the pairs: one thing photographed twice is a leak, products that look alike are none."
        )
    else:
        lines.append(f"No test image has a near-duplicate among the training images ({leaks.compared} compared).")
    if leaks.groups:
        lines.append(
            f"LEAK: {leaks.groups} groups (patients, items or lots) are in both the training and the test part."
        )
    if leaks.groups == 0:
        lines.append("No group (patient, item or lot) is in both parts.")
    if leaks.conflicts:
        lines.append(f"CONTRADICTION: {leaks.conflicts} images have the same pixels and different labels.")
    return lines
