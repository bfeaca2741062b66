"""The table of public data sets: name -> loader, subsets, and where a copy for development may lie.

All facts about a set (licence, counts, sizes, split, traps) are in its card, `data_cards/<name>.md`; see `cards`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anomaly.errors import DatasetError, UnknownNameError
from benchmarks.datasets import arrays, chest, lists, pairs, trees, volumes
from benchmarks.datasets.examples import Example

Loader = Callable[[Path, str], list[Example]]
"""Called with the folder of the set and a category ("" if the set has only one)."""


@dataclass(frozen=True)
class Copy:
    """A copy of a set for development, rearranged: not the layout of its authors.

    Attributes:
        folder: below the shared folder.
        loader: of this layout.
        category: the part of the set that it holds; empty for all of it.
    """

    folder: str
    loader: Loader
    category: str = ""


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        loader: of the layout of its authors.
        categories: its products, organs or subsets, one experiment each; ("",) where there is only one.
        copies: rearranged copies that may be at hand.
        soft_masks: whether masks have soft edges, see `examples.truth`.
    """

    loader: Loader
    categories: tuple[str, ...] = ("",)
    copies: tuple[Copy, ...] = ()
    soft_masks: bool = False


_ARRANGED = trees.mvtec
_MEDMNIST_2D = (
    "pathmnist chestmnist dermamnist octmnist pneumoniamnist retinamnist breastmnist bloodmnist tissuemnist "
    "organamnist organcmnist organsmnist"
)
_MEDMNIST_3D = "organmnist3d nodulemnist3d adrenalmnist3d fracturemnist3d vesselmnist3d synapsemnist3d"
_KERMANY = {"chest_xray": ("PNEUMONIA",), "OCT2017": ("CNV", "DME", "DRUSEN")}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _kermany(root: Path, category: str) -> list[Example]:
    return trees.classes(root, category, "NORMAL", _KERMANY[category])


def _medianomaly(root: Path, category: str) -> list[Example]:
    if category == "ISIC2018_Task3":
        return lists.isic2018(root, category)
    if category == "Camelyon16":
        names = {"train/good": "good", "test/good": "good", "test/Ungood": "Ungood"}
        return trees.medianomaly_folders(root, category, names)
    if category == "BraTS2021":
        names = {"train": "good", "test/normal": "good", "test/tumor": "tumor"}
        return trees.medianomaly_folders(root, category, names, "test/annotation")
    return lists.medianomaly_list(root, category)


SETS: dict[str, PublicSet] = {
    "mvtec_ad": PublicSet(
        trees.mvtec_masks_needed,
        _names(
            "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood "
            "zipper"
        ),
    ),
    "mvtec_ad_2": PublicSet(trees.mvtec2, _names("can fabric fruit_jelly rice sheet_metal vial wallplugs walnuts")),
    "mvtec_loco": PublicSet(
        partial(trees.mvtec_masks_needed, validation=True, loco=True),
        _names("breakfast_box juice_bottle pushpins screw_bag splicing_connectors"),
    ),
    "visa": PublicSet(
        lists.visa,
        _names("candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"),
    ),
    "btad": PublicSet(partial(trees.mvtec_masks_needed, good="ok"), ("01", "02", "03")),
    "mpdd": PublicSet(
        trees.mvtec_masks_needed,
        _names("bracket_black bracket_brown bracket_white connector metal_plate tubes"),
    ),
    "real_iad": PublicSet(
        lists.real_iad,
        _names(
            "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery plastic_nut "
            "plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape terminalblock toothbrush "
            "toy toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads woodstick zipper"
        ),
    ),
    "kolektor_sdd": PublicSet(pairs.kolektor),
    "kolektor_sdd2": PublicSet(pairs.kolektor2),
    "dagm": PublicSet(pairs.dagm, tuple(f"Class{number}" for number in range(1, 11))),
    "magnetic_tile": PublicSet(
        pairs.magnetic_tile, copies=(Copy("data/industrial/magnetic_tile", _ARRANGED),), soft_masks=True
    ),
    "neu_det": PublicSet(pairs.neu_det),
    "deeppcb": PublicSet(pairs.deeppcb),
    "elpv": PublicSet(lists.elpv, ("mono", "poly"), (Copy("data/industrial/elpv_mono", _ARRANGED, "mono"),)),
    "bsdata": PublicSet(pairs.bsdata, copies=(Copy("data/industrial/bsdata", _ARRANGED),)),
    "wm811k": PublicSet(arrays.wm811k),
    "mixedwm38": PublicSet(arrays.mixedwm38),
    "bmad": PublicSet(trees.bmad, ("Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology")),
    "medianomaly": PublicSet(
        _medianomaly, ("RSNA", "VinCXR", "BrainTumor", "LAG", "ISIC2018_Task3", "Camelyon16", "BraTS2021")
    ),
    "medmnist": PublicSet(arrays.medmnist, _names(f"{_MEDMNIST_2D} {_MEDMNIST_3D}")),
    "nih_chestxray14": PublicSet(chest.nih, copies=(Copy("data/medical/cxr_nih_256", lists.nih_256),)),
    "rsna_pneumonia": PublicSet(chest.rsna),
    "vindr_cxr": PublicSet(chest.vindr),
    "kermany": PublicSet(_kermany, tuple(_KERMANY), (Copy("data/medical/cxr_kermany", _ARRANGED, "chest_xray"),)),
    "chexpert": PublicSet(chest.chexpert),
    "ixi": PublicSet(volumes.ixi, ("T1", "T2", "PD", "MRA")),
    "brats": PublicSet(volumes.brats, volumes.BRATS_SEQUENCES),
}
"""Every public set by name, industrial first."""


def find_set(name: str) -> PublicSet:
    """Returns a set of the table.

    Raises:
        UnknownNameError: no such set; lists the names.
    """
    if name not in SETS:
        raise UnknownNameError.among("data set", name, SETS)
    return SETS[name]


def load(name: str, root: Path, category: str | None = None) -> list[Example]:
    """Finds the images of a public set, in the layout of its authors, with split, labels, masks and boxes.

    Args:
        name: name in `SETS`.
        root: its folder.
        category: one of its categories; None for all of them, which must then all be there.

    Returns:
        Every image, category by category.

    Raises:
        UnknownNameError: no such set or category.
        DatasetError: something is missing; says what, and shows the layout.
    """
    from benchmarks.datasets.cards import read_card

    chosen = find_set(name)
    if category is not None and category not in chosen.categories:
        raise UnknownNameError.among(f"category of {name}", category, chosen.categories)
    try:
        wanted = chosen.categories if category is None else (category,)
        return [example for one in wanted for example in chosen.loader(root, one)]
    except DatasetError as error:
        raise DatasetError(f"{error}\nexpected layout of {name}:\n{read_card(name).layout}") from error


def copy_at_hand(name: str) -> tuple[Copy, Path] | None:
    """Returns the first copy for development of a set that is there, with its folder."""
    from benchmarks.environment import shared_file

    for copy in find_set(name).copies:
        try:
            return copy, shared_file(copy.folder)
        except DatasetError:
            continue
    return None


def load_copy(name: str) -> list[Example]:
    """Finds the images of a copy for development.

    Raises:
        UnknownNameError: no such set.
        DatasetError: none is at hand, or it is not complete.
    """
    found = copy_at_hand(name)
    if found is None:
        raise DatasetError(f"no copy of {name} is at hand; give its folder, or set ANOMALY_SHARED to one that has it")
    copy, folder = found
    return [example._replace(category=copy.category) for example in copy.loader(folder, "")]
