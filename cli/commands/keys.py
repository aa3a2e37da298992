"""Keys of the HTTP API: `ais keys create`, `list`, `revoke` and `rotate`."""

import asyncio
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from cli.options import AsJson, DataDir, use_data_dir
from cli.terminal import expected_failures, say, tell

keys = typer.Typer(
    help="""Make, list, revoke and replace keys of the HTTP API, each with a name, a role and an optional expiry.

    Anybody who can run these commands has access to the database, and is therefore an administrator anyway. AIS_API_KEY is not
    one of these keys: it is a setting, and always has the role admin.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class RoleName(StrEnum):
    """What a key may do, as it is typed."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


Name = Annotated[str, typer.Argument(help="The key's name. Its actions are logged as http:NAME.")]
Expires = Annotated[
    str | None, typer.Option(help="How long the key works: 12h, 90d or 52w. [default: it never expires]")
]
NewExpires = Annotated[
    str | None, typer.Option(help="How long the key works: 12h, 90d or 52w. [default: as long as the old one]")
]


@keys.command()
def create(
    name: Name,
    role: Annotated[
        RoleName,
        typer.Option(help="viewer reads; operator also sends commands and proposals; admin also changes limits."),
    ],
    desk: Annotated[
        list[str] | None,
        typer.Option(help="A desk that the key is valid for; repeat for several. [default: every desk]"),
    ] = None,
    expires: Expires = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, once. Example: ais keys create alice --role operator --desk main --expires 90d

    Standard output gets only the key. AIS stores only a hash of it: if you lose it, replace it with `ais keys rotate`.
    """
    from cli import keys as work
    from domain.keys import Role

    chosen, lifetime = work.checked_name(name), _span(expires, "--expires")
    desks = work.checked_desks(desk)
    with expected_failures(*work.EXPECTED):
        use_data_dir(data_dir)
        made = asyncio.run(work.create(chosen, Role(role.value), desks, lifetime))
    say(made.explanation)
    typer.echo(made.text)


@keys.command("list")
def show(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show every key that was ever made, working ones first. Example: ais keys list

    No secret is shown: AIS does not store them.
    """
    from cli import keys as work

    with expected_failures(*work.EXPECTED):
        use_data_dir(data_dir)
        found = asyncio.run(work.all_keys())
    typer.echo(work.as_json(found) if as_json else work.table(found))


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="A name, or the id of one key (`ais keys list` has both).")],
    data_dir: DataDir = None,
) -> None:
    """End a key at once and for good: every API process refuses it within 10 seconds. Example: ais keys revoke alice"""
    from cli import keys as work

    with expected_failures(*work.EXPECTED):
        use_data_dir(data_dir)
        tell(asyncio.run(work.revoke(key)))


@keys.command()
def rotate(
    name: Name,
    expires: NewExpires = None,
    grace: Annotated[
        str | None, typer.Option(help="How long the old key still works: 1h, 2d. [default: it is revoked at once]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Replace a key with a new one of the same name, role and desks. Example: ais keys rotate alice --grace 1h"""
    from cli import keys as work

    chosen, lifetime = work.checked_name(name), _span(expires, "--expires")
    patience = _span(grace, "--grace") or timedelta()
    with expected_failures(*work.EXPECTED):
        use_data_dir(data_dir)
        made = asyncio.run(work.rotate(chosen, lifetime, patience))
    say(made.explanation)
    typer.echo(made.text)


def _span(text: str | None, option: str) -> timedelta | None:
    """The span of time that an option names. Raises BadParameter."""
    from cli.keys import span

    try:
        return None if text is None else span(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None
