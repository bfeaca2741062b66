"""Bridge to MONAI: a volume as MetaTensor, its affine in MONAI's coordinates."""

from typing import TYPE_CHECKING

import numpy as np

from medical.objects import Volume

if TYPE_CHECKING:
    from monai.data import MetaTensor


def to_metatensor(volume: Volume) -> "MetaTensor":
    """Returns the voxels as a MONAI tensor that shares their memory.

    Args:
        volume: as `PixelReader.volume` makes it.

    Returns:
        (1, D, H, W) float32; its affine, float64, maps voxel indices (d, h, w) to mm in RAS+, MONAI's coordinates;
        DICOM's LPS differs in the sign of the first two.
    """
    import torch
    from monai.data import MetaTensor

    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    return MetaTensor(torch.from_numpy(volume.values)[None], affine=torch.from_numpy(ras))
