"""The texts that are written: the map as TOML, the recipe as Python."""

from __future__ import annotations

import json

import tomli_w

from pipelines.proposal import Proposal
from rankline.raw import masked


def map_text(made: Proposal) -> str:
    """The map as TOML, with what it is in front."""
    return (
        f"# How to read {masked(made.survey.source)}. Written by `rankline init`; it is yours to change.\n"
        "# Every setting: rankline recipes show interactions ingest\n" + tomli_w.dumps(made.settings)
    )


BASES = {
    "interactions": ("interactions", "interactions(path, map)"),
    "search": ("interactions, search", "dataclasses.replace(search(path), ingest=interactions(path, map).ingest)"),
    "labels": ("interactions, labels", "dataclasses.replace(labels(path), ingest=interactions(path, map).ingest)"),
    # the settings of personalised search, the reading of search: real words deserve a real encoder
    "shop": (
        "interactions, search, shop",
        "dataclasses.replace(\n        shop(path),\n        material=(\"minilm\",),\n"
        "        ingest=interactions(path, map).ingest,\n        finetune=search(path).finetune,\n"
        "        distill=search(path).distill,\n    )",
    ),
}  # fmt: skip


def recipe_text(made: Proposal, *, map_name: str) -> str:
    """The recipe as a Python module of one function."""
    imports, base = BASES[made.kind]
    settings = "\n".join(
        f"            {json.dumps(f'{knob}={value if isinstance(value, str) else json.dumps(value)}')},"
        for knob, value in made.knobs.items()
    )
    module = made.name
    return (
        f'"""The recipe of {module}: rankline run --recipe {module}:{module} -w .rankline-{module}"""\n\n'
        + ("import dataclasses\n" if "dataclasses" in base else "")
        + "from pathlib import Path\n\n"
        f"from pipelines.recipes import Recipe, change, {imports}\n\n"
        f'MAP = str(Path(__file__).resolve().with_name("{map_name}"))\n\n\n'
        f"def {module}(path: str = {json.dumps(masked(made.survey.source))}, map: str = MAP) -> Recipe:\n"
        f'    """{SENTENCES[made.kind]}"""\n'
        f"    base = {base}\n"
        "    return change(\n        base,\n        [\n" + settings + "\n        ],\n    )\n"
    )


SENTENCES = {
    "interactions": "What a user may want next, learnt from a log of events.",
    "search": "Documents for queries, learnt from judgments.",
    "labels": "The label of a text, with a calibrated chance.",
    "shop": "Products for a query, for the user who asks.",
}
