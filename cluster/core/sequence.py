"""A sequence as one whole: its parts put together, and checked against the node's rows before anything is applied."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.core.block import GONE, USED, Block
from cluster.core.checkpoint import Columns
from cluster.core.errors import WireError
from cluster.core.kinds import WORKLOAD_LIMIT
from cluster.core.records import COUNTER_LIMIT, Flag
from cluster.core.wire import SECTIONS, Final, Part

SLOTS_SLACK = 1 << 20  # a slot may be this far above what the node's numbering needs
GIVEN = Flag.CLOSED | Flag.BYTES_UNKNOWN | Flag.RECV_INEXACT | Flag.FOLDED  # the flags that a collector says
OURS = Flag.SETTLED | Flag.SURE  # the flags that it does not


@dataclass(frozen=True, slots=True)
class Batch:
    """A whole sequence. Index columns point into `addresses` and `texts`."""

    opened: Columns
    changed: Columns
    attributed: Columns
    closed: Columns
    carried: Columns
    addresses: list[bytes]
    texts: list[str]
    metadata: list[tuple[str, str, str, Mapping[str, Any] | None]]
    final: Final
    resync: bool


@dataclass(frozen=True, slots=True)
class Before:
    """The counters that changed rows had, and which of them began a new generation."""

    counters: Columns  # sent, recv, retransmits, generation
    marks: NDArray[np.uint8]  # of their slots; USED where this sequence opens them
    reset: NDArray[np.intp]  # places in the section


def join(parts: Sequence[Part]) -> Batch:
    """Put the parts of one sequence together."""
    final = parts[-1].final
    if final is None:
        raise WireError("final: missing in the last part")
    sections = {name: _sorted(_concatenate(parts, name)) for name in SECTIONS}
    return Batch(
        **sections,
        addresses=np.frombuffer(b"".join(part.addresses for part in parts), "V16").tolist(),
        texts=[text[:WORKLOAD_LIMIT] for part in parts for text in part.texts],
        metadata=[change for part in parts for change in part.metadata],
        final=final,
        resync=parts[0].sequence == 0,
    )


def _concatenate(parts: Sequence[Part], section: str) -> Columns:
    found, addresses, texts = [], 0, 0
    for part in parts:
        if (columns := part.sections.get(section)) is not None:
            shifts = {"source": addresses, "dest": addresses, "local": texts, "remote": texts}
            found.append({name: column + np.uint32(shifts[name]) if shifts.get(name) else column for name, column in columns.items()})
        addresses += len(part.addresses) // 16
        texts += len(part.texts)
    if len(found) == 1:
        return found[0]
    return {name: np.concatenate([one[name] for one in found]) if found else np.zeros(0, kind) for name, kind in SECTIONS[section].items()}


def _sorted(columns: Columns) -> Columns:
    """By slot: columns that are read and written in order cost half as much, and what is there twice is found by looking beside."""
    ids = columns["id"]
    if bool((ids[1:] > ids[:-1]).all()):
        return columns
    order = np.argsort(ids)
    return {name: column[order] for name, column in columns.items()}


def check(batch: Batch, block: Block, slots_held: int) -> Before:
    """Refuse a sequence that cannot be applied whole; `block` is an empty one for a resync. Raises WireError."""
    _check_final(batch)
    _check_counters(batch)
    opened = batch.opened["id"]
    _check_distinct("opened", opened)
    _check_opened(opened, block, max(slots_held, 2 * len(opened)) + SLOTS_SLACK)
    _check_distinct("changed", batch.changed["id"])
    for name, columns in (("attributed", batch.attributed), ("closed", batch.closed)):
        _check_distinct(name, columns["id"])
        _check_known(name, columns["id"], _marks(columns["id"], batch, block))
    _check_flags(batch.closed)
    _check_distinct("carried", batch.carried["id"])
    if not np.isin(batch.carried["id"], opened).all():
        raise WireError("carried: a row that is not opened")
    return _check_generations(batch, block)


def _check_final(batch: Batch) -> None:
    final = batch.final
    if not (isfinite(final.at) and isfinite(final.offset)):
        raise WireError(f"final: at {final.at} and offset {final.offset} must be finite numbers")
    for source, address, uid, record in batch.metadata:
        if not (record is None or isinstance(record, Mapping)):
            raise WireError(f"metadata of {source} {address} {uid}: expected a map or None, got {type(record).__name__}")
        _check_plain(f"metadata of {source} {address} {uid}", record)
    _check_plain("final.status", final.status)


def _check_counters(batch: Batch) -> None:
    for section, columns in (("opened", batch.opened), ("changed", batch.changed), ("carried", batch.carried)):
        for name in ("sent", "recv"):
            if (most := int(columns[name].max(initial=0))) > COUNTER_LIMIT:
                raise WireError(f"{section}: {name} of {most} bytes; no row can count more than {COUNTER_LIMIT}")


def _check_plain(what: str, value: Any) -> None:
    """Refuse what msgpack can say and a store cannot keep, such as bytes: it would stop every later commit."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"{what}: {error}") from error


