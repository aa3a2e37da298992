"""What happens in a round: who says what when, and what breaks when. A pure function of the seed, decided before the round."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

from domain.desk.versions import SCHEMA_VERSION

# Keys that are not the administrator's: no key at all, one that may only read, and one that was revoked before the round.
WRONG_KEY, VIEWER, FORMER = "wrong", "viewer", "former"
# And one whose holder may do everything but change limits.
COLLEAGUE = "colleague"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
APIS = ("api-0", "api-1")
WORKERS = ("worker-0", "worker-1")
PROCESSES = (*APIS, *WORKERS)
LINK_FAULTS = ("refused", "reset", "black_hole", "slow", "half_closed")
DATABASE_FAULTS = ("read_only", "locked", "connection_limit", "stop", "kill_9", "disk_full")
# By so many seconds a worker's clock may step: hours, and what a bad synchronisation makes of it.
CLOCK_STEPS = ("7200", "-7200", "86400", "4", "-4")
VENUE_FAULTS = ("errors", "slow", "late", "executes_and_fails")
LOCKED_TABLES = ("decisions", "instructions", "desks", "paper.orders")
# Of one round in so many the venue is the official server's likeness, and the desk trades live.
LIVE_EVERY = 4
QUIET_SECONDS = 1.0
# Every second round has a scene (scenes.py), each in its turn, and so long after the beginning it is left alone: nothing else is
# wrong, and nobody but an agent and a reader says anything. It waits for an order, for which a machine that is busy with commands
# is too slow; and what a fault of another part may excuse, the checker does not count.
SCENES = {
    "kill_before_the_send": 6.0,
    "answer_is_lost": 6.0,
    "database_hangs_at_a_kill": 10.0,
    "kill_in_the_transaction": 6.0,
    "workers_hang_at_a_kill": 10.0,
    "an_order_rests_at_a_kill": 8.0,
    "temporal_is_away_at_commands": 6.0,
    "pause_before_the_send": 6.0,
    "signals_wait_for_a_worker": 11.0,
    "an_order_rests_at_a_cancel_all": 8.0,
    "an_order_is_replaced": 9.0,
    "a_position_is_reduced": 9.0,
    "limits_before_the_send": 6.0,
    "a_kill_meets_a_restart": 9.0,
    "an_order_is_in_flight_at_a_kill": 6.0,
    "a_run_ends_while_cancels_wait": 9.0,
    "workers_die_with_an_order": 6.0,
    "the_database_says_killed": 10.0,
    "workers_die_with_a_restart": 10.0,
    "a_kill_comes_again_after_a_restart": 9.0,
    "a_decision_cannot_be_written": 8.0,
    "a_run_ends_with_an_unknown_order": 10.0,
    "an_order_is_replaced_in_the_next_run": 11.0,
    "queries_are_slow_at_commands": 11.0,
    "the_database_says_killed_before_the_send": 11.0,
    "a_reduction_is_in_doubt": 9.0,
    "a_position_is_full": 9.0,
    "a_position_passes_a_soft_limit": 11.0,
    "a_list_is_empty_at_a_kill": 10.0,
    "a_position_passes_a_hard_limit": 11.0,
    "an_order_arrives_late": 11.0,
}
SCENE_BEGINS = 0.2
# The server takes ten thousand signals a run, the kill among them. So many want a machine to themselves: `--signals 10000`.
FLOOD = 1_000
# They propose for themselves, and no other agent must be chosen instead.
PROPOSES = (
    "an_order_rests_at_a_kill",
    "an_order_rests_at_a_cancel_all",
    "an_order_is_replaced",
    "a_position_is_reduced",
    "a_run_ends_while_cancels_wait",
    "an_order_is_replaced_in_the_next_run",
    "a_reduction_is_in_doubt",
    "a_position_is_full",
    "a_position_passes_a_soft_limit",
    "a_position_passes_a_hard_limit",
    "a_list_is_empty_at_a_kill",
)
# A real venue has no transaction that could be held, and none that could be refused.
ON_PAPER = (
    "kill_in_the_transaction", "an_order_is_in_flight_at_a_kill", "a_run_ends_while_cancels_wait", "workers_die_with_an_order",
    "a_run_ends_with_an_unknown_order", "a_position_is_full",
)  # fmt: skip
# And the paper venue is one source, which does not contradict itself.
ON_A_REAL_VENUE = ("a_list_is_empty_at_a_kill", "an_order_arrives_late")
# A desk that is brought back above a limit acts by itself, perhaps just when the round's evidence is collected.
NOBODY_RESTARTS = ("a_position_passes_a_soft_limit", "a_position_passes_a_hard_limit")
IN_A_SCENE = ("agent", "reader", "watcher")
# What the kill says that somebody writes into the database.
BY_HAND_IN_THE_DATABASE = "written by hand"
# Of one round in so many the first run began under the release before, and workers of this one carry it on.
SCHEMA_EVERY = 6
LAST_SCHEMA = 7
# The share of rounds in which workers of an earlier release take part, where there is one.
EARLIER_SHARE = 0.4
THIS, EARLIER = "this release", "the earlier release"
# The share of rounds in which every word between workers and database takes 8 ms each way.
FAR_AWAY = 0.35


@dataclass(frozen=True)
class Step:
    """One call of a client. `twice` sends it again under the same id, through the other API; `again` so many seconds later."""

    at: float
    client: str
    channel: str
    kind: str
    args: dict[str, Any] = field(default_factory=dict)
    api: int = 0
    key: str | None = None
    twice: bool = False
    again: float = 0.0


@dataclass(frozen=True)
class Fault:
    """One fault, from `at` for so long."""

    at: float
    seconds: float
    kind: str
    target: str
    detail: str = ""

    @property
    def until(self) -> float:
        """When it is over."""
        return self.at + self.seconds

    @property
    def name(self) -> str:
        """`link slow`, `process stop`: what reports count."""
        return f"{self.target.split('-')[0]} {self.kind}" if ">" not in self.target else f"link {self.kind}"


@dataclass(frozen=True)
class Scene:
    """A moment that is waited for and played out, from `at` on. `signals`: so many wait in it."""

    at: float
    kind: str
    signals: int = 0


@dataclass(frozen=True)
class Round:
    """A whole round."""

    seed: int
    live: bool
    seconds: float
    cycle_seconds: float
    steps: tuple[Step, ...]
    faults: tuple[Fault, ...]
    scene: Scene | None = None
    # Of the run that the desk begins with; the next one takes the newest.
    schema: int = SCHEMA_VERSION
    # Which workers are of the earlier release at first, and how it goes on with them.
    earlier: tuple[str, ...] = ()
    upgrade: str = ""


def scene_of(seed: int, live: bool) -> Scene | None:
    """The scene of a seed; None in every second round."""
    if seed % 2:
        return None
    kind = [*SCENES][seed // 2 % len(SCENES)]
    if kind == "signals_wait_for_a_worker":
        return Scene(SCENE_BEGINS, kind, FLOOD)
    is_elsewhere = kind in (ON_PAPER if live else ON_A_REAL_VENUE)
    return Scene(SCENE_BEGINS, "kill_before_the_send" if is_elsewhere else kind)


def links(live: bool) -> tuple[str, ...]:
    """Every connection between two parts; each has a proxy of its own."""
    stores = tuple(f"{process}>{store}" for process in PROCESSES for store in ("temporal", "database"))
    venue = tuple(f"{worker}>venue" for worker in WORKERS) if live else ()
    return (*(f"client>{api}" for api in APIS), *stores, *venue)


def with_signals(found: Round, signals: int) -> Round:
    """The same round; where a scene has signals wait, so many."""
    return replace(found, scene=replace(found.scene, signals=signals)) if found.scene and found.scene.signals else found


def plan(seed: int, seconds: float = 12.0, live: bool | None = None, earlier: int | None = None) -> Round:
    """The round of a seed. `earlier`: the rules that an earlier release knows, None where none takes part."""
    chance = random.Random(f"chaos/{seed}")
    is_live = chance.random() < 1 / LIVE_EVERY if live is None else live
    scene = scene_of(seed, is_live)
    # An order may go out for two seconds, or for one cycle where that is longer: a live reading takes a dozen calls.
    cycle = chance.choice((1.0, 1.0, 3.0)) if not is_live else 3.0
    quiet = min(SCENES[scene.kind], seconds - QUIET_SECONDS) if scene else min(TRADES_FIRST_SECONDS, seconds / 2)
    steps = [step for client in CLIENTS for step in CLIENTS[client](chance, seconds, quiet)]
    steps += [*_hurried(seed, seconds, quiet), *_looks(seed, seconds)]
    faults = [*_faults(chance, seconds, is_live), *_meddling(seed, seconds, quiet)]
    if scene:
        others = IN_A_SCENE[1:] if scene.kind in PROPOSES else IN_A_SCENE
        steps = [step for step in steps if step.at >= quiet or step.client in others]
        faults = [fault for fault in faults if fault.at >= quiet]
        steps = [step for step in steps if step.kind != "restart" or scene.kind not in NOBODY_RESTARTS]
    steps += [
        *_reused(seed, seconds, quiet, steps),
        *_other_body(seed, seconds, steps),
        *_loosened(seed, seconds, quiet),
    ]
    found = Round(
        seed=seed,
        live=is_live,
        seconds=seconds,
        cycle_seconds=3.0 if scene else cycle,
        steps=tuple(sorted(steps, key=lambda step: (step.at, step.client))),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        scene=scene,
        schema=LAST_SCHEMA if seed % SCHEMA_EVERY == 1 else SCHEMA_VERSION,
    )
    return found if earlier is None else _with_earlier_workers(found, earlier, quiet)


# What becomes of workers: who is of the earlier release at first, who is replaced in the middle, and by what.
ONE, ALL = WORKERS[:1], WORKERS
UPGRADES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "all upgraded": (ALL, "workers", THIS),
    "one upgraded": (ONE, ONE[0], THIS),
    "one stays": (ONE, "", ""),
    "one downgraded": ((), ONE[0], EARLIER),
    "all downgraded": ((), "workers", EARLIER),
    # Workers have versions: the old one goes on with the run that it has, and the new one begins the next.
    "versions": (ALL, ONE[0], THIS),
}
VERSIONS = "versions"
MADE_UP = ("complete", "fail")
READS_ANY_ANSWER = 6
# A worker that does not know a run's rules cannot carry it out: neither after one that does, nor beside it without versions.
WITH_OTHER_RULES = ("all upgraded", VERSIONS)


def _with_earlier_workers(found: Round, schema: int, quiet: float) -> Round:
    """Decided apart from everything else: the rest of a seed's round is the same without an earlier release."""
    chance = random.Random(f"upgrade/{found.seed}")
    if chance.random() >= EARLIER_SHARE:
        return found
    kind = chance.choice([*UPGRADES] if schema == SCHEMA_VERSION else WITH_OTHER_RULES)
    first, target, release = UPGRADES[kind]
    at = round(chance.uniform(quiet, max(quiet, found.seconds - QUIET_SECONDS)), 3)
    faults = [*found.faults, *([Fault(at, 0.1, "replace", target, release)] if target else [])]
    if schema < READS_ANY_ANSWER:
        # It cannot read an answer that a person has made up, and fails each task of the run from then on.
        faults = [fault for fault in faults if fault.kind not in MADE_UP]
    return replace(
        found,
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        schema=min(schema, found.schema),
        earlier=first,
        upgrade=kind,
    )


