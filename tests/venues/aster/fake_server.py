"""A fake Aster MCP server, with the official one's schemas and every fault at the turn of a switch.

In a test it runs inside the process (`running.py`). By itself:

    python -m tests.venues.aster.fake_server --port 9002        streamable HTTP on /mcp, SSE on /sse, switches on /control
    python -m tests.venues.aster.fake_server --stdio

    curl localhost:9002/control/state
    curl localhost:9002/control/faults -d '{"errors": {"create_order": 503}, "executes": true}'
    curl localhost:9002/control/habits -d '{"hedge": true}'
    curl localhost:9002/control/position -d '{"BTCUSDT": "0.5"}'
    curl localhost:9002/control/rest -d '{"symbol": "BTCUSDT", "spot": false}'
    curl localhost:9002/control/book -d '{"kind": "FUNDING_FEE", "amount": "-1.5", "symbol": "BTCUSDT"}'
    curl localhost:9002/control/stranger -d '{"symbol": "BTCUSDT", "side": "BUY", "quantity": "0.01"}'
    curl -X POST localhost:9002/control/reset
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import uvicorn
from mcp import MCPError
from mcp.server.lowlevel.server import Server
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp_types import METHOD_NOT_FOUND, CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from tests.venues.aster.exchange import DAY, Exchange, Habits, Refusal
from tests.venues.aster.faults import Faults, error_text

ACCOUNT = "main"
SCHEMAS: dict[str, dict[str, Any]] = {
    tool["name"]: tool for tool in json.loads((Path(__file__).parent / "schemas.json").read_text())
}
# Of the tools that are used: those whose results have no schema, by the contract.
WITHOUT_SCHEMA = {"get_income", "get_funding_rate", "get_funding_info", "get_leverage_bracket"}
Answer = Callable[[Exchange, Mapping[str, Any]], Any]


def validator_of(tool: Mapping[str, Any]) -> Any:
    """Of a call's arguments. `jsonschema.validate` would check the schema itself with each call, ten times the work."""
    return jsonschema.validators.validator_for(tool["inputSchema"])(tool["inputSchema"])


VALIDATORS = {name: validator_of(tool) for name, tool in SCHEMAS.items()}


class Failed(Exception):
    """A tool failed; the text is what the client gets."""


