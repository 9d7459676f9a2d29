"""A synthetic log of ads in which the chance of every click and of every conversion was planted."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

START_S = 1_700_000_000
DAY_S = 86_400
DAYS = 75
POSITIONS = 5  # ads per request
SEEN_AT = (1.0, 0.8, 0.65, 0.55, 0.45)  # share of the users who look at a position
TOPICS = {
    "travel": "city break, mountain hut, night train, island ferry",
    "running": "road shoes, trail jacket, race watch, light socks",
    "cooking": "cast iron pan, bread course, spice box, chef knife",
    "garden": "raised bed, rose seeds, rain barrel, pruning shears",
    "music": "acoustic guitar, piano lessons, studio headphones, vinyl club",
    "games": "board game, puzzle box, retro console, chess clock",
    "money": "savings plan, travel card, budget app, home loan",
    "pets": "dog basket, cat tree, fish tank, bird feeder",
}
OFFERS = ("this week only", "with free delivery")
TRUTH_FILE = "_truth.csv"  # of the planted chances; readers of tables leave out names that begin with _


@dataclass(frozen=True)
class _Campaign:
    name: str
    headline: str
    topic: str
    price: float
    appeal: float  # logits of a click
    quality: float  # logits of a conversion


def write_ads(folder: Path, *, users: int = 600, requests: int = 24, seed: int = 0) -> None:
    """Write campaigns.csv, impressions.csv and the planted chances of each impression.

    A request shows five campaigns, drawn at random in a random order. The chance of a click depends on the campaign,
    on whether its topic is one of the user's two favourites, and on the position; that of a conversion, which follows
    a click only, on the campaign and on the favourites.
    """
    rng = random.Random(seed)
    campaigns = _draw_campaigns(rng)
    favourites = {f"u{user:03}": rng.sample(list(TOPICS), 2) for user in range(users)}
    shown = sorted((START_S + rng.randrange(DAYS * DAY_S), user) for user in favourites for _ in range(requests))
    impressions, truth = [], []
    for number, (time_s, user) in enumerate(shown):
        for position, each in enumerate(rng.sample(campaigns, POSITIONS), start=1):
            click, conversion = _chances(each, is_favourite=each.topic in favourites[user])
            clicked = rng.random() < click * SEEN_AT[position - 1]
            converted = clicked and rng.random() < conversion
            shown_as = (f"r{number:05}", each.name, user, time_s, position)
            revenue = f"{each.price:.2f}" if converted else ""
            impressions.append((*shown_as, int(clicked), int(converted), revenue))
            anywhere = click * sum(SEEN_AT) / POSITIONS
            truth.append((*shown_as, *(f"{p:.6f}" for p in (click * SEEN_AT[position - 1], anywhere, conversion))))
    items = [(each.name, each.headline, each.topic, f"{each.price:.2f}") for each in campaigns]
    write_csv(folder / "campaigns.csv", "campaign headline topic price", items)
    columns = "request campaign user shown_at position"
    write_csv(folder / "impressions.csv", f"{columns} clicked converted revenue", impressions)
    write_csv(folder / TRUTH_FILE, f"{columns} click click_anywhere conversion_of_click", truth)


def _draw_campaigns(rng: random.Random) -> list[_Campaign]:
    """Each product with each offer: campaigns whose appeal is not to be seen from their words."""
    products = [(topic, product.strip()) for topic, words in TOPICS.items() for product in words.split(",")]
    return [
        _Campaign(
            name=f"{topic}-{number:02}",
            headline=f"{product}: {topic} {offer}",
            topic=topic,
            price=round(rng.uniform(5, 120), 2),
            appeal=rng.gauss(0, 0.5),
            quality=rng.gauss(0, 0.4),
        )
        for number, (topic, product, offer) in enumerate((*pair, offer) for pair in products for offer in OFFERS)
    ]


def _chances(campaign: _Campaign, *, is_favourite: bool) -> tuple[float, float]:
    """The chance of a click where the user looks, and of a conversion after a click."""
    click = _sigmoid(-2.8 + campaign.appeal + (1.9 if is_favourite else 0))
    return click, _sigmoid(-1.6 + campaign.quality + (0.6 if is_favourite else 0))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def write_csv(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    """Write a table; ``header`` has the names of its columns, with spaces between them."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split())
        writer.writerows(rows)
