"""What anomalib's image models are called and what each needs: a plain table, known without importing anomalib.

Checked against the installed anomalib by a test; written for 2.7.
"""

from typing import NamedTuple


class Needs(NamedTuple):
    """What a model of anomalib needs besides images.

    Attributes:
        weights: what the file of pretrained weights must hold; empty where the model has no pretrained part.
        folder: keyword argument that must name a local folder of images.
        batch_size: images per step where the model accepts no other number.
        held_out: whether part of the training images is kept for statistics that the model takes after the training.
        one_by_one: whether an image's score depends on the other images of its batch, so that it must be scored alone.
        refused: why the model cannot be a detector here; empty where it can.
    """

    weights: str = ""
    folder: str = ""
    batch_size: int | None = None
    held_out: bool = False
    one_by_one: bool = False
    refused: str = ""


_TIMM = Needs("the timm network that the argument 'backbone' names")
_ENCODER = Needs("the timm network that the argument 'encoder_name' names")
_TORCHVISION = Needs("the torchvision network that the argument 'backbone' names")

MODELS = {
    "AnomalyDINO": _ENCODER,
    "AnomalyVFM": Needs(refused="it is pretrained as a whole and downloads itself from the Hugging Face hub"),
    "CFM": Needs(refused="it takes pairs of an image and a point cloud"),
    "Cfa": _TORCHVISION,
    "Cflow": _TIMM._replace(one_by_one=True),
    "Csflow": Needs("torchvision's efficientnet_b5"),
    "Dfkde": _TIMM,
    "Dfm": _TIMM,
    "Dinomaly": _ENCODER,
    "Draem": Needs(folder="dtd_dir"),
    "Dsr": Needs("the quantised autoencoder vq_model_pretrained_128_4096 of anomalib's releases"),
    "EfficientAd": Needs(
        "the teacher pretrained_teacher_small or _medium of anomalib's releases", "imagenet_dir", 1, held_out=True
    ),
    "Fastflow": _TIMM,
    "FoundAD": Needs("the DINOv2 or DINOv3 network of timm that the argument 'encoder_name' stands for"),
    "Fre": _TIMM,
    "Ganomaly": Needs(),
    "GeneralAD": _TIMM,
    "Glass": _TIMM,
    "InpFormer": _ENCODER,
    "L2BT": Needs("timm's vit_base_patch8_224.dino"),
    "MHPatchcore": _TIMM,
    "Padim": _TIMM,
    "Patchcore": _TIMM,
    "Patchflow": _TIMM,
    "Rad": _TIMM._replace(one_by_one=True),
    "ReverseDistillation": _TIMM,
    "Stfpm": _TIMM,
    "SuperADD": _TIMM,
    "Supersimplenet": _TIMM,
    "Uflow": _TIMM,
    "UniNet": Needs("the torchvision network that the argument 'teacher_backbone' names"),
    "VlmAd": Needs(refused="it asks a language model for an opinion and has no anomaly map"),
    "WinClip": Needs(refused="it compares images with sentences and needs a CLIP text model that it downloads"),
}
"""Class in `anomalib.models` -> what it needs."""

USABLE = tuple(name for name, needs in MODELS.items() if not needs.refused)
"""Models that can be detectors here."""
