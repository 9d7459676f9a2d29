"""Splitting a log into train, valid and test by time: pure functions over arrays.

Shapes: n events of users, sorted by (user, time, row in the source); R requests. An event is identified by its
position in that order. Times are integer microseconds since 1970 (UTC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.contracts import SPLITS

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TRAIN, VALID, TEST = range(len(SPLITS))
DAY_US = 86_400 * 1_000_000

BLOCK = 1 << 16  # requests whose histories are built at once


@dataclass(frozen=True)
class Log:
    """Users' events, [n] each; ``users`` and ``items`` are codes from 0."""

    users: Ints
    items: Ints
    time_us: Ints
    known_us: Ints

    @classmethod
    def of(cls, *, users: Ints, items: Ints, time_us: Ints, known_us: Ints) -> Log:
        """Sort events that come in the order of their source, which breaks ties in time."""
        order = np.lexsort((time_us, users))  # stable: rows of equal user and time keep their order
        return cls(users[order], items[order], time_us[order], known_us[order])

    @cached_property
    def starts(self) -> Ints:
        """[n] the position of the first event of each event's user."""
        return np.searchsorted(self.users, self.users)

    @cached_property
    def basket_starts(self) -> Ints:
        """[n] the position of the first event of each event's basket: the user's events of the same time."""
        begins = np.ones(len(self.users), bool)
        begins[1:] = (self.users[1:] != self.users[:-1]) | (self.time_us[1:] != self.time_us[:-1])
        starts: Ints = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        return starts

    @cached_property
    def seconds(self) -> npt.NDArray[np.float64]:
        """[n] ``time_us`` in unix seconds."""
        return self.time_us / 1e6

    @cached_property
    def first_times(self) -> Bools:
        """[n] whether this is the user's first event with the item; only such an event can be a target."""
        pairs = self.users * (int(self.items.max(initial=0)) + 1) + self.items
        out = np.zeros(len(pairs), bool)
        out[np.unique(pairs, return_index=True)[1]] = True
        return out


@dataclass(frozen=True)
class Lists:
    """R lists of log positions, end to end: list r is ``values[offsets[r]:offsets[r + 1]]``."""

    values: Ints
    offsets: Ints

    @classmethod
    def from_owners(cls, values: Ints, owners: Ints, count: int) -> Lists:
        """Lists from each value's list index in [0, count), in ascending order."""
        lengths = np.bincount(owners, minlength=count)
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    @property
    def lengths(self) -> Ints:
        """[R] the length of each list."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Ints:
        """[values] the index of each value's list."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def part(self, start: int, stop: int) -> Lists:
        """The lists ``start`` to ``stop``."""
        offsets = self.offsets[start : stop + 1]
        return Lists(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def last(self, count: int) -> Lists:
        """The last ``count`` values of each list."""
        from_end = np.repeat(self.offsets[1:], self.lengths) - np.arange(len(self.values))
        keep = from_end <= count
        return Lists.from_owners(self.values[keep], self.owners[keep], len(self.lengths))

    def take(self, rows: Bools) -> Lists:
        """The lists of some rows."""
        if rows.all():
            return self
        lengths = self.lengths
        values = self.values[np.repeat(rows, lengths)]
        return Lists(values, np.concatenate([[0], np.cumsum(lengths[rows])]))


@dataclass(frozen=True)
class Requests:
    """R requests: the split of each, the event it is made at, the events known by then, the target events."""

    split: Ints
    position: Ints
    seen: Lists
    targets: Lists

    def part(self, start: int, stop: int) -> Requests:
        """The requests ``start`` to ``stop``."""
        rows = slice(start, stop)
        return Requests(
            self.split[rows], self.position[rows], self.seen.part(start, stop), self.targets.part(start, stop)
        )

    def take(self, rows: Bools) -> Requests:
        """Some of the requests."""
        return Requests(self.split[rows], self.position[rows], self.seen.take(rows), self.targets.take(rows))


@dataclass(frozen=True)
class Split:
    """Which events are for training ([n]), the requests, and the time at which training ends (µs).

    ``valid_us`` and ``test_us`` [users + 1] are when the splits of each user begin, and last those of other users.
    """

    train: Bools
    requests: Requests
    train_end: int
    valid_us: Ints
    test_us: Ints

    def split_of(self, users: Ints, until_us: Ints) -> Ints:
        """The split of what was shown to users (codes, -1 for others) until a time."""
        return np.where(until_us < self.valid_us[users], TRAIN, np.where(until_us < self.test_us[users], VALID, TEST))


def known_before(log: Log, position: Ints) -> Lists:
    """The user's earlier events of each request, in order, that were known at its time."""
    return known_between(log, log.starts[position], position, log.time_us[position])


def known_between(log: Log, starts: Ints, ends: Ints, time_us: Ints) -> Lists:
    """The events from position ``starts`` to ``ends`` of each of R lists that were known at its time."""
    parts, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for first in range(0, len(ends), BLOCK):  # the intermediate arrays are far larger than the result
        block = slice(first, first + BLOCK)
        start, before = starts[block], ends[block] - starts[block]
        owners = np.repeat(np.arange(len(start), dtype=np.int32), before)
        sums = np.cumsum(before)
        values = np.arange(sums[-1]) - np.repeat(sums - before - start, before)
        keep = log.known_us[values] <= time_us[block][owners]
        parts.append(values[keep].astype(np.int32))
        lengths.append(np.bincount(owners[keep], minlength=len(start)))
    return Lists(np.concatenate(parts), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))


