"""Which labels the events have by the settings, and whether the settings about labels agree with each other."""

import difflib
from collections.abc import Collection, Mapping

from rankline.contracts import LABELS
from rankline.errors import SettingError
from rankline.labels import FEEDBACK, IMPRESSION, Label

# of a column that a log without labels may lack; it is no mapping of the user's
DEFAULT_COLUMNS = {"rating": "rating"}


def mapped_columns(labels: Mapping[str, Label], columns: Mapping[str, str]) -> dict[str, str]:
    """Label -> its column; where labels are declared, the default column of a label that is not among them is none."""
    if not labels:
        return dict(columns)
    return {name: column for name, column in columns.items() if name in labels or DEFAULT_COLUMNS.get(name) != column}


def check_labels(
    labels: Mapping[str, Label],
    columns: Mapping[str, str],
    types: Mapping[str, str],
    *,
    taken: Collection[str],
) -> None:
    """Check the declared labels against the columns and types of events that set them.

    ``taken`` are the names of other columns of events, in lower case.

    Raises:
        ValueError: a name is unknown, taken or without a source, no label can make a positive, or `after` is a circle.
    """
    mapped = mapped_columns(labels, columns)
    for label in mapped:
        if label not in (labels or LABELS):
            raise _unknown_label(f"columns.labels.{label}", label, labels)
    for value, label in types.items():
        if label not in ("", IMPRESSION, *(labels or LABELS)):
            raise _unknown_label(f"columns.event_types.{value}", label, labels)
    if not labels:
        return
    for label in labels:
        if taken_name := _taken_name(label, labels, taken):
            raise SettingError(f"labels.{label}", f"a label cannot be called {label}: {taken_name}", found=label)
        if label not in mapped and label not in types.values():
            raise SettingError(
                f"labels.{label}",
                f"the label {label} has no source: name its column (ingest.columns.labels.{label}), or a value of "
                "event_type that sets it (ingest.columns.event_types)",
            )
    if all(label.weight <= 0 for label in labels.values()):
        weights = ", ".join(f"{name} {label.weight:g}" for name, label in labels.items())
        raise SettingError(
            "labels", "no label makes a positive: give at least one of them a weight above 0", found=weights
        )
    _check_order(labels)


def _unknown_label(setting: str, label: str, labels: Mapping[str, Label]) -> SettingError:
    known = ", ".join(labels or LABELS)
    there = f"declare it in ingest.labels, which has {known}" if labels else f"without ingest.labels there are {known}"
    verb = "maps a column to" if setting.startswith("columns.labels") else "names"
    subject = setting.rpartition(".")[0]
    return SettingError(
        setting,
        f"{subject} {verb} {label}, which is not declared; {there}",
        found=label,
        hint=_closest(label, [*(labels or LABELS), IMPRESSION]),
    )


def _closest(name: str, known: Collection[str]) -> str:
    """The known name that is like one, in any case, as a question; empty without one."""
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return f"did you mean {by_folded[near[0]]!r}?" if near else ""


def _taken_name(label: str, labels: Mapping[str, Label], taken: Collection[str]) -> str:
    """Why a label cannot have a name; empty if it can."""
    if not label.isidentifier() or not label.isascii() or len(label) > 40:
        return "a name has letters, digits and underscores, begins with a letter, and is at most 40 long"
    if label.casefold() in (IMPRESSION, FEEDBACK, "rank") or label.casefold() in taken:
        return "the name has another meaning, or is that of another column of events (in any case)"
    if len([each for each in labels if each.casefold() == label.casefold()]) > 1:
        return "two labels differ in case alone"
    return ""


def _check_order(labels: Mapping[str, Label]) -> None:
    """Refuse a label that has to happen after an unknown one, or after itself, however indirectly."""
    for label in labels:
        chain = [label]
        while after := labels[chain[-1]].after:
            if after not in labels:
                raise SettingError(
                    f"labels.{chain[-1]}.after",
                    f"{chain[-1]} happens after {after}, which is not declared in ingest.labels",
                    found=after,
                    hint=_closest(after, set(labels) - {chain[-1]}),
                )
            if labels[after].type != "binary":
                raise SettingError(
                    f"labels.{chain[-1]}.after",
                    f"{chain[-1]} happens after {after}, which is {labels[after].type}, not binary",
                    found=after,
                )
            if after in chain:
                order = " after ".join([*chain, after])
                raise SettingError(f"labels.{chain[-1]}.after", f"no order of labels fits: {order}", found=after)
            chain.append(after)
