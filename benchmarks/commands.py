"""What the commands of the benchmarks share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from anomaly.errors import AnomalyError, SettingError


def new_parser(module: str, doc: str | None, examples: str, out: str) -> argparse.ArgumentParser:
    """Returns a parser with the option --out.

    Args:
        module: name of the module that is run.
        doc: its docstring.
        examples: command lines that can be copied.
        out: what --out receives.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=doc,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    return parser


def run(main: Callable[[], None]) -> None:
    """Runs a command; errors of the suite become one line on standard error and exit status 2."""
    try:
        main()
    except AnomalyError as error:
        sys.exit(_told(error))


def names(text: str) -> list[str]:
    """Reads a comma-separated list."""
    return [name for name in text.split(",") if name]


def _told(error: AnomalyError) -> int:
    print(f"Error: {error}", file=sys.stderr)
    return 2


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Reads a comma-separated list of positive whole numbers.

    Raises:
        SettingError: it is something else.
    """
    found = whole_numbers(option, text)
    if not all(found):
        raise SettingError(f"{option} must be positive whole numbers with commas between them, like 1,8; got {text!r}")
    return found


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Reads a comma-separated list of whole numbers, 0 or more.

    Raises:
        SettingError: it is something else.
    """
    parts = names(text)
    if not parts or not all(part.strip().isdecimal() for part in parts):
        raise SettingError(f"{option} must be whole numbers with commas between them, like 0,1; got {text!r}")
    return tuple(int(part) for part in parts)
