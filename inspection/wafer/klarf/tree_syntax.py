"""KLARF 1.8 as a tree: records that hold fields, lists and further records."""

from inspection.wafer.errors import KlarfError
from inspection.wafer.klarf.model import Field, Record, Table
from inspection.wafer.klarf.tokens import KlarfWarning, Token, tokens

_DEEPEST = 50


def parse_tree(text: str, warnings: list[KlarfWarning]) -> Record:
    """Reads the one record that a file consists of.

    Args:
        text: the file.
        warnings: receives counts that are wrong, rows without a semicolon and a missing end.

    Raises:
        KlarfError: braces do not close, or something else than a record, field or list stands where one must.
    """
    parser = _Parser(list(tokens(text, warnings, braces=True)), warnings)
    return parser.file()


class _Parser:
    def __init__(self, found: list[Token], warnings: list[KlarfWarning]) -> None:
        self.tokens, self.warnings, self.at = found, warnings, 0

    def file(self) -> Record:
        self.expect("Record")
        record = self.record(0)
        rest = [token for token in self.tokens[self.at :] if token.text != ";"]
        if not rest or rest[0].text != "EndOfFile":
            self.warn(0, "the file does not end with EndOfFile; it may be cut off")
        if rest[1:]:
            self.warn(rest[1].line, "text after EndOfFile is not read")
        return record

    def next(self) -> Token:
        if self.at == len(self.tokens):
            raise KlarfError("the file ends within a record: a brace is not closed")
        self.at += 1
        return self.tokens[self.at - 1]

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def is_mark(self, text: str) -> bool:
        token = self.peek()
        return token is not None and token.mark and token.text == text

    def expect(self, text: str) -> Token:
        token = self.next()
        if token.text != text or token.quoted:
            raise KlarfError(f"line {token.line}: {text} must stand here; got {token.written()}")
        return token

    def warn(self, line: int, message: str) -> None:
        self.warnings.append(KlarfWarning(line, message))

    def record(self, depth: int) -> Record:
        """A record whose word "Record" is read already."""
        if depth > _DEEPEST:
            raise KlarfError(f"records are nested deeper than {_DEEPEST} levels")
        name = self.next()
        number = "" if self.is_mark("{") else self.next().text
        self.expect("{")
        content: list[Field | Table | Record] = []
        while not self.is_mark("}"):
            kind = self.next()
            if kind.text == "Record" and not kind.quoted:
                content.append(self.record(depth + 1))
            elif kind.text == "Field" and not kind.quoted:
                content.append(self.field())
            elif kind.text == "List" and not kind.quoted:
                content.append(self.table())
            elif not (kind.mark and kind.text == ";"):
                raise KlarfError(f"line {kind.line}: Record, Field or List must stand here; got {kind.written()}")
        self.next()
        return Record(name.text, number, tuple(content))

    def count(self, name: Token) -> int | None:
        """The announced number of things, None where there is none."""
        if self.is_mark("{"):
            self.warn(name.line, f"{name.text} announces no count")
            return None
        token = self.next()
        if not token.text.isdigit():
            raise KlarfError(f"line {token.line}: a count must stand here; got {token.written()}")
        return int(token.text)

    def braced(self) -> list[Token]:
        """Everything between the next braces, which hold no further ones."""
        self.expect("{")
        found = []
        while not self.is_mark("}"):
            found.append(self.next())
        self.next()
        return found

    def field(self) -> Field:
        name = self.next()
        count = self.count(name)
        values = tuple(token for token in self.braced() if not token.mark)
        if count not in (None, len(values)):
            self.warn(name.line, f"{name.text} announces {count} values and has {len(values)}")
        return Field(name.text, values)

    def table(self) -> Table:
        name = self.next()
        self.expect("{")
        count = self.count(self.expect("Columns"))
        words = [token.text for token in self.braced() if not token.mark]
        if len(words) % 2:
            raise KlarfError(f"line {name.line}: columns of {name.text} must be pairs of type and name")
        types, columns = tuple(words[0::2]), tuple(words[1::2])
        if count not in (None, len(columns)):
            self.warn(name.line, f"{name.text} announces {count} columns and names {len(columns)}")
        rows = self.rows(name, columns) if not self.is_mark("}") else ()
        self.expect("}")
        return Table(name.text, types, columns, rows)

    def rows(self, name: Token, columns: tuple[str, ...]) -> tuple[tuple[tuple[Token, ...], ...], ...]:
        count = self.count(self.expect("Data"))
        self.expect("{")
        rows: list[tuple[tuple[Token, ...], ...]] = []
        cells: list[tuple[Token, ...]] = []
        while not self.is_mark("}"):
            token = self.next()
            if not token.mark:
                cells.append(self.images(token) if self.starts_images(token) else (token,))
            elif token.text == ";":
                self.close_row(name, columns, cells, rows)
                cells = []
        if cells:
            self.warn(self.tokens[self.at].line, f"the last row of {name.text} has no semicolon")
            self.close_row(name, columns, cells, rows)
        self.next()
        if count not in (None, len(rows)):
            self.warn(name.line, f"{name.text} announces {count} rows and has {len(rows)}")
        return tuple(rows)

    def close_row(
        self,
        name: Token,
        columns: tuple[str, ...],
        cells: list[tuple[Token, ...]],
        rows: list[tuple[tuple[Token, ...], ...]],
    ) -> None:
        """Adds a row; several rows between two semicolons are told apart by the number of columns."""
        if not cells:
            return
        width = len(columns)
        line = cells[0][0].line
        if not width or len(cells) % width:
            text = " ".join(token.written() for cell in cells for token in cell)
            self.warn(line, f"a row of {name.text} does not fit its {width} columns; it is not read: {text}")
            return
        if len(cells) > width:
            self.warn(line, f"{len(cells) // width} rows of {name.text} stand between two semicolons")
        rows.extend(tuple(cells[start : start + width]) for start in range(0, len(cells), width))

    def starts_images(self, token: Token) -> bool:
        """Whether a bare word Images n { begins here."""
        following = self.tokens[self.at : self.at + 2]
        return (
            not token.quoted
            and token.text.casefold() == "images"
            and len(following) == 2
            and following[0].text.isdigit()
            and following[1].text == "{"
        )

    def images(self, token: Token) -> tuple[Token, ...]:
        """The cell `Images n { ... }` with all its tokens."""
        number = self.next()
        opening = self.tokens[self.at]
        inside = self.braced()
        return (token, number, opening, *inside, self.tokens[self.at - 1])


