"""Which of the given ids were found anywhere: an id that is nowhere is often one that the source writes otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from pipelines.erasure.ids import UserIds


class Matches:
    """The given ids with their forms, which are looked for until each is found."""

    def __init__(self, forms: Mapping[str, Collection[str]], users: UserIds) -> None:
        self._all = list(forms)
        self._unmatched = dict(forms)
        self._users = users

    @property
    def matched(self) -> list[str]:
        """The ids that were found, in the order in which they were given."""
        return [each for each in self._all if each not in self._unmatched]

    @property
    def unmatched(self) -> list[str]:
        """The ids that were not found."""
        return list(self._unmatched)

    def add(self, forms: Collection[str]) -> None:
        """Note the forms that a store had rows of."""
        self._unmatched = {each: own for each, own in self._unmatched.items() if not set(own) & set(forms)}

    def search(self, is_held: Callable[[UserIds], bool]) -> None:
        """Look for the missing ids in something that says whether it holds one of some users."""
        waiting = [self.unmatched]
        while waiting:
            part = waiting.pop()
            forms = frozenset[str]().union(*map(self._unmatched.__getitem__, part))
            if not part or not is_held(replace(self._users, forms=forms)):
                continue
            if len(part) == 1:
                del self._unmatched[part[0]]
            else:
                waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
