"""Guess the encoding of a text file from its first bytes.

UTF-8 and UTF-16 are recognized by themselves. `charset-normalizer` recognizes other scripts well, but not the code
pages of the Latin script, since nearly every byte is a letter in each of them. There the words decide, by the letters
of the languages of a code page; among equals the most common code page wins.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

MARGIN = 0.1  # by which a rarer code page must be better
PLAUSIBLE, SOUND = 0.5, 0.7  # shares of words that make a code page possible, and that one must reach
MAX_WORDS = 2000
MOSTLY = 0.8  # share of the lines that are valid UTF-8; the others are rejected by row
HALF_WIDTH = re.compile("[\uff61-\uff9f]")
LETTERS = {
    "de": "äöüß", "fr": "àâæçèéêëîïôœùûüÿ", "es": "áéíñóúü", "it": "àèéìíîòóù", "pt": "àáâãçéêíóôõúü",
    "ca": "àçèéíïòóúü", "nl": "èéëïóöü", "sv": "åäöéàü", "da": "æøåéü", "is": "áðéíóúýþæö", "fi": "åäöšž",
    "pl": "ąćęłńóśźż", "cs": "áčďéěíňóřšťúůýž", "sk": "áäčďéíĺľňóôŕšťúýž", "hu": "áéíóöőúüű", "ro": "ăâîşţ",
    "hr": "čćđšž", "tr": "çğıİöşüâîû", "lt": "ąčęėįšųūž", "lv": "āčēģīķļņšūž", "et": "äõöüšž",
}  # fmt: skip
CENTRAL = ("pl", "cs", "sk", "hu", "ro", "hr", "de")
# code pages of the Latin script, the most common first, with their languages
LATIN = {
    "cp1252": ("de", "fr", "es", "it", "pt", "ca", "nl", "sv", "da", "is", "fi"),
    "cp1250": CENTRAL,
    "cp1254": ("tr",),
    "cp1257": ("lt", "lv", "et"),
    "iso8859-2": CENTRAL,
}
SIGNS = frozenset("‘’‚“”„«»‹›…–—·•™®©°€£¥¢§±×÷²³¹½¼¾ªºµ¶†‡‰¿¡")
ADJACENT_SIGNS = frozenset("‘’‚“”„«»‹›…–—·™®©°")  # signs that may be next to letters


@dataclass(frozen=True)
class EncodingGuess:
    """Possible encodings, the likeliest first; none if nothing fits."""

    candidates: tuple[str, ...]
    equally_likely: tuple[str, ...]  # those as good as the first

    @property
    def name(self) -> str:
        """The likeliest encoding; empty for none."""
        return self.candidates[0] if self.candidates else ""

    @property
    def runner_up(self) -> str:
        """The second likeliest; empty for none."""
        return self.candidates[1] if len(self.candidates) > 1 else ""


def guess_encoding(sample: bytes) -> EncodingGuess:
    """The encoding of a text file, from its first bytes."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _certain("utf-16")
    if b"\x00" in sample:
        if not has_few_nuls(sample):  # UTF-16 without a byte order mark, or no text at all
            return _other_script(sample)
        sample = sample.replace(b"\x00", b"")
    if sample.isascii():
        return _certain("ascii")
    if is_utf8(sample) or _is_utf8_mostly(sample):
        return _certain("utf-8")
    lines = sample[: sample.rfind(b"\n") + 1]  # the sample may end in the middle of a character
    sample = sample if lines.isascii() else lines
    shares = {name: share for name in LATIN if (share := _word_share(sample, name)) is not None}
    if max(shares.values(), default=0) < SOUND:
        return _other_script(sample)
    best = max(shares.values())
    fits = tuple(name for name, share in shares.items() if share >= best - MARGIN)
    rest = sorted((name for name in shares if name not in fits), key=lambda name: -shares[name])
    return EncodingGuess((*fits, *(name for name in rest if shares[name] >= PLAUSIBLE)), fits)


def has_few_nuls(sample: bytes) -> bool:
    """Whether few lines have bytes of zeros: those that a crash left at the end, or single values."""
    lines = sample.rstrip(b"\x00").splitlines()
    return len(lines) > 1 and sum(b"\x00" in line for line in lines) <= (1 - MOSTLY) * len(lines)


def is_utf8(sample: bytes) -> bool:
    """Whether this is valid UTF-8, except for a character that is cut off at the end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _is_utf8_mostly(sample: bytes) -> bool:
    """Whether nearly all lines that are not ASCII are UTF-8, which other code pages hardly are by chance."""
    lines = [line for line in sample.splitlines() if not line.isascii()]
    return sum(map(is_utf8, lines)) >= MOSTLY * len(lines)


def _certain(name: str) -> EncodingGuess:
    return EncodingGuess((name,), (name,))


def _other_script(sample: bytes) -> EncodingGuess:
    """The best two guesses of `charset-normalizer`."""
    from charset_normalizer import from_bytes

    non_ascii_bytes = sum(byte > 127 for byte in sample)
    likely = tuple(
        match.encoding.replace("_", "-")
        for match in from_bytes(sample)
        # UTF-16 has zero bytes; arbitrary bytes look like half-width kana, in which nobody writes texts
        if match.encoding.startswith(("utf_16", "utf_32")) == (b"\x00" in sample)
        and len(HALF_WIDTH.findall(str(match))) <= 0.5 * non_ascii_bytes
    )[:2]
    return EncodingGuess(likely, likely[:1])


def _word_share(sample: bytes, encoding: str) -> float | None:
    """The share of non-ASCII words that are words in a code page (0 to 1); None if it cannot be decoded.

    Half of it counts words that fit any of the code page's languages, half those of its best language: Czech in the
    wrong code page looks like a mix of Italian and Danish.
    """
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return None
    words = list(_non_ascii_words(text))
    alphabets = [LETTERS[language] for language in LATIN[encoding]]
    fitting = [[_matches_alphabet(word, alphabet) for alphabet in alphabets] for word in words]
    if not fitting:
        return None
    fitting_any = sum(map(any, fitting))
    return (fitting_any + max(map(sum, zip(*fitting)))) / (2 * len(fitting))


def _non_ascii_words(text: str) -> Iterator[str]:
    """The first distinct words that are not ASCII."""
    seen: set[str] = set()
    for word in re.split(r"[\s,;|\"'<>(){}\[\]/:=]+", text):
        if not word.isascii() and word not in seen:
            seen.add(word)
            yield word
            if len(seen) == MAX_WORDS:
                return


def _matches_alphabet(word: str, alphabet: str) -> bool:
    """Whether a language with these letters can have this word, with its signs in these places."""
    letters = [char for char in word if _is_letter(char)]
    if len(letters) > 2 and not any(char.isascii() for char in letters):
        return False  # another script
    for before, char, after in zip(" " + word, word, word[1:] + " "):
        if char.isascii():
            continue
        if _is_letter(char):
            if (char not in alphabet and char.lower() not in alphabet) or (before.islower() and char.isupper()):
                return False
        elif char not in SIGNS:
            return False
        elif char in "¿¡":
            if _is_letter(before):
                return False
        elif char not in ADJACENT_SIGNS and (
            _is_letter(after) or (_is_letter(before) and (before, char) not in SUPERSCRIPT_UNITS)
        ):
            return False
    return True


SUPERSCRIPT_UNITS = {("m", "²"), ("m", "³")}


def _is_letter(char: str) -> bool:
    return char.isalpha() and char not in "ªºµ"
