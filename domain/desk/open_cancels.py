"""Unconfirmed cancels by lane: one venue call at a time for each symbol and market.

The incident behind this file: with 200 symbols whose cancels the venue refused, each result searched all open cancels. A
new worker could not replay the run within a workflow task's time-out. It retried for ever, and so blocked the next kill. So
the cost of an operation here does not depend on other lanes.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from domain.trading.instructions import OpenCancel, Tool

Lane = tuple[Tool, str]


class OpenCancels:
    """Open cancels in the order in which they were prepared. Carried over as a list."""

    def __init__(self, cancels: Iterable[OpenCancel] = ()) -> None:
        self._lanes: dict[Lane, dict[str, OpenCancel]] = {}
        self._by_id: dict[str, OpenCancel] = {}
        # Counts all cancels ever added: a waiter notices new ones by comparing two numbers.
        self.added = 0
        for cancel in cancels:
            self.add(cancel)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[OpenCancel]:
        return iter(self._by_id.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenCancels) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def lanes(self) -> Collection[Lane]:
        """Each lane with an open cancel, oldest first."""
        return self._lanes.keys()

    def lane(self, tool: Tool, symbol: str) -> list[OpenCancel]:
        """The open cancels of one lane. A venue call that begins now confirms all of them."""
        return list(self._lanes.get((tool, symbol), {}).values())

    def has_fresh(self, tool: Tool, symbol: str) -> bool:
        """Whether the lane has a cancel that was never tried."""
        lane = self._lanes.get((tool, symbol))
        # A call covers the whole lane. So if any cancel was never tried, the newest was not.
        return bool(lane) and self.newest(tool, symbol).attempts == 0

    def has_room(self, tool: Tool, symbol: str, most: int) -> bool:
        """Whether the lane takes another cancel: it is below its bound, or the calls of all its cancels have begun."""
        lane = self._lanes.get((tool, symbol), {})
        # A call covers the whole lane, and later cancels queue behind it. So once the newest cancel's call has begun, all
        # have.
        return len(lane) < most or next(reversed(lane.values())).begun

    def newest(self, tool: Tool, symbol: str) -> OpenCancel:
        """The newest cancel of a lane, which must not be empty."""
        return next(reversed(self._lanes[tool, symbol].values()))

    def named(self, instruction_ids: Iterable[str]) -> list[OpenCancel]:
        """The open cancels with these ids."""
        return [self._by_id[name] for name in instruction_ids if name in self._by_id]

    def add(self, cancel: OpenCancel) -> None:
        """Adds a new one."""
        self._by_id[cancel.instruction_id] = cancel
        self._lanes.setdefault((cancel.tool, cancel.symbol), {})[cancel.instruction_id] = cancel
        self.added += 1

    def remove(self, cancels: Iterable[OpenCancel]) -> None:
        """Removes cancels that are confirmed or given up."""
        for cancel in cancels:
            del self._by_id[cancel.instruction_id]
            lane = self._lanes[cancel.tool, cancel.symbol]
            del lane[cancel.instruction_id]
            if not lane:
                del self._lanes[cancel.tool, cancel.symbol]

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed = core_schema.no_info_after_validator_function(cls, handler.generate_schema(list[OpenCancel]))
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), listed],
            serialization=core_schema.plain_serializer_function_ser_schema(
                list, return_schema=handler.generate_schema(list[OpenCancel])
            ),
        )