def seeds(first: int, rounds: int, scene: str = "") -> Iterator[int]:
    """So many from there on; of those that play a scene, where one is named."""
    fitting = (seed for seed in count(first) if not scene or ((found := plan(seed).scene) and found.kind == scene))
    return islice(fitting, rounds)


# --- programs of the clients -------------------------------------------------------------------------------------------


def _moments(chance: random.Random, seconds: float, every: float, first: float = 0.0) -> list[float]:
    """Random moments, so far apart on average, that hold each other off by nothing: bursts are part of it."""
    begin = min(first, seconds)
    number = max(1, round((seconds - begin) / every))
    return sorted(round(chance.uniform(begin, seconds), 3) for _ in range(number))


COMMANDS = {"pause": 2.0, "resume": 6.0, "kill": 0.8, "cancel_all": 2.0, "deleverage": 1.0, "set_limits": 1.0}
REPEATED_LATER = ("cancel_all", "deleverage")
# Kills come later: a desk that is killed for most of a round sends no order, and every rule about orders holds for nothing.
TRADES_FIRST_SECONDS = 4.0


def _args(chance: random.Random, kind: str) -> dict[str, Any]:
    match kind:
        case "deleverage":
            return {"symbol": chance.choice(SYMBOLS), "reduce_pct": chance.choice((0.5, 1.0))}
        case "set_limits":
            return {"limits": {"max_leverage": chance.choice(("1.9", "1.8", "1.7"))}}
        case "cancel_all":
            return {"symbols": [chance.choice(SYMBOLS)]} if chance.random() < 0.5 else {}
        case _:
            return {}


