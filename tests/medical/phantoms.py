"""Phantoms as DICOM objects: an asymmetric body with one lesion at a known place, whole or broken on purpose.

Everything is made at run time and named after nobody. Arrays are (D, H, W), axes right-handed
as in highdicom's and in our own volumes, so an axial series begins at the head.
"""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT, ENHANCED_CT = UID("1.2.840.10008.5.1.4.1.1.2"), UID("1.2.840.10008.5.1.4.1.1.2.1")
CR, DX = UID("1.2.840.10008.5.1.4.1.1.1"), UID("1.2.840.10008.5.1.4.1.1.1.1")
ROOT = "1.2.826.0.1.3680043.10.1234."

# row direction and column direction (direction cosines, PS3.3 C.7.6.2.1.1) of the image planes
ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": (0.944531057520, 0.288772123875, 0.156434465040, -0.317086067296, 0.925897943280, 0.205351952894),
    "reversed": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),  # begins at the feet
}
VIEWS = {
    "AP": ("399348003", "SCT", "antero-posterior"),
    "PA": ("272479007", "SCT", "postero-anterior"),
    "LL": ("399173006", "SCT", "left lateral"),
}
PLANTED = {
    "PatientName": "PLANTED^PHANTOM",
    "PatientID": "PLANTED-4711",
    "AccessionNumber": "PLANTEDACC",
    "PatientBirthDate": "19700102",
}
"""Identifiers of every phantom, to be looked for in everything that is written."""


def lesion(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the lesion of a phantom of this shape, (D, H, W) or (H, W), lies: no symmetry maps the place to itself."""
    low, high = (0.55, 0.2, 0.65)[-len(shape) :], (0.8, 0.35, 0.85)[-len(shape) :]
    return tuple(slice(int(n * a), max(int(n * a) + 1, int(n * b))) for n, a, b in zip(shape, low, high, strict=True))


def body(shape: tuple[int, ...]) -> np.ndarray:
    """Hounsfield units, int16 (D, H, W) or (H, W): air, an ellipsoid of soft tissue with a ramp, a lesion."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    centre, radius = (0.05, 0.1, -0.15)[-len(shape) :], (1.6, 0.8, 0.7)[-len(shape) :]
    inside = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radius, strict=True)) < 1
    ramp = sum(step * axis for step, axis in zip((4, 10, 20)[-len(shape) :], axes, strict=True))
    values = np.where(inside, 40 + ramp, -1000)
    values[lesion(shape)] = 300
    return values.round().astype(np.int16)


