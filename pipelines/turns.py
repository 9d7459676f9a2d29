"""Whose turn it is to train from scratch, where a schedule's runs otherwise begin with the champion's weights.

It is settled once, before a fire time's run begins for the first time, and kept in its claim: a run that is begun
again after a kill begins in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipelines.claims import Claim
from pipelines.schedule import Schedules

VERDICTS = (0, 3)  # exit codes of runs that came to one


def from_scratch(claims: Sequence[Claim], *, every: int) -> bool:
    """Whether the next run is one from scratch, after these: every how many finished runs one is (0: never)."""
    finished = sorted(
        (claim for claim in claims if claim.status == "ended" and claim.exit_code in VERDICTS),
        key=lambda claim: claim.ended_at,
    )
    since = 0
    for claim in finished:
        since = 0 if claim.scratch else since + 1
    return bool(every) and since >= every - 1


def take_turn(store: Schedules, name: str, moment: datetime) -> None:
    """Write into a claim whether its run trains from scratch, unless that is written already."""
    claims = store.claims(name)
    with claims.alone(moment):
        claim = claims.read(moment)
        if claim is None or claim.scratch is not None or claim.status == "ended":
            return
        every = store.history(name)[claim.revision - 1].scratch_every
        if every:
            others = [each for each in claims.all() if each.scheduled_at != claim.scheduled_at]
            claims.write(claim.but(scratch=from_scratch(others, every=every)))
