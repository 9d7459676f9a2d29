"""What is known of the user and of a request: checked, encoded, and turned into a vector.

Shapes: B requests, P encoded numbers, K text fields, T tokens, N inputs, D vector size.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankline.contracts import TIME_ZONE, FrozenState
from rankline.errors import UsageError
from rankline.features.profile import Kind, ProfileEncoder, ProfileFields, Value
from serving.engine.graphs import Floats, Ints, ModelGraphs

LARGEST = float(np.finfo(np.float32).max)  # of a number that the model can read
MAX_TEXT = 20_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPECTED: dict[Kind, str] = {"number": "a number", "choice": "a text", "choices": "a list of texts", "text": "a text"}


@dataclass(frozen=True)
class EncodedProfile:
    """The declared fields of one request: encoded, and the tokens of its K text fields."""

    encoded_P: Floats
    tokens: list[Ints | None]


class ProfileReader:
    """Encodes what requests say of the user and of the request, and computes its vectors."""

    def __init__(self, encoder: ProfileEncoder, graphs: ModelGraphs) -> None:
        self.encoder, self._graphs = encoder, graphs

    def encode(self, state: FrozenState) -> EncodedProfile | None:
        """The fields of one request; None for a model without any."""
        if self._graphs.profile is None:
            return None
        texts = self.encoder.text_values(state.profile, state.context)
        tokenizer = self._graphs.tokenizer
        tokens = [tokenizer([text])[0][0] if text and tokenizer else None for text in texts]
        return EncodedProfile(self.encoder.encode([state.profile], [state.context])[0], tokens)

    def vectors(self, batch: Sequence[EncodedProfile | None], *, size: int) -> Floats:
        """[B, D] what the fields of some requests add to their vectors."""
        known = [profile for profile in batch if profile is not None]
        if self._graphs.profile is None or not known:
            return np.zeros((len(batch), size), np.float32)
        inputs_BN = np.stack([profile.encoded_P for profile in known])
        if known[0].tokens:
            tokens = [tokens_T for profile in known for tokens_T in profile.tokens]
            texts_BN = self._graphs.text_vectors(tokens, size=size).reshape(len(known), -1)
            inputs_BN = np.concatenate([inputs_BN, texts_BN], 1)
        return self._graphs.profile({"known_BN": inputs_BN})


def read_context(given: Mapping[str, Any], fields: ProfileFields) -> tuple[dict[str, Value], str]:
    """The context of a request as the model reads it, and the zone of the user's clock, empty if it is not given.

    Raises:
        UsageError: the model declares no such field, or a value is of another type.
    """
    declared = {name: _EXPECTED[kind] for name, kind in fields.context.items()}
    declared |= {TIME_ZONE: "a time zone such as Europe/Berlin"} if fields.time_zone else {}
    context: dict[str, Value] = {}
    for name, value in given.items():
        if name not in declared:
            listed = ", ".join(f"{each} ({expected})" for each, expected in declared.items())
            raise UsageError(
                f"this model does not read {name} of a request's context",
                expected=listed or "no context: the model declares no context_features",
                found=name,
                hint=f"leave it out: {name} is an attribute of users and comes from the online store"
                if name in fields.user
                else "leave it out, or declare it in featurize.context_features and train a model",
            )
        if value is None:
            continue
        read = _zone(value) if name == TIME_ZONE else _value(value, fields.context[name])
        if read is None:
            raise _misread(f"{name} of the request's context", declared[name], value)
        context[name] = read
    return {name: value for name, value in context.items() if name != TIME_ZONE}, str(context.get(TIME_ZONE, ""))


def check_frozen(state: FrozenState, fields: ProfileFields) -> None:
    """Check what a frozen state says of the fields that the model reads; it may say more, as of another model.

    Raises:
        UsageError: a value is of another type.
    """
    for part, kinds, given in (("profile", fields.user, state.profile), ("context", fields.context, state.context)):
        for name in kinds.keys() & given.keys():
            value = given[name]
            if value is not None and _value(value, kinds[name]) is None:
                raise _misread(f"frozen.{part}.{name}", _EXPECTED[kinds[name]], value)


def _misread(field: str, expected: str, value: Any) -> UsageError:
    return UsageError(
        f"{field} has another type",
        expected=expected,
        found=repr(value)[:200],
        hint="leave out what is not known",
    )


def _value(value: Any, kind: Kind) -> Value | None:
    """A value of a request as training read it; None if it is of another type."""
    if kind == "number":
        is_number = isinstance(value, int | float) and abs(value) < LARGEST
        return float(value) if is_number else None
    if kind == "choices":
        return value if isinstance(value, list) and all(map(_is_text, value)) else None
    if isinstance(value, bool):
        return str(value).lower()  # as ingest writes a boolean
    return str(value) if _is_text(value) or isinstance(value, int) else None


def _is_text(value: Any) -> bool:
    """Whether it is a text of Unicode, which half of a character is not, and of a length that anybody would write."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and not _SURROGATE.search(value)


def _zone(value: Any) -> str | None:
    return value if isinstance(value, str) and value in zoneinfo.available_timezones() else None
