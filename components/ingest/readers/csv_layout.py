"""The layout of a CSV file: its delimiter, its quote, the names of its columns, and whether its first line has them."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.ingest.config import TextFiles
from components.ingest.readers.escapes import plain
from rankline.errors import SourceError
from rankline.io.sources import File

MAX_HEADER_BYTES = 1 << 20
SAMPLED_RECORDS = 50  # below the first line, which say whether it is one of them
DELIMITERS = ",;\t|"
LONG_DELIMITERS = ("::", "||", "|~|", "~|~", "^|^")
ODD_DELIMITERS = ("\x01", "\x02", "  ", "^", "~")  # refused with what helps
# what a name of a column hardly is, and a value often
VALUE = re.compile(
    r"[+-]?\d[\d.,:/ T_-]*([eE][+-]?\d+)?(Z|[+-]\d\d:?\d\d)?|https?://.*|[\[{].*[\]}]|true|false|null|\\N",
    re.IGNORECASE | re.DOTALL,
)

_ID, _NUMBER, _TIME = r"[\w.:-]{1,64}", r"\d{1,2}(?:[.]\d+)?", r"\d{9,13}|\d{4}-\d\d-\d\d.*"
# patterns of the columns of files that are known without a header -> their names
KNOWN_SHAPES = {
    f"{_ID} {_ID} {_NUMBER} {_TIME}": "user_id,item_id,rating,timestamp",  # MovieLens, Amazon
    f"{_ID} {_TIME} {_ID} {_ID}": "session_id,timestamp,item_id,category",  # Yoochoose
    f"{_ID} {_ID} {_ID} {_TIME}": "user_id,item_id,action,timestamp",
    rf"\d+ {_ID} .*\d:\d.* .* (?:[^\s-]+-[01]\s*)+": "impression_id,user_id,time,history,impressions",  # MIND
    r"\d+ .*\(\d{4}\) [\w|'-]+": "item_id,title,genres",  # MovieLens
    r"\d+ [FM] \d+ \d+ [\w-]+": "user_id,gender,age,occupation,zip_code",
}


@dataclass(frozen=True)
class Layout:
    """How the records of a CSV file are written."""

    names: list[str]  # empty for a column without one, such as that of a delimiter at the end of every line
    delimiter: str
    quote: str
    has_header: bool  # the stream is behind it
    has_backslash_quotes: bool  # some quotes follow a backslash, though no setting says that it escapes them

    @property
    def width(self) -> int:
        """The number of columns up to the last one with a name."""
        return len(_without_blanks_behind(self.names))


def long_delimiter(stream: Any) -> str:
    """The delimiter of several characters that all first lines have equally often; empty without one."""
    lines = [line for line in stream.peek(1).decode("utf-8", "ignore").splitlines() if line][:SAMPLED_RECORDS]
    lines = lines[:-1] or lines  # the last one may be cut off

    def share(sign: str) -> int:
        counts = {line.count(sign) for line in lines}
        return counts.pop() if len(counts) == 1 else 0

    single = max(map(share, DELIMITERS))
    for sign in LONG_DELIMITERS:
        is_alone = not any("|" in line.replace(sign, "") for line in lines) or "|" not in sign
        if is_alone and share(sign) and (share(sign) >= single or "|" in sign):
            return sign
    return ""


def _without_blanks_behind(values: Sequence[str]) -> Sequence[str]:
    """The values without the empty ones at the end."""
    return values[: max((place for place, value in enumerate(values, start=1) if value.strip()), default=0)]


def read_layout(stream: Any, table: str, file: File, settings: TextFiles, *, written: str = "") -> Layout:
    """The layout of a CSV file; reads its first record. ``written`` is what the delimiter of the stream stands for.

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
    first = [] if _is_open(header, quote) else next(iter(records(header, delimiter, quote)), [])
    first = [re.sub(r"\s*[\r\n]\s*", " ", plain(name).strip()) for name in first]
    ahead = str(stream.peek(1).decode("utf-8", "ignore"))
    below = records(ahead, delimiter, quote)
    names = list(settings.names.get(table, ()))
    if not names and not settings.header:
        names = [f"c{position}" for position in range(1, len(first) + 1)]
    layout = Layout(
        names=_with_blanks_behind(names or first, below),
        delimiter=delimiter,
        quote=quote,
        # of a folder's files the first may have one
        has_header=not names or list(_without_blanks_behind(first)) == names,
        has_backslash_quotes=not settings.escape and bool(quote) and has_backslash_quotes(header + "\n" + ahead),
    )
    shown = repr((header.replace(delimiter, written) if written else header)[:80])
    if names and first and (len(first) < len(names) or any(first[len(names) :])):
        raise SourceError(
            f"a CSV file has another number of columns than ingest.files.names of {table}",
            expected=f"{len(names)} columns: {', '.join(names)[:120]}",
            found=f"{len(first)}, in {shown}",
            where=file.path,
            hint="name every column once, in their order; set ingest.files.delimiter if it was not recognized",
        )
    _check_header(layout, [first, *below], is_named=bool(names), naming=(table, file, shown))
    return layout


