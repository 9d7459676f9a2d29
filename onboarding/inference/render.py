"""The files that `rankline init` writes: the map as TOML, the recipe as Python."""

from __future__ import annotations

import json

import tomli_w

from onboarding.inference.label_text import label_sentences, other_sentences
from onboarding.inference.proposal import Proposal
from rankline.io.sources import mask_passwords

# kind -> (what the recipe does, the expression it begins with)
RECIPES = {
    "interactions": ("What a user may want next, learned from an event log.", "recipes.interactions(path, map)"),
    "search": (
        "Documents for queries, learned from judgments.",
        "dataclasses.replace(recipes.search(path), ingest=recipes.interactions(path, map).ingest)",
    ),
    "labels": (
        "The label of a text, with a calibrated probability.",
        "dataclasses.replace(recipes.labels(path), ingest=recipes.interactions(path, map).ingest)",
    ),
    # the settings of personalised search, the encoder of search: natural language needs a pretrained encoder
    "shop": (
        "Products for a query of a user.",
        'dataclasses.replace(\n        recipes.shop(path),\n        material=("minilm",),\n'
        "        ingest=recipes.interactions(path, map).ingest,\n        finetune=recipes.search(path).finetune,\n"
        "        distill=recipes.search(path).distill,\n    )",
    ),
}


def render_map(proposal: Proposal) -> str:
    """The map as TOML, with a comment that says what it is."""
    source = _one_line(mask_passwords(proposal.survey.source))
    return (
        f"# How to read {source}. Written by `rankline init`; edit it as you like.\n"
        "# Every setting: rankline recipes show interactions ingest\n"
        + _with_sentences(tomli_w.dumps(proposal.settings), proposal)
    )


def _with_sentences(text: str, proposal: Proposal) -> str:
    """The map with a comment above each of its labels, and above the first what becomes of the other events."""
    sentences = label_sentences(proposal)
    for number, name in enumerate(proposal.settings.get("labels", {})):
        others = "" if number else "".join(f"# {_one_line(each)}\n" for each in other_sentences(proposal))
        heading = f"[labels.{name}]\n"
        text = text.replace(f"\n{heading}", f"\n{others}# {_one_line(sentences[name])}\n{heading}", 1)
    return text


def render_recipe(proposal: Proposal, *, map_name: str) -> str:
    """The recipe as a Python module with one function."""
    description, base = RECIPES[proposal.kind]
    settings = "\n".join(
        f"            {_literal(f'{setting}={value if isinstance(value, str) else json.dumps(value)}')},"
        for setting, value in proposal.recipe_settings.items()
    )
    if user_features := proposal.user_features_setting:
        settings += f"\n            # {_literal(user_features)},  # the model reads these attributes of users"
    name, source = proposal.name, _literal(mask_passwords(proposal.survey.source))
    return (
        f'"""The recipe of {name}: rankline run --recipe {name}:{name} -w .rankline-{name}"""\n\n'
        + ("import dataclasses\n" if "dataclasses" in base else "")
        + "from pathlib import Path\n\n"
        "from pipelines import recipes\n\n"
        f'MAP = str(Path(__file__).resolve().with_name("{map_name}"))\n\n\n'
        f"def {name}(path: str = {source}, map: str = MAP) -> recipes.Recipe:\n"
        f'    """{description}"""\n'
        f"    base = {base}\n"
        f"    return recipes.change(\n        base,\n        [\n{settings}\n        ],\n    )\n"
    )


def _one_line(text: str) -> str:
    """A text that cannot end the comment it is in."""
    return text if text.isprintable() else ascii(text)


def _literal(text: str) -> str:
    """A text as a literal of Python (JSON's surrogate pairs are none)."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)
