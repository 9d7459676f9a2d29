"""Erase users from a workspace and everything that its runs and schedules name, and search all of it afterwards.

The list of erased users is written first, so that a run that starts meanwhile leaves them out, and an erasure that is
killed can be begun again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from components.promote import erasure as feast
from pipelines.erasure.ids import UserIds
from pipelines.erasure.layouts import layout_of
from pipelines.erasure.matches import Matches
from pipelines.erasure.places import Place, Recorded, places, recorded
from pipelines.erasure.search import holds
from pipelines.erasure.sources import Examined, examine
from pipelines.erasure.treatment import SPILL, Treated, is_source, treat
from pipelines.retention.inventory import is_run, is_running, list_folders
from pipelines.retention.sweep import LOCK, exclusive
from rankline.errors import ErasureIncomplete, UsageError
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.users.erased import FOLDER, ErasedUsers
from rankline.users.hashing import UserKey

MAX_NAMED = 10


@dataclass
class Erasure:
    """What an erasure did, or would do."""

    users: int
    dry_run: bool
    online: dict[str, int] = field(default_factory=dict)  # feature service -> users with rows in its online store
    postgres_rows: int = 0
    treated: list[Treated] = field(default_factory=list)
    matched: list[str] = field(default_factory=list)  # the ids that something held, as given
    unmatched: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The erasure as JSON; only ``matched`` and ``unmatched`` hold ids."""
        return asdict(self)


def erase(
    workspace: Path,
    ids: Collection[str],
    *,
    bucket: BucketWorkspace | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> Erasure:
    """Erase users, by their plain ids; with a ``bucket`` the workspace is the copy of the one there.

    Raises:
        UsageError: a run is in progress, another erasure or `rankline gc` is at work, or a key is missing.
        ErasureIncomplete: a file still holds an id; it names those files.
        StorageError: a bucket, Redis or Postgres does not answer.
    """
    workspace = workspace.resolve()
    known = recorded(workspace)
    plain = {each: _plain_forms([each], known) for each in ids}
    forms = {each: own | _hashed_forms(own, known) for each, own in plain.items()}
    users = UserIds(frozenset().union(*forms.values()), _user_columns(known), _normalisations(known))
    matches = Matches(forms, users)
    with exclusive(workspace):
        _refuse_while_running(workspace)
        buckets = _buckets(workspace, known, bucket)
        if not dry_run:
            _add_to_list(workspace, set().union(*plain.values()), buckets)
            _refuse_while_running(workspace)
        result = Erasure(len(ids), dry_run)
        _erase_from_stores(workspace, users, known, buckets, result, matches)
        where = places(workspace, known.storages)
        where += [Place(each.url) for each in buckets if each.url not in {place.url for place in where}]
        stores = {each.path for each in result.treated}
        for treated in result.treated:
            say(_line(treated, dry_run=dry_run))
        files = list(_find(where, users, known, mentions=True))
        for place, file in files:  # all of them before the first is removed
            matches.search(functools.partial(_is_held, place, file, known))
        for place, file in files:
            if dry_run and place.in_workspace(file) in stores:
                continue  # erased with its store
            treated = treat(place, file, users, _examined(place, file, users, known), dry_run=dry_run)
            if treated not in result.treated:
                result.treated.append(treated)
                say(_line(treated, dry_run=dry_run))
        if not dry_run:
            _require_erased(workspace, where, users, known, result)
    result.matched, result.unmatched = matches.matched, matches.unmatched
    return result


def _line(treated: Treated, *, dry_run: bool) -> str:
    verb = f"would be {treated.action}" if dry_run and treated.action in ("removed", "rewritten") else treated.action
    return f"{verb}: {treated.place}/{treated.path} ({treated.why})"


def _plain_forms(ids: Collection[str], known: Recorded) -> set[str]:
    """The ids as given, and as the recipes' normalisations write them."""
    import duckdb

    from components.ingest.ids import normalised, plain_forms

    forms = plain_forms(ids)
    for names in _normalisations(known):
        with duckdb.connect() as db:
            forms |= {db.execute(f"SELECT {normalised('$1', names)}", [each]).fetchall()[0][0] for each in ids}
    return forms - {""}


def _normalisations(known: Recorded) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(each.get("columns", {}).get("normalise_ids", ())) for each in known.ingests) - {()}


def _user_columns(known: Recorded) -> frozenset[str]:
    """What the recipes call the columns of users in their sources."""
    columns = [each.get("columns", {}) for each in known.ingests]
    return frozenset(str(each[name]) for each in columns for name in ("user_id", "user_key") if each.get(name))


def _hashed_forms(forms: Collection[str], known: Recorded) -> set[str]:
    """The ids as the recipes hash them, and as what was written before says that they are hashed."""
    variables = {str(each["hash_users"]) for each in known.ingests if each.get("hash_users")}
    keys = {
        variable: UserKey.from_environment(variable) for variable in variables | {name for name, _, _ in known.keys}
    }
    for variable, fingerprint, file in known.keys:
        if fingerprint and keys[variable].fingerprint != fingerprint:
            raise UsageError(
                "ids are hashed with another key, so the user cannot be recognised by them",
                expected=f"the key {fingerprint} in the environment variable {variable}",
                found=f"the key {keys[variable].fingerprint}",
                where=file,
                hint=f"export {variable}=… with the key of that time, or remove what was computed with it",
            )
    return {key.hash(form) for key in keys.values() for form in forms}


