"""Generated shops, for tests and for trying things out: what comes next in them, or is searched for, can be learnt."""

from __future__ import annotations

import csv
import random
from pathlib import Path

SHELVES = ("garden", "kitchen", "books", "toys", "sport", "music")
KINDS = ("red", "blue", "small", "large", "old", "new", "soft", "round", "plain", "fine")
START = 1_700_000_000
DAY = 86_400


def write_shop(folder: Path, *, users: int = 120, events: int = 16, seed: int = 0) -> None:
    """Write shop.inter, shop.item and shop.user.

    Everybody walks along one shelf, mostly to the next item on it, and now and then changes shelf; so the next
    item follows from the last one, and popularity alone does not tell it.
    """
    rng = random.Random(seed)
    items = [(f"{shelf}-{kind}", f"{kind} {shelf} thing", shelf) for shelf in SHELVES for kind in KINDS]
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(users):
        moment = START + rng.randrange(20 * DAY)
        shelf, place = rng.randrange(len(SHELVES)), rng.randrange(len(KINDS))
        bought: set[int] = set()
        while len(bought) < events:
            item = shelf * len(KINDS) + place
            if item not in bought:
                bought.add(item)
                moment += rng.randrange(600, DAY)
                rating = rng.choice((4, 5)) if shelf % 2 else rng.choice((2, 3, 4))
                lines.append(f"u{user}\t{items[item][0]}\t{rating}\t{moment}")
            place = (place + 1) % len(KINDS)
            if rng.random() < 0.15 or len(bought) % len(KINDS) == 0:
                shelf, place = rng.randrange(len(SHELVES)), rng.randrange(len(KINDS))
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    told = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    told += [f"{item}\t{title}\t2020\t{shelf}" for item, title, shelf in items]
    (folder / "shop.item").write_text("\n".join(told) + "\n")
    (folder / "shop.user").write_text("\n".join(["user_id:token"] + [f"u{u}" for u in range(users)]) + "\n")


COLOURS = ("red", "blue", "green", "black", "white", "yellow", "purple", "orange")
THINGS = ("kettle", "lamp", "chair", "scarf", "drum", "kite", "vase", "clock", "rug", "mug")
FEATURES_OF_THINGS = ("for small rooms", "made of wood", "with a long cord", "that folds", "for children", "of wool")


def write_searched_shop(folder: Path, *, users: int = 250, events: int = 8, seed: int = 0) -> None:
    """Write events.csv, items.csv and users.csv: a generated shop in which people search, and then buy.

    A query names the thing and now and then its colour. Which of the matching items is bought depends on the person:
    everybody has a favourite colour and a purse, so neither the words nor the history alone tell it.
    """
    rng = random.Random(seed)
    items = []
    for thing in THINGS:
        for colour in COLOURS:
            for quality, price in (("plain", rng.uniform(5, 20)), ("fine", rng.uniform(40, 90))):
                detail = rng.choice(FEATURES_OF_THINGS)
                items.append((thing, colour, quality, f"{quality} {colour} {thing}", f"a {thing} {detail}", price))
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sku", "name", "description", "shelf", "price", "in_stock", "weight_kg"])
        for number, (thing, _, _, title, text, price) in enumerate(items):
            stock = "false" if number % 53 == 52 else "true"
            writer.writerow([f"s{number:03}", title, text, thing, f"{price:.2f}", stock, f"{rng.uniform(0.1, 9):.2f}"])
    rows = []
    for user in range(users):
        favourite, rich = rng.choice(COLOURS), rng.random() < 0.5
        moment = START + rng.randrange(20 * DAY)
        for thing in rng.sample(THINGS, events):
            moment += rng.randrange(600, DAY)
            colour = favourite if rng.random() < 0.8 else rng.choice(COLOURS)
            quality = ("fine" if rich else "plain") if rng.random() < 0.9 else rng.choice(("fine", "plain"))
            number = next(n for n, item in enumerate(items) if item[:3] == (thing, colour, quality))
            words = f"{colour} {thing}" if rng.random() < 0.2 else rng.choice((thing, f"buy {thing}", f"{thing}s"))
            rows.append((f"c{user:03}", words, f"s{number:03}", moment))
    rows.sort(key=lambda row: row[3])
    with (folder / "events.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["customer", "searched", "sku", "bought_at"])
        writer.writerows(rows)
    with (folder / "users.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["customer"])
        writer.writerows([f"c{user:03}"] for user in range(users))
