"""Wafers: die grid, defects of many frames on one wafer, die-to-die comparison, maps, signatures, KLARF, E142, G85.

Names are loaded when they are used, so importing this package costs nothing. KLARF is `inspection.wafer.klarf`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspection.wafer.bins import Bin, BinMap, bin_map
    from inspection.wafer.blobs import find_blobs, locate
    from inspection.wafer.defects import Blob, InspectedWafer, WaferDefect
    from inspection.wafer.die_comparison import DieComparison, DieDifference, DieScore
    from inspection.wafer.dies import DieImage, Registration, cut_dies, median_die, register, stitch
    from inspection.wafer.errors import KlarfError, MapFileError, PickleRefused, WaferFileError
    from inspection.wafer.frame_difference import FrameDifference
    from inspection.wafer.geometry import Coverage, DieIndex, Side, WaferGeometry, centred, turned
    from inspection.wafer.inspecting import Timing, WaferInspector
    from inspection.wafer.map_files import e142, g85, read_e142, read_g85, write_map
    from inspection.wafer.merging import merge_frames
    from inspection.wafer.picture import wafer_png, wafer_svg, write_picture
    from inspection.wafer.region import Region
    from inspection.wafer.signatures import Signature, SignatureTest, SpatialReport
    from inspection.wafer.stage import Alignment, FrameView
    from inspection.wafer.synthetic import Planted, SyntheticWafer
    from inspection.wafer.wm811k import WaferMaps, as_frame, bin_map_input, convert

_HOME = {
    "bins": ("Bin", "BinMap", "bin_map"),
    "blobs": ("find_blobs", "locate"),
    "defects": ("Blob", "InspectedWafer", "WaferDefect"),
    "die_comparison": ("DieComparison", "DieDifference", "DieScore"),
    "dies": ("DieImage", "Registration", "cut_dies", "median_die", "register", "stitch"),
    "errors": ("KlarfError", "MapFileError", "PickleRefused", "WaferFileError"),
    "frame_difference": ("FrameDifference",),
    "geometry": ("Coverage", "DieIndex", "Side", "WaferGeometry", "centred", "turned"),
    "inspecting": ("Timing", "WaferInspector"),
    "map_files": ("e142", "g85", "read_e142", "read_g85", "write_map"),
    "merging": ("merge_frames",),
    "picture": ("wafer_png", "wafer_svg", "write_picture"),
    "region": ("Region",),
    "signatures": ("Signature", "SignatureTest", "SpatialReport"),
    "stage": ("Alignment", "FrameView"),
    "synthetic": ("Planted", "SyntheticWafer"),
    "wm811k": ("WaferMaps", "as_frame", "bin_map_input", "convert"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Alignment",
    "Bin",
    "BinMap",
    "Blob",
    "Coverage",
    "DieComparison",
    "DieDifference",
    "DieImage",
    "DieIndex",
    "DieScore",
    "FrameDifference",
    "FrameView",
    "InspectedWafer",
    "KlarfError",
    "MapFileError",
    "PickleRefused",
    "Planted",
    "Region",
    "Registration",
    "Side",
    "Signature",
    "SignatureTest",
    "SpatialReport",
    "SyntheticWafer",
    "Timing",
    "WaferDefect",
    "WaferFileError",
    "WaferGeometry",
    "WaferInspector",
    "WaferMaps",
    "as_frame",
    "bin_map",
    "bin_map_input",
    "centred",
    "convert",
    "cut_dies",
    "e142",
    "find_blobs",
    "g85",
    "locate",
    "median_die",
    "merge_frames",
    "read_e142",
    "read_g85",
    "register",
    "stitch",
    "turned",
    "wafer_png",
    "wafer_svg",
    "write_map",
    "write_picture",
]


def __getattr__(name: str) -> Any:
    """Loads a public name; PEP 562."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
