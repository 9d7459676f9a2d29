"""Lists as tools write them in a text, as macros of DuckDB: JSON, Python, Postgres, NumPy, PHP, YAML."""

from rankline.io.sql import literal

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ELEMENT = rf"""{_QUOTED}|[^\s,;'"\[\](){{}}][^,;'"\[\](){{}}]*"""
_NAMES = "name|title|label|value|id"  # of objects in a list, such as [{"id": 28, "name": "Action"}]
_NAMED = {key: rf"""['"]{key}['"]\s*:\s*({_QUOTED}|[^,}}\s]+)""" for key in _NAMES.split("|")}
_JSON_NAMES = ", ".join(f"nullif(json_extract_string(text, '$[*].{key}'), [])" for key in _NAMED)
_PYTHON_NAMES = ", ".join(f"nullif(regexp_extract_all(text, {literal(regex)}, 1), [])" for regex in _NAMED.values())

# null for a text that is no list; text_list also reads a list without JSON's quotes
LIST_MACROS = rf"""
CREATE MACRO unquoted(word) AS CASE WHEN regexp_matches(word, {literal(rf"^({_QUOTED})$")})
    THEN regexp_replace(word[2:-2], '\\(.)', '\1', 'g') ELSE trim(word) END;
CREATE MACRO json_list(text) AS CASE
    WHEN regexp_matches(text, '^\[\s*\{{') THEN coalesce({_JSON_NAMES}, json_extract_string(text, '$[*]'))
    ELSE json_extract_string(text, '$[*]') END;
CREATE MACRO bracket_list(text) AS list_transform(CASE
    WHEN regexp_matches(text, '^\[\s*\{{') THEN coalesce({_PYTHON_NAMES})
    ELSE regexp_extract_all(text, {literal(_ELEMENT)}) END, lambda word: unquoted(word));
CREATE MACRO plain_list(text) AS CASE
    WHEN starts_with(text, '[') AND json_valid(text) THEN json_list(text)
    WHEN regexp_full_match(text, '(?s)\[.*\]|\(\s*[''"].*\)|\{{.*\}}') AND NOT json_valid(text) THEN bracket_list(text)
    END;
CREATE MACRO php_list(text) AS list_transform(
    regexp_extract_all(text, '(?s)(?:i:\d+|s:\d+:".*?");(s:\d+:".*?"|[id]:[^;]*);', 1),
    lambda word: regexp_replace(word, '(?s)^s:\d+:"(.*)"$|^[id]:(.*)$', '\1\2'));
CREATE MACRO yaml_list(text) AS list_transform(
    regexp_extract_all(text, '(?m)^\s*-\s+(.*?)\s*$', 1), lambda word: unquoted(word));
CREATE MACRO text_list(text) AS CASE
    WHEN regexp_full_match(text, '(?s)"\s*\[.*\]\s*"') AND json_valid(text)
        THEN plain_list(trim(json_extract_string(text, '$')))
    WHEN regexp_full_match(text, '(?s)(frozenset|set|list|tuple|array)\(.*\)') THEN plain_list(
        coalesce(nullif(trim(regexp_extract(text, '(?s)^\w+\((.*?)(?:,\s*dtype=\w+)?\)$', 1)), ''), '[]'))
    WHEN regexp_full_match(text, '(?s)a:\d+:\{{.*\}}') THEN php_list(text)
    WHEN regexp_full_match(text, '(?s)\s*(-\s+[^\n]*\n\s*)+-\s+[^\n]*\s*') THEN yaml_list(text)
    ELSE plain_list(text) END;
CREATE MACRO number_words(text) AS regexp_extract_all(
    regexp_replace(coalesce(text, ''), '^\s*(np\.|torch\.)?(array|tensor)\(|,?\s*dtype=.*$', '', 'g'),
    '[^\s,;|\[\](){{}}]+');
"""
