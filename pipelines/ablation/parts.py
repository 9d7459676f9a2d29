"""The parts of a recipe that can be changed one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.recipe import Recipe
from rankline.errors import UsageError

Artifact = Literal["", "words", "weights"]
AUGMENTATIONS = ("crop", "mask", "reorder")
CHANCE = 0.5  # of an augmentation that the recipe has switched off


@dataclass(frozen=True)
class Part:
    """A part of a recipe: whether the recipe has it, and what its cell changes to have it the other way."""

    name: str
    change: str  # in words
    is_on: bool = True
    settings: tuple[str, ...] = ()
    artifact: Artifact = ""  # what is changed beside settings: the words of the items, the weights of the encoder
    not_applicable: str = ""


def parts(recipe: Recipe, encoder: Path) -> list[Part]:
    """Every part, those that do not apply to the recipe, too; ``encoder`` is where its language model lies."""
    return [
        Part("words", "titles and texts are shuffled among the items", artifact="words"),
        _pretraining(recipe, encoder),
        _encoder_training(recipe),
        _lora(recipe),
        _teacher(recipe),
        *_sources(recipe),
        *_augmentations(recipe),
    ]


def chosen_parts(every: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The parts of these names, or all of them.

    Raises:
        UsageError: there is no part of a name.
    """
    known = {part.name: part for part in every}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"there is no part {unknown[0]!r} of a recipe", expected=", ".join(known), found=unknown[0],
            hint="`rankline ablate RECIPE --plan` lists the parts",
        )  # fmt: skip
    return [known[name] for name in dict.fromkeys(names)] if names else list(every)


def _pretraining(recipe: Recipe, encoder: Path) -> Part:
    name, change = "pretraining", "the encoder has random weights: a bag of words, not an absence of text"
    if recipe.finetune.encoder in ("tiny", "fresh"):
        return Part(name, change, not_applicable="the recipe's encoder begins with random weights")
    if "://" in recipe.finetune.encoder or recipe.finetune.encoder.startswith("hub:"):
        why = "the encoder is not a folder of this machine: set finetune.encoder to a downloaded one"
        return Part(name, change, not_applicable=why)
    return Part(name, change, artifact="weights")


def _encoder_training(recipe: Recipe) -> Part:
    sections = ("finetune", "distill")
    on = [section for section in sections if getattr(recipe, section).train_encoder]
    if on:
        settings = tuple(f"{section}.train_encoder=false" for section in on)
        return Part("joint_training", "the encoder is frozen", settings=settings)
    settings = tuple(f"{section}.train_encoder=true" for section in sections)
    return Part("joint_training", "the encoder is trained with the ranker", is_on=False, settings=settings)


def _lora(recipe: Recipe) -> Part:
    sections = ("finetune", "distill")
    on = [section for section in sections if getattr(recipe, section).peft != "none"]
    if on:
        settings = tuple(f"{section}.peft=none" for section in on)
        return Part("lora", "all weights of the encoder are trained", settings=settings)
    settings = tuple(f"{section}.{setting}" for section in sections for setting in ("train_encoder=true", "peft=lora"))
    return Part("lora", "the encoder is trained with adapters (LoRA)", is_on=False, settings=settings)


def _teacher(recipe: Recipe) -> Part:
    config = recipe.distill
    if not (config.soft_weight or config.scorer_soft_weight):
        return Part("teacher", "no soft labels", not_applicable="distill.soft_weight and scorer_soft_weight are 0")
    settings = ("distill.soft_weight=0", "distill.scorer_soft_weight=0")
    return Part("teacher", "the student does not learn from the teacher's soft labels", settings=settings)


def _sources(recipe: Recipe) -> Iterator[Part]:
    """One for each candidate source, where a setting names them; each alone is in every report as source_…."""
    names = getattr(recipe.distill, "sources", None)
    if not isinstance(names, list | tuple) or len(names) < 2:
        why = "no setting switches a source off; every report has each source alone"
        yield Part("sources", "one candidate source fewer", not_applicable=why)
        return
    for name in names:
        rest = ",".join(f'"{other}"' for other in names if other != name)
        yield Part(f"source_{name}", f"without the source {name}", settings=(f"distill.sources=[{rest}]",))


def _augmentations(recipe: Recipe) -> Iterator[Part]:
    for name in AUGMENTATIONS:
        setting = f"{name}_chance"
        if getattr(recipe.finetune, setting):
            yield Part(name, f"no {name} of histories", settings=(f"finetune.{setting}=0",))
        else:
            settings = (f"finetune.{setting}={CHANCE}",)
            yield Part(name, f"{name} of histories with a chance of {CHANCE}", is_on=False, settings=settings)
