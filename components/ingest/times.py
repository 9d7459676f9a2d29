"""Times as loggers and shops write them, as macros of DuckDB."""

import re

from rankline.io.sql import literal

ZONED = r":\d{2}([.,]\d+)?\s*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"  # a time with a zone
# A time without a zone. DuckDB parses more formats, but ignores a PM or the name of a zone.
NAIVE = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d*)?)?)?"
_STANDARD = rf"{NAIVE}(Z| UTC|[+-]\d{{2}}:\d{{2}})?"
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}  # unit of a numeric time -> microseconds
FIRST_US, LAST_US = 631_152_000_000_000, 4_102_444_800_000_000  # 1990 and 2100: the times of logs
# ISO 8601 as some write it -> as DuckDB reads it
_SPELLINGS = (
    (
        r"""^(?:new\s+)?[A-Za-z][\w.]*\(\s*['"]([^'"()]*)['"]\s*\)$|^['"]([^'"]*)['"]$""",
        r"\1\2",
    ),  # ISODate("…"), pandas
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


# names of months as loggers of many languages write them, beside the English abbreviation
MONTHS = {
    "Jan": "january januar jänner janvier janv enero ene gennaio gen janeiro januari stycznia sty января янв ocak",
    "Feb": "february februar feber février févr fév febrero febbraio fevereiro fev februari lutego lut февраля фев "
    "şubat",
    "Mar": "march märz mär mrz mars marzo março maart mrt marca марта мар mart",
    "Apr": "april avril avr abril abr aprile kwietnia kwi апреля апр nisan",
    "May": "mai mayo maggio mag maio mei maj maja мая mayıs",
    "Jun": "june juni juin junio giugno giu junho czerwca cze июня июн haziran",
    "Jul": "july juli juillet juil julio luglio lug julho lipca lip июля июл temmuz",
    "Aug": "august août aoû agosto ago augustus augusti sierpnia sie августа авг ağustos",
    "Sep": "september sept septembre septiembre settembre set setembro września wrz сентября сен eylül",
    "Oct": "october oktober okt octobre octubre ottobre ott outubro out października paź октября окт ekim",
    "Nov": "november novembre noviembre novembro listopada lis ноября ноя kasım",
    "Dec": "december dezember dez décembre déc diciembre dic dicembre dezembro grudnia gru декабря дек aralık",
}
_DAYS = [
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
    "tues",
    "thur",
    "thurs",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "montag",
    "dienstag",
    "mittwoch",
    "donnerstag",
    "freitag",
    "samstag",
    "sonnabend",
    "sonntag",
    "lundi",
    "mardi",
    "mercredi",
    "jeudi",
    "vendredi",
    "samedi",
    "dimanche",
    "lunes",
    "martes",
    "miércoles",
    "jueves",
    "viernes",
    "sábado",
    "domingo",
    "lunedì",
    "martedì",
    "mercoledì",
    "giovedì",
    "venerdì",
    "sabato",
    "domenica",
    "maandag",
    "dinsdag",
    "woensdag",
    "donderdag",
    "vrijdag",
    "zaterdag",
    "zondag",
]
_WRITTEN = (  # what no pattern names -> what one does
    (r"[\x{00A0}\x{202F}]", " "),
    (rf"(?i)^({'|'.join(_DAYS)})[.]?,?\s+", ""),
    (r"(?i)\b([ap])[.]\s?m[.]?", r"\1m"),
    (r"\s*\b(?:GMT|UTC)([+-]\d{2}:?\d{2})(\s*\([^)]*\))?$", r" \1"),  # JavaScript
    *(
        (rf"(?i)(^|[^\pL])({'|'.join(names.split())})[.]?([^\pL]|$)", rf"\1{month}\3")
        for month, names in MONTHS.items()
    ),
)


def _written_time() -> str:
    sql = "text"
    for pattern, replacement in _WRITTEN:
        sql = f"regexp_replace({sql}, {literal(pattern)}, {literal(replacement)}, 'g')"
    return rf"CASE WHEN regexp_matches(text, '(?i)\pL{{2}}|[ap][.]|[^\x00-\x7F]') THEN {sql} ELSE text END"


def parsed(text: str, pattern: str) -> str:
    """SQL that reads a text as `written_time` writes it; null where the pattern does not fit."""
    return f"try_strptime({text}, {literal(re.sub('^%[aA],? ', '', pattern).replace('%B', '%b'))})"


def _epoch_time() -> str:
    """SQL for the time of a number since 1970 whose size tells its unit: seconds, or finer ones, of 1990 to 2100."""
    number = "TRY_CAST(text AS DOUBLE)"
    cases = [
        f"WHEN {number} * {us} BETWEEN {FIRST_US} AND {LAST_US} THEN CAST(round({number} * {us}) AS BIGINT)"
        for us in UNITS.values()
    ]
    return f"CAST(make_timestamp(CASE {' '.join(cases)} END) AS TIMESTAMPTZ)"


# utc_times: the UTC times that a local time can be: none if clocks skipped it, two if they were set back
TIME_MACROS = f"""
CREATE MACRO zone_offset(zone, utc) AS timezone(zone, CAST(utc AS TIMESTAMPTZ)) - utc;
CREATE MACRO utc_times(zone, local_time) AS list_distinct(list_filter(
    [local_time - zone_offset(zone, local_time - INTERVAL 1 DAY),
     local_time - zone_offset(zone, local_time + INTERVAL 1 DAY)],
    lambda utc: timezone(zone, CAST(utc AS TIMESTAMPTZ)) = local_time
));
CREATE MACRO iso_text(text) AS {_iso_text()};
CREATE MACRO written_time(text) AS {_written_time()};
CREATE MACRO epoch_time(text) AS {_epoch_time()};
CREATE MACRO epoch_text(text) AS nullif(regexp_extract(text, '^/Date[(]([+-]?\\d+)([+-]\\d{{4}})?[)]/$', 1), '');
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
    "%d/%b/%Y:%H:%M:%S %z", "[%d/%b/%Y:%H:%M:%S %z]", "%d %b %Y %H:%M:%S %z", "%d %b %Y %H:%M:%S %Z",
    "%b %d %H:%M:%S %Y", "%b %d %H:%M:%S %Z %Y", "%b %d %H:%M:%S %z %Y", "%b %d, %Y", "%b %d, %Y %H:%M",
    "%b %d, %Y %I:%M %p", "%b %d, %Y, %I:%M:%S %p", "%b %d, %Y %I:%M:%S %p", "%b %d %Y %I:%M%p", "%d %b %Y",
    "%d %b %Y %H:%M", "%d %b %Y %H:%M:%S", "%d %b %Y, %H:%M", "%d-%b-%Y", "%d-%b-%Y %H:%M:%S", "%d-%b-%y",
    "%d-%b-%y %I.%M.%S.%f %p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p", "%Y/%m/%d %I:%M:%S %p",
    "%Y-%m-%d %H:%M:%S %Z", "%Y-%m-%dT%H:%M:%S %Z", "%Y-%m-%d %H:%M:%S %z", "%Y年%m月%d日", "%Y年%m月%d日 %H:%M",
    "%Y年%m月%d日 %H:%M:%S", "%d.%m.%Y %I:%M:%S %p", "%d.%m.%Y %I:%M %p", "%d. %b %Y", "%d. %b %Y %H:%M",
    "%d. %b %Y %H:%M:%S", "%d. %b %Y, %H:%M", "%d-%b-%y %H:%M:%S %Z", "%b %d %Y %H:%M:%S %z", "%b %d %Y %H:%M:%S",
    "%Y年%m月%d日 %H時%M分", "%Y年%m月%d日 %H時%M分%S秒", "%Y年%m月%d日%H時%M分", "%Y年%m月%d日%H時%M分%S秒",
    "%Y年%m月%d日 %H时%M分",
    "%Y年%m月%d日 %H时%M分%S秒", "%G-W%V-%u", "%GW%V%u", "%d de %b de %Y", "%d de %b de %Y %H:%M",
)  # fmt: skip
EXCEL_EPOCH_DAYS = 25_569  # from the first day of sheets, 1899-12-30, to 1970
# from their first year to 1970, in steps of 100 ns: of .NET since the year 1, of Windows since 1601
STEPS_OF_100_NS = {"ticks": 621_355_968_000_000_000, "filetime": 116_444_736_000_000_000}
OTHER_UNITS = ("iso", "mixed", "excel", *STEPS_OF_100_NS)
