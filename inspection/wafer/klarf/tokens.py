"""KLARF text -> tokens. One scanner serves 1.1, 1.2 and 1.8; only 1.8 gives meaning to braces and commas."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(r'"(?P<quoted>[^"\n]*)"|(?P<open>"[^\n]*)|(?P<mark>[;{},])|(?P<bare>[^\s;{},"]+)')
_FLAT = re.compile(r'"(?P<quoted>[^"\n]*)"|(?P<open>"[^\n]*)|(?P<mark>;)|(?P<bare>[^\s;"]+)')


class Token(NamedTuple):
    """One word, quoted string or mark of a KLARF file.

    Attributes:
        text: the word; of a quoted string what is inside.
        line: line in the file, from 1.
        quoted: whether it stood in double quotes.
        first: whether it is the first of its line.
        mark: whether it is one of the marks ; { } and comma.
    """

    text: str
    line: int
    quoted: bool = False
    first: bool = False
    mark: bool = False

    def written(self) -> str:
        """Returns the token as it stands in a file."""
        return f'"{self.text}"' if self.quoted else self.text


class KlarfWarning(NamedTuple):
    """Something in a file that was read although it should not be so.

    Attributes:
        line: line in the file, from 1; 0 where no line is to blame.
        message: what was found and what was made of it.
    """

    line: int
    message: str


def tokens(text: str, warnings: list[KlarfWarning], *, braces: bool) -> Iterator[Token]:
    """Yields the tokens of a file.

    Args:
        text: the file; lines end in LF, CRLF or CR.
        warnings: receives a warning for a string that is not closed on its line (it ends there).
        braces: whether braces and commas are marks, as in 1.8.
    """
    pattern = _TOKEN if braces else _FLAT
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        first = True
        for match in pattern.finditer(line):
            kind = match.lastgroup
            if kind == "quoted":
                yield Token(match["quoted"], number, quoted=True, first=first)
            elif kind == "open":
                body = match["open"][1:].rstrip()
                ended = body.endswith(";")
                warnings.append(KlarfWarning(number, f"the string {match['open'].strip()} is not closed on its line"))
                yield Token(body[:-1].rstrip() if ended else body, number, quoted=True, first=first)
                if ended:
                    yield Token(";", number, mark=True)
            elif kind == "mark":
                yield Token(match["mark"], number, first=first, mark=True)
            else:
                yield Token(match["bare"], number, first=first)
            first = False
