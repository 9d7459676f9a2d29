"""The language of a text, detected by its script or its function words."""

from __future__ import annotations

import re

SCRIPTS = (("zh", "\u4e00-\u9fff"), ("ja", "\u3040-\u30ff"), ("ko", "\uac00-\ud7af"), ("th", "\u0e00-\u0e7f"),
           ("ar", "\u0600-\u06ff"), ("he", "\u0590-\u05ff"), ("hi", "\u0900-\u097f"))  # fmt: skip


def detect_language(text: str) -> str:
    """The code of the language a text appears to be in (en, zh…); empty if it is not clear."""
    letters = len(re.findall(r"\w", text)) or 1
    shares = {code: len(re.findall(f"[{span}]", text)) / letters for code, span in SCRIPTS}
    if shares["ja"] > 0.1:
        return "ja"
    code = max(shares, key=lambda each: shares[each])
    if shares[code] > 0.2:
        return code
    tokens = re.findall(r"[^\W\d_]+", text.lower())
    hits = {code: sum(word in words for word in tokens) for code, words in STOPWORDS.items()}
    likely = max(hits, key=lambda each: hits[each])
    if hits[likely] > 0.04 * len(tokens) > 0:
        return likely
    if text.isascii() or letters < 40:  # too little to tell: names and keywords look alike in many languages
        return ""
    from charset_normalizer import from_bytes

    best = from_bytes(text[:20_000].lower().encode(), cp_isolation=["utf_8"]).best()
    return LANGUAGES.get(best.language, "") if best else ""


STOPWORDS = {
    code: frozenset(words.split())
    for code, words in {
        "en": "the and of to in is it for with that on this was are as be by or an from at",
        "de": "der die und das ist nicht mit ein eine für auf den von zu im dem es auch sich aus",
        "fr": "le la les et des un une est pour dans que pas avec sur ce qui du au plus sont",
        "es": "el los las y de que es un una para con por no del se lo como su al más",
        "it": "il di che è la per un una non con del della sono le gli si da più come ma",
        "nl": "de het een en van is dat niet met voor op te zijn die aan ook er maar als bij",
        "pt": "o os as e de que é um uma para com não do da em se por mais ao dos",
    }.items()
}
LANGUAGES = {
    "English": "en", "German": "de", "French": "fr", "Dutch": "nl", "Italian": "it", "Polish": "pl", "Spanish": "es",
    "Russian": "ru", "Portuguese": "pt", "Swedish": "sv", "Ukrainian": "uk", "Norwegian": "no", "Finnish": "fi",
    "Vietnamese": "vi", "Czech": "cs", "Hungarian": "hu", "Turkish": "tr", "Danish": "da", "Greek": "el",
    "Romanian": "ro", "Arabic": "ar", "Bulgarian": "bg", "Indonesian": "id",
}  # fmt: skip
