"""What is known of a user and of a request: the declared fields, and how their values are encoded.

A field is a column of users (gender, age, a text about them) or of events (device, place, holiday) that a recipe names.
Training, export and serving encode fields with the same functions. The encoding is fitted to the requests of training
and saved with the model. Whatever a request leaves out is all zeros.

Shapes: R requests, P encoded numbers, K text fields.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.features.side_features import DeclaredColumn, fit_number, standardize
from rankline.features.transforms import SERVICE, category_matrix
from rankline.io.digest import json_digest

Floats = npt.NDArray[np.float32]
Kind = Literal["number", "choice", "choices", "text"]
Source = Literal["profile", "context"]  # of the user, of the request
Value = float | str | list[str]

PROFILE, CONTEXT, GIVEN = "profile_", "context_", "given_"  # how columns of tables and features begin
DECLARED = "declared.json"  # beside the sources of the feature views
MAX_CHOICES = 300  # most frequent values of a field that are encoded one by one; the others share a place


class ProfileFields(FrozenModel):
    """The declared fields of users and of requests, by name, and whether the zone of a user's clock is known."""

    user: dict[str, Kind] = Field(default={})
    context: dict[str, Kind] = Field(default={})
    time_zone: bool = False

    @property
    def any(self) -> bool:
        """Whether anything is declared."""
        return bool(self.user or self.context or self.time_zone)

    @property
    def service(self) -> str:
        """The feature service: a version of its own for each set of fields, so that two sets never share a store."""
        return feature_service(self.user, self.context, time_zone=self.time_zone)


def feature_service(user: Any, context: Any, *, time_zone: bool) -> str:
    """The name of the feature service with these fields of users and of requests."""
    if not (user or context or time_zone):
        return SERVICE
    return f"ranking_v2_{json_digest([sorted(user), sorted(context), time_zone])[:8]}"


def given_values(row: Mapping[str, Any], prefix: str) -> dict[str, Value]:
    """Field -> its value, of the columns of a row that begin with ``prefix``; fields without a value are left out."""
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix) and _has(value)}


def _has(value: Any) -> bool:
    """Whether there is a value: neither null, nor NaN, nor empty."""
    return not (value is None or value in ("", []) or (isinstance(value, float) and math.isnan(value)))


class ProfileColumn(FrozenModel):
    """How one field is encoded: a number in two places, a choice in one place per value, a text by the encoder."""

    source: Source
    name: str
    kind: Kind
    scale: DeclaredColumn | None = Field(None, description="of a number: its mean, deviation and range in training")
    choices: list[str] = Field([], description="the most frequent values, the most frequent one first")

    @classmethod
    def fit(cls, source: Source, name: str, kind: Kind, values: Sequence[Value | None]) -> ProfileColumn:
        """Fit the encoding to the values of training; null for a request without one."""
        if kind == "number":
            return cls(source=source, name=name, kind=kind, scale=fit_number(name, _numbers(values)))
        counted: Counter[str] = Counter()
        if kind != "text":
            counted.update(each for value in values for each in _choices(value))
        frequent = sorted(counted, key=lambda value: (-counted[value], value))[:MAX_CHOICES]
        return cls(source=source, name=name, kind=kind, choices=frequent)

    @property
    def width(self) -> int:
        """The number of places: a number and whether it is known; the values and one for all others; none for texts."""
        return {"number": 2, "text": 0}.get(self.kind, len(self.choices) + 1)

    @property
    def places(self) -> list[str]:
        """What each place stands for: the same place of another training has the same name."""
        field = f"{self.source}.{self.name}"
        if self.kind == "number":
            return [field, f"{field} is known"]
        return [] if self.kind == "text" else [*(f"{field}={value}" for value in self.choices), f"{field} is another"]

    def encode(self, values: Sequence[Value | None]) -> Floats:
        """[R, width] the values of some requests."""
        if self.kind == "text":
            return np.zeros((len(values), 0), np.float32)
        if self.scale is not None:
            numbers_R = _numbers(values)
            known_R = np.isfinite(numbers_R).astype(np.float32)
            return np.stack([standardize(self.scale, numbers_R), known_R], 1)
        chosen = [_choices(value) for value in values]
        known = set(self.choices)
        others_R1 = np.array([[float(any(each not in known for each in row))] for row in chosen], np.float32)
        return np.concatenate([category_matrix(chosen, self.choices), others_R1.reshape(len(values), 1)], 1)


class ProfileEncoder(FrozenModel):
    """How the declared fields of requests are encoded: profile.json of a bundle."""

    columns: list[ProfileColumn]
    time_zone: bool = False

    @classmethod
    def fit(cls, fields: ProfileFields, requests: Sequence[Mapping[str, Any]]) -> ProfileEncoder:
        """Fit the encoding to the rows of the training requests."""
        columns = []
        for source, prefix, kinds in (("profile", PROFILE, fields.user), ("context", CONTEXT, fields.context)):
            rows = [given_values(row, prefix) for row in requests]
            columns += [
                ProfileColumn.fit(source, name, kind, [row.get(name) for row in rows])  # type: ignore[arg-type]
                for name, kind in kinds.items()
            ]
        return cls(columns=columns, time_zone=fields.time_zone)

    @property
    def fields(self) -> ProfileFields:
        """The fields that are encoded."""
        user, context = ({c.name: c.kind for c in self.columns if c.source == each} for each in ("profile", "context"))
        return ProfileFields(user=user, context=context, time_zone=self.time_zone)

    @property
    def size(self) -> int:
        """P: the places of all fields."""
        return sum(column.width for column in self.columns)

    @property
    def texts(self) -> list[ProfileColumn]:
        """[K] the fields that are texts."""
        return [column for column in self.columns if column.kind == "text"]

    def owners(self, text_size: int) -> list[int]:
        """The field of each of the P places and of the K text vectors of ``text_size`` behind them, by its number."""
        by_place = [n for n, column in enumerate(self.columns) for _ in range(column.width)]
        by_text = [n for n, column in enumerate(self.columns) if column.kind == "text" for _ in range(text_size)]
        return by_place + by_text

    def input_names(self, inputs: int) -> list[str]:
        """The names of the ``inputs`` of the network: the P places, then each number of the K text vectors."""
        places = [place for column in self.columns for place in column.places]
        text_size = (inputs - len(places)) // max(1, len(self.texts))
        return places + [f"{c.source}.{c.name}[{n}]" for c in self.texts for n in range(text_size)]

    def encode(self, profiles: Sequence[Mapping[str, Value]], contexts: Sequence[Mapping[str, Value]]) -> Floats:
        """[R, P] the values of some requests; what is missing is 0."""
        rows = {"profile": profiles, "context": contexts}
        parts = [column.encode([row.get(column.name) for row in rows[column.source]]) for column in self.columns]
        return np.concatenate([np.zeros((len(profiles), 0), np.float32), *parts], 1)

    def text_values(self, profile: Mapping[str, Value], context: Mapping[str, Value]) -> list[str]:
        """[K] the texts of a request; empty where there is none."""
        rows = {"profile": profile, "context": context}
        return [str(rows[column.source].get(column.name) or "") for column in self.texts]


def _numbers(values: Sequence[Value | None]) -> Floats:
    """[R] numbers; NaN for none and for what is no number."""
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float32)


def _choices(value: Value | None) -> list[str]:
    if value is None or value == "":
        return []
    return [str(each) for each in value if each] if isinstance(value, list) else [str(value)]
