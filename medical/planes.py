"""Directions of the patient: in which plane slices lie."""

import numpy as np

_CLEAR = 0.9


def plane_of(orientation: tuple[float, float, float, float, float, float]) -> str:
    """Returns "AXIAL", "CORONAL", "SAGITTAL", or "OBLIQUE" where the normal is more than 26 degrees off all axes.

    Args:
        orientation: Image Orientation (Patient): direction cosines of rows and columns (PS3.3 C.7.6.2.1.1).
    """
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    axis = int(np.argmax(normal))
    return ("SAGITTAL", "CORONAL", "AXIAL")[axis] if normal[axis] >= _CLEAR else "OBLIQUE"
