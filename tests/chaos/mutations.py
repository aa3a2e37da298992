"""Ways in which AIS could be broken, three or more an invariant: small changes of its text, applied to a copy of the tree."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.forking import ROOT

# What a process of AIS, and the zygote that starts it, are made of.
PARTS = ("activities", "api", "cli", "console", "domain", "notify", "replay", "settings", "storage", "workflows")
FILES = ("worker.py", "startup.py", "tracing.py", "pyproject.toml")
OF_THE_TESTS = ("tests/chaos", "tests/venues", "tests/deploy", "tests/postgres.py")


@dataclass(frozen=True)
class Edit:
    """One text instead of another, which stands exactly once in the file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One way to be wrong, and the invariant that it breaks."""

    name: str
    invariant: str
    edits: tuple[Edit, ...]


def _mutation(invariant: str, name: str, *edits: tuple[str, str, str]) -> Mutation:
    return Mutation(name, invariant, tuple(Edit(*edit) for edit in edits))


APPLYING, OUTBOX, KILLING = "domain/desk/applying.py", "domain/desk/outbox.py", "domain/desk/killing.py"
CYCLE, LANES, CONTROL = "domain/desk/cycle.py", "workflows/lanes.py", "api/routes/control.py"
KILL_ROUTE = "    # A kill's path needs no database, no thread pool and no limiter.\n"
COMMIT_THEN_SEND = (
    "    report = await _commit(c, row, pending.order, outside) or await _send(c, pending, limits, outside)\n"
)
SEND_THEN_COMMIT = """    report = await _send(c, pending, limits, outside)
    await _commit(c, row, pending.order, outside)
"""
CACHED = """    import time

    seen = status.__dict__
    if time.monotonic() > seen.get("until", 0.0):
        seen |= {"state": (await parts.desk.read()).status.state, "until": time.monotonic() + 1.5}
    return StateAnswer(state=seen["state"])
"""
READS_FIRST = """    from contextlib import suppress

    from storage.desks import read_desk

    with suppress(Exception):
        # The latch first: perhaps it is killed already.
        await parts.reports._database.run(lambda connection: read_desk(connection, parts.desk_name), 30.0)
"""
ONE_AT_A_TIME = """            async with self._desk.__dict__.setdefault("lock", asyncio.Lock()):
                with self._desk.carrying_out():
                    return await self._carry_out(ask)