def _requests_at(log: Log, split: int, position: Ints, targets: Ints, starts: Ints) -> Requests:
    """Requests at some events, ascending; their targets are those of the events ``targets`` that begin there.

    ``starts`` [n] says where each event begins: at itself, or with its basket.
    """
    chosen = targets[np.isin(starts[targets], position)]
    owners = np.searchsorted(position, starts[chosen])
    lists = Lists.from_owners(chosen, owners, len(position))
    return Requests(np.full(len(position), split), position, known_before(log, position), lists)


def _starts(log: Log, *, baskets: bool) -> Ints:
    """[n] the event that a request for each event is made at: the first one of its basket, or the event itself."""
    return log.basket_starts if baskets else np.arange(len(log.time_us))


def _concatenate(parts: Sequence[Requests], *, min_history: int) -> Requests:
    """Requests of several splits, one after the other, without those with too short a history or no target."""

    def joined_lists(parts: Sequence[Lists]) -> Lists:
        lengths = np.concatenate([part.lengths for part in parts])
        return Lists(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))

    joined = Requests(
        np.concatenate([part.split for part in parts]),
        np.concatenate([part.position for part in parts]),
        joined_lists([part.seen for part in parts]),
        joined_lists([part.targets for part in parts]),
    )
    return joined.take((joined.seen.lengths >= min_history) & (joined.targets.lengths > 0))


def _train_requests(log: Log, train: Bools, starts: Ints, *, min_history: int, per_user: int) -> Requests:
    """Requests at each user's last ``per_user`` train events that can be targets and have enough history.

    Where a history may be empty, also at each user's first event: it shows what those choose who have none.
    """
    index = np.arange(len(log.time_us)) - log.starts
    targets = np.flatnonzero(train & log.first_times)
    position = np.unique(starts[targets])
    position = position[index[position] >= min_history]
    # limited before histories are built: a history for every event would be quadratic in memory
    chosen = (_rank_from_end(log.users[position]) <= per_user) | (index[position] == 0)
    return _requests_at(log, TRAIN, position[chosen], targets, starts)


def _rank_from_end(users: Ints) -> Ints:
    """[n] 1 for the last row of each user, 2 for the one before it, and so on; ``users`` ascending."""
    return np.searchsorted(users, users, side="right") - np.arange(len(users))


def leave_last_out(log: Log, *, min_history: int, per_user: int, baskets: bool = False) -> Split:
    """Each user's last first-time event is test, the one before it valid, what precedes is train.

    With ``baskets``, the same of baskets with first-time events: all of these are the targets of one request.
    Users with fewer than three such events are trained on but not evaluated. Where a history may be empty, a fifth of
    them is held out instead, by turns for valid and test, each at the first event. Training ends when the last train
    event became known.
    """
    starts = _starts(log, baskets=baskets)
    targets = np.flatnonzero(log.first_times)
    first = np.unique(starts[targets])
    users = log.users[first]
    from_end = _rank_from_end(users)
    enough_U = np.bincount(users, minlength=int(users.max(initial=0)) + 1) >= 3
    enough = enough_U[users]
    valid, test = first[enough & (from_end == 2)], first[enough & (from_end == 1)]
    if min_history == 0:
        new_U = np.flatnonzero(~enough_U & (np.bincount(users, minlength=len(enough_U)) > 0))
        beginnings = first[np.searchsorted(users, new_U)]
        valid = np.sort(np.concatenate([valid, beginnings[3::10]]))
        test = np.sort(np.concatenate([test, beginnings[8::10]]))

    begins = np.full(int(log.users.max(initial=0)) + 1, len(log.time_us))
    begins[log.users[test]] = test
    begins[log.users[valid]] = valid
    train = np.arange(len(log.time_us)) < begins[log.users]
    requests = _concatenate(
        [
            _train_requests(log, train, starts, min_history=min_history, per_user=per_user),
            _requests_at(log, VALID, valid, targets, starts),
            _requests_at(log, TEST, test, targets, starts),
        ],
        min_history=min_history,
    )
    never = np.iinfo(np.int64).max
    valid_us, test_us = np.full((2, len(begins) + 1), never)
    valid_us[log.users[valid]], test_us[log.users[test]] = log.time_us[valid], log.time_us[test]
    return Split(train, requests, int(log.known_us[train].max(initial=0)), valid_us, test_us)


