"""A tiny made-up shop for the smoke recipe: RecBole atomic files in which what comes next can be learnt."""

from __future__ import annotations

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
