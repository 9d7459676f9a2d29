"""Whose turn it is to train from scratch, where a schedule's runs otherwise begin with the champion's weights.

It is settled once, before a fire time's run begins for the first time, and kept in its claim: a run that is begun
again after a kill begins in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipelines.schedules.firings import Claim
from pipelines.schedules.store import Schedules

VERDICTS = (0, 3)  # exit codes of runs that came to one


def from_scratch(claims: Sequence[Claim], *, every: int) -> bool:
    """Whether the next run is one from scratch, after these: every how many finished runs one is (0: never).

    A turn that is being taken counts from its beginning on, or runs begun together would all take it.
    """
    counted = [
        claim for claim in claims
        if (claim.exit_code in VERDICTS if claim.status == "ended" else claim.scratch)
    ]  # fmt: skip
    since = 0
    for claim in sorted(counted, key=_when):
        since = 0 if claim.scratch else since + 1
    return bool(every) and since >= every - 1


def _when(claim: Claim) -> tuple[str, bool]:
    """When a run counts: at its end or, under way, at its beginning; one that is about to begin comes last."""
    under_way = claim.status != "ended"
    return (claim.started_at or "later" if under_way else claim.ended_at), under_way


def take_turn(store: Schedules, name: str, moment: datetime) -> None:
    """Write into a claim whether its run trains from scratch, unless that is written already."""
    claims = store.claims(name)
    with claims.alone(moment), store.alone(name):  # of two that begin together the second sees the first one's turn
        claim = claims.read(moment)
        if claim is None or claim.scratch is not None or claim.status == "ended":
            return
        every = store.history(name)[claim.revision - 1].scratch_every
        if every:
            others = [each for each in claims.all() if each.scheduled_at != claim.scheduled_at]
            claims.write(claim.but(scratch=from_scratch(others, every=every)))