def _refuse_while_running(workspace: Path) -> None:
    running = [folder.name for folder in list_folders(workspace / "runs", is_ours=is_run) if is_running(folder)]
    if running:
        raise UsageError(
            "a run is in progress, and it would bring back what is erased",
            expected="no run in progress",
            found=", ".join(running),
            where=str(workspace / "runs"),
            hint=f"wait for it to end, or `rankline runs cancel {running[0]}`; then run this again",
        )


def _buckets(workspace: Path, known: Recorded, bucket: BucketWorkspace | None) -> list[BucketWorkspace]:
    """The workspaces in buckets that share the files of this one."""
    if bucket is not None:
        return [bucket]
    urls = dict.fromkeys(each.workspace for each in known.storages if each.workspace)
    return [BucketWorkspace(url, workspace) for url in urls]


def _add_to_list(workspace: Path, forms: Collection[str], buckets: Collection[BucketWorkspace]) -> None:
    """Put users on the list that ingest reads, here and in every bucket."""
    from components.ingest.ids import tagged_forms

    with contextlib.ExitStack() as stack:
        owner = {"who": "rankline users erase"}
        publish = [stack.enter_context(each.writing(FOLDER, owner=owner, timeout_s=60.0)) for each in buckets]
        ErasedUsers(workspace / FOLDER).add(forms, tagged_forms(forms))
        for each in publish:
            each()


def _erase_from_stores(
    workspace: Path,
    users: UserIds,
    known: Recorded,
    buckets: Collection[BucketWorkspace],
    result: Erasure,
    matches: Matches,
) -> None:
    """Erase users from Feast's stores."""
    for each in buckets:
        each.download("online")
    bucket = next(iter(buckets), None)
    place = Place(str(workspace))
    for folder in feast.online_folders(workspace):
        files = [path.relative_to(workspace).as_posix() for path in feast.store_files(folder)]
        held = [file for file in files if holds(file, place.read(file), users)]
        result.treated += [Treated(place.url, file, "rewritten", "its rows") for file in held]
        for file in held:
            matches.search(functools.partial(holds, file, place.read(file)))
        online = feast.erase_online(folder, users.forms, bucket=bucket, dry_run=result.dry_run)
        result.online[folder.name] = len(online)
        matches.add(online)
    in_postgres = [each.features for each in known.storages if each.features.offline == "postgres"]
    for stores in {each.postgres: each for each in in_postgres}.values():
        rows = feast.erase_from_tables(stores, users.forms, dry_run=result.dry_run)
        result.postgres_rows += len(rows)
        matches.add(rows)


def _find(where: Collection[Place], users: UserIds, known: Recorded, *, mentions: bool) -> Iterator[tuple[Place, str]]:
    """Every file that holds an id of one of the users, in its name or in itself."""
    for place in where:
        for file in list(place.files()):
            if file.split("/")[0] in (FOLDER, LOCK):
                continue
            if f"/{SPILL}" in f"/{file}":
                yield place, file
            elif (examined := _examined(place, file, users, known)) is not None:
                if examined.fault or examined.remaining != place.read(file) or (mentions and examined.mentioned):
                    yield place, file
            elif users.is_in(file) or holds(file, place.read(file), users):
                yield place, file


def _examined(place: Place, file: str, users: UserIds, known: Recorded) -> Examined | None:
    """What a source holds of the users; None for a file of another kind."""
    if not is_source(place, file) or f"/{SPILL}" in f"/{file}":
        return None
    examined = examine(file, place.read(file), users, layout_of(file, known.ingests))
    if users.is_in(file) and not examined.fault:
        return replace(examined, fault="its name holds the id: rename it")
    return examined


def _is_held(place: Place, file: str, known: Recorded, users: UserIds) -> bool:
    """Whether a file holds an id of one of the users, in its name or in itself."""
    examined = _examined(place, file, users, known)
    if examined is not None:
        return users.is_in(file) or examined.remaining != place.read(file)
    return users.is_in(file) or holds(file, place.read(file), users)


def _require_erased(
    workspace: Path, where: Collection[Place], users: UserIds, known: Recorded, result: Erasure
) -> None:
    """Search everything again.

    Raises:
        ErasureIncomplete: something still holds an id.
    """
    deliberate = {(each.place, each.path) for each in result.treated if each.action == "kept"}
    matching = _find(where, users, known, mentions=False)
    left = [f"{place.url}/{file}" for place, file in matching if (place.url, file) not in deliberate]
    left += [str(each) for each in feast.online_folders(workspace) if feast.remaining_online(each, users.forms)]
    if left:
        raise ErasureIncomplete(
            f"{len(left)} files still hold the id of an erased user",
            expected="a search of the workspace and its storages that finds nothing",
            found=", ".join(left[:MAX_NAMED]) + (f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""),
            where=str(workspace),
            hint="remove or correct those files, then run this again; the user is on the list that ingest leaves out",
        )