def _number(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    return f"{value:.10g}"[:16]


def _object(sop_class: UID, modality: str, study: str, series: str, seed: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(ROOT, [seed])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = ROOT + "1"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.Modality, made.Manufacturer, made.ManufacturerModelName = modality, "Phantom Works", "Bench"
    made.DeviceSerialNumber, made.SoftwareVersions = "1", "1"
    made.StudyDate = made.SeriesDate = made.ContentDate = made.AcquisitionDate = "20250305"
    made.StudyTime = made.SeriesTime = made.ContentTime = made.AcquisitionTime = "101500"
    made.ReferringPhysicianName, made.StudyID = "", "1"
    for name, value in PLANTED.items():
        setattr(made, name, value)
    made.PatientSex, made.PatientAge, made.PatientPosition = "F", "055Y", "HFS"
    made.SeriesNumber, made.InstanceNumber = 1, 1
    return made


def _pixels(made: Dataset, stored: np.ndarray, bits: int, signed: bool, photometric: str) -> None:
    """Writes (H, W) or (frames, H, W) stored values as native pixels."""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, photometric
    made.Rows, made.Columns = stored.shape[-2:]
    made.BitsAllocated = 8 if bits == 8 else 16
    made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits - 1, int(signed)
    kind = f"{'<i' if signed else '<u'}{made.BitsAllocated // 8}"
    data = stored.astype(kind).tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OW" if made.BitsAllocated == 16 else "OB"


def normal_of(orientation: tuple[float, ...]) -> np.ndarray:
    """The unit vector along which slices are stacked: down x right."""
    return np.cross(orientation[3:], orientation[:3])


def affine_of(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    orientation: str = "axial",
    origin: tuple[float, float, float] = (-31.0, 17.0, 5.0),
) -> np.ndarray:
    """(4, 4): voxel index (d, h, w, 1) of the phantom -> LPS in mm."""
    cosines = np.array(ORIENTATIONS[orientation])
    axes = np.stack([normal_of(cosines), cosines[3:], cosines[:3]], axis=1) * spacing
    return np.vstack([np.column_stack([axes, origin]), [0, 0, 0, 1]])


def ct_series(
    shape: tuple[int, int, int] = (8, 32, 40),
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.6),
    orientation: str = "axial",
    *,
    tilt: float = 0.0,
    missing: int | None = None,
    duplicate: int | None = None,
    uneven: tuple[int, float] | None = None,
    mixed: int | None = None,
    localiser: bool = False,
    acquisitions: int = 1,
    padding: int | None = None,
    bits: int = 16,
    signed: bool = True,
    values: np.ndarray | None = None,
    seed: str = "phantom",
) -> list[FileDataset]:
    """A CT series, one data set per slice, whole in every orientation, or broken.

    Args:
        shape: (D, H, W).
        spacing: mm along (D, H, W).
        orientation: a name of ORIENTATIONS.
        tilt: degrees of gantry tilt: slices are displaced along their columns as they go.
        missing: index of a slice that is left out.
        duplicate: index of a slice that comes twice, as two objects.
        uneven: index of a slice and the mm by which it is moved along the normal.
        mixed: index of the first slice of another orientation.
        localiser: adds a scout image perpendicular to the slices.
        acquisitions: number of acquisitions that cover the same positions.
        padding: stored value that fills the corners outside of a circle, as Pixel Padding Value.
        bits: Bits Stored.
        signed: Pixel Representation.
        values: (D, H, W) Hounsfield units in the place of `body(shape)`.
        seed: equal seeds make equal UIDs; the study depends on what comes before a "/".
    """
    hu = body(shape) if values is None else values
    cosines, matrix = ORIENTATIONS[orientation], affine_of(shape, spacing, orientation)
    study, frame = generate_uid(ROOT, [seed.split("/")[0], "study"]), generate_uid(ROOT, [seed, "frame"])
    series = generate_uid(ROOT, [seed, "series"])
    down = np.array(cosines[3:])
    shift = {} if uneven is None else {uneven[0]: uneven[1]}
    made = []
    for acquisition in range(1, acquisitions + 1):
        for index in range(shape[0]):
            if index == missing:
                continue
            position = matrix[:3, 3] + index * matrix[:3, 0] + shift.get(index, 0.0) * normal_of(cosines)
            position = position + index * spacing[0] * np.tan(np.radians(tilt)) * down
            for copy in range(2 if index == duplicate else 1):
                seeds = f"{seed} {acquisition} {index} {copy}"
                slice_ = _ct(study, series, frame, seeds, hu[index], spacing, bits, signed, padding)
                turned = mixed is not None and index >= mixed
                slice_.ImageOrientationPatient = [_number(c) for c in (_tipped(cosines) if turned else cosines)]
                slice_.ImagePositionPatient = [_number(c) for c in position]
                slice_.AcquisitionNumber, slice_.InstanceNumber = acquisition, len(made) + 1
                slice_.GantryDetectorTilt = _number(tilt)
                made.append(slice_)
    if localiser:
        made.append(_localiser(study, series, frame, seed, shape, spacing, cosines, matrix, len(made) + 1))
    return made


def _tipped(cosines: tuple[float, ...]) -> tuple[float, ...]:
    """The plane turned by 10 degrees about its row direction."""
    angle, normal = np.radians(10.0), normal_of(cosines)
    return (*cosines[:3], *(np.cos(angle) * np.array(cosines[3:]) + np.sin(angle) * normal))


def _ct(study, series, frame, seed, hu, spacing, bits, signed, padding) -> FileDataset:
    made = _object(CT, "CT", study, series, seed)
    made.ImageType, made.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "CHEST"
    made.KVP, made.SliceThickness = "120", _number(spacing[0])
    made.PixelSpacing = [_number(spacing[1]), _number(spacing[2])]
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = frame, ""
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = "-1024", "1", "HU"
    made.WindowCenter, made.WindowWidth = "40", "400"
    stored = hu.astype(np.int32) + 1024
    if padding is not None:
        made.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
        stored = np.where(_outside(stored.shape), padding, stored)
    _pixels(made, stored, bits, signed, "MONOCHROME2")
    return made


def _outside(shape: tuple[int, int]) -> np.ndarray:
    h, w = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return h**2 + w**2 > 1.3


def _localiser(study, series, frame, seed, shape, spacing, cosines, matrix, number) -> FileDataset:
    made = _ct(study, series, frame, f"{seed} scout", body(shape[1:]), spacing, 16, True, None)
    made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    made.ImageOrientationPatient = [_number(c) for c in (*cosines[:3], *normal_of(cosines))]
    made.ImagePositionPatient = [_number(c) for c in matrix[:3, 3] + (0, 0, 10)]
    made.AcquisitionNumber, made.InstanceNumber = 1, number
    return made


def enhanced_ct(
    shape: tuple[int, int, int] = (8, 32, 40),
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.6),
    orientation: str = "axial",
    *,
    slopes: tuple[float, ...] = (1.0,),
    shuffled: bool = False,
    missing: int | None = None,
    seed: str = "enhanced",
) -> FileDataset:
    """One enhanced multi-frame CT (PS3.3 A.38) of the same body; DERIVED, so that no acquisition is described.

    Args:
        shape: (D, H, W).
        spacing: mm along (D, H, W).
        orientation: a name of ORIENTATIONS.
        slopes: Rescale Slope of the frames in turn; every frame still stands for the same Hounsfield units.
        shuffled: frames lie in reverse order in the file.
        missing: index of a slice that is left out.
        seed: equal seeds make equal UIDs.
    """
    hu, matrix, cosines = body(shape), affine_of(shape, spacing, orientation), ORIENTATIONS[orientation]
    order = [i for i in range(shape[0]) if i != missing]
    order = order[::-1] if shuffled else order
    study, series = generate_uid(ROOT, [seed, "study"]), generate_uid(ROOT, [seed, "series"])
    made = _object(ENHANCED_CT, "CT", study, series, seed)
    _enhanced_header(made, generate_uid(ROOT, [seed, "frame"]), len(order))
    made.SharedFunctionalGroupsSequence = [_shared_groups(spacing, cosines)]
    groups, stored = [], []
    for number, index in enumerate(order):
        slope = slopes[number % len(slopes)]
        groups.append(_frame_groups(index, slope, matrix))
        stored.append((hu[index] + 1024.0) / slope)
    made.PerFrameFunctionalGroupsSequence = groups
    _pixels(made, np.round(stored), 16, False, "MONOCHROME2")
    return made


