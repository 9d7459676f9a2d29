r"""Numbers and prices as people write them, as macros of DuckDB.

`number_point` and `number_comma` read a text with that decimal sign: digits of any script, thousands parted by spaces,
apostrophes or the other sign where that is not ambiguous, a sign before or behind, parentheses for less than nothing.
`price_text` removes the words beside a price, `without_mark` one currency before or behind, `currency_of` names it.
Where an expression is an argument of several macros, name it in a subquery: DuckDB repeats the arguments of macros.
"""

from rankline.io.sql import literal

# code -> how else it is written; several countries share a dollar or a crown
CURRENCIES = {
    "EUR": ("€", "euro", "euros", "eur"), "USD": ("US$", "$", "usd"), "GBP": ("£", "gbp"), "JPY": ("¥", "円", "jp¥"),
    "CNY": ("元", "rmb", "cn¥"), "PLN": ("zł", "zl"), "CZK": ("kč",), "HUF": ("ft",), "CHF": ("sfr.", "fr."),
    "RUB": ("₽", "руб.", "руб", "р."), "UAH": ("₴", "грн.", "грн"), "BRL": ("R$",), "INR": ("₹", "rs.", "rs"),
    "KRW": ("₩", "원"), "TRY": ("₺", "tl"), "BGN": ("лв.", "лв"), "RON": ("lei",), "kr": ("kr.",), "SEK": (), "NOK": (),
    "DKK": (), "CAD": ("CA$", "C$"), "AUD": ("AU$", "A$"), "MXN": ("MX$",), "ILS": ("₪",), "VND": ("₫",), "ZAR": (),
    "AED": ("د.إ",), "SAR": ("ر.س",), "SGD": ("S$",), "HKD": ("HK$",), "NZD": ("NZ$",), "THB": ("฿",), "PHP": ("₱",),
    "IDR": ("Rp",), "MYR": ("RM",), "TWD": ("NT$",),
}  # fmt: skip
_MARKS = sorted({mark for code, marks in CURRENCIES.items() for mark in (code, *marks)}, key=len, reverse=True)
_KNOWN = "|".join("".join(f"\\{char}" if char in ".$" else char for char in mark) for mark in _MARKS)
CURRENCY = rf"(?i:{_KNOWN})|\p{{Sc}}|[A-Z]{{3}}"  # a mark that is known, any other sign, or a code
SPACE = r"[\s\x{00A0}\x{2007}\x{2009}\x{202F}\x{3000}]"
GROUP = r"[ \x{00A0}\x{2007}\x{2009}\x{202F}'’´`]"  # between thousands, whatever the decimal sign is
_SCRIPTS = (0x0660, 0x06F0, 0x0966, 0x09E6, 0xFF10)  # the zeros of Arabic, Persian, Devanagari, Bengali, full width
_DIGITS = "".join(chr(zero + digit) for zero in _SCRIPTS for digit in range(10))
_SIGNS = "−–—＋．，"
DECIMAL = chr(0xE000)  # stands for the decimal sign, whichever it is
_CODE_CASES = " ".join(
    f"WHEN {literal(mark.lower())} THEN {literal(code)}" for code, marks in CURRENCIES.items() for mark in marks
)


def _read(decimal: str) -> str:
    """SQL that reads `plain`, a text in ASCII digits, as a number."""
    group = "." if decimal == "," else ","
    # the other sign separates thousands only where it cannot be a decimal sign: 1,234.50 and 1,234,567, not 1,234
    grouped = rf"\d{{1,3}}((\{group}\d{{2,3}})*\{group}\d{{3}}\{decimal}\d+|(\{group}\d{{2,3}})+\{group}\d{{3}})"
    spaced = rf"\d{{1,3}}({GROUP}\d{{3}})+(\{decimal}\d+)?"
    # with both, or with spaces, the last sign is the decimal one whatever the setting says
    other = rf"\d{{1,3}}(({GROUP}\d{{3}})+|(\{decimal}\d{{3}})+)\{group}\d{{1,2}}"
    without_groups = f"replace(regexp_replace(plain, {literal(rf'[{group}]|{GROUP}')}, '', 'g'), '{decimal}', '.')"
    without_others = f"replace(regexp_replace(plain, {literal(rf'[{decimal}]|{GROUP}')}, '', 'g'), '{group}', '.')"
    if decimal == ",":
        grouped += r"|(\d+|\d{1,3}(\.\d{3})+)(,\d+)?"  # a point is no decimal sign then
    return (
        f"CASE WHEN regexp_full_match(plain, {literal(f'[+-]?({grouped}|{spaced})')}) "
        f"THEN TRY_CAST({without_groups} AS DOUBLE) "
        f"WHEN regexp_full_match(plain, {literal(f'[+-]?{other}')}) THEN TRY_CAST({without_others} AS DOUBLE) "
        + ("" if decimal == "," else "ELSE TRY_CAST(plain AS DOUBLE) ")
        + "END"
    )


