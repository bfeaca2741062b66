"""What the settings files (TOML) of the frontends share: sections, web addresses, names of environment variables.

A secret never stands in such a file: settings that end in `_env` name the environment variable that holds it.
"""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections: checked when it is read, unchangeable then; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110, 5.6.2


def _variable_name(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            f"must be the name of an environment variable, not the secret itself (got {len(name)} letters)"
        )
    return name


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and password; use headers_env")
    return url


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for header, name in headers.items():
        if not _HEADER.fullmatch(header):
            raise ValueError(f"{header!r} is no name of a header")
        _variable_name(name)
    return headers


VariableName = Annotated[str, AfterValidator(_variable_name)]
"""Name of an environment variable; a value that cannot be one, such as a secret in the wrong place, is not repeated."""
WebAddress = Annotated[str, AfterValidator(_web_address)]
"""http:// or https:// address without user and password."""
HeadersEnv = Annotated[dict[str, str], AfterValidator(_headers)]
"""Header -> name of the environment variable with its value, e.g. {Authorization = "LINE_TOKEN"}."""
