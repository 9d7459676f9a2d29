"""Who asks, and with which role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["viewer", "reviewer", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what the ones before it may


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A signed-in user or a script; ``name`` is what events record, ``role`` is None for one without any."""

    name: str
    role: Role | None
    groups: tuple[str, ...] = ()
    is_script: bool = False

    def may(self, role: Role) -> bool:
        """Whether the identity has this role or a higher one."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(role)


def highest(roles: list[Role]) -> Role | None:
    """The role that may do most; None without any."""
    return max(roles, key=ROLES.index, default=None)
