"""An encoding, guessed: which one the bytes of a text file are in, and which other might be meant.

UTF-8 and UTF-16 tell themselves. Which script the others write, `charset-normalizer` tells well. Among the code pages
of the Latin script it errs, as nearly every byte is a letter in each of them: there the words decide, by the letters
that the languages of a code page have, and of those that do equally well the commonest is taken.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

MARGIN = 0.1  # how much better a rarer code page has to do
PLAUSIBLE, SOUND = 0.5, 0.7  # shares of words from which a code page may be meant, and from which it is one at all
MAX_WORDS = 2000
HALF_WIDTH = re.compile("[\uff61-\uff9f]")
LETTERS = {
    "de": "äöüß", "fr": "àâæçèéêëîïôœùûüÿ", "es": "áéíñóúü", "it": "àèéìíîòóù", "pt": "àáâãçéêíóôõúü",
    "ca": "àçèéíïòóúü", "nl": "èéëïóöü", "sv": "åäöéàü", "da": "æøåéü", "is": "áðéíóúýþæö", "fi": "åäöšž",
    "pl": "ąćęłńóśźż", "cs": "áčďéěíňóřšťúůýž", "sk": "áäčďéíĺľňóôŕšťúýž", "hu": "áéíóöőúüű", "ro": "ăâîşţ",
    "hr": "čćđšž", "tr": "çğıİöşüâîû", "lt": "ąčęėįšųūž", "lv": "āčēģīķļņšūž", "et": "äõöüšž",
}  # fmt: skip
CENTRAL = ("pl", "cs", "sk", "hu", "ro", "hr", "de")
# code pages of the Latin script, the commonest first, and the languages they are used for
LATIN = {
    "cp1252": ("de", "fr", "es", "it", "pt", "ca", "nl", "sv", "da", "is", "fi"),
    "cp1250": CENTRAL,
    "cp1254": ("tr",),
    "cp1257": ("lt", "lv", "et"),
    "iso8859-2": CENTRAL,
}
SIGNS = frozenset("‘’‚“”„«»‹›…–—·•™®©°€£¥¢§±×÷²³¹½¼¾ªºµ¶†‡‰¿¡")
ADJACENT_SIGNS = frozenset("‘’‚“”„«»‹›…–—·™®©°")  # signs that stand beside letters, or between them


@dataclass(frozen=True)
class EncodingGuess:
    """What a text is encoded in: the likeliest first, then what may be meant as well; none where nothing fits."""

    candidates: tuple[str, ...]
    equally_likely: tuple[str, ...]  # those of them that do as well as the likeliest

    @property
    def name(self) -> str:
        """The likeliest; empty where none can be told."""
        return self.candidates[0] if self.candidates else ""

    @property
    def runner_up(self) -> str:
        """What it may be instead; empty where nothing else comes near."""
        return self.candidates[1] if len(self.candidates) > 1 else ""


def guess_encoding(sample: bytes) -> EncodingGuess:
    """What the first bytes of a text file are encoded in."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _certain("utf-16")
    if b"\x00" in sample:  # UTF-16 without a mark, or no text at all
        return _other_script(sample)
    if sample.isascii():
        return _certain("ascii")
    if is_utf8(sample):
        return _certain("utf-8")
    lines = sample[: sample.rfind(b"\n") + 1]  # a character may be cut in two by the sample's end
    sample = sample if lines.isascii() else lines
    shares = {name: share for name in LATIN if (share := _word_share(sample, name)) is not None}
    if max(shares.values(), default=0) < SOUND:
        return _other_script(sample)
    best = max(shares.values())
    fits = tuple(name for name, share in shares.items() if share >= best - MARGIN)
    rest = sorted((name for name in shares if name not in fits), key=lambda name: -shares[name])
    return EncodingGuess((*fits, *(name for name in rest if shares[name] >= PLAUSIBLE)), fits)


def is_utf8(sample: bytes) -> bool:
    """Is this sound UTF-8, but for a character that the sample's end may have cut in two?"""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _certain(name: str) -> EncodingGuess:
    return EncodingGuess((name,), (name,))


def _other_script(sample: bytes) -> EncodingGuess:
    """What `charset-normalizer` makes of it: the best, and the next that reads other words."""
    from charset_normalizer import from_bytes

    non_ascii_bytes = sum(byte > 127 for byte in sample)
    likely = tuple(
        match.encoding.replace("_", "-")
        for match in from_bytes(sample)
        # text of UTF-16 has zeros; any bytes make half-width kana, which nobody writes texts in
        if match.encoding.startswith(("utf_16", "utf_32")) == (b"\x00" in sample)
        and len(HALF_WIDTH.findall(str(match))) <= 0.5 * non_ascii_bytes
    )[:2]
    return EncodingGuess(likely, likely[:1])


def _word_share(sample: bytes, encoding: str) -> float | None:
    """How much of what is not ASCII makes words in a code page (0 to 1); None where it cannot be decoded at all.

    Half of it are words that fit any of its languages, half those of its best one: Czech in the wrong code page has
    words of Italian and words of Danish.
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
    anywhere = sum(map(any, fitting))
    return (anywhere + max(map(sum, zip(*fitting)))) / (2 * len(fitting))


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
    """May a language with such letters write this word, and its signs in such places?"""
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
