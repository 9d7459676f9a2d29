"""The layout of a CSV file: its delimiter, its quote, the names of its columns, and whether its first line has them."""

import csv
import io
import re
from dataclasses import dataclass
from typing import Any

from components.ingest.config import TextFiles
from components.ingest.readers.escapes import plain
from rankline.errors import SourceError
from rankline.io.sources import File

MAX_HEADER_BYTES = 1 << 20
SAMPLED_RECORDS = 50  # below the first line, which say whether it is one of them
DELIMITERS = ",;\t|"
ODD_DELIMITERS = ("||", "::", "\x01", "\x02", "\x1f", "  ", "^", "~")  # refused with what helps
# what a name of a column hardly is, and a value often
VALUE = re.compile(
    r"[+-]?\d[\d.,:/ T_-]*([eE][+-]?\d+)?(Z|[+-]\d\d:?\d\d)?|https?://.*|[\[{].*[\]}]|true|false|null|\\N",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Layout:
    """How the records of a CSV file are written."""

    names: list[str]
    delimiter: str
    quote: str
    has_header: bool  # the stream is behind it
    has_backslash_quotes: bool  # some quotes follow a backslash, though no setting says that it escapes them


def read_layout(stream: Any, table: str, file: File, settings: TextFiles) -> Layout:
    """The layout of a CSV file; reads its first record.

    Raises:
        SourceError: the first line does not name every column once, or it looks like a row.
    """
    delimiter = settings.delimiter or ("\t" if file.kind == "tsv" else "")
    quote = _default_quote(stream, delimiter) if settings.quote is None else settings.quote
    header = _read_record(stream, quote)
    if header.lower().startswith("sep=") and len(header) == 5:  # Excel writes the delimiter this way
        delimiter = delimiter or header[-1]
        quote = _default_quote(stream, delimiter) if settings.quote is None else settings.quote
        header = _read_record(stream, quote)
    while header.startswith("#") and _has_more_values(stream, header):  # comments above the header
        header = _read_record(stream, quote)
    delimiter = delimiter or max(DELIMITERS, key=_unquoted(header, quote).count)
    if not settings.delimiter:
        _refuse_odd_delimiter(header, file)
    first = [] if _is_open(header, quote) else next(iter(_records(header, delimiter, quote)), [])
    first = [re.sub(r"\s*[\r\n]\s*", " ", plain(name).strip()) for name in first]
    ahead = str(stream.peek(1).decode("utf-8", "ignore"))
    names = list(settings.names.get(table, ()))
    if not names and not settings.header:
        names = [f"c{position}" for position in range(1, len(first) + 1)]
    layout = Layout(
        names=names or first,
        delimiter=delimiter,
        quote=quote,
        has_header=not names or first == names,  # of a folder's files the first may have one
        has_backslash_quotes=not settings.escape and bool(quote) and has_backslash_quotes(header + "\n" + ahead),
    )
    if names and first and len(names) != len(first):
        raise SourceError(
            f"a CSV file has another number of columns than ingest.files.names of {table}",
            expected=f"{len(names)} columns: {', '.join(names)[:120]}",
            found=f"{len(first)}, in {header[:80]!r}",
            where=file.path,
            hint="name every column once, in their order; set ingest.files.delimiter if it was not recognized",
        )
    if not any(layout.names) or len(set(layout.names)) < len(layout.names):
        raise SourceError(
            "a CSV file has no header that names every column once",
            expected="column names in the first line",
            found=repr(header[:80]),
            where=file.path,
            hint="write such a header; set ingest.files.quote='' if quotes enclose nothing; if the first line is a "
            f"row, {_naming(table)}",
        )
    if not names and _looks_like_a_row(first, _records(ahead, delimiter, quote)):
        raise SourceError(
            "the first line of a CSV file looks like a row, not like the names of the columns",
            expected="column names in the first line",
            found=repr(header[:80]),
            where=file.path,
            hint=_naming(table),
        )
    return layout


def _has_more_values(stream: Any, line: str) -> bool:
    """Whether the next line without # has more delimiters than this one, which is then a comment."""
    lines = str(stream.peek(1).decode("utf-8", "ignore")).splitlines()
    following = next((each for each in lines if each and not each.startswith("#")), "")
    return any(following.count(each) > line.count(each) for each in DELIMITERS)


def _refuse_odd_delimiter(header: str, file: File) -> None:
    sign = next((each for each in ODD_DELIMITERS if each in header), "")
    if not sign or (sign != "||" and any(each in header for each in DELIMITERS)):
        return
    named = {"\x01": "\\x01", "\x02": "\\x02", "\x1f": "\\x1f"}.get(sign, sign)
    one_sign = f"set ingest.files.delimiter to it (`rankline init`: --files $'delimiter={named}')"
    raise SourceError(
        "the values of a CSV file are separated in another way",
        expected=f"one of {' '.join(DELIMITERS.replace(chr(9), ''))} or a tab between values",
        found=f"{named!r} in {header[:80]!r}",
        where=file.path,
        hint=one_sign if len(sign) == 1 else f"write tabs instead: sed 's/{re.sub(' +', '  *', named)}/\\t/g'",
    )


def has_backslash_quotes(text: str) -> bool:
    r"""Whether a quote that follows a backslash (\") ends a quoted value where no delimiter follows."""
    return re.search(rf'(?:^|[{DELIMITERS}\r\n])"[^"\r\n]*\\"(?=[^"{DELIMITERS}\r\n])', text) is not None


def _naming(table: str) -> str:
    return (
        f'name the columns in their order: ingest.files.names={{"{table}": ["…", "…"]}} '
        "(`rankline init`: --files names=…,…)"
    )


def _default_quote(stream: Any, delimiter: str) -> str:
    """The quote of a file without a setting: tab-separated text has none, unless its header is quoted."""
    line = str(stream.peek(1).decode("utf-8", "ignore")).lstrip("\r\n").splitlines()[:1]
    first = line[0] if line else ""
    if (delimiter or max(DELIMITERS, key=_unquoted(first, '"').count)) != "\t":
        return '"'
    return '"' if re.search(r'(^|\t)"[^\t"]*"(\t|$)', first) else ""


def _read_record(stream: Any, quote: str) -> str:
    """The first record that is not blank: one line, or several if a quoted name has line ends."""
    record = ""
    while len(record) < MAX_HEADER_BYTES and (line := _read_line(stream)):
        record = record + line if record.strip() else line
        if record.strip() and not _is_open(record, quote):
            break
    return record.strip("\r\n")


def _is_open(record: str, quote: str) -> bool:
    """Whether a quote is still open at the end of the text."""
    begins = rf"(^|[{DELIMITERS}\r\n]){re.escape(quote)}"
    return bool(quote) and re.search(begins, _unquoted(record, quote)) is not None


def _unquoted(text: str, quote: str) -> str:
    """A text without its quoted parts."""
    mark = re.escape(quote)
    return re.sub(f"{mark}[^{mark}]*{mark}", "", text) if quote else text


def _read_line(stream: Any) -> str:
    """The next line, which may end with a carriage return alone."""
    ahead = stream.peek()
    end = re.search(rb"\r\n?|\n", ahead)
    return str(stream.read(end.end() if end else len(ahead)).decode())


def _records(text: str, delimiter: str, quote: str) -> list[list[str]]:
    """The first records of a text; the last one may be cut off."""
    records: list[list[str]] = []
    options: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **options):
            records += [record] if record else []
            if len(records) > SAMPLED_RECORDS:
                break
    except csv.Error:  # a cell beyond the csv module's limit
        pass
    return records