def _a_command(chance: random.Random, at: float, quiet: float) -> str:
    kind = chance.choices([*COMMANDS], [*COMMANDS.values()])[0]
    return "resume" if kind in ("kill", "pause", "set_limits") and at < quiet else kind


def _web(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    """Commands over HTTP, with and without a key, some of them twice."""
    steps = []
    for number, at in enumerate(_moments(chance, seconds, 0.7)):
        kind = _a_command(chance, at, quiet)
        key = f"key-{number}" if chance.random() < 0.6 else None
        twice = key is not None and chance.random() < 0.4
        # A command on the state is true in its moment alone; of these an effect that comes again would show.
        again = round(chance.uniform(1.5, 4.0), 3) if key and kind in REPEATED_LATER else 0.0
        steps.append(Step(at, "web", "http", kind, _args(chance, kind), chance.randrange(2), key, twice, again))
    return steps


def _second_web(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    """Another person with another browser: pauses, resumes and kills that race with the first one's."""
    kinds = ("pause", "resume", "resume", "resume")
    moments = [(at, chance.choice(kinds)) for at in _moments(chance, seconds, 1.2, quiet)]
    moments.append((round(chance.uniform(quiet, seconds), 3), "kill"))
    # The kill is the administrator's: a process that has just begun does not know the named keys for a moment.
    signed = {"pause": {"holder": COLLEAGUE}, "resume": {"holder": COLLEAGUE}}
    return [Step(at, "web-2", "http", kind, signed.get(kind, {}), chance.randrange(2)) for at, kind in moments]


def _reader(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    return [
        Step(at, "reader", "http", "status", {}, chance.randrange(2)) for at in _moments(chance, seconds + 1.0, 0.25)
    ]


def _looks(seed: int, seconds: float) -> list[Step]:
    """Somebody looks at all that the coordinator tells. Decided apart from everything else."""
    chance = random.Random(f"looks/{seed}")
    moments = _moments(chance, seconds + 1.0, 0.4)
    return [Step(at, "watcher", "http", "look", {}, chance.randrange(2)) for at in moments]


def _signaller(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    """Signals, some without an id, and now and then a cancellation of the workflow."""
    steps = []
    for number, at in enumerate(_moments(chance, seconds, 0.8)):
        if at > quiet and chance.random() < 0.06:
            steps.append(Step(at, "signaller", "temporal", "cancel"))
            continue
        kind = _a_command(chance, at, quiet)
        # Without an id only those whose row has their reason in any case can be found again.
        key = f"signal-{number}" if chance.random() < 0.6 or kind not in ("kill", "cancel_all") else None
        steps.append(
            Step(
                at,
                "signaller",
                "temporal",
                kind,
                _args(chance, kind),
                0,
                key,
                key is not None and chance.random() < 0.3,
            )
        )
    return steps


def _operator(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    """A person at the command line: brings the desk back again and again, and gives a command now and then."""
    steps = [Step(at, "operator", "ais", "restart") for at in _moments(chance, seconds, 0.6, quiet)]
    others = ("resume", "resume", "kill", "cancel_all")
    moments = _moments(chance, seconds, 3.0, quiet)
    return [*steps, *(Step(at, "second", "ais", chance.choice(others)) for at in moments)]


# From the market by so much: such an order rests until it is cancelled.
AWAY = {"BUY": -0.01, "SELL": 0.01}
# One proposal in so many is over before a slow cycle comes.
SHORT_LIVED_EVERY, SHORT_LIVED_SECONDS = 6, 1.2


def _agent(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    """Proposals from outside: market orders, and limit orders that rest."""
    steps = []
    # Opposite proposals would cancel out.
    sides = {symbol: chance.choice(("BUY", "SELL")) for symbol in SYMBOLS}
    for number, at in enumerate([0.0, *_moments(chance, seconds, 0.4)]):
        symbol = chance.choice(SYMBOLS)
        side = sides[symbol]
        args: dict[str, Any] = {"symbol": symbol, "side": side, "agent_id": f"chaos-{number % 4}"}
        if chance.random() < 0.4:
            args["offset"] = AWAY[side]
        if number % SHORT_LIVED_EVERY == SHORT_LIVED_EVERY - 1:
            args["ttl"] = SHORT_LIVED_SECONDS
        key = f"proposal-{number}" if chance.random() < 0.5 else None
        steps.append(
            Step(at, "agent", "http", "propose", args, chance.randrange(2), key, key is not None and number % 7 == 0)
        )
    return steps


def _stranger(chance: random.Random, seconds: float, quiet: float) -> list[Step]:
    """Somebody without the key, a viewer who would like to command, an operator who would like to change limits, and at the end
    somebody whose key was revoked."""
    kinds = ("kill", "resume", "status")
    tries = [(at, chance.choice((WRONG_KEY, VIEWER)), chance.choice(kinds)) for at in _moments(chance, seconds, 1.5)]
    tries += [(round(chance.uniform(seconds - 1.0, seconds + 0.8), 3), FORMER, "status") for _ in range(4)]
    steps = [Step(at, "stranger", "http", kind, {"key": key}, chance.randrange(2)) for at, key, kind in sorted(tries)]
    limits = {"key": COLLEAGUE, "limits": {"max_leverage": "1.5"}}
    return [*steps, Step(round((quiet + seconds) / 2, 3), "stranger", "http", "set_limits", limits)]


# What `temporal workflow signal` can be made to send as the input of a kill, by people in a hurry.
KILL_FORMS = ("nothing", "null", "text", "number", "list", "broken", "two", "other encoding", "reference", "loud")
# The share of rounds in which somebody does.
HURRIED_SHARE = 0.5


def _hurried(seed: int, seconds: float, quiet: float) -> list[Step]:
    """A kill by somebody in a hurry. Decided apart from everything else: a seed's other commands stay the same."""
    chance = random.Random(f"hurried/{seed}")
    if chance.random() >= HURRIED_SHARE:
        return []
    at, form = round(chance.uniform(quiet, seconds), 3), chance.choice(KILL_FORMS)
    return [Step(at, "hurried", "temporal", "kill", {"form": form})]


# The share of rounds in which a kill comes under an id that another command had, and one comes again after a while.
REUSED_SHARE = 0.7
# The share of rounds in which a key comes with another body.
OTHER_BODY_SHARE = 0.5
# The share of rounds in which somebody loosens what was just tightened.
LOOSENED_SHARE = 0.5


def _reused(seed: int, seconds: float, quiet: float, steps: list[Step]) -> list[Step]:
    """Kills whose id is known: that of an earlier command, and that of the same kill, perhaps from before a restart. They come
    early, while the desk is hardly killed by others. Decided apart from everything else. `steps`: all that are played."""
    chance = random.Random(f"reused/{seed}")
    if chance.random() >= REUSED_SHARE:
        return []
    at = round(chance.uniform(quiet, (quiet + seconds) / 2), 3)
    again = round(chance.uniform(1.0, 3.0), 3)
    found = [Step(at, "web-3", "http", "kill", {}, chance.randrange(2), "kill-again", again=again)]
    keyed = [step for step in steps if step.client == "web" and step.key and step.kind != "kill"]
    if first := min(keyed, key=lambda step: step.at, default=None):
        later = round(min(max(first.at + 0.3, quiet) + chance.uniform(0.0, 0.7), seconds), 3)
        found.append(Step(later, "web-4", "http", "kill", {}, chance.randrange(2), first.key))
    return found


def _other_body(seed: int, seconds: float, steps: list[Step]) -> list[Step]:
    """In half of the rounds somebody takes the key of an earlier command for a cancel_all by mistake. Decided apart from
    everything else."""
    chance = random.Random(f"other body/{seed}")
    keyed = [step for step in steps if step.client == "web" and step.key and step.kind not in ("kill", "cancel_all")]
    if chance.random() >= OTHER_BODY_SHARE or not keyed:
        return []
    first = chance.choice(keyed)
    at = round(min(first.at + chance.uniform(0.5, 1.5), seconds), 3)
    return [Step(at, "web-6", "http", "cancel_all", {}, chance.randrange(2), first.key)]


def _loosened(seed: int, seconds: float, quiet: float) -> list[Step]:
    """Somebody tightens a limit in half of the rounds, and at once would like to loosen it, while the desk hardly is paused or
    killed. Decided apart from everything else."""
    if random.Random(f"loosened/{seed}").random() >= LOOSENED_SHARE:
        return []
    wanted = ((quiet, "1.7"), (min(quiet + 0.25, seconds), "1.9"))
    return [Step(at, "web-5", "http", "set_limits", {"limits": {"max_leverage": value}}) for at, value in wanted]


CLIENTS = {
    "web": _web,
    "web-2": _second_web,
    "reader": _reader,
    "signaller": _signaller,
    "operator": _operator,
    "agent": _agent,
    "stranger": _stranger,
}


# --- faults ------------------------------------------------------------------------------------------------------------


def _faults(chance: random.Random, seconds: float, live: bool) -> list[Fault]:
    """Now and then both workers are far from the database: then an order is under way long enough to meet a kill."""
    distant = tuple(f"{worker}>database" for worker in WORKERS) if chance.random() < FAR_AWAY else ()
    found = [_fault(chance, at, live) for at in _moments(chance, max(seconds - QUIET_SECONDS, 0.5), 1.5)]
    if not distant:
        return found
    # Nothing else is wrong until the first kill: the permission to send is good for half a second, and shall not run out before.
    others = [fault for fault in found if fault.target not in distant and fault.at > TRADES_FIRST_SECONDS + 1.0]
    return [*others, *(Fault(0.0, seconds, "slow", link, "0.008") for link in distant)]


def _fault(chance: random.Random, at: float, live: bool) -> Fault:
    lasts = round(chance.uniform(0.4, 2.5), 2)
    where = chance.choices(
        ["process", "link", "database", "temporal", "coordinator", "venue"], [5, 8, 3, 1, 2, 3 if live else 0]
    )[0]
    match where:
        case "process":
            target = chance.choice(PROCESSES)
            kind = chance.choice(("kill_9", "stop", "stop", "restart", *(["clock"] if target in WORKERS else [])))
            return Fault(at, lasts, kind, target, chance.choice(CLOCK_STEPS) if kind == "clock" else "")
        case "link":
            return Fault(at, lasts, chance.choice(LINK_FAULTS), chance.choice(links(live)))
        case "database":
            kind = chance.choice(DATABASE_FAULTS)
            return Fault(at, lasts, kind, "database", chance.choice(LOCKED_TABLES) if kind == "locked" else "")
        case "temporal":
            return Fault(at, min(lasts, 1.5), chance.choice(("kill_9", "stop")), "temporal")
        case "venue":
            return Fault(at, lasts, chance.choice(VENUE_FAULTS), "venue")
        case _:
            return Fault(at, 0.1, chance.choice(("flood", "continue_as_new")), "coordinator")


# What a person does to an activity that the desk waits for (meddling.py), and to which.
BY_HAND = "a person"
# What is paused waits for the person, a kill's cancels among it.
PAUSED = "activity-paused"
MEDDLING = ("complete", "fail", "pause", "reset")
MEDDLED = ("observe", "decide", "place_order", "settle_order", "record", "write_desk", "cancel", "cancel_many")
# The share of rounds in which somebody does so, three times.
MEDDLED_SHARE = 0.5


def _meddling(seed: int, seconds: float, quiet: float) -> list[Fault]:
    """Decided apart from everything else: a seed's other faults stay the same."""
    chance = random.Random(f"meddling/{seed}")
    if chance.random() >= MEDDLED_SHARE:
        return []
    last = max(quiet, seconds - QUIET_SECONDS)
    moments = sorted(round(chance.uniform(quiet, last), 3) for _ in range(3))
    return [_by_hand(at, chance.choice(MEDDLING), chance.choice(MEDDLED)) for at in moments]


def _by_hand(at: float, kind: str, activity: str) -> Fault:
    return Fault(at, 3.0, kind, PAUSED if kind == "pause" else "activity", activity)