def _item(**attributes: object) -> Dataset:
    made = Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return Sequence([_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def _enhanced_header(made: Dataset, frame_of_reference: str, frames: int) -> None:
    made.ImageType, made.NumberOfFrames = ["DERIVED", "PRIMARY", "VOLUME", "NONE"], frames
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = frame_of_reference, ""
    made.AcquisitionNumber = 1
    made.AcquisitionDateTime = "20250305101500"
    made.AcquisitionDuration, made.ContentQualification = 1.0, "RESEARCH"
    made.PixelPresentation, made.VolumetricProperties = "MONOCHROME", "VOLUME"
    made.VolumeBasedCalculationTechnique, made.PresentationLUTShape = "NONE", "IDENTITY"
    made.BurnedInAnnotation, made.LossyImageCompression = "NO", "00"
    made.MultienergyCTAcquisition = "NO"
    made.AcquisitionContextSequence = []
    pointer = {"DimensionOrganizationUID": generate_uid(ROOT, [frame_of_reference, "dimension"])}
    made.DimensionOrganizationSequence = [_item(**pointer)]
    made.DimensionIndexSequence = [
        _item(**pointer, DimensionIndexPointer=0x00200032, FunctionalGroupPointer=0x00209113)
    ]


def _shared_groups(spacing: tuple[float, float, float], cosines: tuple[float, ...]) -> Dataset:
    measures = _item(
        PixelSpacing=[_number(spacing[1]), _number(spacing[2])],
        SliceThickness=_number(spacing[0]),
        SpacingBetweenSlices=_number(spacing[0]),
    )
    chest = _code("51185008", "SCT", "Chest")
    return _item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[_number(c) for c in cosines])],
        FrameAnatomySequence=[_item(FrameLaterality="U", AnatomicRegionSequence=chest)],
        CTImageFrameTypeSequence=[
            _item(
                FrameType=["DERIVED", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        FrameVOILUTSequence=[_item(WindowCenter="40", WindowWidth="400")],
        IrradiationEventIdentificationSequence=[_item(IrradiationEventUID=generate_uid(ROOT, ["irradiation"]))],
    )


def _frame_groups(index: int, slope: float, matrix: np.ndarray) -> Dataset:
    position = matrix[:3, 3] + index * matrix[:3, 0]
    return _item(
        FrameContentSequence=[
            _item(
                FrameReferenceDateTime="20250305101500",
                FrameAcquisitionDateTime="20250305101500",
                FrameAcquisitionDuration=1.0,
                FrameAcquisitionNumber=1,
                DimensionIndexValues=[index + 1],
                StackID="1",
                InStackPositionNumber=index + 1,
            )
        ],
        PlanePositionSequence=[_item(ImagePositionPatient=[_number(c) for c in position])],
        PixelValueTransformationSequence=[
            _item(RescaleIntercept="-1024", RescaleSlope=_number(slope), RescaleType="HU")
        ],
    )


def projection(
    shape: tuple[int, int] = (64, 48),
    modality: str = "DX",
    *,
    photometric: str = "MONOCHROME2",
    bits: int = 12,
    pixel_spacing: tuple[float, float] | None = None,
    imager_pixel_spacing: tuple[float, float] | None = (0.2, 0.15),
    view: str = "PA",
    laterality: str = "U",
    body_part: str = "CHEST",
    values: np.ndarray | None = None,
    seed: str = "projection",
) -> FileDataset:
    """One projection X-ray: bright lesion as shown on a screen, whatever the photometric interpretation.

    Args:
        shape: (H, W).
        modality: "DX" or "CR".
        photometric: "MONOCHROME2" or "MONOCHROME1" (stored values are then inverted over the range of the bits).
        bits: Bits Stored, 8 to 16, unsigned.
        pixel_spacing: mm along (H, W) in the patient; None leaves the attribute out.
        imager_pixel_spacing: mm along (H, W) at the detector; DX demands it.
        view: View Position; "" leaves it empty.
        laterality: Image Laterality of DX, Laterality of CR.
        body_part: Body Part Examined.
        values: (H, W) in 0..1 as shown on a screen, in the place of the body.
        seed: equal seeds make equal UIDs.
    """
    shown = np.clip((body(shape).astype(np.float64) + 1000) / 1400, 0, 1) if values is None else values
    shown = shown if photometric == "MONOCHROME2" else 1 - shown
    study, series = generate_uid(ROOT, [seed, "study"]), generate_uid(ROOT, [seed, "series"])
    made = _object(DX if modality == "DX" else CR, modality, study, series, seed)
    made.ImageType, made.BodyPartExamined = ["ORIGINAL", "PRIMARY", ""], body_part
    made.ViewPosition, made.PatientOrientation, made.AcquisitionNumber = view, ["L", "F"], 1
    made.WindowCenter, made.WindowWidth = str(2 ** (bits - 1)), str(2**bits)
    for name, lengths in (("PixelSpacing", pixel_spacing), ("ImagerPixelSpacing", imager_pixel_spacing)):
        if lengths is not None:
            setattr(made, name, [_number(length) for length in lengths])
    if modality == "DX":
        _dx_header(made, photometric, laterality)
    else:
        if laterality in ("L", "R"):
            made.Laterality = laterality
    _pixels(made, np.round(shown * (2**bits - 1)), bits, False, photometric)
    return made


def _dx_header(made: Dataset, photometric: str, laterality: str) -> None:
    made.PresentationIntentType, made.ImageLaterality = "FOR PRESENTATION", laterality
    made.AcquisitionContextSequence = []
    made.PixelIntensityRelationship = "LOG"
    made.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME2" else 1
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = "0", "1", "US"
    made.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"
    made.LossyImageCompression, made.BurnedInAnnotation = "00", "NO"
    made.DetectorType, made.AnatomicRegionSequence = "DIRECT", _code("51185008", "SCT", "Chest")
    made.PositionerType = "COLUMN"
    if made.ViewPosition in VIEWS:
        made.ViewCodeSequence = _code(*VIEWS[made.ViewPosition])


def save(datasets: list[FileDataset] | FileDataset, folder: Path) -> list[Path]:
    """Writes the objects as 0001.dcm, ... and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, made in enumerate(datasets if isinstance(datasets, list) else [datasets], 1):
        path = folder / f"{number:04d}.dcm"
        made.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
