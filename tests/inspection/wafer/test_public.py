"""The public names: all there, and loaded only when they are used."""

import subprocess
import sys

import pytest

from inspection import wafer


def test_every_public_name_is_found_and_is_no_module():
    for name in wafer.__all__:
        assert not isinstance(getattr(wafer, name), type(sys)), name
    assert set(wafer.__all__) == set(wafer._MODULE_OF)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wafer.nothing


def test_importing_the_package_loads_nothing_heavy():
    heavy = "torch", "cv2", "numpy", "scipy", "PIL"
    code = f"import sys, inspection.wafer; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
