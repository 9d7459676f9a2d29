"""The roles file: which user or group has which role.

contact = "the search team, #ranking"      # whom the page asks people without a role to write to

[users]
"ada@example.com" = "operator"

[groups]
"ml-reviewers" = "reviewer"
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from rankline.contracts import FrozenModel
from rankline.errors import UsageError
from rankline.io.files import first_line
from review.console.signin.identity import Role, highest


class Roles(FrozenModel):
    """The content of a roles file. Who is in neither table has no role."""

    contact: str = "whoever runs this console"
    users: dict[str, Role] = Field(default={})
    groups: dict[str, Role] = Field(default={})

    def role(self, user: str, groups: tuple[str, ...]) -> Role | None:
        """The highest role of a user and of the groups the user is in."""
        own = [self.users[user]] if user in self.users else []
        return highest(own + [self.groups[group] for group in groups if group in self.groups])

    def known(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """The groups that the file names: a session remembers no others."""
        return tuple(group for group in groups if group in self.groups)


def read_roles(path: Path) -> Roles:
    """Read a roles file.

    Raises:
        UsageError: it is missing, or has a table, a role or a syntax that there is not.
    """
    try:
        return Roles.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or first_line(error)
    raise UsageError(
        "the roles file cannot be read",
        expected="TOML with [users] and [groups], each name with viewer, reviewer or operator",
        found=problem,
        where=str(path),
        hint="docs/console.md has an example",
    )
