"""DICOM and NIfTI files as the authors of public sets wrote them, with patterns that no flip maps to themselves.

RSNA: a Secondary Capture object in JPEG, as the real one among the development data. VinDr-CXR: nothing but the
attributes that their de-identification leaves. IXI: stored in sagittal slices. BraTS: axes to the left and posterior.
"""

import io

import nibabel
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

HEIGHT, WIDTH = 12, 16
SHAPE = (12, 16, 20)
"""Of volumes: right, anterior, superior."""
TUMOUR = (slice(7, 10), slice(11, 15), slice(9, 11))
SEEN_TUMOUR = (slice(1, 5), slice(2, 5))
"""Rows and columns of the tumour on an axial slice as it is seen, worked out by hand: 16 - 15 to 16 - 11, and so on."""


def x_ray(box=None):
    """Returns (12, 16) in 0..1: a dark ramp, bright inside a box (left, top, right, bottom), ends included."""
    image = np.linspace(0, 0.2, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    if box is not None:
        left, top, right, bottom = box
        image[top : bottom + 1, left : right + 1] = 0.9
    return image


def rsna_file(path, image, view="PA", sex="M"):
    """Writes 8 bits in JPEG baseline."""
    made = _object(path, "1.2.840.10008.5.1.4.1.1.7", JPEGBaseline8Bit)
    made.SOPClassUID, made.SOPInstanceUID = made.file_meta.MediaStorageSOPClassUID, generate_uid()
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.Modality, made.ConversionType, made.BodyPartExamined, made.ViewPosition = "CR", "WSD", "CHEST", view
    made.PatientID = made.PatientName = path.stem
    made.PatientSex, made.PatientAge = sex, "062Y"
    _grey(made, 8, "MONOCHROME2", image.shape)
    packed = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(packed, "JPEG", quality=98)
    made.PixelData = encapsulate([packed.getvalue()])
    made["PixelData"].VR = "OB"
    made.LossyImageCompression = "01"
    _save(made, path)


def vindr_file(path, image, photometric="MONOCHROME2", bits=12):
    """Writes 12 bits; MONOCHROME1 stores bright as low."""
    made = _object(path, "1.2.840.10008.5.1.4.1.1.1.1", ExplicitVRLittleEndian)
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"  # overwritten below: pydicom refuses what the authors wrote
    made.PatientSex, made.PatientAge = "F", "061Y"
    _grey(made, bits, photometric, image.shape)
    made.WindowCenter, made.WindowWidth, made.RescaleIntercept, made.RescaleSlope = 500, 900, 0, 1
    highest = 2**bits - 1
    stored = np.rint(image * highest).astype(np.uint16)
    made.PixelData = (highest - stored if photometric == "MONOCHROME1" else stored).tobytes()
    made["PixelData"].VR = "OW"
    _save(made, path)
    digest = b"7ecd6f"  # they put an MD5 there, which is no UID; here as long as what it replaces
    path.write_bytes(path.read_bytes().replace(b"1.2.3\0", digest, 1))


def brain(tumour=False):
    """Returns (12, 16, 20) int16, right, anterior, superior: brighter to the right, the front and the top."""
    right, anterior, superior = np.indices(SHAPE)
    voxels = (100 + 10 * right + 20 * anterior + 3 * superior).astype(np.int16)
    if tumour:
        voxels[TUMOUR] = 900
    return voxels


def nifti(path, voxels, axes, code=1):
    """Writes voxels in (right, anterior, superior) with other axes on disk, for example "PSR"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.2, 1.0]))
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(tuple(axes)))
    found = nibabel.Nifti1Image(np.asanyarray(turned.dataobj), turned.affine if code else None)
    if code:
        found.header.set_sform(turned.affine, code)
        found.header.set_qform(turned.affine, code)
    nibabel.save(found, path)


def brats_case(root, number, known=True, sequences=("flair", "t1", "t1ce", "t2")):
    """Writes the folder of a case; without a mask it is one of the validation part."""
    case = f"BraTS2021_{number:05}"
    for one in sequences:
        nifti(root / case / f"{case}_{one}.nii.gz", brain(tumour=True) + number % 7, "LPS")
    if known:
        mask = np.zeros(SHAPE, np.uint8)
        mask[TUMOUR] = 4
        nifti(root / case / f"{case}_seg.nii.gz", mask, "LPS")


def _object(path, sop_class, syntax):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, syntax
    meta.ImplementationClassUID = "1.2.3.4"
    return FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)


def _grey(made, bits, photometric, shape):
    made.Rows, made.Columns = shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, photometric
    made.BitsAllocated, made.BitsStored, made.HighBit = (8 if bits <= 8 else 16), bits, bits - 1
    made.PixelRepresentation = 0
    made.PixelSpacing = [0.2, 0.2]


def _save(made, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
