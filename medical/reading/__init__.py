"""The reader: files -> studies (`take_inventory`), series -> images and volumes (`PixelReader`), `diagnose`.

Headers are parsed and pixels decoded in a worker process with limited memory and time.
"""

from medical.reading.inventory import FileEntry, Inventory, take_inventory
from medical.reading.limits import Limits
from medical.reading.reader import PixelReader
from medical.reading.series import diagnose
from medical.reading.tensors import to_metatensor

__all__ = ["FileEntry", "Inventory", "Limits", "PixelReader", "diagnose", "take_inventory", "to_metatensor"]