def written_tree(record: Record, depth: int = 0) -> str:
    """Returns a record as it stands in a file."""
    pad = "  " * depth
    number = f' "{record.id}"' if record.id else ""
    parts = [f"{pad}Record {record.name}{number}\n{pad}{{\n"]
    for part in record.content:
        if isinstance(part, Record):
            parts.append(written_tree(part, depth + 1))
        elif isinstance(part, Field):
            values = ", ".join(token.written() for token in part.values)
            parts.append(f"{pad}  Field {part.name} {len(part.values)} {{{values}}}\n")
        else:
            parts.append(_written_table(part, depth + 1))
    return "".join([*parts, f"{pad}}}\n"])


def _written_table(table: Table, depth: int) -> str:
    pad = "  " * depth
    columns = ", ".join(f"{kind} {name}" for kind, name in zip(table.types, table.columns, strict=True))
    lines = [f"{pad}List {table.name}", f"{pad}{{", f"{pad}  Columns {len(table.columns)} {{ {columns} }}"]
    lines += [f"{pad}  Data {len(table.rows)}", f"{pad}  {{"]
    for row in table.rows:
        lines.append(f"{pad}    " + " ".join(token.written() for cell in row for token in cell) + ";")
    return "\n".join([*lines, f"{pad}  }}", f"{pad}}}"]) + "\n"
