"""The texts that are written: the map as TOML, the recipe as Python."""

from __future__ import annotations

import json

import tomli_w

from onboarding.inference import Proposal
from rankline.io.sources import mask_passwords


def render_map(proposal: Proposal) -> str:
    """The map as TOML, with what it is in front."""
    return (
        f"# How to read {mask_passwords(proposal.survey.source)}. Written by `rankline init`; it is yours to change.\n"
        "# Every setting: rankline recipes show interactions ingest\n" + tomli_w.dumps(proposal.settings)
    )


BASES = {
    "interactions": "recipes.interactions(path, map)",
    "search": "dataclasses.replace(recipes.search(path), ingest=recipes.interactions(path, map).ingest)",
    "labels": "dataclasses.replace(recipes.labels(path), ingest=recipes.interactions(path, map).ingest)",
    # the settings of personalised search, the reading of search: real words deserve a real encoder
    "shop": 'dataclasses.replace(\n        recipes.shop(path),\n        material=("minilm",),\n'
    "        ingest=recipes.interactions(path, map).ingest,\n        finetune=recipes.search(path).finetune,\n"
    "        distill=recipes.search(path).distill,\n    )",
}


def render_recipe(proposal: Proposal, *, map_name: str) -> str:
    """The recipe as a Python module of one function."""
    base = BASES[proposal.kind]
    settings = "\n".join(
        f"            {json.dumps(f'{setting}={value if isinstance(value, str) else json.dumps(value)}')},"
        for setting, value in proposal.recipe_settings.items()
    )
    module = proposal.name
    return (
        f'"""The recipe of {module}: rankline run --recipe {module}:{module} -w .rankline-{module}"""\n\n'
        + ("import dataclasses\n" if "dataclasses" in base else "")
        + "from pathlib import Path\n\n"
        "from pipelines import recipes\n\n"
        f'MAP = str(Path(__file__).resolve().with_name("{map_name}"))\n\n\n'
        f"def {module}(path: str = {json.dumps(mask_passwords(proposal.survey.source))}, map: str = MAP) -> recipes.Recipe:\n"
        f'    """{DESCRIPTIONS[proposal.kind]}"""\n'
        f"    base = {base}\n"
        "    return recipes.change(\n        base,\n        [\n" + settings + "\n        ],\n    )\n"
    )


DESCRIPTIONS = {
    "interactions": "What a user may want next, learnt from a log of events.",
    "search": "Documents for queries, learnt from judgments.",
    "labels": "The label of a text, with a calibrated chance.",
    "shop": "Products for a query, for the user who asks.",
}
