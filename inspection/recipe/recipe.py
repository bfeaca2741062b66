"""The recipe: one TOML file per product variant that says everything about its inspection, checked when it is read.

Nothing is guessed or repaired: an unknown key, a value out of its range or a file that is not the one the recipe was
made with is an error, with one line per fault.
"""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from anomaly.settings_file import Section
from inspection.line.settings import LineSettings
from inspection.recipe.faults import RecipeError, faults_of
from inspection.recipe.sections import (
    DefectsSection,
    FrameSection,
    ModelSection,
    RegionsSection,
    RegistrationSection,
    RuntimeSection,
    ThresholdsSection,
    TilingSection,
)
from inspection.results.settings import ResultsSettings

VERSION = 1


class Recipe(Section):
    """How one product variant is inspected.

    Attributes:
        version: of the schema, 1.
        product: name of the product variant.
        model: what scores the parts.
        frame: what the camera gives.
        runtime: what runs the model.
        regions: where a part is judged.
        registration: how it is laid over a golden image; None for not at all.
        tiling: how it is cut into tiles; None for not at all.
        thresholds: wanted false-reject rates.
        defects: what is a defect and how bad it is.
        line: see `LineSettings`.
        results: see `ResultsSettings`.
    """

    version: Literal[1]
    product: Annotated[str, Field(min_length=1)]
    model: ModelSection
    frame: FrameSection
    runtime: RuntimeSection = Field(default_factory=RuntimeSection)
    regions: RegionsSection = Field(default_factory=RegionsSection)
    registration: RegistrationSection | None = None
    tiling: TilingSection | None = None
    thresholds: ThresholdsSection = Field(default_factory=ThresholdsSection)
    defects: DefectsSection = Field(default_factory=DefectsSection)
    line: LineSettings = Field(default_factory=LineSettings)
    results: ResultsSettings = Field(default_factory=ResultsSettings)
    _path: Path = PrivateAttr(default=Path())
    _sha256: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _checked(self) -> "Recipe":
        if (self.frame.height is None) != (self.frame.width is None):
            raise ValueError("frame.height and frame.width must be given together")
        return self

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Reads a recipe; the files that it names are looked at when they are used.

        Raises:
            RecipeError: no such file, no TOML, or a fault; the message has one line for each.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RecipeError(path, [f"cannot be read: {error.strerror or error}"]) from error
        return cls.from_toml(content, path)

    @classmethod
    def from_toml(cls, content: bytes, path: Path) -> "Recipe":
        """Reads the content of a recipe that lies, or will lie, at `path`; see `read`."""
        try:
            data = tomllib.loads(content.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(path, [f"is no TOML file: {error}"]) from None
        if data.get("version", VERSION) != VERSION:
            newer = "install a newer anomaly-suite, or make the recipe anew with `anomaly inspect init`"
            raise RecipeError(path, [f"version: must be {VERSION}; got {data['version']!r}: {newer}"])
        try:  # as JSON, where lists may stand for tuples and words for enumerations, and nothing else is converted
            recipe = cls.model_validate_json(json.dumps(data, default=str))
        except ValidationError as error:
            raise RecipeError(path, faults_of(error, cls)) from None
        recipe._path, recipe._sha256 = path, hashlib.sha256(content).hexdigest()
        return recipe

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return self._path

    @property
    def sha256(self) -> str:
        """sha256 of the content of that file, 64 hexadecimal digits."""
        return self._sha256

    @property
    def folder(self) -> Path:
        """The folder that relative paths are relative to."""
        return self._path.parent

    def file(self, key: str, name: str, sha256: str) -> Path:
        """Returns a file that the recipe names, if it is the one that the recipe was made with.

        Args:
            key: where the recipe names it, e.g. "model.file".
            name: the file, relative to the recipe.
            sha256: what its content must have.

        Raises:
            RecipeError: it is missing or another one.
        """
        found = self.folder / name
        try:
            digest = sha256_of(found)
        except OSError as error:
            raise RecipeError(self.path, [f"{key}: {found} cannot be read: {error.strerror or error}"]) from error
        if digest != sha256:
            raise RecipeError(
                self.path,
                [
                    f"{key}: {found} is not the file that the recipe was made with: it has sha256 {digest}, the recipe "
                    f"says {sha256}. Bring back that file, or make the recipe anew for this one"
                ],
            )
        return found


def sha256_of(path: Path) -> str:
    """Returns the sha256 of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
