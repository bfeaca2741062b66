"""The commands `anomaly bench datasets`, `check`, `download` and `audit`."""

import json
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from benchmarks.datasets import Example

Name = Annotated[str, typer.Argument(help="A set of `anomaly bench datasets`.")]


def datasets_command(
    name: Annotated[str | None, typer.Argument(help="Show the card of this set.")] = None,
    index: Annotated[bool, typer.Option("--index", help="Write data_cards/README.md from the cards.")] = False,
) -> None:
    """List the public data sets: kind, licence, whether a copy is at hand, where to get it; or show the card of one.

    Examples:
        anomaly bench datasets

        anomaly bench datasets visa
    """
    from benchmarks.datasets.cards import folder, read_card
    from benchmarks.datasets.index import write_index
    from benchmarks.datasets.registry import SETS, copy_at_hand, find_set

    if index:
        typer.echo(f"written: {write_index()}")
        return
    if name is not None:
        find_set(name)
        read_card(name)
        typer.echo((folder() / f"{name}.md").read_text(encoding="utf-8"))
        return
    cards = {known: read_card(known) for known in SETS}
    for kind in ("industrial", "medical"):
        typer.echo(f"{kind}:")
        for known, card in cards.items():
            if card.kind == kind:
                copy = copy_at_hand(known)
                here = f"at hand: {copy[1]}" if copy else "not at hand"
                typer.echo(f"  {known:16} {shorten(card.licence, 52, placeholder=' ...'):54} {here}")
                typer.echo(f"  {'':16} {card.source}")
        typer.echo("")
    typer.echo(
        "at hand: a copy rearranged for development. `anomaly bench datasets NAME` shows everything about a set."
    )


def check_command(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Folder of the copy, in the layout of its authors.")],
    manifest: Annotated[
        Path | None, typer.Option(help="File of SHA-256 hashes; default: in the cache of the user.")
    ] = None,
    hashes: Annotated[bool, typer.Option(help="Hash every file.")] = True,
) -> None:
    """Check whether a copy of a set is whole and unchanged: folders, counts, image sizes, SHA-256 of every file.

    The first check of a whole copy writes the hashes, every later one compares with them. Exit status 1: not whole.

    Examples:
        anomaly bench check visa data/VisA

        anomaly bench check mvtec_ad /data/mvtec --manifest mvtec.sha256 --no-hashes
    """
    from anomaly.progress import bars
    from benchmarks.datasets.integrity import check, default_manifest

    with bars(delay=1.0) as progress:
        found = check(name, folder, manifest or default_manifest(name, folder), hashes, progress)
    typer.echo(found.in_words())
    if found.faults:
        raise typer.Exit(1)


def download_command(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Folder to download into.")],
    file: Annotated[str | None, typer.Option(help="Only this file of the set.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="The licence was read and is accepted; do not ask.")] = False,
) -> None:
    """Download the files of a set whose licence allows it; shows the licence first, goes on where it broke off.

    Examples:
        anomaly bench download visa data/

        anomaly bench download medmnist data/medmnist --file octmnist.npz --accept
    """
    from anomaly.errors import DatasetError, UnknownNameError
    from anomaly.progress import bars
    from benchmarks.datasets.cards import read_card
    from benchmarks.datasets.download import fetch, terms
    from benchmarks.datasets.registry import find_set

    find_set(name)
    card = read_card(name)
    if not card.archives:
        raise DatasetError(f"{card.title} cannot be downloaded from here. How to get it: {card.get}")
    if file is not None and file not in card.archives:
        raise UnknownNameError.among(f"file of {name}", file, card.archives)
    typer.echo(terms(card))
    if not accept:
        typer.confirm("Do you accept these terms?", abort=True)
    with bars() as progress:
        for one in card.archives if file is None else [file]:
            typer.echo(f"here: {fetch(card.archives[one], folder / one, progress)}")


def audit_command(
    dataset: Annotated[str, typer.Argument(help="A set of `anomaly bench datasets`, or a folder with train/good.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of the set, in the layout of its authors; default: the copy at hand.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="One category only; default: each of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array on standard output.")] = False,
) -> None:
    """Audit a set before anyone believes a score on it: what do brightness, sharpness, files and leaks give away?

    One AUROC per global number of normal against anomalous images: mean grey, contrast, gradients, sizes, compression,
    metadata; then near-duplicates and patients that training and test share; then what it means.

    Examples:
        anomaly bench audit elpv

        anomaly bench audit visa data/VisA --category pcb1

        anomaly bench audit my_parts/ --json
    """
    from anomaly.progress import bars
    from benchmarks.audit import audit
    from benchmarks.datasets.plain import plain, slices_of

    found = []
    with bars(delay=1.0) as progress:
        for name, examples in _experiments(dataset, folder, category):
            found.append(audit(name, plain(slices_of(examples), tables=False), progress))
            if not as_json:
                typer.echo(found[-1].in_words() + "\n")
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=2))


def _experiments(dataset: str, folder: Path | None, category: str | None) -> "list[tuple[str, list[Example]]]":
    """Returns name and images of each experiment: a folder, the copy at hand, or the categories of a set."""
    from anomaly.errors import SettingError
    from benchmarks.datasets.registry import SETS, find_set, load, load_copy
    from benchmarks.datasets.trees import mvtec

    if dataset not in SETS and Path(dataset).is_dir():
        if folder is not None or category is not None:
            raise SettingError(f"{dataset} is a folder; --category and a second folder go with the name of a set")
        return [(dataset, mvtec(Path(dataset), ""))]
    chosen = find_set(dataset)
    if folder is None:
        if category is not None:
            raise SettingError(f"--category needs the folder of {dataset}; the copy at hand has one part only")
        return [(f"{dataset} (copy at hand)", load_copy(dataset))]
    wanted = chosen.categories if category is None else (category,)
    return [(f"{dataset} {one}".strip(), load(dataset, folder, one)) for one in wanted]