def asked_within_baskets(log: Log, requests: Requests) -> float:
    """The share of the test requests whose history has an event of the very time of the request.

    Such a request asks for the next line of an order, of which the model sees the lines before.
    """
    test = requests.take(requests.split == TEST)
    if not len(test.position):
        return 0.0
    within = log.time_us[test.seen.values] == log.time_us[test.position][test.seen.owners]
    return len(np.unique(test.seen.owners[within])) / len(test.position)


def time_cut(
    log: Log,
    *,
    cut: int,
    valid_until: int,
    test_until: int,
    min_history: int,
    per_user: int,
    baskets: bool = False,
) -> Split:
    """Train is what happened and was known before ``cut``; valid and test are the two windows after it.

    In each window, a user with enough history before ``cut`` has one request, at the first event there; the targets
    are all of the user's first-time items in the window. With ``baskets``, train requests are made of whole baskets.
    """
    train = (log.time_us < cut) & (log.known_us <= cut)
    requests = _concatenate(
        [
            _train_requests(log, train, _starts(log, baskets=baskets), min_history=min_history, per_user=per_user),
            _window_requests(log, VALID, cut=cut, since=cut, until=valid_until, min_history=min_history),
            _window_requests(log, TEST, cut=cut, since=valid_until, until=test_until, min_history=min_history),
        ],
        min_history=min_history,
    )
    users = int(log.users.max(initial=-1)) + 2
    return Split(train, requests, cut, np.full(users, cut), np.full(users, valid_until))


def _window_requests(log: Log, split: int, *, cut: int, since: int, until: int, min_history: int) -> Requests:
    """One request per user with enough history before the cut, at the first event in [since, until)."""
    inside = np.flatnonzero((log.time_us >= since) & (log.time_us < until))
    users, first = np.unique(log.users[inside], return_index=True)
    position = inside[first]
    wanted = inside[log.first_times[inside]]
    seen = known_before(log, position)
    before = np.bincount(seen.owners[log.time_us[seen.values] < cut], minlength=len(position))
    targets = Lists.from_owners(wanted, np.searchsorted(users, log.users[wanted]), len(position))
    return Requests(np.full(len(position), split), position, seen, targets).take(before >= min_history)


def quantile_cuts(time_us: Ints, *, train_share: float, valid_share: float) -> tuple[int, int, int]:
    """(cut, valid_until, test_until) with these shares of the events before and between them."""
    ordered = np.sort(time_us)
    first, second = (int(ordered[int(len(time_us) * share)]) for share in (train_share, train_share + valid_share))
    return first, second, int(ordered[-1]) + 1


def rolling_cuts(time_us: Ints, *, folds: int, train_share: float = 0.5) -> list[tuple[int, int, int]]:
    """(cut, valid_until, test_until) of ``folds`` time cuts that roll forward over the log.

    The events after the first ``train_share`` fall into folds + 1 windows of equal size. Fold f is validated on window
    f and tested on window f + 1, so no event is tested on twice and results can be pooled.
    """
    ordered = np.sort(time_us)
    shares = train_share + (1 - train_share) * np.arange(folds + 2) / (folds + 1)
    times = [int(ordered[min(int(len(time_us) * share), len(time_us) - 1)]) for share in shares[:-1]]
    times.append(int(ordered[-1]) + 1)
    return list(zip(times, times[1:], times[2:]))


def counts(split: Split) -> dict[str, Any]:
    """Requests per split, and the number of train events."""
    numbers = np.bincount(split.requests.split, minlength=len(SPLITS))
    return {"requests": dict(zip(SPLITS, map(int, numbers))), "train_events": int(split.train.sum())}
