"""The audit chain as a file: whole or not there, and every way to tamper with it is found without a database."""

import errno
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, text

from cli import audit_export
from cli.audit_export import AskedExport, exported
from cli.audit_file import file_verified
from domain.audit import FIRST, Link, link_hash
from storage.audit import checkpoints, files, manifests
from storage.audit.checkpoints import NotSigned
from storage.audit.exporting import ExportWindow
from storage.audit.files import ExportFormat, ParquetMissing
from storage.audit.manifests import NoManifest
from storage.database import make_engine
from tests.storage.test_audit import decide, fill, verify


class Place(NamedTuple):
    """A database, and a folder to export to."""

    engine: Engine
    url: str
    file: Path

    def export(self, desk: str | None = None, kind: str = "ndjson", force: bool = False, **window: Any) -> list[str]:
        asked = AskedExport(ExportWindow(desk, **window), ExportFormat(kind), self.file, force)
        return [line.text for line in exported(self.url, asked, print)]

    def check(self, signed: Any = None, key: str | None = None) -> list[str]:
        """Its lines, if it is broken."""
        lines = list(file_verified(self.file, signed, key, print))
        return [] if lines[-1].agrees else [line.text for line in lines]

    @property
    def names(self) -> list[str]:
        return sorted(each.name for each in self.file.parent.iterdir())


@pytest.fixture(scope="module")
def url(new_database_url: Callable[[], str]) -> str:
    return new_database_url()


@pytest.fixture
def place(url: str, tmp_path: Path) -> Iterator[Place]:
    engine = make_engine(url, 5, "ais-test")
    (tmp_path / "out").mkdir()
    yield Place(engine, url, tmp_path / "out" / "audit")
    engine.dispose()


@pytest.mark.parametrize("kind", list(ExportFormat))
def test_every_format_comes_back_row_by_row(place: Place, desk: str, kind: ExportFormat) -> None:
    desk = f'{desk},"é\r\n'
    fill(place.engine, desk)
    place.export(desk, kind)
    rows = [row for row in files.read_rows(place.file, kind) if row]
    assert [row.seq for row in rows] == list(range(1, 11))
    assert all(link_hash(row) == row.hash for row in rows)
    assert place.check() == []
    chain = manifests.read(place.file).chains[desk]
    assert chain.last
    assert (chain.rows, chain.last.hash) == (10, rows[-1].hash.hex())


def test_an_export_is_a_row_of_the_chain_that_says_who_and_how_much(place: Place, desk: str) -> None:
    decide(place.engine, desk, 3)
    place.export(desk)
    with place.engine.connect() as connection:
        query = text("SELECT body FROM audit WHERE desk = :d AND kind = 'export'")
        (body,) = map(json.loads, connection.scalars(query, {"d": desk}))
    assert (body["rows"], body["first"], body["last"], body["file"]) == (3, 1, 3, "audit")
    assert body["actor"].startswith("cli:")
    assert body["sha256"] == manifests.read(place.file).sha256
    assert verify(place.engine, desk).faults == []


def test_a_chain_without_its_beginning_is_no_whole_export(place: Place, desk: str) -> None:
    decide(place.engine, desk, 5)
    with place.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE desk = :desk AND seq < 3"), {"desk": desk})
    place.export(desk)
    assert "REMOVED: row 1: rows 1 to 2 are missing" in "\n".join(place.check())


def test_a_part_is_without_gaps_and_its_links_are_checked(place: Place, desk: str) -> None:
    fill(place.engine, desk)
    with place.engine.connect() as connection:
        query = text("SELECT at FROM audit WHERE desk = :d AND seq IN (4, 8) ORDER BY seq")
        since, until = connection.scalars(query, {"d": desk})
    place.export(desk, since=since, until=until)
    chain = manifests.read(place.file).chains[desk]
    assert chain.first
    assert chain.last
    # Rows of one statement, and of one moment, may be a few.
    assert chain.first.seq <= 4 <= chain.last.seq < 8
    assert place.check() == []
    place.export(desk, force=True, since=datetime.now(UTC))
    assert (manifests.read(place.file).rows, place.check()) == (0, [])


