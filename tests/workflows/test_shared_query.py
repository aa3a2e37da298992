"""The shared query: who waits shares the next one, and none asks about so many commands that Temporal refuses the answer."""

import asyncio
from typing import Any

from domain.desk.status import Outcomes
from tests.storage.test_notices import make_status
from workflows.shared_query import MOST_IDS, Headers, SharedQuery

COMMANDS = [f"k{number:02}" for number in range(60)]


class Asked:
    """The queries that were made."""

    def __init__(self) -> None:
        self.ids: list[list[str]] = []

    async def __call__(self, ids: list[str], _: Headers) -> Outcomes:
        self.ids.append(ids)
        await asyncio.sleep(0)
        return Outcomes(status=make_status("main"), outcomes={})


async def reads(shared: SharedQuery, *ids: str, urgent: bool = False) -> Any:
    return await shared.read(ids, urgent=urgent)


async def test_a_crowd_of_commands_is_asked_about_in_several_queries() -> None:
    """What 60 kills of 400 symbols have come to is more than Temporal lets a query answer: none of them was confirmed."""
    asked = Asked()
    shared = SharedQuery(asked)
    await asyncio.gather(*(reads(shared, name) for name in COMMANDS))
    assert [name for ids in asked.ids for name in ids] == COMMANDS
    assert [len(ids) for ids in asked.ids] == [MOST_IDS, MOST_IDS, MOST_IDS, len(COMMANDS) - 3 * MOST_IDS]


async def test_whoever_only_looks_waits_for_no_crowd_and_asks_no_query_of_its_own() -> None:
    asked = Asked()
    shared = SharedQuery(asked)
    crowd = asyncio.gather(*(reads(shared, name) for name in COMMANDS))
    await asyncio.sleep(0)
    await reads(shared)
    assert len(asked.ids) < 4
    await crowd
    assert len(asked.ids) == 4


async def test_who_asks_about_more_than_that_gets_one_answer() -> None:
    asked = Asked()
    shared = SharedQuery(asked)
    await asyncio.gather(reads(shared, *COMMANDS), reads(shared, "other"))
    assert asked.ids == [COMMANDS, ["other"]]


async def test_a_kill_waits_for_one_query_at_most_however_many_commands_wait() -> None:
    asked = Asked()
    shared = SharedQuery(asked)
    crowd = asyncio.gather(*(reads(shared, name) for name in COMMANDS))
    await asyncio.sleep(0)
    await reads(shared, "kill", urgent=True)
    assert asked.ids.index(["kill"]) <= 1
    await crowd
    assert len(asked.ids) == 5


async def test_those_who_have_left_delay_nobody() -> None:
    asked = Asked()
    shared = SharedQuery(asked)
    crowd = [asyncio.create_task(reads(shared, name)) for name in COMMANDS]
    await asyncio.sleep(0)
    for reader in crowd:
        reader.cancel()
    await reads(shared, "late")
    assert "late" in asked.ids[-1]
    assert len(asked.ids) <= 2
