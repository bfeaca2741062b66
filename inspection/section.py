"""What every section of a recipe is: checked when it is read, unknown keys refused, unchangeable afterwards."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections of a recipe; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
