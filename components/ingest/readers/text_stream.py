"""Text files as streams of UTF-8 lines, whatever their compression and encoding."""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from components.ingest.readers.encoding import EncodingGuess, guess_encoding, is_utf8
from components.ingest.readers.escapes import EscapedStream
from components.ingest.readers.parts import truncated_error
from components.ingest.readers.stream import ConvertedStream
from rankline.errors import SourceError
from rankline.io.sources import COMPRESSION_SUFFIXES, File

CHUNK_BYTES = 4 << 20
SAMPLE_BYTES = 1 << 20
# the first bytes of files that are not text; an .xlsx is a zip
MAGIC = {
    b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2", b"PK\x03\x04": "zip", b"PAR1": "parquet",
}  # fmt: skip
REPLACEMENT_CHARACTER = chr(0xFFFD)  # stands for bytes that cannot be decoded
SEPARATOR = "\x1f"  # stands for a delimiter of several characters
NUL = "NUL bytes"  # the reason for which a row with such a byte is rejected


class Utf8Stream(ConvertedStream):
    """A stream of bytes in any encoding as UTF-8; what cannot be decoded becomes U+FFFD."""

    def __init__(self, stream: Any, encoding: str) -> None:
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)("replace")

    def convert(self, block: bytes) -> bytes:
        return self._decoder.decode(block, not block).encode()


class SeparatedStream(ConvertedStream):
    """A stream of UTF-8 in which one character stands for a delimiter of several."""

    def __init__(self, stream: Any, delimiter: str, where: str) -> None:
        super().__init__(stream)
        self._delimiter, self._rest, self._where = delimiter.encode(), b"", where

    def convert(self, block: bytes) -> bytes:
        if SEPARATOR.encode() in block:
            raise SourceError(
                "a file with a delimiter of several characters has the one that stands for it while it is read",
                expected=f"no U+{ord(SEPARATOR):04X}",
                found="one or more",
                where=self._where,
                hint=f"remove it: tr -d '\\{ord(SEPARATOR):03o}'",
            )
        *before, last = (self._rest + block).split(self._delimiter)
        begins = [last.endswith(self._delimiter[:size]) for size in range(len(self._delimiter))]
        rest = max(size for size, begun in enumerate(begins) if begun) if block else 0
        self._rest = last[len(last) - rest :]  # may be the beginning of another delimiter
        return SEPARATOR.encode().join([*before, last[: len(last) - rest]])


def decompressed(file: File, stored: IO[bytes]) -> Any:
    """The bytes of a file, without its compression."""
    import pyarrow as pa

    ending = file.path.rpartition(".")[2].lower()
    if ending not in COMPRESSION_SUFFIXES:
        return stored
    name = {"gz": "gzip", "zst": "zstd", "bz2": "bz2"}[ending]
    return pa.CompressedInputStream(pa.PythonFile(stored, "r"), name)


def open_text(
    file: File, encoding: str, escape: str = "", delimiter: str = ""
) -> tuple[io.BufferedReader, Callable[[], int]]:
    """A text file as UTF-8, and a function that returns the bytes read so far.

    Escaped characters are private ones; a ``delimiter`` of several characters is SEPARATOR.

    Raises:
        SourceError: it is not compressed as its name says, or its first megabyte is clearly in another encoding.
    """
    _check_file_name(file)
    with file.open_stored() as stored:
        try:
            sample = decompressed(file, stored).read(SAMPLE_BYTES)
        except (OSError, EOFError) as error:
            raise truncated_error(file.path, error) from error
    _check_encoding(sample, encoding, file.path)
    stored = file.open_stored()
    stream: io.RawIOBase = Utf8Stream(decompressed(file, stored), encoding)
    if escape:
        stream = EscapedStream(io.BufferedReader(stream, SAMPLE_BYTES), escape)
    if len(delimiter) > 1:
        stream = SeparatedStream(io.BufferedReader(stream, SAMPLE_BYTES), delimiter, file.path)
    return io.BufferedReader(stream, SAMPLE_BYTES), stored.tell


def line_batches(stream: io.BufferedReader, *, first: int) -> Iterator[Any]:
    """The lines of a stream as batches with `row` (counted from ``first``) and `raw`."""
    import pyarrow as pa

    row = first
    while block := stream.readlines(CHUNK_BYTES):
        texts = [line.decode().rstrip("\r\n") for line in block]
        yield pa.record_batch([pa.array(range(row, row + len(texts)), pa.int64()), pa.array(texts)], line_schema())
        row += len(texts)


def line_schema() -> Any:
    """The schema of `line_batches`."""
    import pyarrow as pa

    return pa.schema([("row", pa.int64()), ("raw", pa.string())])


def encoding_check(encoding: str, raw: str = "raw") -> tuple[str, str]:
    """The check that a row could be decoded."""
    return f"contains({raw}, chr({ord(REPLACEMENT_CHARACTER)}))", f"not {encoding.upper()}"


def nul_check(raw: str = "raw") -> tuple[str, str]:
    """The check that a row has no byte of zeros, which a crash or a fixed width leaves in text."""
    return f"contains({raw}, chr(0))", NUL


def _check_file_name(file: File) -> None:
    """Refuse a file whose first bytes do not match its suffix."""
    name = file.path.rsplit("/", 1)[-1]
    ending = name.rpartition(".")[2].lower()
    compression = ending if ending in COMPRESSION_SUFFIXES else ""
    with file.open_stored() as stored:
        head = stored.read(16)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if kind == compression or (not kind and (not head or re.search(rb"[^\t\r\n -\xff]", head))):
        return
    inner = name[: -len(compression) - 1] if compression else name
    raise SourceError(
        "a file is not what its name says",
        expected=f"text, compressed as {compression}" if compression else "text",
        found=kind or "text that is not compressed",
        where=file.path,
        hint="unpack it; save an Excel sheet as CSV (UTF-8)"
        if kind == "zip"
        else f"name it {inner.partition('.')[0]}.parquet"
        if kind == "parquet"
        else f"name it {inner}{f'.{kind}' * bool(kind)}",
    )


def _check_encoding(sample: bytes, encoding: str, where: str) -> None:
    """Refuse text that is clearly in another encoding: it has a byte order mark, or is valid UTF-8."""
    guess = None
    has_bom, is_utf16 = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)), encoding.startswith("utf-16")
    if has_bom and not is_utf16:
        guess = EncodingGuess(("utf-16",), ("utf-16",))
    elif encoding == "utf-16" and not has_bom:
        guess = guess_encoding(sample)  # takes a second
    elif not is_utf16 and encoding not in ("utf-8", "utf-8-sig") and not sample.isascii() and is_utf8(sample):
        guess = EncodingGuess(("utf-8",), ("utf-8",))
    if guess:
        detected = {"ascii": "utf-8", "": "another one"}.get(guess.name, guess.name)
        raise SourceError(
            "a file is in another encoding than the settings say",
            expected=f"{encoding} (ingest.files.encoding)",
            found=detected,
            where=where,
            hint=f"set ingest.files.encoding={detected}" + f" (or {guess.runner_up})" * bool(guess.runner_up),
        )
