"""Times as loggers and shops write them, as macros of DuckDB."""

from rankline.io.sql import literal

ZONED = r":\d{2}([.,]\d+)?\s*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"  # a time with a zone
# A time without a zone. DuckDB parses more formats, but ignores a PM or the name of a zone.
NAIVE = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d*)?)?)?"
_STANDARD = rf"{NAIVE}(Z| UTC|[+-]\d{{2}}:\d{{2}})?"
# ISO 8601 as some write it -> as DuckDB reads it
_SPELLINGS = (
    (r"\s*\[[A-Za-z]+(/[A-Za-z_+-]+\d*)*\]$", ""),  # Java's name of the zone, beside its offset
    (r"\s*([+-]\d{2}:?\d{2})\s+(UTC|GMT)$", r"\1"),  # Go
    (r"(:\d{2}),(\d+)", r"\1.\2"),  # Log4j
    (r"\s+([+-]\d{2}:?\d{2}|Z)$", r"\1"),
    (r"(\d)t(\d)", r"\1T\2"),
    (r"(\d)z$", r"\1Z"),
    (r"^(\d{4})(\d{2})(\d{2})(T\d|$)", r"\1-\2-\3\4"),  # the basic format
    (r"T(\d{2})(\d{2})(\d{2})?([.]\d+)?(Z|[+-]\d{2}:?\d{2})?$", r"T\1:\2:\3\4\5"),
    (r"T(\d{2}):(\d{2}):(Z|[+-]|$)", r"T\1:\2:00\3"),
)


def _iso_text() -> str:
    sql = "text"
    for pattern, replacement in _SPELLINGS:
        sql = f"regexp_replace({sql}, {literal(pattern)}, {literal(replacement)})"
    return f"CASE WHEN regexp_full_match(text, {literal(_STANDARD)}) THEN text ELSE {sql} END"


# utc_times: the UTC times that a local time can be: none if clocks skipped it, two if they were set back
TIME_MACROS = f"""
CREATE MACRO zone_offset(zone, utc) AS timezone(zone, CAST(utc AS TIMESTAMPTZ)) - utc;
CREATE MACRO utc_times(zone, local_time) AS list_distinct(list_filter(
    [local_time - zone_offset(zone, local_time - INTERVAL 1 DAY),
     local_time - zone_offset(zone, local_time + INTERVAL 1 DAY)],
    lambda utc: timezone(zone, CAST(utc AS TIMESTAMPTZ)) = local_time
));
CREATE MACRO iso_text(text) AS {_iso_text()};
CREATE MACRO with_spaces(text) AS translate(text, {literal(chr(0xA0) + chr(0x202F))}, '  ');
"""
# how times are written, other than ISO and numbers since 1970; a column that fits two of them is asked about
PATTERNS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d.%m.%Y, %H:%M:%S", "%d.%m.%Y, %H:%M", "%d.%m.%y",
    "%d.%m.%y %H:%M", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y", "%d/%m/%Y, %H:%M:%S", "%d/%m/%y",
    "%d/%m/%y %H:%M", "%d/%m/%Y %I:%M %p", "%d/%m/%Y %I:%M:%S %p", "%d/%m/%Y, %I:%M:%S %p", "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M", "%m/%d/%Y", "%m/%d/%y", "%m/%d/%y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p",
    "%m/%d/%Y, %I:%M:%S %p", "%d-%m-%Y", "%d-%m-%Y %H:%M", "%d-%m-%Y %H:%M:%S", "%m-%d-%Y", "%m-%d-%Y %H:%M",
    "%m-%d-%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d", "%Y.%m.%d", "%Y.%m.%d %H:%M:%S", "%Y-%m-%d %H.%M.%S",
    "%Y-%m-%d-%H.%M.%S.%f", "%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M", "%Y-%j",
    "%d/%b/%Y:%H:%M:%S %z", "[%d/%b/%Y:%H:%M:%S %z]", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %Z %Y", "%a %b %d %H:%M:%S %z %Y", "%b %d, %Y", "%b %d, %Y %H:%M",
    "%b %d, %Y %I:%M %p", "%b %d, %Y, %I:%M:%S %p", "%b %d, %Y %I:%M:%S %p", "%b %d %Y %I:%M%p", "%B %d, %Y",
    "%B %d, %Y %H:%M", "%B %d, %Y %I:%M %p", "%d %b %Y", "%d %b %Y %H:%M", "%d %b %Y %H:%M:%S", "%d %b %Y, %H:%M",
    "%d %B %Y", "%d %B %Y %H:%M", "%d-%b-%Y", "%d-%b-%Y %H:%M:%S", "%d-%b-%y", "%d-%b-%y %I.%M.%S.%f %p",
    "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p", "%Y/%m/%d %I:%M:%S %p", "%Y-%m-%d %H:%M:%S %Z",
    "%Y-%m-%dT%H:%M:%S %Z", "%Y-%m-%d %H:%M:%S %z", "%Y年%m月%d日", "%Y年%m月%d日 %H:%M", "%Y年%m月%d日 %H:%M:%S",
)  # fmt: skip
EXCEL_EPOCH_DAYS = 25_569  # from the first day of sheets, 1899-12-30, to 1970
TICKS_EPOCH = 621_355_968_000_000_000  # from the year 1 to 1970, in the ticks of .NET
OTHER_UNITS = ("iso", "excel", "ticks")