def _looks_like_a_row(first: list[str], records: list[list[str]]) -> bool:
    """Whether the first line is of the same kind as those below it, cell by cell, and nothing speaks against it."""
    rows = [record for record in records if len(record) == len(first) and record != first]  # headers may repeat
    numbered = [cell for cell in first if cell]
    if not rows or numbered in ([str(n + start) for n in range(len(numbered))] for start in (0, 1)):
        return False  # columns that are named by their position
    is_row = False
    for position, cell in enumerate(first):
        below = [value for row in rows if (value := row[position].strip())]
        if not below or not cell:
            continue
        values = sum(VALUE.fullmatch(value) is not None for value in below) / len(below)
        shapes = sum(_shape(value) == _shape(cell) for value in below) / len(below)
        if VALUE.fullmatch(cell) is None:
            if values > 0.9 or (re.fullmatch(r"[^\W\d]+(_[^\W\d]+)*", cell) and shapes < 0.1):
                return False  # a name above values
            is_row |= re.search(r"\d", cell) is not None and shapes > 0.9 and len(rows) > 2
        else:
            is_row |= values > 0.9
        is_row |= below.count(cell) > 1 and len(rows) > 4
    return is_row


def _shape(value: str) -> str:
    """What an id has in common with others of its kind: u12 and u7 are alike, u12 and user are not."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value.strip()))
