"""Which labels the events have by the settings, and whether the settings about labels agree with each other."""

from collections.abc import Collection, Mapping

from rankline.contracts import LABELS
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
    for label in [*mapped, *(label for label in types.values() if label not in ("", IMPRESSION))]:
        if label not in (labels or LABELS):
            raise ValueError(_unknown_label(label, labels, mapped))
    if not labels:
        return
    for label in labels:
        if taken_name := _taken_name(label, labels, taken):
            raise ValueError(f"a label cannot be called {label}: {taken_name}")
        if label not in mapped and label not in types.values():
            raise ValueError(
                f"the label {label} has no source: name its column (ingest.columns.labels.{label}), or a value of "
                "event_type that sets it (ingest.columns.event_types)"
            )
    if all(label.weight <= 0 for label in labels.values()):
        raise ValueError("no label makes a positive: give at least one of them a weight above 0")
    _check_order(labels)


def _unknown_label(label: str, labels: Mapping[str, Label], columns: Mapping[str, str]) -> str:
    setting = f"columns.labels maps a column to {label}" if label in columns else f"columns.event_types names {label}"
    if labels:
        return f"{setting}, which is not declared; declare it in ingest.labels, which has {', '.join(labels)}"
    return f"{setting}, which is not declared; without ingest.labels there are {', '.join(LABELS)}"


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
                raise ValueError(f"{chain[-1]} happens after {after}, which is not declared in ingest.labels")
            if labels[after].type != "binary":
                raise ValueError(
                    f"{chain[-1]} happens after {after}, which is {labels[after].type}: declare {after} as binary, or "
                    "leave `after` empty"
                )
            if after in chain:
                raise ValueError(f"no order of labels fits: {' after '.join([*chain, after])}")
            chain.append(after)
