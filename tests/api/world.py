"""A desk in memory: the coordinator's own decisions behind the gateway's interface, with switches for every fault."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr
from temporalio.contrib.pydantic import pydantic_data_converter

from api.app import create_app
from api.app_settings import AppSettings
from api.errors import ApiError
from api.keys import KeyReading
from api.reporting import DecisionPage, LiveBooks, PageText, PaperBooks, Reports, RowsToText
from api.rows import entry
from domain.desk import applying, ordering
from domain.desk.carried import Carried
from domain.desk.payloads import RawPayload, kind_of, read_command
from domain.desk.recording import Tick
from domain.desk.states import Mode
from domain.desk.status import Outcomes, Status, outcomes_of
from domain.keys import ID_CHARS, SECRET_BYTES, AccessKey, Role, merge, read_key, write_key
from domain.risk.limits import Limits
from domain.trading.decisions import Decision, DecisionType
from domain.trading.instructions import InstructionRow, OrderInstruction, OrderType, Side
from domain.trading.market import Account, Observation
from settings import (
    ApiSettings,
    DatabaseSettings,
    DeskSettings,
    DiskSettings,
    LogSettings,
    NotifySettings,
    RedisSettings,
    TraceSettings,
)
from storage.decisions import DecisionFilter
from storage.equity import CurveFilter, EquityPoint
from storage.instructions import InstructionFilter
from storage.keys import KeyState
from storage.paging import PageFilter
from storage.paper import StoredEntry, StoredFill

KEY = "f3kq9-Zt71bVw0_xhQ2m"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
ACK_SECONDS = 0.3
NOW = datetime(2026, 3, 12, 14, 30, tzinfo=UTC)


def make_settings(**api: Any) -> AppSettings:
    return AppSettings(
        api=ApiSettings(api_key=SecretStr(KEY), **({"ack_timeout": ACK_SECONDS} | api)),
        desk=DeskSettings(symbols=("BTCUSDT", "ETHUSDT")),
        database=DatabaseSettings(database_url=SecretStr("postgresql://nobody:nothing@127.0.0.1:1/none")),
        log=LogSettings(),
        disks=DiskSettings(disk_folders=()),
        traces=TraceSettings(),
        temporal={},
        notify=NotifySettings(),
        redis=RedisSettings(),
    )


def make_carried(**changes: Any) -> Carried:
    facts: dict[str, Any] = {
        "desk": "main",
        "mode": Mode.PAPER,
        "symbols": ["BTCUSDT", "ETHUSDT"],
        "cycle_seconds": 5.0,
        "limits": Limits(),
        "search_attributes": True,
        "started_at": NOW,
        "since": NOW,
        "observation": make_observation(),
    }
    return Carried(**(facts | changes))


def make_observation(age_seconds: float = 0.0) -> Observation:
    at = datetime.now(UTC) - timedelta(seconds=age_seconds)
    return Observation(
        observed_at=at,
        data_time=at,
        marks={"BTCUSDT": Decimal("64000.5")},
        rules={},
        positions=[],
        open_orders=[],
        account=Account(balance=Decimal(100_000)),
    )


def make_decision(number: int = 1, **changes: Any) -> Decision:
    facts: dict[str, Any] = {
        "decision_id": f"decision_{number:032x}",
        "timestamp": NOW + timedelta(seconds=number),
        "decision_type": DecisionType.NO_ACTION,
        "summary": "No agent proposed an order",
    }
    return Decision(**(facts | changes))


class FakeGateway:
    """`DeskGateway` without Temporal. A failure that is set is raised by the call that it is named after."""

    def __init__(self) -> None:
        self.desk = "main"
        self.renew()

    def renew(self) -> None:
        """A new desk, without faults."""
        self.carried = make_carried()
        self.held = Decimal("0.25")
        self.signals: list[tuple[str, dict[str, Any]]] = []
        self.cancels: list[str] = []
        self.standing: str | None = None
        self.queries = self.urgent_queries = 0
        self.signal_error: Exception | None = None
        self.cancel_error: Exception | None = None
        self.query_error: Exception | None = None
        self.open_error: Exception | None = None
        self.no_worker = False
        self.leaves_deleverages = False
        self.shortfall: str | None = None
        self._numbers = itertools.count(1)

    async def signal(self, name: str, payload: dict[str, Any], seconds: float = 2.0) -> None:
        if self.signal_error:
            raise self.signal_error
        self.signals.append((name, payload))
        kind = kind_of(name)
        assert kind is not None
        (encoded,) = await pydantic_data_converter.encode([payload])
        raw = RawPayload(encoded.metadata["encoding"].decode(), encoded.data)
        applying.apply(self.carried, read_command(kind, [raw], "no-id"), self._tick())
        self._settle_deleverages()

    async def request_cancel(self, reason: str, seconds: float = 2.0) -> None:
        if self.cancel_error:
            raise self.cancel_error
        self.cancels.append(reason)
        applying.cancelled(self.carried, reason, self._tick())

    async def standing_cancellation(self, seconds: float) -> str | None:
        return self.standing or (self.cancels[0] if self.cancels else None)

    async def status(self) -> Status:
        return (await self.outcomes()).status

    async def outcomes(self, command_ids: Iterable[str] = (), *, urgent: bool = False) -> Outcomes:
        self.queries += 1
        self.urgent_queries += urgent
        if self.no_worker:
            await asyncio.sleep(60)
        if self.query_error:
            raise self.query_error
        found = outcomes_of(self.carried, list(command_ids), "run")
        return Outcomes.model_validate_json(found.model_dump_json())

    async def open_status(self) -> str | None:
        if self.open_error:
            raise self.open_error
        return "RUNNING"

    def _tick(self) -> Tick:
        return Tick(datetime.now(UTC), lambda prefix: f"{prefix}_{next(self._numbers):032x}")

    def _settle_deleverages(self) -> None:
        for pending in [] if self.leaves_deleverages else list(self.carried.deleverages):
            quantity = self.held * pending.reduce_pct
            self.held -= quantity
            refusal = None if quantity else f"There is no open position in {pending.symbol}."
            if quantity:
                self.carried.commands[pending.command.command_id].instruction = OrderInstruction(
                    symbol=pending.symbol,
                    side=Side.SELL,
                    order_type=OrderType.MARKET,
                    quantity=quantity,
                    reduce_only=True,
                )
            ordering.finish_deleverage(self.carried, pending, refusal, self._tick(), self.shortfall)


class FakeReports:
    """The decision log without a database."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """An empty log, without faults."""
        self.rows: list[Decision] = []
        self.points: list[EquityPoint] = []
        self.next_cursor: str | None = None
        self.asked: list[DecisionFilter] = []
        self.error: ApiError | None = None
        self.up = True
        self.hangs = False
        self.log: Reports | None = None
        self.database: str | None = None
        self.lacking: list[str] = []

    async def page(self, wanted: DecisionFilter) -> DecisionPage:
        self.asked.append(wanted)
        if self.error:
            raise self.error
        if self.log:
            return await self.log.page(wanted)
        until = [row for row in self.rows if wanted.until is None or row.timestamp < wanted.until]
        return until[: wanted.limit], self.next_cursor

    async def page_text(self, wanted: DecisionFilter) -> PageText:
        rows, cursor = await self.page(wanted)
        if self.log:
            return await self.log.page_text(wanted)
        return json.dumps([entry(row) for row in rows]), cursor

    async def instructions(self, desk: str, wanted: InstructionFilter, to_text: RowsToText[InstructionRow]) -> PageText:
        return await self.log.instructions(desk, wanted, to_text) if self.log else (to_text([]), None)

    async def fills(self, desk: str, wanted: PageFilter, to_text: RowsToText[StoredFill]) -> PageText:
        return await self.log.fills(desk, wanted, to_text) if self.log else (to_text([]), None)

    async def ledger(self, desk: str, wanted: PageFilter, to_text: RowsToText[StoredEntry]) -> PageText:
        return await self.log.ledger(desk, wanted, to_text) if self.log else (to_text([]), None)

    async def books(self, desk: str) -> PaperBooks | LiveBooks | None:
        return await self.log.books(desk) if self.log else None

    async def curve(self, desk: str, wanted: CurveFilter, to_text: RowsToText[EquityPoint]) -> str:
        if self.error:
            raise self.error
        return await self.log.curve(desk, wanted, to_text) if self.log else to_text(self.points)

    async def can_write(self) -> bool:
        if self.hangs:
            await asyncio.sleep(60)
        return self.up

    async def missing_rights(self) -> list[str]:
        return self.lacking

    async def database_id(self) -> str | None:
        return self.database

    def close(self) -> None:
        """Nothing to close."""


class FakeKeys:
    """The table of keys in memory. `error` is raised by each call, `hangs` keeps each waiting."""

    def __init__(self) -> None:
        self.rows: dict[str, AccessKey] = {}
        self.uses: dict[str, datetime] = {}
        self.error: Exception | None = None
        self.hangs = False
        self.readings = 0
        # How far its clock is behind this machine's.
        self.behind = timedelta(0)

    def add(
        self, name: str = "alice", role: Role = Role.OPERATOR, desks: tuple[str, ...] | None = None, **ends: Any
    ) -> str:
        """The text of a new key."""
        key_id = f"{len(self.rows):0{ID_CHARS}}"
        secret = write_key(key_id, os.urandom(SECRET_BYTES))
        shown = read_key(secret.encode())
        assert shown is not None
        self.rows[key_id] = AccessKey(key_id, shown.digest, name, role, desks, NOW, "cli:test", **ends)
        return secret

    def change(self, name: str, **changes: Any) -> None:
        for key in [key for key in self.rows.values() if key.name == name]:
            self.rows[key.key_id] = key._replace(**changes)

    async def read(self, before: KeyState | None, known: Mapping[str, AccessKey]) -> KeyReading:
        await self._answer()
        self.readings += 1
        state = KeyState(None, str(sorted(self.rows.values())))
        merged = None if state == before else merge(known, self.rows.values())
        return KeyReading(state, datetime.now(UTC) - self.behind, merged)

    async def keep_ends(self, ended: Sequence[AccessKey]) -> None:
        await self._answer()
        self.rows |= {key.key_id: key for key in ended}

    async def note_uses(self, uses: Mapping[str, datetime]) -> None:
        await self._answer()
        self.uses |= uses

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.error:
            raise self.error

    def close(self) -> None:
        """Nothing to close."""


class World:
    """The application, a client with the key and one without, and the fakes behind them."""

    def __init__(self, **settings: Any) -> None:
        self.gateway = FakeGateway()
        self.reports = FakeReports()
        self.keys = FakeKeys()
        self.app: FastAPI = create_app(make_settings(**settings), self.gateway, self.reports, self.keys)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://api", headers=AUTHORIZED)
        self.stranger = httpx.AsyncClient(transport=transport, base_url="http://api")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """Runs on fresh fakes and fresh parts. The application stays: building its routes takes a tenth of a second."""
        self.gateway.renew()
        self.reports.renew()
        async with self.app.router.lifespan_context(self.app):
            yield self

    async def state(self) -> str:
        return (await self.client.get("/control/status")).json()["state"]
