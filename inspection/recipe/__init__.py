"""The recipe of a product variant: read and checked, or made from a folder of good images."""
