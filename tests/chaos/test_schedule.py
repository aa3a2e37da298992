"""The schedule is a pure function of the seed, and its rounds cover what there is."""

from domain.desk.versions import SCHEMA_VERSION
from tests.chaos import scenes
from tests.chaos.schedule import (
    IN_A_SCENE,
    LINK_FAULTS,
    MEDDLING,
    NOBODY_RESTARTS,
    ON_A_REAL_VENUE,
    ON_PAPER,
    PROCESSES,
    SCENES,
    UPGRADES,
    WITH_OTHER_RULES,
    links,
    plan,
    seeds,
    with_signals,
)


def test_the_same_seed_makes_the_same_round() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_one_round_in_four_is_live() -> None:
    live = sum(plan(seed).live for seed in range(400))
    assert 70 < live < 130


def test_three_hundred_rounds_have_every_fault_and_every_command() -> None:
    rounds = [plan(seed) for seed in range(300)]
    faults = {fault.name for each in rounds for fault in each.faults}
    commands = {(step.channel, step.kind) for each in rounds for step in each.steps}
    assert {f"link {kind}" for kind in LINK_FAULTS} < faults
    assert {"worker kill_9", "worker stop", "api restart", "database locked", "database read_only"} < faults
    assert {"temporal stop", "coordinator flood", "coordinator continue_as_new", "venue late"} < faults
    assert {f"activity {kind}" for kind in MEDDLING} < faults
    assert {
        ("http", "kill"),
        ("temporal", "kill"),
        ("temporal", "cancel"),
        ("ais", "restart"),
        ("http", "propose"),
    } < commands
    assert {fault.target for each in rounds for fault in each.faults} >= {*links(live=True), *PROCESSES}


def test_steps_and_faults_stand_in_the_order_of_time_and_within_the_round() -> None:
    for seed in range(20):
        found = plan(seed, 5.0)
        assert [step.at for step in found.steps] == sorted(step.at for step in found.steps)
        assert all(0 <= fault.at <= 4.0 for fault in found.faults)
        assert all(0 <= step.at <= 6.0 for step in found.steps)


def test_every_second_seed_plays_a_scene_and_each_has_its_turn() -> None:
    row = range(4711, 4711 + 2 * len(SCENES))
    played = {scene.kind for seed in row if (scene := plan(seed, live=False).scene)}
    assert played | {*ON_A_REAL_VENUE} == {*SCENES} == {*scenes.SCENES}


def test_a_scene_is_left_alone() -> None:
    for found in (plan(seed) for seed in range(0, 60, 2)):
        assert found.scene
        alone = SCENES[found.scene.kind]
        assert {step.client for step in found.steps if step.at < alone} <= {*IN_A_SCENE}
        assert all(fault.at >= alone for fault in found.faults)


def test_nobody_restarts_a_desk_that_is_above_a_limit() -> None:
    for kind in NOBODY_RESTARTS:
        (seed,) = seeds(1, 1, kind)
        assert not any(step.kind == "restart" for step in plan(seed).steps)


def test_a_real_venue_is_not_held_in_a_transaction() -> None:
    scenes_played = {found.scene.kind for n in range(100) if (found := plan(n, live=True)).scene}
    assert scenes_played == {*SCENES} - {*ON_PAPER}


def test_the_seeds_of_one_scene() -> None:
    found = [*seeds(5, 3, "answer_is_lost")]
    assert [plan(seed).scene.kind for seed in found] == ["answer_is_lost"] * 3  # type: ignore[union-attr]
    assert [*seeds(5, 3)] == [5, 6, 7]


def test_some_rounds_begin_with_a_run_of_the_release_before() -> None:
    schemas = [plan(seed).schema for seed in range(12)]
    assert schemas.count(SCHEMA_VERSION - 1) == 2
    assert schemas.count(SCHEMA_VERSION) == 10


def test_more_signals_wait_only_where_any_do() -> None:
    more = [with_signals(plan(seed), 10_000) for seed in range(2 * len(SCENES))]
    assert [found.scene.signals for found in more if found.scene and found.scene.signals] == [10_000]


def test_an_earlier_release_changes_nothing_but_who_works() -> None:
    for seed in range(60):
        alone, found = plan(seed), plan(seed, earlier=SCHEMA_VERSION)
        assert plan(seed, earlier=SCHEMA_VERSION) == found
        assert alone.steps == found.steps
        assert [*alone.faults] == [fault for fault in found.faults if fault.kind != "replace"]


def test_workers_of_an_earlier_release_are_upgraded_downgraded_or_stay() -> None:
    rounds = [plan(seed, earlier=SCHEMA_VERSION) for seed in range(200)]
    assert {each.upgrade for each in rounds} == {"", *UPGRADES}
    assert 50 < sum(bool(each.upgrade) for each in rounds) < 110
    assert any(each.scene and each.earlier for each in rounds)


def test_a_release_with_older_rules_is_never_beside_a_newer_one_nor_after_it() -> None:
    rounds = [plan(seed, earlier=SCHEMA_VERSION - 1) for seed in range(200)]
    assert {each.upgrade for each in rounds} == {"", *WITH_OTHER_RULES}
    assert all(each.schema < SCHEMA_VERSION for each in rounds if each.upgrade)
