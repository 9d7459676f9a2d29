"""How the text files of a source are written: what the user says, and what their first megabyte shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from components.ingest.config import TextFiles
from components.ingest.readers import text_stream
from components.ingest.readers.csv_layout import has_backslash_quotes
from rankline.errors import UsageError
from rankline.io.sources import File

DELIMITED = ("csv", "tsv", "txt")
SAMPLED_LINES = 100  # that are searched for single quotes
SETTINGS = ("delimiter", "quote", "escape", "decimal", "missing", "header", "names", "names:PLACE")


def parse_file_settings(given: Iterable[str]) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The settings of text files and, by place, the names of columns (all places: an empty one).

    Raises:
        UsageError: there is no such setting, or it takes no such value.
    """
    settings: dict[str, Any] = {}
    names: dict[str, tuple[str, ...]] = {}
    for each in given:
        name, sign, value = each.partition("=")
        name, _, place = name.strip().partition(":")
        if not sign or name not in SETTINGS or (place and name != "names"):
            raise UsageError("--files takes setting=value", expected=f"a setting: {', '.join(SETTINGS)}", found=each)
        if name == "names":
            names[place] = tuple(column.strip() for column in value.split(","))
        else:
            settings[name] = value.split(",") if name == "missing" else value
    try:
        TextFiles(**settings)
    except ValidationError as error:
        raise UsageError(
            "--files takes no such value", expected=error.errors()[0]["msg"], found=str(settings)
        ) from None
    return settings, names


def detect_quoting(files: Iterable[File], given: Mapping[str, Any], encoding: str) -> dict[str, str]:
    """The escape sign and the quote that text files have, where no setting names them and ingest's defaults differ."""
    settings: dict[str, str] = {}
    for file in files:
        if file.kind not in DELIMITED:
            continue
        with file.open_stored() as stored:
            sample = text_stream.decompressed(file, stored).read(text_stream.SAMPLE_BYTES).decode(encoding, "ignore")
        if "escape" not in given and "quote" not in given and has_backslash_quotes(sample):
            settings["escape"] = "\\"
        if "quote" not in given and _has_quoted_tabs(sample):
            settings["quote"] = '"'
        if "quote" not in given and _has_single_quotes(sample):
            settings["quote"] = "'"
    return settings


def _has_single_quotes(sample: str) -> bool:
    """Whether values are enclosed by ' and none by a double quote."""
    lines = sample.splitlines()[:SAMPLED_LINES]
    enclosed = [re.search(r"(^|[,;|\t])'[^']*'([,;|\t]|$)", line) is not None for line in lines]
    return '"' not in sample and len(lines) > 1 and sum(enclosed) > 0.8 * len(lines)


def _has_quoted_tabs(sample: str) -> bool:
    """Whether tab-separated text has quotes around values that need them, and around nothing else."""
    header = re.split(r"[\r\n]", sample.lstrip("\r\n"), maxsplit=1)[0]
    if "\t" not in header or sample.count("\t") < sample.count("\n"):
        return False
    opened = re.findall(r'(?:^|(?<=[\t\r\n]))"', sample)
    quoted = re.findall(r'(?:^|(?<=[\t\r\n]))"((?:[^"]|"")*)"(?=[\t\r\n]|$)', sample)
    if len(opened) != len(quoted) or any("\t" in value and "\n" in value for value in quoted):
        return False  # of a quote that nothing closes, the next one is the end
    return any(re.search(r'[\t\r\n]|""', value) for value in quoted)
