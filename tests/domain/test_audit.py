"""The chain itself: what a walk along it tells, without a database."""

from collections.abc import Callable
from typing import Any

import pytest

from domain import audit
from domain.audit import FIRST, AuditFault, ChainHead, ChainWalk, FaultKind, Link, link_hash

Rows = list[Link]


def chained(count: int) -> Rows:
    rows: Rows = []
    for seq in range(1, count + 1):
        rows.append(hashed(Link("main", seq, f"at {seq}", "decision", f"d{seq}", '{"é":1}' * seq, last(rows), b"")))
    return rows


def last(rows: Rows) -> bytes:
    return rows[-1].hash if rows else FIRST


def hashed(link: Link) -> Link:
    return link._replace(hash=link_hash(link))


def faults(rows: Rows, head: ChainHead | None) -> list[AuditFault]:
    walk = ChainWalk("main")
    found = [fault for row in rows for fault in walk.take(row)]
    return [*found, *walk.end(head)]


def head_of(rows: Rows) -> ChainHead:
    return ChainHead(rows[-1].seq, rows[-1].hash)


def renumbered(rows: Rows) -> Rows:
    return [row._replace(seq=number) for number, row in enumerate(rows, 1)]


def edit(rows: Rows) -> Rows:
    return [row._replace(body="{}") if row.seq == 5 else row for row in rows]


def edit_and_hash(rows: Rows) -> Rows:
    return [hashed(row._replace(body="{}")) if row.seq == 5 else row for row in rows]


def edit_the_last(rows: Rows) -> Rows:
    return [*rows[:-1], hashed(rows[-1]._replace(body="{}"))]


def edit_the_time(rows: Rows) -> Rows:
    return [row._replace(at="earlier") if row.seq == 5 else row for row in rows]


def remove(rows: Rows) -> Rows:
    return [row for row in rows if row.seq != 5]


def remove_and_renumber(rows: Rows) -> Rows:
    return renumbered(remove(rows))


def remove_the_first(rows: Rows) -> Rows:
    return renumbered(rows[1:])


def insert_and_renumber(rows: Rows) -> Rows:
    new = hashed(Link("main", 5, "at", "decision", "forged", "{}", rows[3].hash, b""))
    return renumbered([*rows[:4], new, *rows[4:]])


def insert_garbage(rows: Rows) -> Rows:
    return renumbered([*rows[:4], Link("main", 5, "at", "decision", "forged", "{}", b"x" * 32, b"y" * 32), *rows[4:]])


def append_one(rows: Rows) -> Rows:
    return [*rows, hashed(Link("main", 11, "at", "decision", "forged", "{}", rows[-1].hash, b""))]


def swap(rows: Rows) -> Rows:
    return renumbered([*rows[:4], rows[5], rows[4], *rows[6:]])


def swap_far(rows: Rows) -> Rows:
    return renumbered([*rows[:2], rows[7], *rows[3:7], rows[2], *rows[8:]])


def cut_off(rows: Rows) -> Rows:
    return rows[:-2]


@pytest.mark.parametrize(
    ("tamper", "kind", "seq"),
    [
        (edit, FaultKind.EDITED, 5),
        (edit_and_hash, FaultKind.EDITED, 5),
        (edit_the_last, FaultKind.EDITED, 10),
        (edit_the_time, FaultKind.EDITED, 5),
        (remove, FaultKind.REMOVED, 5),
        (remove_and_renumber, FaultKind.REMOVED, 5),
        (remove_the_first, FaultKind.REMOVED, 1),
        (insert_and_renumber, FaultKind.INSERTED, 5),
        (insert_garbage, FaultKind.INSERTED, 5),
        (append_one, FaultKind.INSERTED, 11),
        (swap, FaultKind.REORDERED, 5),
        (swap_far, FaultKind.REORDERED, 3),
        (cut_off, FaultKind.CUT_OFF, 9),
    ],
)
def test_the_first_fault_is_named_with_its_row(tamper: Callable[[Rows], Rows], kind: FaultKind, seq: int) -> None:
    rows = chained(10)
    found = faults(tamper(rows), head_of(rows))
    assert (found[0].kind, found[0].seq) == (kind, seq), found


def test_a_chain_that_nobody_touched_is_whole() -> None:
    rows = chained(10)
    assert faults(rows, head_of(rows)) == []
    assert faults(rows, None) == []


def test_a_walk_that_begins_later_believes_what_its_first_row_names() -> None:
    rows = chained(10)
    walk = ChainWalk("main", start=6)
    assert [fault for row in rows[5:] for fault in walk.take(row)] == []
    assert list(walk.end(head_of(rows))) == []
    assert (walk.seq, walk.count) == (10, 5)


def test_long_bodies_are_not_searched_for_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed_bytes = 0

    def counted(link: Link) -> bytes:
        nonlocal hashed_bytes
        hashed_bytes += len(link.body)
        return bytes(32)

    walk = ChainWalk("main")
    monkeypatch.setattr(audit, "link_hash", counted)
    rows = [Link("main", seq, "at", "decision", "d", "x" * 1_000_000, FIRST, b"edited") for seq in range(1, 9)]
    assert {fault.kind for row in rows for fault in walk.take(row)} == {FaultKind.EDITED}
    assert hashed_bytes < 150_000_000


def test_every_field_counts_and_none_runs_into_the_next() -> None:
    rows = chained(3)
    before = link_hash(rows[1])
    changes: dict[str, Any] = {
        "desk": "mai", "seq": 3, "at": "at", "kind": "x", "subject": "d", "body": "{}", "previous": FIRST,
    }  # fmt: skip
    for name, value in changes.items():
        assert link_hash(rows[1]._replace(**{name: value})) != before, name
    moved = rows[1]._replace(kind="decisiond", subject="2")
    assert link_hash(moved) != before