"""

MUTATIONS = (
    _mutation(
        "I1", "a refusal is not recorded",
        (APPLYING, "    record.detail, record.code = refusal\n    _log_refusal(c, command, refusal.detail, tick)\n",
         "    record.detail, record.code = refusal\n"),
    ),
    _mutation(
        "I1", "rows that came while a batch was written are dropped",
        (OUTBOX, "    del c.records[: len(batch.decisions)]\n", "    c.records.clear()\n"),
    ),
    _mutation(
        "I1", "half of a turn of signals is forgotten",
        ("workflows/coordinator.py", "        for arrival in self._arrivals.turn():\n",
         "        for arrival in list(self._arrivals.turn())[:2]:\n"),
    ),
    _mutation(
        "I2", "resume brings a killed desk back",
        ("domain/desk/states.py",
         "(State.KILLED, CommandKind.RESUME): Transition(State.KILLED, KILLED_REFUSAL)",
         "(State.KILLED, CommandKind.RESUME): Transition(State.RUNNING)"),
    ),
    _mutation(
        "I2", "the latch is not written",
        ("workflows/outbox.py", "        if c.latch_due:\n", "        if False:\n"),
    ),
    _mutation(
        "I2", "a second kill turns killed into paused",
        (KILLING, "    _stand_down(c, command, tick)\n    record = remember",
         "    _stand_down(c, command, tick)\n    c.state = State.PAUSED if repeated else c.state\n    record = remember"),
    ),
    _mutation(
        "I3", "a worker asks nobody before it sends",
        ("activities/act.py",
         "        adds_risk = (partial(self._latch_refusal, order.desk), partial(self._coordinator_refusal, call))\n",
         "        adds_risk = ()\n"),
        ("workflows/run.py", "            self._order.cancel()\n", "            pass\n"),
        (CYCLE, "    if not takes_risk(c, outside):\n        return f\"the coordinator",
         "    if False:\n        return f\"the coordinator"),
    ),
    _mutation(
        "I3", "a kill cancels futures only",
        (KILLING, " else symbols, CANCEL_TOOLS):\n", " else symbols, CANCEL_TOOLS[:1]):\n"),
    ),
    _mutation(
        "I3", "a cancel of the paper venue does nothing",
        ("storage/paper.py",
         "    return _cancel(connection, desk, paper_orders.c.market == market, paper_orders.c.symbol == clean(symbol))\n",
         "    return 0\n"),
    ),
    _mutation(
        "I4", "the server may try an order twice",
        ("activities/options.py",
         "    \"start_to_close_timeout\": timedelta(seconds=15),\n    \"retry_policy\": _ONCE,\n",
         "    \"start_to_close_timeout\": timedelta(seconds=15),\n    \"retry_policy\": _TWICE,\n"),
    ),
    _mutation("I4", "a command's id is not remembered", (APPLYING, "    if known and not must_kill:\n", "    if False:\n")),
    _mutation(
        "I4", "an order whose fate is unknown is sent again",
        (CYCLE, "    return await outside.send(order)\n",
         "    report = await outside.send(order)\n"
         "    return report if report.fate is not Fate.UNKNOWN else await outside.send(order)\n"),
    ),
    _mutation(
        "I4", "a replaced order is not cancelled",
        ("domain/desk/requoting.py",
         "    return quotes_of(c.quotes.values(), order.agent_id, order.instruction.symbol)\n", "    return []\n"),
    ),
    _mutation("I5", "a decision is committed after its order", (CYCLE, COMMIT_THEN_SEND, SEND_THEN_COMMIT)),
    _mutation(
        "I5", "an order's decision is left out of its transaction",
        ("activities/record.py", "insert_decisions(connection, batch.decisions)",
         "insert_decisions(connection, [row for row in batch.decisions if not row.selected_order_id])"),
    ),
    _mutation(
        "I5", "cancels wait until the rows are written",
        (LANES, "        lanes = [lane for lane in self._c.cancels.lanes if lane not in self._running]\n",
         "        lanes = [lane for lane in self._c.cancels.lanes if lane not in self._running and not self._c.records]\n"),
    ),
    _mutation(
        "I6", "an API remembers the state for a second and a half",
        (CONTROL, "    return StateAnswer(state=(await parts.desk.read()).status.state)\n", CACHED),
    ),
    _mutation(
        "I6", "a failed signal is reported as recorded",
        ("workflows/gateway.py", "                    raise await self._signal_error(error, maybe_recorded) from error\n",
         "                    return\n"),
    ),
    _mutation(
        "I6", "a failed cancel is reported as confirmed",
        ("workflows/cancelling.py", "        if failed:\n", "        if False:\n"),
    ),
    _mutation(
        "I6", "an order is reported as completely filled",
        ("domain/paper/view.py", '"filled_quantity": order.filled_quantity,', '"filled_quantity": order.quantity,'),
    ),
    _mutation(
        "I6", "a reading leaves out what rests",
        ("domain/paper/view.py", " for order in book.open_orders]\n", " for order in book.open_orders[:0]]\n"),
    ),
    _mutation(
        "I7", "strangers are let in",
        ("api/keys.py", "        if hmac.compare_digest(_digest(token), self._own):\n", "        if True:\n"),
    ),
    _mutation(
        "I7", "a paused desk goes on trading",
        (CYCLE, "    return outside.latch_read and c.state is State.RUNNING\n",
         "    return outside.latch_read and c.state is not State.KILLED\n"),
        ("activities/act.py", "        if answer.state is not State.RUNNING:\n", "        if answer.state is State.KILLED:\n"),
        ("workflows/run.py", "        if (changed or self.c.state is not State.RUNNING) and",
         "        if (changed or self.c.state is State.KILLED) and"),
        ("domain/desk/states.py", "(State.PAUSED, CommandKind.PROPOSE): Transition(State.PAUSED, PAUSED_REFUSAL)",
         "(State.PAUSED, CommandKind.PROPOSE): Transition(State.PAUSED)"),
    ),
    _mutation(
        "I7", "a stale answer of the coordinator is good enough",
        ("activities/clearance.py", "FRESH_SECONDS = 0.5\n", "FRESH_SECONDS = 30.0\n"),
        ("activities/act.py",
         "        adds_risk = (partial(self._latch_refusal, order.desk), partial(self._coordinator_refusal, call))\n",
         "        adds_risk = (self._stale, partial(self._latch_refusal, order.desk))\n"),
        ("activities/act.py", "    async def _coordinator_refusal(self, call: OrderCall) -> str | None:\n",
         "    async def _stale(self) -> str | None:\n"
         "        self.__dict__.setdefault(\"word\", await self._ask())\n"
         "        return None\n\n"
         "    async def _coordinator_refusal(self, call: OrderCall) -> str | None:\n"),
    ),
    _mutation(
        "I7", "an order goes out for twice its quantity",
        ("domain/paper/book.py", '"quantity": instruction.quantity,', '"quantity": 2 * instruction.quantity,'),
    ),
    _mutation(
        "I7", "a deleverage takes twice what was asked for",
        ("domain/risk/reducing.py", "    wanted = size * reduce_pct if", "    wanted = min(size, 2 * size * reduce_pct) if"),
    ),
    _mutation("I8", "a kill over HTTP reads the database first", (CONTROL, KILL_ROUTE, READS_FIRST)),
    _mutation(
        "I8", "a kill waits for the commands before it",
        ("api/commands.py",
         "            with self._desk.carrying_out():\n                return await self._carry_out(ask)\n", ONE_AT_A_TIME),
    ),
    _mutation(
        "I8", "cancels are begun ten seconds late",
        (LANES, "            began = workflow.now()\n            ids = [",
         "            await workflow.sleep(10)\n            began = workflow.now()\n            ids = ["),
    ),
    # --- a second set, invented once the first one was caught: what no rule had compared yet ---
    _mutation(
        "I1", "a proposal's outcome is never noted",
        ("domain/desk/inbox.py",
         "        record.outcome = Outcome.REFUSED if refusal else Outcome.APPLIED\n",
         "        record.outcome = Outcome.PENDING\n"),
    ),
    _mutation(
        "I2", "a restart overruns a kill that came meanwhile",
        (APPLYING, "    if error is None and c.kill_number != restart.kill_number:\n", "    if False:\n"),
    ),
    _mutation(
        "I2", "a repeated kill has the number of the one before",
        (KILLING, "    c.kill_number += 1\n", "    c.kill_number += c.state is not State.KILLED\n"),
    ),
    _mutation(
        "I3", "nothing is canceled again once an order's fate is known",
        (OUTBOX, "    return report.fate.is_known and begun and c.state is State.KILLED\n", "    return False\n"),
    ),
    _mutation(
        "I3", "a cancel_all cancels the first symbol alone",
        (APPLYING, "    issue_cancels(c, record, symbols, tick)\n    queue_row(c, control_row(c, command, \"applied\", tick))\n",
         "    issue_cancels(c, record, symbols[:1], tick)\n    queue_row(c, control_row(c, command, \"applied\", tick))\n"),
    ),
    _mutation(
        "I4", "a command's id is forgotten after five others",
        (APPLYING, "        kill(c, command, tick)\n    elif refusal := _refusal(",
         "        kill(c, command, tick)\n        for old in [*c.commands][:-5]:\n"
         "            _forget(c, old)\n    elif refusal := _refusal("),
        (APPLYING, "    forget_old_commands(c, tick)\n\n\ndef failed_to_apply",
         "    forget_old_commands(c, tick)\n    for old in [*c.commands][:-5]:\n        _forget(c, old)\n\n\n"
         "def _forget(c: Carried, old: str) -> None:\n"
         "    if c.commands[old].outcome is not Outcome.PENDING:\n        del c.commands[old]\n\n\n"
         "def failed_to_apply"),
    ),
    _mutation(
        "I4", "a deleverage is sent twice",
        ("workflows/outbox.py",
         "        report = await self._run.send_order(placed.order)\n        self._closed",
         "        report = await self._run.send_order(placed.order)\n"
         "        again = placed.order.model_copy(update={\"order_id\": f\"{placed.order.order_id}-2\"})\n"
         "        await self._run.send_order(again)\n        self._closed"),
    ),
    _mutation(
        "I5", "a reduction waits until the rows are written",
        ("workflows/outbox.py",
         "        report = await self._run.send_order(placed.order)\n        self._closed",
         "        await workflow.wait_condition(lambda: not self._c.instruction_rows, timeout=5)\n"
         "        report = await self._run.send_order(placed.order)\n        self._closed"),
    ),
    _mutation(
        "I6", "a kill is reported as verified once its cancels are confirmed",
        (OUTBOX, "        c.kill.quiet_at, c.row_dirty = now, True\n",
         "        c.kill.quiet_at, c.row_dirty, c.kill.verified_at = now, True, now\n"),
    ),
    _mutation(
        "I7", "an order may go out for a minute",
        ("domain/desk/ordering.py",
         '            "not_after": tick.now + timedelta(seconds=max(c.cycle_seconds, SHORTEST_ORDER_SECONDS)),\n',
         '            "not_after": tick.now + timedelta(seconds=60),\n'),
    ),
    _mutation(
        "I7", "new limits do not stop an order that is decided",
        (CYCLE, "    if c.limits != limits:\n", "    if False:\n"),
        ("activities/act.py", "        outdated = call.limits is not None and call.limits != answer.limits\n",
         "        outdated = False\n"),
    ),
    _mutation(
        "I7", "a key that was revoked goes on",
        ("api/keys.py", "        if keys is not None:\n            self._keys = keys\n",
         "        if keys is not None and not self._keys:\n            self._keys = keys\n"),
    ),
    # --- a third set: what only these rounds send, and only these rules compare ---
    _mutation(
        "I1", "a kill whose input is no object is dropped",
        ("workflows/coordinator.py",
         "        command = read_command(arrival.kind, arrival.payloads, tick.new_id(\"command\"))\n",
         "        command = read_command(arrival.kind, arrival.payloads, tick.new_id(\"command\"))\n"
         "        if not command.named and command.reason == \"manual kill switch\":\n            return\n"),
    ),
    _mutation(
        "I1", "a cancellation does nothing",
        ("workflows/coordinator.py",
         "            applying.cancelled(self._run.c, reason, self._run.note_arrival())\n", "            _ = reason\n"),
    ),
    _mutation(
        "I1", "a refused command is pending for whoever looks it up",
        ("api/command_answers.py", "            return {**head, \"detail\": outcome.detail or \"refused\"}\n",
         "            return {**head, \"outcome\": \"pending\", **pending_body(outcome)}\n"),
    ),
    _mutation(
        "I1", "the rows of commands are left out of the audit chain",
        ("activities/record.py", "[*map(decision_entry, decisions), ",
         "[*(decision_entry(row) for row in decisions if not row.command_id), "),
    ),
    _mutation(
        "I2", "a run that continues as new runs",
        ("domain/desk/handover.py", "    bulk = _Bulk(**{name",
         "    carried.state = State.RUNNING\n    bulk = _Bulk(**{name"),
        ("domain/desk/handover.py", "from domain.desk.recording import",
         "from domain.desk.states import State\nfrom domain.desk.recording import"),
    ),
    _mutation(
        "I3", "cancels are lost when a run continues as new",
        ("domain/desk/handover.py", "    text = bulk.model_dump_json()\n",
         "    carried = carried.model_copy(update={\"cancels\": OpenCancels()})\n    text = bulk.model_dump_json()\n"),
    ),
    _mutation(
        "I4", "an Idempotency-Key is not read",
        ("api/json_route.py", "    return keys[0] if len(keys) == 1 and _KEY.fullmatch(keys[0]) else None\n",
         "    return keys[0] if len(keys) > 1 else None\n"),
    ),
    _mutation(
        "I6", "the log names the wrong sender",
        ("domain/desk/recording.py", "{result} by {command.actor}: ", "{result} by temporal: "),
    ),
    _mutation(
        "I7", "limits are answered and forgotten",
        (APPLYING, "    c.limits = limits\n", ""),
    ),
    # --- a fourth set: ids that come again, keys of several people, pages, a kill in one place, and what readers are told ---
    _mutation(
        "I1", "a kill under the id of another command is refused",
        (APPLYING, "must_kill = command.kind is CommandKind.KILL and about_to_run\n",
         "must_kill = command.kind is CommandKind.KILL and about_to_run\n"
         "    must_kill = must_kill and (known is None or known.kind is command.kind)\n"),
    ),
    _mutation(
        "I2", "a kill that repeats an id from before a restart does nothing",
        (APPLYING, "    if known and not must_kill:\n",
         "    if known and (not must_kill or known.kind is CommandKind.KILL):\n"),
    ),
    _mutation(
        "I2", "a restart clears whichever kill the database holds",
        ("storage/desks.py", "        return stored.kill_number == cleared.number and not another\n",
         "        return another is not stored\n"),
    ),
    _mutation(
        "I2", "a kill that only the database holds is not taken over",
        ("domain/desk/latch.py", "    if latch.killed and c.state is not State.KILLED:\n", "    if False:\n"),
    ),
    _mutation(
        "I6", "every key signs as the administrator",
        ("api/auth.py", "    return holder.actor if holder else OWN_ACTOR\n", "    return OWN_ACTOR\n"),
    ),
    _mutation(
        "I6", "each page of the log leaves a row out",
        ("storage/paging.py",
         '        end = f"{rows[-1][str(self.moment.key)].isoformat()}|{rows[-1][str(self.row_id.key)]}"\n',
         '        last = found[-1]\n'
         '        end = f"{last[str(self.moment.key)].isoformat()}|{last[str(self.row_id.key)]}"\n'),
    ),
    _mutation(
        "I6", "a kill that nobody has confirmed is answered as done",
        ("api/commands.py", "            return self._accepted(ask, *told[:1])\n",
         "            answer = self._accepted(ask, *told[:1])\n"
         "            return answer._replace(status=200) if ask.kind is CommandKind.KILL else answer\n"),
    ),
    _mutation(
        "I6", "an order whose time ran out was not sent",
        ("workflows/run.py", "isinstance(cause, CancelledError) else Fate.UNKNOWN",
         "isinstance(cause, CancelledError | TimeoutError) else Fate.UNKNOWN"),
    ),
    _mutation(
        "I7", "limits may be loosened while the desk runs",
        (APPLYING, "    if looser and c.state is not State.PAUSED:\n", "    if looser and c.state is State.KILLED:\n"),
    ),
    _mutation(
        "I7", "an operator may change limits",
        (CONTROL, '@see("risk")\n@needs(Role.ADMIN)\nasync def set_limits',
         '@see("risk")\n@needs(Role.OPERATOR)\nasync def set_limits'),
    ),
    _mutation(
        "I7", "the peak is forgotten when a run continues as new",
        ("domain/desk/handover.py", "    bulk = _Bulk(**{name", "    carried.risk = RiskMemory()\n    bulk = _Bulk(**{name"),
        ("domain/desk/handover.py", "from domain.trading.decisions import",
         "from domain.trading.assessment import RiskMemory\nfrom domain.trading.decisions import"),
    ),
    _mutation(
        "I8", "a kill waits for admission like other commands",
        ("api/commands.py",
         "        if ask.kind is not CommandKind.KILL:\n            ask.need_readable()\n            await self._desk.admit()\n",
         "        await self._desk.admit()\n        if ask.kind is not CommandKind.KILL:\n            ask.need_readable()\n"),
    ),
    # --- a fifth set: what a run hands over, answers that are on their way, keys with another body, and limits ---
    _mutation(
        "I4", "an order whose fate is unknown is forgotten when a run continues as new",
        ("domain/desk/handover.py", "    bulk = _Bulk(**{name",
         "    carried = carried.model_copy(update={\"orders\": []})\n    bulk = _Bulk(**{name"),
    ),
    _mutation(
        "I4", "what an agent has at rest is forgotten when a run continues as new",
        ("domain/desk/handover.py", "    bulk = _Bulk(**{name",
         "    carried = carried.model_copy(update={\"quotes\": {}})\n    bulk = _Bulk(**{name"),
    ),
    _mutation(
        "I4", "a reduction whose answer is lost is sent again",
        ("workflows/outbox.py",
         "        report = await self._run.send_order(placed.order)\n        self._closed",
         "        report = await self._run.send_order(placed.order)\n"
         "        if not report.fate.is_known:\n"
         "            again = placed.order.model_copy(update={\"order_id\": f\"{placed.order.order_id}-2\"})\n"
         "            report = await self._run.send_order(again)\n"
         "            report = report.model_copy(update={\"order_id\": placed.order.order_id})\n"
         "        self._closed"),
    ),
    _mutation(
        "I4", "a key's second command is answered as the first",
        ("api/commands.py", "        if outcome.fingerprint == ask.fingerprint:\n", "        if outcome.fingerprint:\n"),
    ),
    _mutation(
        "I5", "an order is sent although its decision could not be written",
        (CYCLE, "        return _not_sent(order, f\"its decision could not be committed: {failed}\")\n",
         "        return None if failed else _not_sent(order, \"\")\n"),
    ),
    _mutation(
        "I6", "a reading of the state joins a query that is under way",
        ("workflows/shared_query.py",
         "        batch = self._with_room({*command_ids}, self._urgent if urgent else self._waiting)\n",
         "        current = self.__dict__.get(\"current\")\n"
         "        if current is not None and not current.answer.done() and {*command_ids} <= current.ids:\n"
         "            return await asyncio.shield(current.answer)\n"
         "        batch = self._with_room({*command_ids}, self._urgent if urgent else self._waiting)\n"),
        ("workflows/shared_query.py", "                batch = waiting.popleft()\n",
         "                batch = waiting.popleft()\n                self.__dict__[\"current\"] = batch\n"),
    ),
    _mutation(
        "I6", "a restart is told as applied before the latch is cleared",
        (APPLYING, "    remember(c, command, Outcome.PENDING, tick)\n    changed_terms",
         "    remember(c, command, Outcome.APPLIED, tick)\n    changed_terms"),
    ),
    _mutation(
        "I6", "the status shows a restart before the latch is cleared",
        (APPLYING, "    latch.restart_tried(c, row.decision_id)\n",
         "    latch.restart_tried(c, row.decision_id)\n    c.last_decision = row\n"),
    ),
    _mutation(
        "I6", "an order that the venue does not show yet was not sent",
        ("activities/act.py", "        if over:\n", "        if not found:\n"),
    ),
    _mutation(
        "I6", "a list that is empty is believed at once",
        ("activities/venues/aster/account.py", "        if not ends or seen.futures or seen.spot:\n",
         "        if ends or seen.futures or seen.spot:\n"),
    ),
    _mutation(
        "I7", "no position is too large",
        ("domain/risk/guards.py", "    return \"position_too_large\" if exceeded else None\n",
         "    return None if exceeded else None\n"),
    ),
    _mutation(
        "I7", "an expired proposal is taken up",
        ("domain/desk/inbox.py",
         "    late = [w for w in c.proposals if w.proposal.expires_at and w.proposal.expires_at <= tick.now]\n",
         "    late: list[WaitingProposal] = []\n"),
    ),
    _mutation(
        "I7", "the first cycle of a run looks at no limit",
        (CYCLE, "        hold = await _enforce(c, observation, outside)\n",
         "        known = outside.__dict__.get(\"has_cycled\") or c.cycle_number < 2\n"
         "        hold = await _enforce(c, observation, outside) if known else None\n"),
        ("workflows/cycle.py", "                await run_cycle(self._c, self)\n",
         "                await run_cycle(self._c, self)\n                self.__dict__[\"has_cycled\"] = True\n"),
    ),
    _mutation(
        "I7", "what passes a soft limit is not reduced",
        ("domain/desk/enforcing.py", "    if not may_reduce(c):\n        return []\n",
         "    if may_reduce(c):\n        return []\n"),
    ),
    _mutation(
        "I7", "what passes a hard limit does not kill",
        (CYCLE, "    if assessment.breaches and c.state is not State.KILLED:\n",
         "    if assessment.breaches and c.state is State.PAUSED:\n"),
    ),
    _mutation(
        "I7", "a worker asks the database once whether the desk is killed",
        ("activities/act.py", "    async def _latch_refusal(self, desk: str) -> str | None:\n",
         "    async def _latch_refusal(self, desk: str) -> str | None:\n"
         "        if \"seen\" not in self.__dict__ and (why := await self._read_it(desk)):\n"
         "            return why\n"
         "        self.__dict__[\"seen\"] = True\n"
         "        return None\n\n"
         "    async def _read_it(self, desk: str) -> str | None:\n"),
    ),
)  # fmt: skip


def copy_tree(to: Path, source: Path = ROOT) -> None:
    """The source tree, as far as processes of AIS need it."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in (*PARTS, *FILES, *OF_THE_TESTS):
        if (source / part).is_dir():
            shutil.copytree(source / part, to / part, ignore=ignore, dirs_exist_ok=True)
        else:
            (to / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, to / part)


def changed(mutation: Mutation, source: Path = ROOT) -> dict[str, str]:
    """The files that the mutation changes, as they are afterwards. Raises ValueError where a text is not there once."""
    texts: dict[str, str] = {}
    for edit in mutation.edits:
        text = texts.get(edit.file) or (source / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise ValueError(f"{mutation.name}: stands {text.count(edit.old)} times in {edit.file}: {edit.old!r}")
        texts[edit.file] = text.replace(edit.old, edit.new)
    return texts


def apply(mutation: Mutation, tree: Path) -> None:
    """Changes the copy."""
    for file, text in changed(mutation, tree).items():
        (tree / file).write_text(text)