def _check_header(layout: Layout, rows: list[list[str]], *, is_named: bool, naming: tuple[str, File, str]) -> None:
    """Check that the names of the columns are different, and no row."""
    table, file, shown = naming
    expected = "column names in the first line"
    if not layout.width or len(set(layout.names[: layout.width])) < layout.width:
        raise SourceError(
            "a CSV file has no header that names every column once",
            expected=expected,
            found=shown,
            where=file.path,
            hint="write such a header; set ingest.files.quote='' if quotes enclose nothing; if the first line is a "
            f"row, {_naming(table, rows)}",
        )
    first, *below = rows
    if not is_named and _looks_like_a_row(first, [row[: len(first)] for row in below if not any(row[len(first) :])]):
        raise SourceError(
            "the first line of a CSV file looks like a row, not like the names of the columns",
            expected=expected,
            found=shown,
            where=file.path,
            hint=_naming(table, rows),
        )


def _has_more_values(stream: Any, line: str) -> bool:
    """Whether the next line without # has more delimiters than this one, which is then a comment."""
    lines = str(stream.peek(1).decode("utf-8", "ignore")).splitlines()
    following = next((each for each in lines if each and not each.startswith("#")), "")
    return any(following.count(each) > line.count(each) for each in DELIMITERS)


def _refuse_odd_delimiter(header: str, file: File) -> None:
    sign = next((each for each in ODD_DELIMITERS if each in header), "")
    if not sign or any(each in header for each in DELIMITERS):
        return
    named = {"\x01": "\\x01", "\x02": "\\x02"}.get(sign, sign)
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


def _with_blanks_behind(names: list[str], below: list[list[str]]) -> list[str]:
    """The names, with an empty one for each delimiter that most lines below end with."""
    widths = Counter(len(row) for row in below if not any(cell.strip() for cell in row[len(names) :]))
    width = widths.most_common(1)[0][0] if widths else 0
    return names + [""] * (width - len(names))


def _naming(table: str, rows: list[list[str]]) -> str:
    """How to name the columns of a file without a header, with the names that well-known files have."""
    rows = [row for row in map(list, map(_without_blanks_behind, rows)) if len(row) == len(rows[0])]
    for shape, known in KNOWN_SHAPES.items():
        patterns = shape.split(" ")
        if rows and len(rows[0]) == len(patterns) and all(_fits(row, patterns) for row in rows[:-1] or rows):
            return (
                f"name the columns, which may be {known}: "
                f'ingest.files.names={{"{table}": {json.dumps(known.split(","))}}} '
                f"(`rankline init`: --files names={known}, or names:FILE={known} for one of several)"
            )
    return (
        f'name the columns in their order: ingest.files.names={{"{table}": ["…", "…"]}} '
        "(`rankline init`: --files names=…,…, or names:FILE=… for one of several)"
    )


def _fits(row: list[str], patterns: list[str]) -> bool:
    return all(re.fullmatch(pattern, cell.strip()) for pattern, cell in zip(patterns, row, strict=True))


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


def records(text: str, delimiter: str, quote: str) -> list[list[str]]:
    """The first records of a text; the last one may be cut off."""
    read: list[list[str]] = []
    options: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **options):
            read += [record] if record else []
            if len(read) > SAMPLED_RECORDS:
                break
    except csv.Error:  # a cell beyond the csv module's limit
        pass
    return read


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