def _plain(text: str, decimal: str) -> str:
    """SQL for a text in ASCII digits: signs in front, no percent sign, no dash for missing cents."""
    group = "." if decimal == "," else ","
    written, ascii = (
        _DIGITS + _SIGNS + "٫٬" + DECIMAL,
        "0123456789" * len(_SCRIPTS) + "---+.," + decimal + group + decimal,
    )
    plain = f"translate({text}, {literal(written)}, {literal(ascii)})"
    for pattern, replacement in (
        (rf"^{SPACE}+|{SPACE}+$", ""),
        (rf"{SPACE}*%$", ""),
        (r"^([+-]?\d+),-+$|[.]-+$", r"\1"),  # 12,- and 1'299.-
        (r",-+$", ",00"),  # 1.299,- has a decimal comma
        (r"^\((.*)\)$", r"-\1"),
        (r"^(\d.*)-$", r"-\1"),
        (rf"^([+-]){SPACE}+", r"\1"),
    ):
        plain = f"regexp_replace({plain}, {literal(pattern)}, {literal(replacement)}, 'g')"
    return plain


_FROM = r"from|starting at|only|now|approx[.]?|ab|nur|ca[.]?|à partir de|dès|desde|a partire da|vanaf|od|от|~|≈"
_TAXES = r"[(]?(incl|inkl|excl|exkl|zzgl|plus|inc|ex|ttc|ht|tva|iva|mwst|vat|per|pro|par)\b.*"
# what stands beside a price -> the price alone; of a range the lower one
_PRICE_SPELLINGS = (
    (r"&nbsp;", " "), (r"&euro;|&#8364;", "€"), (r"&pound;|&#163;", "£"), (r"&yen;|&#165;", "¥"), (r"&dollar;", "$"),
    (rf"(?i)^({_FROM})\s+", ""),
    (rf"(?i)(\d\S*(\s*({CURRENCY}))?)\s*{_TAXES}$", r"\1"),
    (r"(?i)(\d\D*)\s*/\s*\pL+[.]?$", r"\1"),
    (rf"^(.*?\d)(?:\s*(?:{CURRENCY}))?\s*(?:-|–|—|to|bis)\s*[^\d,.]{{0,5}}[\d.,'’ ]*\d([^\d]*)$", r"\1\2"),
    (r"^(\d+)\s*(\p{Sc})\s*(\d\d)$", rf"\1{DECIMAL}\3 \2"),  # 10€99
    (r"^(\d+)[kK]$", r"\1000"),
    (r"^(\d+[.]\d+)[kK]$", r"\1e3"),
    (r"^(\d)\s*¢$", r"00\1¢"), (r"^(\d\d)\s*¢$", r"0\1¢"),
    (r"^(\d+)(\d\d)\s*¢$", rf"\1{DECIMAL}\2"),
)  # fmt: skip


def _price_text() -> str:
    sql = "text"
    for pattern, replacement in _PRICE_SPELLINGS:
        sql = f"regexp_replace({sql}, {literal(pattern)}, {literal(replacement)}, 'g')"
    return f"CASE WHEN length(text) <= 60 THEN {sql} ELSE text END"


_SIGN = "[+\\-−(]?"
_BEFORE = rf"^{SPACE}*({_SIGN}){SPACE}*({CURRENCY}){SPACE}*"
_BEHIND = rf"{SPACE}*({CURRENCY})(\)?){SPACE}*$"
_WRITTEN = rf"(?i:{_KNOWN})|\p{{Sc}}"
_BESIDE_DIGITS = rf"^{SPACE}*{_SIGN}{SPACE}*({_WRITTEN}){SPACE}*[\d(+-]|\d[.,]?[-–]*{SPACE}*({_WRITTEN}){SPACE}*$"
NUMBER_MACROS = f"""
CREATE MACRO read_point(plain) AS {_read(".")};
CREATE MACRO read_comma(plain) AS {_read(",")};
CREATE MACRO may_be_number(text) AS length(text) <= 40 AND regexp_matches(text, '\\p{{Nd}}');
CREATE MACRO number_point(text) AS coalesce(
    TRY_CAST(text AS DOUBLE), CASE WHEN may_be_number(text) THEN read_point({_plain("text", ".")}) END);
CREATE MACRO number_comma(text) AS CASE WHEN may_be_number(text) THEN read_comma({_plain("text", ",")}) END;
CREATE MACRO price_text(text) AS {_price_text()};
CREATE MACRO without_mark(text) AS CASE WHEN length(text) > 60 THEN text ELSE
    regexp_replace(text, {literal(f"{_BEFORE}|{_BEHIND}")}, '\\1\\4') END;
CREATE MACRO currency_mark(text) AS coalesce(
    nullif(regexp_extract(text, {literal(_BEFORE)}, 2), ''), nullif(regexp_extract(text, {literal(_BEHIND)}, 1), ''));
CREATE MACRO rating_number(text) AS CASE
    WHEN regexp_full_match(text, '\\d+([.]\\d+)?\\s*/\\s*\\d+')
        THEN TRY_CAST(regexp_extract(text, '^[\\d.]+') AS DOUBLE)
    WHEN regexp_full_match(text, '[★⭐]+[☆✩]*') THEN len(regexp_extract_all(text, '[★⭐]')) END;
CREATE MACRO currency_of(mark) AS CASE lower(mark) {_CODE_CASES} ELSE mark END;
CREATE MACRO has_currency(text) AS length(text) <= 60 AND regexp_matches(text, {literal(_BESIDE_DIGITS)});
"""
