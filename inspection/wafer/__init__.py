"""Wafers: die grid, defects of many frames on one wafer, die-to-die comparison, maps, signatures, KLARF, E142, G85."""
