"""Carries out `ais audit export`: writes a snapshot to a file, records the export on each chain, and writes the manifest."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from cli.actor import actor
from cli.audit import Line
from cli.audit_chain import Ticker
from domain.audit import Link
from domain.values import printable
from storage import migrate
from storage.audit import exporting, manifests, verifying
from storage.audit.exporting import ExportWindow
from storage.audit.files import ExportFormat, need, write_rows
from storage.audit.manifests import ExportedChain, ExportManifest, NewExport, RowTally
from storage.clock import server_time
from storage.installation import read_id

DESKS_AT_ONCE = 50


class AskedExport(NamedTuple):
    """What to export, and where to."""

    window: ExportWindow
    kind: ExportFormat
    file: Path
    force: bool = False


class _Copied(NamedTuple):
    """What the snapshot contained, and its time by the database's clock."""

    at: datetime
    chains: dict[str, ExportedChain]
    checkpoint: str | None
    database_id: str | None


def exported(url: str, asked: AskedExport, say: Callable[[str], None]) -> Iterator[Line]:
    """Makes the file and its manifest, and says what they contain. If it raises, neither exists."""
    need(asked.kind)
    with manifests.new_export(asked.file, replace=asked.force) as export:
        with migrate.connections(url, migrate.UPGRADE_SECONDS) as engine:
            with verifying.snapshot(engine) as connection:
                copied = _copy(connection, asked, export, Ticker(say))
            manifest = _manifest(asked, copied, manifests.sha256_of(export.parts[0]))
            _record(engine, manifest)
        with export.part() as file:
            file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
        export.place()
    yield from _lines(asked.file, manifest)


def _copy(connection: Connection, asked: AskedExport, export: NewExport, ticker: Ticker) -> _Copied:
    # The time first: what is signed after it may be missing in the snapshot.
    at, known, window = server_time(connection), verifying.chained_desks_of(connection), asked.window
    if window.desk is not None and window.desk not in known:
        raise LookupError(f"desk {window.desk!r} has no chain; the database has {', '.join(known) or 'none'}")
    tallies = {desk: RowTally() for desk in (known if window.desk is None else [window.desk])}
    with export.part() as file:
        write_rows(file, asked.kind, _rows(connection, tallies, window, ticker))
    chains = {desk: tally.chain for desk, tally in tallies.items()}
    return _Copied(at, chains, exporting.newest_checkpoint(connection, window.until), read_id(connection))


def _rows(connection: Connection, tallies: dict[str, RowTally], window: ExportWindow, ticker: Ticker) -> Iterator[Link]:
    """Every row to copy, counted by the tally of its desk."""
    done = itertools.count()
    for desk, tally in tallies.items():
        for row in tally.counted(exporting.rows_of(connection, desk, window)):
            if (number := next(done)) and number % verifying.ROWS_A_FETCH == 0:
                ticker.tell(number)
            yield row


def _manifest(asked: AskedExport, copied: _Copied, sha256: str) -> ExportManifest:
    return ExportManifest(
        made_at=copied.at, made_by=actor(), database_id=copied.database_id, file=asked.file.name, format=asked.kind,
        sha256=sha256, **asked.window._asdict(), rows=sum(chain.rows for chain in copied.chains.values()),
        chains=copied.chains, checkpoint=copied.checkpoint,
    )  # fmt: skip


def _record(engine: Engine, manifest: ExportManifest) -> None:
    """Records the export on each chain. This happens before the file gets its name, so that no copy exists without a record."""
    shared: dict[str, Any] = {"actor": manifest.made_by}
    shared |= manifest.model_dump(mode="json", include={"file", "format", "sha256", "since", "until"})
    bodies = {
        desk: shared | {"rows": chain.rows, "first": chain.first.seq, "last": chain.last.seq}
        for desk, chain in manifest.chains.items()
        if chain.first and chain.last
    }
    subject = f"export_{uuid.uuid4().hex}"
    desks = sorted(bodies)
    for start in range(0, len(desks), DESKS_AT_ONCE):
        # While the locks of these desks are held, their new entries wait for the next append.
        with engine.begin() as connection:
            exporting.record(connection, subject, {desk: bodies[desk] for desk in desks[start : start + DESKS_AT_ONCE]})


def _lines(file: Path, manifest: ExportManifest) -> Iterator[Line]:
    for desk, chain in manifest.chains.items():
        ends = f", {chain.first.seq:,} to {chain.last.seq:,}" if chain.first and chain.last else ""
        yield Line(printable(f"{desk}: {chain.rows:,} rows{ends}."))
    yield Line(printable(f"{manifest.rows:,} rows in {file}; {manifests.path_of(file).name} says what it must hold."))
