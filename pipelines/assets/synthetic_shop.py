"""Synthetic shops for tests and demonstrations, in which the next purchase or the answer to a search can be learnt."""

from __future__ import annotations

import random
from pathlib import Path

from pipelines.assets.synthetic_ads import write_csv

CATEGORIES = ("garden", "kitchen", "books", "toys", "sport", "music")
ADJECTIVES = ("red", "blue", "small", "large", "old", "new", "soft", "round", "plain", "fine")
START_S = 1_700_000_000
DAY_S = 86_400


def write_shop(folder: Path, *, users: int = 120, events: int = 16, seed: int = 0) -> None:
    """Write shop.inter, shop.item and shop.user.

    Each user buys along one category, mostly the next item of it, and sometimes changes the category: the next item
    follows from the last one, and popularity does not predict it.
    """
    rng = random.Random(seed)
    items = [
        (f"{category}-{adjective}", f"{adjective} {category} thing", category)
        for category in CATEGORIES
        for adjective in ADJECTIVES
    ]
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(users):
        timestamp = START_S + rng.randrange(20 * DAY_S)
        category, position = rng.randrange(len(CATEGORIES)), rng.randrange(len(ADJECTIVES))
        bought: set[int] = set()
        while len(bought) < events:
            item = category * len(ADJECTIVES) + position
            if item not in bought:
                bought.add(item)
                timestamp += rng.randrange(600, DAY_S)
                rating = rng.choice((4, 5)) if category % 2 else rng.choice((2, 3, 4))
                lines.append(f"u{user}\t{items[item][0]}\t{rating}\t{timestamp}")
            position = (position + 1) % len(ADJECTIVES)
            if rng.random() < 0.15 or len(bought) % len(ADJECTIVES) == 0:
                category, position = rng.randrange(len(CATEGORIES)), rng.randrange(len(ADJECTIVES))
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    item_lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    item_lines += [f"{item}\t{title}\t2020\t{category}" for item, title, category in items]
    (folder / "shop.item").write_text("\n".join(item_lines) + "\n")
    (folder / "shop.user").write_text("\n".join(["user_id:token"] + [f"u{u}" for u in range(users)]) + "\n")


COLOURS = ("red", "blue", "green", "black", "white", "yellow", "purple", "orange")
PRODUCTS = ("kettle", "lamp", "chair", "scarf", "drum", "kite", "vase", "clock", "rug", "mug")
PRODUCT_FEATURES = ("for small rooms", "made of wood", "with a long cord", "that folds", "for children", "of wool")


def write_searched_shop(folder: Path, *, users: int = 250, events: int = 8, seed: int = 0) -> None:
    """Write events.csv, items.csv and users.csv: a synthetic shop in which users search, and then buy.

    A query names the product and sometimes its colour. Which of the matching items is bought depends on the user, who
    has a favourite colour and a budget: neither the query nor the history alone predicts it.
    """
    rng = random.Random(seed)
    items = []
    for product in PRODUCTS:
        for colour in COLOURS:
            for quality, price in (("plain", rng.uniform(5, 20)), ("fine", rng.uniform(40, 90))):
                detail = rng.choice(PRODUCT_FEATURES)
                items.append(
                    (product, colour, quality, f"{quality} {colour} {product}", f"a {product} {detail}", price)
                )
    stock = [
        (f"s{n:03}", title, text, product, f"{price:.2f}", str(n % 53 != 52).lower(), f"{rng.uniform(0.1, 9):.2f}")
        for n, (product, _, _, title, text, price) in enumerate(items)
    ]
    write_csv(folder / "items.csv", "sku name description shelf price in_stock weight_kg", stock)
    rows = []
    for user in range(users):
        favourite_colour, is_rich = rng.choice(COLOURS), rng.random() < 0.5
        timestamp = START_S + rng.randrange(20 * DAY_S)
        for product in rng.sample(PRODUCTS, events):
            timestamp += rng.randrange(600, DAY_S)
            colour = favourite_colour if rng.random() < 0.8 else rng.choice(COLOURS)
            quality = ("fine" if is_rich else "plain") if rng.random() < 0.9 else rng.choice(("fine", "plain"))
            number = next(n for n, item in enumerate(items) if item[:3] == (product, colour, quality))
            query = (
                f"{colour} {product}" if rng.random() < 0.2 else rng.choice((product, f"buy {product}", f"{product}s"))
            )
            rows.append((f"c{user:03}", query, f"s{number:03}", timestamp))
    rows.sort(key=lambda row: row[3])
    write_csv(folder / "events.csv", "customer searched sku bought_at", rows)
    write_csv(folder / "users.csv", "customer", [(f"c{user:03}",) for user in range(users)])
