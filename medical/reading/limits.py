"""How much a file may cost before it is refused; read by the parent and by the worker process."""

from dataclasses import asdict, dataclass, fields

from anomaly.errors import SettingError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of reading. What exceeds them is refused as TOO_LARGE or DECODER_LIMIT, never read in part.

    Attributes:
        header_bytes: of one object, all that comes before its pixels.
        header_elements: of one object, those in sequences included.
        inflated_bytes: of one object in the deflated transfer syntax, unpacked.
        frame_samples: Rows x Columns x Samples per Pixel.
        object_bytes: decoded pixels of all frames of one object.
        volume_voxels: of a whole volume, 4 bytes each, held by the caller.
        memory_bytes: that the worker process may allocate over what it holds when it is idle.
        seconds: that the worker may take to read one header or one frame.
        archive_files: in one ZIP archive.
        archive_bytes: of one ZIP archive, unpacked.
        archive_ratio: of one file in an archive, unpacked by packed size.
    """

    header_bytes: int = 64 * MIB
    header_elements: int = 1_000_000
    inflated_bytes: int = 256 * MIB
    frame_samples: int = 40_000_000
    object_bytes: int = 4096 * MIB
    volume_voxels: int = 512 * 512 * 1500
    memory_bytes: int = 768 * MIB
    seconds: float = 60.0
    archive_files: int = 100_000
    archive_bytes: int = 64 * 1024 * MIB
    archive_ratio: float = 200.0

    def __post_init__(self) -> None:
        """Checks the limits."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise SettingError.of("Limits", field.name, "more than 0", value)

    def to_json(self) -> dict[str, float]:
        """Returns what `Limits(**...)` takes."""
        return asdict(self)
