"""`ais audit`: proves that the log and the totals are unchanged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DataDir, use_data_dir
from cli.terminal import expected_failures, fail, say, tell

if TYPE_CHECKING:
    from datetime import datetime

BROKEN, NOT_CHECKED = 1, 2

OnlyDesk = Annotated[str | None, typer.Option(help="Only this desk. [default: all]")]
PublicKey = Annotated[
    str | None,
    typer.Option(
        help="Public key of the checkpoint; with --export, of the manifest's. [default with --checkpoint: AIS_AUDIT_KEY's]"
    ),
]

app = typer.Typer(help="Prove that the log and the totals are unchanged.", no_args_is_help=True)


@app.command()
def totals(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild the totals from all records afterwards.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Add up every fill and ledger entry of every account, and compare with the totals that reports use.

    Exits with 1 if they differ. Example: ais audit totals
    """
    import settings
    from cli.audit import audited
    from storage.database import DatabaseUnavailable

    agree = True
    with expected_failures(DatabaseUnavailable):
        for line in audited(settings.DatabaseSettings.load(data_dir).url, rebuild=rebuild):
            typer.echo(line.text)
            agree = agree and line.agrees
    if not agree:
        raise typer.Exit(1)


@app.command()
def verify(
    desk: OnlyDesk = None,
    since: Annotated[
        str | None, typer.Option(help="Only rows since then: 10m, 2h or 1d ago, or 2026-03-12T14:30:00 (UTC).")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Compare with this signed checkpoint too.")] = None,
    public_key: PublicKey = None,
    export: Annotated[Path | None, typer.Option(help="Check this exported file instead; needs no database.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Check the audit chain: recompute every hash, then compare the tables with the chain. Example: ais audit verify

    Exit status: 0 whole, 1 broken, 2 could not be checked.
    """
    import settings
    from cli.audit_chain import Asked, read_checkpoint, verified
    from cli.audit_file import file_verified

    moment = _moment(since, "--since")
    if public_key and not (checkpoint or export):
        raise typer.BadParameter(
            "a public key checks a checkpoint: add --checkpoint or --export.", param_hint="--public-key"
        )
    if export and (desk or since):
        raise typer.BadParameter("it checks the whole file: leave out --desk and --since.", param_hint="--export")
    whole = False
    try:
        key_file = settings.AuditSettings.load(data_dir).audit_key
        signed = read_checkpoint(checkpoint, public_key, key_file) if checkpoint else None
        if export:
            lines = file_verified(export, signed, public_key, say)
        else:
            lines = verified(settings.DatabaseSettings.load(data_dir).url, Asked(desk, moment, signed), say)
        for line in lines:
            typer.echo(line.text)
            whole = line.agrees
    except (Exception, KeyboardInterrupt) as error:  # whatever it is: nothing was proved
        say(f"The chain could not be checked: {_explained(error)}")
        raise typer.Exit(NOT_CHECKED) from None
    raise typer.Exit(0 if whole else BROKEN)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write; FILE.manifest.json is written beside it.")],
    kind: Annotated[str, typer.Option("--format", help="ndjson, csv or parquet.")] = "ndjson",
    since: Annotated[
        str | None, typer.Option(help="Only rows since then, in the format of `ais audit verify --since`.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only rows before then, in the same format.")] = None,
    desk: OnlyDesk = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Copy the audit chain into a file that anybody can check without the database. Example: ais audit export audit.ndjson

    The export is itself recorded on each chain that it copies. `ais audit verify --export audit.ndjson` checks the file.
    """
    import settings
    from cli.audit_export import AskedExport, exported
    from storage.audit.exporting import ExportWindow
    from storage.audit.files import ExportFormat, ParquetMissing
    from storage.database import DatabaseUnavailable

    window = ExportWindow(desk, _moment(since, "--since"), _moment(until, "--until"))
    if kind not in list(ExportFormat):
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(ExportFormat)}.", param_hint="--format")
    with expected_failures(DatabaseUnavailable, ParquetMissing, LookupError, OSError):
        asked = AskedExport(window, ExportFormat(kind), file, force)
        for line in exported(settings.DatabaseSettings.load(data_dir).url, asked, say):
            typer.echo(line.text)


@app.command()
def rebuild(
    desk: OnlyDesk = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write the rows. Without --yes they are only counted.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Find decisions and instructions that the database lost; with --yes, put them back. Example: ais audit rebuild

    They come from the audit chain, if it is whole, and from Temporal's histories. An existing row is never changed.
    Exit status: 0 nothing missing or all put back, 1 something missing or differing, 2 could not be checked.
    """
    import asyncio

    import settings
    from cli.audit_rebuild import AskedRebuild, rebuilt

    async def run() -> bool:
        whole = True
        async for line in rebuilt(settings.DatabaseSettings.load().url, AskedRebuild(desk, yes), say):
            typer.echo(line.text)
            whole = whole and line.agrees
        return whole

    use_data_dir(data_dir)
    try:
        whole = asyncio.run(run())
    except (Exception, KeyboardInterrupt) as error:  # whatever it is: nobody knows what is missing
        say(f"What is missing could not be checked: {_explained(error)}")
        raise typer.Exit(NOT_CHECKED) from None
    raise typer.Exit(0 if whole else BROKEN)


@app.command()
def key(data_dir: DataDir = None) -> None:
    """Make the key that signs checkpoints, and print its public half. Example: ais audit key

    AIS_AUDIT_KEY names its file, which must not exist yet.
    """
    import settings
    from storage.audit import checkpoints

    with expected_failures(checkpoints.NotSigned):
        typer.echo(checkpoints.make_key(Path(_key_file(settings.AuditSettings.load(data_dir).audit_key))))


@app.command()
def checkpoint(data_dir: DataDir = None) -> None:
    """Sign the last row and the number of rows of every desk's chain; store and print the checkpoint.

    Keep the file out of reach of anybody who can write to the database: `ais audit verify --checkpoint` then finds a chain that
    was cut off or rewritten. Example: ais audit checkpoint > today.json
    """
    import settings
    from cli.audit_chain import made
    from storage.audit.checkpoints import NotSigned
    from storage.database import DatabaseUnavailable

    with expected_failures(DatabaseUnavailable, NotSigned):
        key_file = _key_file(settings.AuditSettings.load(data_dir).audit_key)
        typer.echo(made(settings.DatabaseSettings.load(data_dir).url, key_file))


@app.command()
def accept(
    reason: Annotated[str, typer.Option(help="What you found out; recorded in the chain.")],
    desk: Annotated[str | None, typer.Option(help="The desk, or `-` for the keys. [default: AIS_DESK]")] = None,
    data_dir: DataDir = None,
) -> None:
    """Accept a fault that the workers found and that you can explain, so that its alert ends.

    The workers verify the chain from here on. `ais audit verify` still reports the fault.

    Example: ais audit accept --reason "restored"
    """
    import settings
    from cli.audit_chain import accepted
    from storage.database import DatabaseUnavailable

    if not reason.strip():
        raise typer.BadParameter("say what was found out.", param_hint="--reason")
    with expected_failures(DatabaseUnavailable, LookupError):
        url = settings.DatabaseSettings.load(data_dir).url
        tell(accepted(url, desk or settings.DeskName.load(data_dir).desk, reason))


def _key_file(named: str | None) -> str:
    if not named:
        fail("Set AIS_AUDIT_KEY to the file of the key; `ais audit key` makes it.")
    return named


def _explained(error: BaseException) -> str:
    from pydantic import ValidationError

    import settings

    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    if isinstance(error, ValidationError):
        return settings.explain(error)
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _moment(text: str | None, option: str) -> "datetime | None":
    from cli.moments import moment_of

    try:
        return moment_of(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None
