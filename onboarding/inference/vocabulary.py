"""The words that people use in names of tables, columns and kinds of events, and what they mean by them."""

from __future__ import annotations

import re

SUBJECT_WORDS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "user": """user users customer customers client clients member household visitor account reader person uid buyer
            reviewer viewer listener shopper subscriber patient student player consumer usr cust demographics profiles
            kunde kunden benutzer utilisateur cliente usuario""",
        "item": """item items product products movie movies film book books article articles sku asin isbn track song
            doc document corpus passage news recipe content listing iid pid good goods offer post video game restaurant
            business hotel answer material course joke podcast paper artist album artikel produkt produkte produit
            producto articulo""",
        "query": "query queries question questions topic qid search inquiry request",
        "time": """time timestamp date datetime ts at when moment day created added happened bought viewed occurred
            datum zeit zeitpunkt fecha heure""",
        "event": """event events interaction interactions inter rating ratings transaction transactions order orders
            log logs click clicks view views purchase purchases qrels judgments impressions history behaviors
            behaviours sessions plays feedback activity reviews actions sales likes""",
    }.items()
}
SETTING_NAMES: dict[str, str] = {  # setting -> whole names that stand for it
    "query_text": "query question search searched text keywords search_term search_terms term phrase q query_text "
    "utterance sentence review content",
    "title": "title name headline titel nombre nom product_name movie_title item_name subject label libelle "
    "product_type product caption book_title song_name",
    "text": "description text body beschreibung descripcion content abstract summary overview plot "
    "details about answer short_description long_description notes story",
    "category": "category categories genre kategorie categoria genres class department tags shelf topic section "
    "product_category item_category cat type kind",
    "price": "price cost preis prix precio unit_price list_price amount preço prezzo prijs pris cena hinta "
    "fiyat цена 价格 価格",
    "available": "available verfügbar in_stock instock active is_active is_available enabled availability",
    "language": "language lang locale language_code",
    "created_year": "year release_year publication_year",
    "created_at": "release_date published published_at publish_date created created_at added date pubdate",
    "split": "split fold subset partition set",
    "event_type": "event event_type type action event_name interaction_type behavior activity verb",
    "turns": "turns conversation messages dialog dialogue history",
    "known_at": "known_at received_at ingested_at arrived_at logged_at",
    "label": "label sentiment class category target topic intent tag y polarity",
}
LABEL_NAMES: dict[str, str] = {
    "rating": "rating ratings stars star score overall rate",
    "relevance": "relevance grade rel relevancy judgment judgement score",
    "click": "click clicks clicked is_click is_clicked",
    "purchase": "purchase purchased bought is_purchase ordered converted buy",
}
EVENT_WORDS = {
    "purchase": "purchase purchased buy bought order ordered transaction checkout payment sale",
    "click": "click clicked view viewed open opened read play played listen watch watched cart addtocart add_to_cart "
    "add save like liked favorite favourite share visit detail",
    "": "impression impressions shown show display displayed remove removed search dislike skip skipped",
}
ID_WORDS = ("id", "key", "code", "no", "nr", "number", "sku", "isbn", "asin")


def name_tokens(name: str) -> list[str]:
    """The words of a name in lower case, the same for userID, user_id and user.id."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    return [word for word in re.split(r"[\W_]+", spaced.lower()) if word]


def name_words(name: str) -> set[str]:
    """The words of a name; a word like "userid" counts as "user" too."""
    tokens = set(name_tokens(name))
    return tokens | {word[:-2] for word in tokens if word.endswith("id") and len(word) > 3}


def is_id(name: str) -> bool:
    """Whether a name says that the values are ids."""
    tokens = name_tokens(name)
    if not tokens:
        return False
    last = tokens[-1]
    subjects = ("user", "item", "query")
    return last in ID_WORDS or (last.endswith("id") and any(last[:-2] in SUBJECT_WORDS[each] for each in subjects))


def name_score(name: str, setting: str) -> float:
    """How well a name fits a setting: near 1 for a whole name, less if only a word of it fits, 0 if none does."""
    names = SETTING_NAMES.get(setting, LABEL_NAMES.get(setting, "")).split()
    tokens = name_tokens(name)
    if (joined := "_".join(tokens)) in names:
        return 1.0 - 0.01 * names.index(joined)
    return 0.6 if tokens and tokens[-1] in names else 0.45 if set(tokens) & set(names) else 0.0


def event_label(value: str) -> str | None:
    """The label that a kind of event sets; empty for one without meaning, None for an unknown kind."""
    tokens = name_tokens(value)
    forms = {*tokens, "_".join(tokens)}
    return next((label for label, names in EVENT_WORDS.items() if forms & set(names.split())), None)