def _check_distinct(name: str, ids: NDArray[Any]) -> None:
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise WireError(f"{name}: row {int(ids[twice[0]])} twice in one sequence")


def _check_opened(ids: NDArray[Any], block: Block, limit: int) -> None:
    if len(ids) and int(ids.max()) >= limit:
        raise WireError(f"opened: row {int(ids.max())} of at most {limit}; number the rows densely")
    inside = ids[ids < block.size]
    taken = inside[(block.marks[inside] & USED > 0) & (block.columns["flags"][inside] & Flag.CLOSED == 0)]
    if len(taken):
        raise WireError(f"opened: row {int(taken[0])} is open already")


def _marks(ids: NDArray[Any], batch: Batch, block: Block) -> NDArray[np.uint8]:
    """The marks of these slots as they are once the sequence's rows are opened; 0 for a slot that was never used."""
    opened = batch.opened["id"]
    if not len(opened) and len(ids) and int(ids[-1]) < block.size:
        return block.marks[ids.astype(np.intp)]
    marks = np.zeros(len(ids), np.uint8)
    inside = ids < block.size
    marks[inside] = block.marks[ids[inside]]
    marks[np.isin(ids, opened)] = USED
    return marks


def _check_known(name: str, ids: NDArray[Any], marks: NDArray[np.uint8]) -> None:
    unknown = np.flatnonzero(marks & np.uint8(USED | GONE) == 0)
    if len(unknown):
        raise WireError(f"{name}: row {int(ids[unknown[0]])} was never opened")


def _check_flags(closed: Columns) -> None:
    if not (closed["flags"] & Flag.CLOSED).all():
        raise WireError("closed: a row without the flag")


def _check_generations(batch: Batch, block: Block) -> Before:
    new, ids = batch.changed, batch.changed["id"]
    marks = _marks(ids, batch, block)
    _check_known("changed", ids, marks)
    old = _before(batch, block)
    reset = np.flatnonzero(new["generation"] != old["generation"])
    back = reset[new["generation"][reset] < old["generation"][reset]]
    if len(back):
        raise WireError(f"changed: row {int(ids[back[0]])} goes back to an earlier generation")
    for name in ("sent", "recv", "retransmits"):
        fell = np.flatnonzero(new[name] < old[name])
        fell = fell[new["generation"][fell] == old["generation"][fell]]
        if name == "recv":
            fell = fell[old[name][fell] - new[name][fell] != 1]  # an inexact count, corrected
        if len(fell):
            raise WireError(f"changed: {name} of row {int(ids[fell[0]])} fell within one generation")
    return Before(old, marks, reset)


def _before(batch: Batch, block: Block) -> Columns:
    """The counters and generations of the changed rows, also of those that this sequence opens. A GONE slot has what it last had."""
    ids = batch.changed["id"].astype(np.intp)
    names = ("sent", "recv", "retransmits", "generation")
    if not len(batch.opened["id"]) or not len(ids):
        return {name: block.columns[name][ids] for name in names}
    inside = ids < block.size
    before = {name: np.zeros(len(ids), block.columns[name].dtype) for name in names}
    order = np.argsort(batch.opened["id"], kind="stable")
    places = np.searchsorted(batch.opened["id"], ids, sorter=order)
    places = order[np.minimum(places, len(order) - 1)]
    fresh = batch.opened["id"][places] == ids
    for name, column in before.items():
        column[inside] = block.columns[name][ids[inside]]
        column[fresh] = batch.opened[name][places[fresh]]
    return before
