"""The cron expressions that the server takes."""

from __future__ import annotations

import re

from tests.servers.kubeflow.answers import Refused


def cron(text: str) -> None:
    """Refuse what robfig/cron of the server refuses: five or six fields, the second first, perhaps no weekday."""
    if text.startswith("@"):
        if text in ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"):
            return
        if re.match(r"^@every \d+(\.\d+)?(ns|us|ms|s|m|h)", text):
            return
        raise Refused(400, f"Schedule cron is not a supported format: unrecognized descriptor {text}")
    fields = text.split()
    if not 5 <= len(fields) <= 6:
        raise Refused(400, f"Schedule cron is not a supported format: expected 5 to 6 fields, found {len(fields)}")
    names = {4: "jan feb mar apr may jun jul aug sep oct nov dec", 5: "sun mon tue wed thu fri sat"}
    for place, values_text in enumerate(fields):
        low, high = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))[place]
        known = {name: number for number, name in enumerate(names.get(place, "").split(), low)}
        for part in values_text.split(","):
            span, _, step = part.partition("/")
            ends = span.split("-")
            try:
                numbers = [] if ends in (["*"], ["?"]) else [known.get(e.lower(), e) for e in ends]
                values = [int(number) for number in numbers] or [low, high]
                fits = low <= values[0] <= values[-1] <= high and len(values) <= 2 and (not step or int(step) > 0)
            except ValueError:
                fits = False
            if not fits or part.endswith("/"):
                raise Refused(400, f"Schedule cron is not a supported format: failed to parse {part!r} of {text!r}")