def rewritten(place: Place, change: Callable[[list[bytes]], list[bytes]], *, with_hash: bool = True) -> None:
    lines = place.file.read_bytes().splitlines(keepends=True)
    place.file.write_bytes(b"".join(change(lines)))
    if with_hash:
        path = manifests.path_of(place.file)
        old = manifests.read(place.file).sha256
        path.write_text(path.read_text().replace(old, manifests.sha256_of(place.file)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: [*rows[:2], rows[2].replace(b"cycle", b"cycIe").replace(b"id", b"di"), *rows[3:]], "EDITED: row 3"),
        (lambda rows: rows[:3] + rows[4:], "REMOVED: row 4"),
        (lambda rows: rows[1:], "REMOVED: row 1"),
        (lambda rows: rows[:-1], "CUT OFF AT THE END: row 10"),
        (lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]], "row 5"),
        (lambda rows: [*rows, rows[-1]], "INSERTED: row 10"),
        (lambda rows: [*rows, b"{}\n"], "row 11 of the file is not a row of a chain"),
        (lambda rows: [*rows, b'{"seq": 1e999, "desk": "\\ud800"}\n'], "row 11 of the file is not a row of a chain"),
        (lambda rows: [], "CUT OFF"),
    ],
)  # fmt: skip
def test_a_file_that_was_tampered_with_is_broken_even_if_its_hash_was_made_anew(
    place: Place, desk: str, change: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    fill(place.engine, desk)
    place.export(desk)
    rewritten(place, change)
    assert told in "\n".join(place.check())


@pytest.mark.parametrize("more", ['"body":"forged",', '"Body":"forged",'])
def test_a_line_with_a_name_too_much_is_no_row(tmp_path: Path, more: str) -> None:
    """Found to be false: of a name that was there twice the last value was checked, and other readers take the first."""
    row = Link("main", 1, "2026-01-01T00:00:00.000000Z", "decision", "dec_1", "{}", FIRST, b"")
    row = row._replace(hash=link_hash(row))
    file = tmp_path / "audit"
    with file.open("wb") as opened:
        files.write_rows(opened, ExportFormat.NDJSON, [row])
    assert list(files.read_rows(file, ExportFormat.NDJSON)) == [row]
    file.write_bytes(file.read_bytes().replace(b"{", b"{" + more.encode(), 1))
    assert list(files.read_rows(file, ExportFormat.NDJSON)) == [None]


@pytest.mark.parametrize("kind", list(ExportFormat))
def test_one_changed_byte_is_found_by_the_hash_of_the_file(place: Place, desk: str, kind: ExportFormat) -> None:
    decide(place.engine, desk, 3)
    place.export(desk, kind)
    content = bytearray(place.file.read_bytes())
    content[len(content) // 2] ^= 1
    place.file.write_bytes(content)
    assert "SHA-256" in "\n".join(place.check())
    place.file.write_bytes(b"")
    assert "SHA-256" in "\n".join(place.check())


def test_nothing_is_replaced_unless_it_was_asked_for(place: Place, desk: str) -> None:
    decide(place.engine, desk)
    place.file.write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        place.export(desk)
    assert (place.file.read_text(), place.names) == ("mine", ["audit"])
    place.export(desk, force=True)
    assert place.check() == []
    with pytest.raises(FileExistsError, match="--force"):
        place.export(desk)


def test_what_came_there_meanwhile_is_not_replaced_either(
    place: Place, desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(place.engine, desk)
    monkeypatch.setattr(audit_export, "_record", lambda engine, manifest: place.file.write_text("theirs"))
    with pytest.raises(FileExistsError):
        place.export(desk)
    assert (place.file.read_text(), place.names) == ("theirs", ["audit"])


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fault", [full, interrupted])
@pytest.mark.parametrize(
    "step", ["cli.audit_export._rows", "cli.audit_export._record", "storage.audit.manifests._sync"]
)
def test_an_export_that_broke_off_leaves_no_file(
    place: Place, desk: str, monkeypatch: pytest.MonkeyPatch, step: str, fault: Callable[..., None]
) -> None:
    decide(place.engine, desk)
    monkeypatch.setattr(step, fault)
    with pytest.raises((OSError, KeyboardInterrupt)):
        place.export(desk)
    assert place.names == []


def test_ctrl_c_right_after_a_file_got_its_name_leaves_none(
    place: Place, desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(place.engine, desk)
    name = manifests.NewExport._name

    def then_interrupted(*arguments: Any) -> None:
        name(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(manifests.NewExport, "_name", then_interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.export(desk)
    assert place.names == []


def test_a_file_without_its_manifest_is_no_export(place: Place, desk: str) -> None:
    decide(place.engine, desk)
    place.export(desk)
    manifests.path_of(place.file).unlink()
    with pytest.raises(NoManifest, match="the export is incomplete"):
        place.check()


def test_without_pyarrow_one_line_says_what_to_install(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ParquetMissing, match=r"pip install ais\[parquet\]"):
        place.export(None, "parquet")
    assert place.names == []


def test_the_checkpoint_in_the_manifest_is_checked_with_the_public_key_alone(
    new_database_url: Callable[[], str], place: Place, desk: str, tmp_path: Path
) -> None:
    own = place._replace(url=new_database_url())
    own = own._replace(engine=make_engine(own.url, 5, "ais-test"))
    key, other = checkpoints.make_key(tmp_path / "key"), checkpoints.make_key(tmp_path / "other")
    decide(own.engine, desk, 3)
    own.export()
    with pytest.raises(NotSigned, match="no checkpoint"):
        own.check(key=key)
    with own.engine.begin() as connection:
        document = checkpoints.make(connection, checkpoints.read_key(tmp_path / "key")).document
    decide(own.engine, desk, 2)
    own.export(force=True)
    assert own.check(key=key) == []
    with pytest.raises(NotSigned):
        own.check(key=other)
    # One of a clock that was ahead is not the newest one until then.
    with own.engine.begin() as connection:
        ahead = "INSERT INTO audit_checkpoints SELECT at + interval '1 day', public_key, 'old' FROM audit_checkpoints"
        connection.execute(text(ahead))
    own.export(force=True)
    assert own.check(key=key) == []
    signed = checkpoints.read(document, key)
    assert "signed up to row 4" in next(file_verified(own.file, signed, None, print)).text
    with own.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE seq > 2"))
    own.export(force=True)
    assert "CUT OFF AT THE END: row 4" in "\n".join(own.check(signed))
    with pytest.raises(NotSigned, match="belongs to database"):
        own.check(signed.model_copy(update={"database_id": "another"}))
    own.engine.dispose()