class FakeServer:
    """The tools over one exchange. `calls` counts them, `most_at_once` is how many ran at the same time at most."""

    def __init__(self, *, account: str = ACCOUNT, legacy: bool = False, version: str = "4.2.3") -> None:
        self._account = account
        self.exchange = Exchange()
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.arguments: list[tuple[str, dict[str, Any]]] = []
        self.metas: list[object] = []
        self.most_at_once = 0
        self._at_once = 0
        self._running: set[asyncio.Task[CallToolResult]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._schemas = {name: dict(tool) for name, tool in SCHEMAS.items()}
        self._validators = dict(VALIDATORS)
        self.server: Server[Any] = Server(
            "fake-aster-mcp",
            version=version,
            on_list_tools=self._list,
            on_call_tool=self._call,
            # Otherwise the SDK lists all tools anew for each call.
            get_tool_input_schema=lambda tool: self._schemas.get(tool, {}).get("inputSchema"),
        )
        if legacy:
            # A server of before 2026-07-28 knows the handshake alone.
            self.server.add_request_handler("server/discover", CallToolRequestParams, self._unknown)

    def reset(self) -> None:
        """As on the first day."""
        for call in self._running:
            call.cancel()
        self.exchange, self.faults = Exchange(), Faults()
        self.calls.clear()
        self.arguments.clear()
        self.metas.clear()
        self.most_at_once = 0

    def change_schema(self, tool: str, argument: str, schema: dict[str, Any]) -> None:
        """As another version of the server would have it. For connections made after this."""
        changed = json.loads(json.dumps(self._schemas[tool]))
        changed["inputSchema"]["properties"][argument] = schema
        self._schemas[tool] = changed
        self._validators[tool] = validator_of(changed)

    def sent(self, tool: str) -> list[dict[str, Any]]:
        """The arguments of every call of a tool."""
        return [arguments for name, arguments in self.arguments if name == tool]

    async def _unknown(self, context: object, params: object) -> ListToolsResult:
        raise MCPError(code=METHOD_NOT_FOUND, message="Method not found")

    async def _list(self, context: object, params: object) -> ListToolsResult:
        return ListToolsResult(tools=[Tool.model_validate(tool, by_name=False) for tool in self._schemas.values()])

    async def _call(self, context: object, params: CallToolRequestParams) -> CallToolResult:
        tool, arguments = params.name, dict(params.arguments or {})
        self.calls[tool] += 1
        self.arguments.append((tool, arguments))
        self.metas.append(params.meta)
        # A client that gives up stops nothing: the official server's tools run in threads.
        running = asyncio.create_task(self._counted(tool, arguments))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.shield(running)

    async def _counted(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self._result(tool, await self._answer(tool, arguments))
        except Failed as error:
            return CallToolResult(content=[TextContent(text=str(error))], is_error=True)
        finally:
            self._at_once -= 1

    async def _answer(self, tool: str, arguments: dict[str, Any]) -> Any:
        if self.faults.serial:
            async with self._one_at_a_time:
                return await self._run(tool, arguments)
        return await self._run(tool, arguments)

    async def _run(self, tool: str, arguments: dict[str, Any]) -> Any:
        faults = self.faults
        if tool in faults.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(faults.of(faults.slow, tool) or 0)
        while tool in faults.held:
            await asyncio.sleep(0.01)
        while self.most_at_once < (faults.of(faults.gathers, tool) or 0):
            await asyncio.sleep(0.005)
        self._validate(tool, arguments)
        status = faults.error(tool, arguments.get("symbol"))
        answer = None if status is not None and not faults.executes else self._ask(tool, arguments)
        await asyncio.sleep(faults.of(faults.late, tool) or 0)
        if status is not None:
            raise Failed(error_text(tool, status))
        return faults.answer(tool, arguments, answer)

    def _validate(self, tool: str, arguments: dict[str, Any]) -> None:
        if error := jsonschema.exceptions.best_match(self._validators[tool].iter_errors(arguments)):
            raise Failed(f"1 validation error for call[{tool}]\n{error.message}, input_value={arguments}")
        if arguments.get("account_id", self._account) != self._account:
            raise Failed(f"Error calling tool '{tool}': account {arguments['account_id']} does not exist")

    def _ask(self, tool: str, arguments: dict[str, Any]) -> Any:
        if tool == "ping" and self.faults.ping_fails:
            return {"ok": False, "error": error_text(tool, 0)}
        try:
            return ANSWERS[tool](self.exchange, arguments)
        except Refusal as refusal:
            raise Failed(error_text(tool, refusal.status)) from None

    def _result(self, tool: str, answer: Any) -> CallToolResult:
        text = [TextContent(text=json.dumps(answer))]
        if tool in WITHOUT_SCHEMA and not isinstance(answer, dict):
            # fastmcp, for a result without a schema: a list is one text, and of `[]` and `null` nothing is left.
            return CallToolResult(content=text if answer else [])
        if self.faults.text_only:
            return CallToolResult(content=text)
        wrapped = {"result": answer} if isinstance(answer, list) else answer
        return CallToolResult(content=text, structured_content=wrapped)

    # --- over HTTP -------------------------------------------------------------------------------------------------------

    def app(self) -> Starlette:
        """Both HTTP transports, and the switches."""
        sse = SseServerTransport("/messages/")

        async def connect(scope: Scope, receive: Receive, send: Send) -> None:
            async with sse.connect_sse(scope, receive, send) as (read, write):
                await self.server.run(read, write, self.server.create_initialization_options())

        routes: list[Any] = [
            Route("/sse", _Endpoint(connect)),
            Mount("/messages/", app=sse.handle_post_message),
            Route("/control/state", self._state),
            Route("/control/{what}", self._control, methods=["POST"]),
        ]
        return self.server.streamable_http_app(custom_starlette_routes=routes)

    async def _state(self, request: Request) -> Response:
        exchange = self.exchange
        return JSONResponse(
            {
                "positions": {symbol: str(held) for symbol, held in exchange.positions.items()},
                "orders": [order.row() for order in exchange.orders],
                "wallet": str(exchange.wallet),
                "trades": exchange.trades,
                "ledger": exchange.ledger,
                "spot_orders": [order.row() for order in exchange.spot_orders],
                "calls": dict(self.calls),
                "most_at_once": self.most_at_once,
            }
        )

    async def _control(self, request: Request) -> Response:
        body = await request.body()
        switches: dict[str, Any] = json.loads(body) if body else {}
        match request.path_params["what"]:
            case "faults":
                self.faults.change(**switches)
            case "habits":
                self.exchange.habits = Habits(**(vars(self.exchange.habits) | switches))
            case "position":
                self.exchange.positions |= {symbol: Decimal(held) for symbol, held in switches.items()}
            case "mark":
                self.exchange.marks |= {symbol: Decimal(mark) for symbol, mark in switches.items()}
            case "book":
                kind, amount = switches.pop("kind"), switches.pop("amount")
                self.exchange.book(kind, Decimal(amount), **switches)
            case "stranger":
                self.exchange.stranger(**switches)
            case "rest":
                self.exchange.rest(**switches)
            case "reset":
                self.reset()
            case unknown:
                return JSONResponse({"no such switch": unknown}, 404)
        return await self._state(request)


class _Endpoint:
    """A bare ASGI endpoint, which Starlette takes where it is no function."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Any]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _klines(exchange: Exchange, arguments: Mapping[str, Any]) -> list[list[Any]]:
    exchange.known(arguments["symbol"])
    minute = int(time.time()) // 60 * 60_000
    price = str(exchange.marks[arguments["symbol"]])
    numbers = range(int(arguments.get("limit", 100)) - 1, -1, -1)
    return [
        [o := minute - n * 60_000, price, price, price, price, "10", o + 59_999, "0", 1, "0", "0", "0"] for n in numbers
    ]


def _book(exchange: Exchange, arguments: Mapping[str, Any]) -> dict[str, Any]:
    exchange.known(arguments["symbol"])
    mark = exchange.marks[arguments["symbol"]]
    return {"E": _now(), "T": _now(), "bids": [[str(mark - 1), "2"]], "asks": [[str(mark + 1), "3"]]}


def _premium(exchange: Exchange, arguments: Mapping[str, Any]) -> Any:
    exchange.known(arguments.get("symbol"))
    rows = [
        {"symbol": symbol, "markPrice": str(mark), "lastFundingRate": "0.0001", "time": _now()}
        for symbol, mark in exchange.marks.items()
        if arguments.get("symbol") in (None, symbol)
    ]
    return rows[0] if arguments.get("symbol") else rows


def _ticker(exchange: Exchange, arguments: Mapping[str, Any]) -> dict[str, Any]:
    exchange.known(arguments["symbol"])
    mark = exchange.marks[arguments["symbol"]]
    return {"symbol": arguments["symbol"], "lastPrice": str(mark), "closeTime": _now()}


def _open(exchange: Exchange, arguments: Mapping[str, Any], spot: bool = False) -> list[dict[str, Any]]:
    exchange.known(arguments.get("symbol"))
    return [order.row() for order in exchange.open_orders(arguments.get("symbol"), spot)]


def _cancel(exchange: Exchange, arguments: Mapping[str, Any], spot: bool = False) -> dict[str, Any]:
    exchange.cancel_all(arguments["symbol"], spot)
    # The code of the one market is a string, of the other a number.
    return {"code": 200 if spot else "200", "msg": "The operation of cancel all open order is done."}


def _order(exchange: Exchange, arguments: Mapping[str, Any], spot: bool = False) -> dict[str, Any]:
    listed = exchange.spot_orders if spot else exchange.orders
    found = [order for order in listed if order.order_id == arguments["order_id"]]
    if not found:
        raise Refusal(400)
    return found[0].row()


def _all_orders(exchange: Exchange, arguments: Mapping[str, Any], spot: bool = False) -> list[dict[str, Any]]:
    exchange.known(arguments["symbol"])
    until = arguments.get("end_time") or _now() + DAY
    since = arguments.get("start_time") or until - 7 * DAY
    if until - since > 8 * DAY:
        raise Refusal(400)
    listed = exchange.spot_orders if spot else exchange.orders
    found = [o.row() for o in listed if o.symbol == arguments["symbol"] and since <= o.time_ms <= until]
    # Of more than a page the newest.
    return found[-min(arguments.get("limit", 500), exchange.habits.page_rows) :]


def _of_known(exchange: Exchange, rows: list[dict[str, Any]], arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    exchange.known(arguments["symbol"])
    return rows


def _now() -> int:
    return int(time.time() * 1000)


ANSWERS: dict[str, Answer] = {
    "ping": lambda exchange, arguments: {},
    "get_ticker": _ticker,
    "get_klines": _klines,
    "get_order_book": _book,
    "get_funding_rate": _premium,
    "get_funding_info": lambda exchange, arguments: [{"symbol": "ETHUSDT", "fundingIntervalHours": 4}],
    "get_exchange_info": lambda exchange, arguments: exchange.info_row(),
    "get_leverage_bracket": lambda exchange, arguments: [
        {"symbol": "BTCUSDT", "brackets": [{"bracket": 1, "maintMarginRatio": 0.004}]}
    ],
    "get_positions": lambda exchange, arguments: exchange.position_rows(arguments.get("symbol")),
    "get_account_v4": lambda exchange, arguments: exchange.account_row(),
    "get_account_info": lambda exchange, arguments: exchange.account_row(),
    "get_spot_account": lambda exchange, arguments: exchange.spot_row(),
    "get_spot_order": lambda exchange, arguments: _order(exchange, arguments, spot=True),
    "get_spot_all_orders": lambda exchange, arguments: _all_orders(exchange, arguments, spot=True),
    "get_open_orders": _open,
    "get_spot_open_orders": lambda exchange, arguments: _open(exchange, arguments, spot=True),
    "get_all_orders": _all_orders,
    "get_order": _order,
    "get_my_trades": lambda exchange, arguments: exchange.listed(
        _of_known(exchange, exchange.trades, arguments), arguments
    ),
    "get_income": lambda exchange, arguments: exchange.listed(exchange.ledger, arguments),
    "create_order": lambda exchange, arguments: exchange.place(dict(arguments)).row(),
    "cancel_order": lambda exchange, arguments: exchange.cancel(arguments["symbol"], arguments["order_id"]).row(),
    "cancel_all_orders": _cancel,
    "cancel_spot_all_orders": lambda exchange, arguments: _cancel(exchange, arguments, spot=True),
}


async def _over_stdio() -> None:
    server = FakeServer().server
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description="A fake Aster MCP server.")
    parser.add_argument("--port", type=int, default=9002)
    parser.add_argument("--stdio", action="store_true", help="serve over standard input and output instead")
    parser.add_argument("--account", default=ACCOUNT, help="the one account_id that it knows")
    parser.add_argument("--legacy", action="store_true", help="know only the handshake of before 2026-07-28")
    arguments = parser.parse_args()
    if arguments.stdio:
        asyncio.run(_over_stdio())
    else:
        app = FakeServer(account=arguments.account, legacy=arguments.legacy).app()
        uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
