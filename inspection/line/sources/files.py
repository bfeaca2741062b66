"""Image files that are there already: files, folders, and lists of files; each once."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from threading import Event

from anomaly.errors import DatasetError, ImageFileError
from anomaly.images import list_images, read_image
from inspection.line.sources.base import Forgetful, Serial
from inspection.parts import Image, Part


@dataclass(frozen=True)
class FileContent:
    """What came of reading one file.

    Attributes:
        path: the file.
        captured: when reading began.
        image: the image exactly as stored, upright; None if it could not be read.
        problem: why it could not be read, "" otherwise.
    """

    path: Path
    captured: datetime
    image: Image | None
    problem: str

    @classmethod
    def read(cls, path: Path) -> "FileContent":
        """Reads one file; whatever is wrong with it is the problem."""
        captured = datetime.now(UTC)
        try:
            return cls(path, captured, read_image(path), "")
        except ImageFileError as error:
            return cls(path, captured, None, error.reason)

    def as_part(self, name: PurePath, serial: Serial) -> Part:
        """Returns the part; it has a problem too if `serial` finds no number in `name`, its path in the folder."""
        part, unnamed = serial.of(name)
        problem = self.problem or unnamed
        image = None if problem else self.image
        return Part(id=part, source=str(self.path), captured=self.captured, image=image, problem=problem)


class ImageFiles(Forgetful):
    """The images of files and folders, each once, in natural order."""

    def __init__(self, paths: Sequence[Path], serial: Serial) -> None:
        """Lists the files.

        Args:
            paths: image files; folders, searched with all their subfolders; text files (.txt) with one path a line,
                relative to the text file. A file that such a list names need not exist: that is the part's problem.
            serial: how parts are named.

        Raises:
            DatasetError: a path does not exist, or a folder or list holds no image.
        """
        self.name = ", ".join(map(str, paths))
        self._serial = serial
        self._files: dict[Path, PurePath] = {}
        for path in paths:
            if path.is_dir():
                self._files.update({file: file.relative_to(path) for file in list_images([path])})
            elif path.suffix.lower() == ".txt" and path.is_file():
                self._files.update(_listed(path))
            else:
                self._files.update({file: PurePath(file.name) for file in list_images([path])})

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields the parts; what cannot be read is a part with a problem."""
        for path, name in self._files.items():
            if stop.is_set():
                return
            yield FileContent.read(path).as_part(name, self._serial)


def _listed(path: Path) -> dict[Path, PurePath]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    files = {path.parent / line: PurePath(line) for line in lines if line}
    if not files:
        raise DatasetError(f"{path} lists no image; expected one path a line")
    return files
