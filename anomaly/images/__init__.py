"""Images: files and folders to raw frames, data-set trees, procedural parts. Nothing is scaled or repaired silently."""

from anomaly.images.datasets import Dataset, Sample, find_dataset, groups_from_manifest, read_mask
from anomaly.images.files import IMAGE_SUFFIXES, image_info, list_images, read_image
from anomaly.images.header import MAX_PIXELS, ImageInfo
from anomaly.images.input_from_files import infer_input
from anomaly.images.loading import Batch, ImageLoader

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Batch",
    "Dataset",
    "ImageInfo",
    "ImageLoader",
    "Sample",
    "find_dataset",
    "groups_from_manifest",
    "image_info",
    "infer_input",
    "list_images",
    "read_image",
    "read_mask",
]
