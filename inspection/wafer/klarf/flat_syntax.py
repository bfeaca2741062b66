"""KLARF 1.1 and 1.2 as statements, `Keyword values;`, over one or several lines."""

from collections.abc import Iterable

from inspection.wafer.errors import KlarfError
from inspection.wafer.klarf.model import Statement
from inspection.wafer.klarf.tokens import KlarfWarning, Token, tokens

KEYWORDS = frozenset(
    {
        "FileVersion", "FileTimestamp", "InspectionStationID", "SampleType", "ResultTimestamp", "LotID", "SampleSize",
        "SetupID", "StepID", "SampleOrientationMarkType", "OrientationMarkLocation", "DiePitch", "DieOrigin",
        "WaferID", "Slot", "SampleCenterLocation", "ClassLookup", "InspectionTest", "SampleTestPlan", "AreaPerTest",
        "DefectRecordSpec", "DefectList", "SummarySpec", "SummaryList", "WaferStatus", "LotStatus", "EndOfFile",
        "DeviceID", "ResultsID", "OrientationInstructions", "CoordinatesMirrored", "TiffSpec", "TiffFileName",
        "SampleDieMap", "RemovedDieList", "InspectionOrientation", "CoordinatesCentered", "ProcessEquipmentIDList",
        "ClusterClassificationList", "FileTimeStamp",
    }
)  # fmt: skip
"""Words that begin a statement when they are the first of a line, even if the statement before has no semicolon."""


def statements(text: str, warnings: list[KlarfWarning]) -> list[Statement]:
    """Reads the statements of a file, up to EndOfFile.

    Args:
        text: the file.
        warnings: receives missing semicolons, text after the end and a missing end.

    Raises:
        KlarfError: a string or number stands where a keyword must.
    """
    scan = _Scan(warnings)
    for token in tokens(text, warnings, braces=False):
        if scan.found and scan.found[-1].keyword == "EndOfFile":
            warnings.append(KlarfWarning(token.line, "text after EndOfFile is not read"))
            break
        scan.take(token)
    scan.end()
    return scan.found


class _Scan:
    """State of a pass over the tokens: the open statement and those before it."""

    def __init__(self, warnings: list[KlarfWarning]) -> None:
        self.found: list[Statement] = []
        self.keyword: Token | None = None
        self.rows: list[list[Token]] = []
        self.warnings = warnings

    def take(self, token: Token) -> None:
        if token.mark:
            self.close()
        elif self.keyword is None:
            self.begin(token)
        elif token.first and not token.quoted and token.text in KEYWORDS:
            message = f"{self.keyword.text} has no semicolon before {token.text}"
            self.warnings.append(KlarfWarning(token.line, message))
            self.close()
            self.begin(token)
        else:
            if token.first:
                self.rows.append([])
            self.rows[-1].append(token)

    def begin(self, token: Token) -> None:
        if token.quoted or not token.text[0].isalpha():
            raise KlarfError(f"line {token.line}: a keyword must stand here; got {token.written()}")
        self.keyword, self.rows = token, [[]]

    def close(self) -> None:
        if self.keyword is not None:
            rows = tuple(tuple(row) for row in self.rows if row)
            self.found.append(Statement(self.keyword.text, rows, self.keyword.line))
        self.keyword = None

    def end(self) -> None:
        if self.keyword is not None and self.keyword.text != "EndOfFile":
            message = f"{self.keyword.text} has no semicolon at the end of the file"
            self.warnings.append(KlarfWarning(self.keyword.line, message))
        self.close()
        if not self.found or self.found[-1].keyword != "EndOfFile":
            self.warnings.append(KlarfWarning(0, "the file does not end with EndOfFile; it may be cut off"))


def counted(statement: Statement, width: int, warnings: list[KlarfWarning]) -> list[tuple[Token, ...]]:
    """Returns the rows of a statement `Keyword n rows...`; what does not fit is reported.

    Args:
        statement: the statement.
        width: values of a row.
        warnings: receives a count that is wrong and values that make no whole row.
    """
    values = list(statement.values)
    count = None
    beside = len(statement.rows[0]) % width if statement.rows else 0
    if (beside or len(values) % width == 1) and values[0].text.isdigit():
        count = int(values.pop(0).text)
    rows = [tuple(values[start : start + width]) for start in range(0, len(values), width)]
    if rows and len(rows[-1]) < width:
        rest = " ".join(token.written() for token in rows.pop())
        message = f"{statement.keyword} ends with {rest!r}, which makes no whole row; it is not read"
        warnings.append(KlarfWarning(statement.line, message))
    if count is not None and count != len(rows):
        message = f"{statement.keyword} announces {count} rows and has {len(rows)}"
        warnings.append(KlarfWarning(statement.line, message))
    return rows


def written(keyword: str, rows: Iterable[Iterable[str]]) -> str:
    """Returns a statement as it stands in a file: the first row beside the keyword, the others below."""
    lines = [" ".join(row) for row in rows]
    beside = f" {lines[0]}" if lines and lines[0] else ""
    return keyword + beside + "".join(f"\n {line}" for line in lines[1:]) + ";\n"
