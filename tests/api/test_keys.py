"""Named keys over HTTP: roles, desks, ends, what a database that is away or old changes of them, and what is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import NullPool, create_engine, text

from api import keys as api_keys
from api.auth import ROLE_IN_DOCUMENT
from api.keys import Holder, KeyRefusal, KeyRing, KeyWatch, PostgresKeys, RefusedKey
from api.metrics import ApiMetrics
from api.refused_keys import RefusedKeyCounter
from domain.keys import AccessKey, Role
from storage import keys as stored
from storage.database import DatabaseUnavailable, WrongDatabase
from tests.api.serving import Client, head, serving
from tests.api.test_auth import assert_unauthenticated
from tests.api.world import KEY, FakeKeys, World
from tests.postgres import Server
from tests.storage.test_keys import new as new_key

AWAY = DatabaseUnavailable("PostgreSQL did not answer within 2.5 s")
REVOKED: dict[str, Any] = {"revoked_at": datetime(2026, 3, 12, 14, 30, tzinfo=UTC), "revoked_by": "cli:me"}
ENDPOINTS = [
    (method.upper(), path, Role(operation[ROLE_IN_DOCUMENT]))
    for path, methods in World().app.openapi()["paths"].items()
    for method, operation in methods.items()
    if ROLE_IN_DOCUMENT in operation
]


@pytest.fixture
async def keyed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world that reads its keys all the time."""
    for name in ("READ_SECONDS", "FIRST_READ_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(api_keys, name, 0.01)
    monkeypatch.setattr(api_keys, "SHORTEST_PAUSE_SECONDS", 0.01)
    async with World().running() as made:
        yield made


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.005)


async def reads(world: World) -> None:
    """Waits for a reading that begins after this."""
    after = world.keys.readings + 2
    await until(lambda: world.keys.readings >= after)


async def with_key(world: World, role: Role = Role.OPERATOR, **facts: Any) -> dict[str, str]:
    """The header of a new key that the API knows by now."""
    headers = bearer(world.keys.add(role=role, **facts))
    await reads(world)
    return headers


async def ask(
    world: World, headers: dict[str, str], method: str = "GET", path: str = "/control/mode"
) -> httpx.Response:
    return await world.stranger.request(method, path, headers=headers)


# --- roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_do_at_each_endpoint_what_its_table_says(keyed: World, role: Role) -> None:
    headers = await with_key(keyed, role)
    assert {needed for _, _, needed in ENDPOINTS} == set(Role)
    for method, path, needed in ENDPOINTS:
        if path == "/control/events":
            continue
        response = await ask(keyed, headers, method, path.replace("{command_id}", "none"))
        if role.covers(needed):
            assert response.status_code not in (401, 403), (method, path)
            continue
        assert response.status_code == 403, (method, path)
        assert response.json() == {"detail": f"The key of http:alice has the role {role}; this needs the role {needed}"}


async def test_a_key_whose_role_does_not_allow_it_is_refused_before_the_body_is_read(keyed: World) -> None:
    headers = await with_key(keyed, Role.VIEWER)
    for path in ("pause", "kill-switch"):
        response = await keyed.stranger.post(
            f"/control/{path}", headers={**headers, "Idempotency-Key": "mine"}, content=b"{"
        )
        assert (response.status_code, response.headers["X-Command-Id"]) == (403, "mine")
    assert keyed.gateway.signals == []


async def test_a_viewer_hears_of_paths_that_do_not_exist_like_anybody(keyed: World) -> None:
    headers = await with_key(keyed, Role.VIEWER)
    assert (await ask(keyed, headers, "GET", "/control/nothing")).status_code == 404
    assert (await ask(keyed, headers, "GET", "/control/pause")).status_code == 405


async def test_the_actor_is_the_keys_name_and_a_body_cannot_set_another(keyed: World) -> None:
    headers = await with_key(keyed)
    forged = {"reason": "test", "actor": "http:bob"}
    assert (await keyed.stranger.post("/control/pause", headers=headers, json=forged)).status_code == 422
    assert (await keyed.stranger.post("/control/kill-switch", headers=headers, json=forged)).status_code == 200
    assert [payload["actor"] for _, payload in keyed.gateway.signals] == ["http:alice"]
    assert keyed.gateway.carried.actor == "http:alice"


async def test_ais_api_key_stays_an_administrator_called_http(keyed: World) -> None:
    await keyed.client.post("/control/limits", json={"limits": {"max_leverage": 1.5}})
    assert [payload["actor"] for _, payload in keyed.gateway.signals] == ["http"]


# --- who is let in ---------------------------------------------------------------------------------------------------


async def test_a_mistyped_key_is_told_apart_from_an_unknown_one(keyed: World) -> None:
    right = keyed.keys.add()
    await reads(keyed)
    mistyped = await ask(keyed, bearer(right[:-1] + ("0" if right[-1] != "0" else "1")))
    assert_unauthenticated(mistyped)
    assert "its checksum is wrong" in mistyped.headers["X-AIS-Warning"]
    unknown = await ask(keyed, bearer(World().keys.add()))
    assert_unauthenticated(unknown)
    assert "X-AIS-Warning" not in unknown.headers
    assert "Retry-After" not in unknown.headers


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (
            {"expires_at": datetime(2026, 3, 12, 14, 30, tzinfo=UTC)},
            "expired at 2026-03-12T14:30:00+00:00; ask an administrator",
        ),
        (REVOKED, "was revoked at 2026-03-12T14:30:00+00:00"),
    ],
)
async def test_a_key_that_has_ended_is_401_for_a_kill_too_and_its_holder_is_told_why(
    keyed: World, end: dict[str, Any], told: str
) -> None:
    headers = await with_key(keyed, **end)
    response = await ask(keyed, headers, "POST", "/control/kill-switch")
    assert_unauthenticated(response)
    assert told in response.headers["X-AIS-Warning"]
    assert keyed.gateway.signals == []


async def test_a_name_that_somebody_put_into_the_database_by_hand_breaks_no_header(keyed: World) -> None:
    works = await with_key(keyed, name="a\r\nX-Forged: 1 ü", expires_at=datetime.now(UTC) + timedelta(days=1))
    ended = await with_key(keyed, name="b\r\nX-Forged: 1 ü", **REVOKED)
    for headers, status in ((works, 200), (ended, 401)):
        response = await ask(keyed, headers)
        assert response.status_code == status
        assert "X-Forged: 1 \\xfc" in response.headers["X-AIS-Warning"]
        assert "\n" not in response.headers["X-AIS-Warning"]


async def test_a_key_of_another_desk_is_403_and_kills_nothing(keyed: World) -> None:
    headers = await with_key(keyed, desks=("second", "third"))
    response = await ask(keyed, headers, "POST", "/control/kill-switch")
    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    assert response.json() == {"detail": "The key of http:alice is for the desk second, third; this is the desk main"}
    assert keyed.gateway.signals == []
    assert (await ask(keyed, await with_key(keyed, name="bob", desks=("main",)))).status_code == 200


async def test_the_last_seven_days_of_a_key_are_reported_beside_other_warnings(keyed: World) -> None:
    soon = await with_key(keyed, expires_at=datetime.now(UTC) + timedelta(days=6, hours=1))
    late = await with_key(keyed, name="bob", expires_at=datetime.now(UTC) + timedelta(days=8))
    assert "X-AIS-Warning" not in (await ask(keyed, late)).headers
    warning = (await ask(keyed, soon)).headers["X-AIS-Warning"]
    assert "in 6 days" in warning
    assert "ais keys rotate alice" in warning
    response = await keyed.stranger.post("/control/kill-switch", headers=soon, content=b"{")
    assert response.headers["X-AIS-Warning"].count(";") >= 2
    assert warning in response.headers["X-AIS-Warning"]


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (timedelta(days=2, seconds=9), "in 2 days;"),
        (timedelta(hours=47), "in 47 hours;"),
        (timedelta(hours=2, seconds=9), "in 2 hours;"),
        (timedelta(minutes=59, seconds=59), "in 59 minutes;"),
    ],
)
def test_how_long_a_key_still_works_is_reported_in_a_unit_that_fits(left: timedelta, told: str) -> None:
    now = datetime.now(UTC)
    key = AccessKey("1", b"", "alice", Role.VIEWER, None, now, "cli:test", now + left)
    assert told in Holder("http:alice", Role.VIEWER, key).warning(now)


def test_an_address_of_any_length_is_kept_short() -> None:
    refused = RefusedKeyCounter(ApiMetrics("main"))
    refused._is_quiet = True
    for end in "ab":
        refused.count(RefusedKey(KeyRefusal.UNKNOWN), "1" * 100_000 + end)
    assert dict(refused._addresses) == {"1" * 64: 2}


async def test_keys_expire_by_the_clock_that_set_their_end(keyed: World) -> None:
    """With this machine's clock a year ahead, an operator's kill was refused for a key that held for another hour."""
    keyed.keys.behind = timedelta(days=365)
    there = datetime.now(UTC) - keyed.keys.behind
    holds = await with_key(keyed, expires_at=there + timedelta(hours=1))
    over = await with_key(keyed, name="bob", expires_at=there - timedelta(seconds=1))
    killed = await ask(keyed, holds, "POST", "/control/kill-switch")
    assert (killed.status_code, keyed.gateway.carried.actor) == (200, "http:alice")
    assert "in 59 minutes" in killed.headers["X-AIS-Warning"]
    assert_unauthenticated(await ask(keyed, over))


async def test_a_revocation_is_seen_with_the_next_reading_and_ends_a_stream(keyed: World) -> None:
    headers = await with_key(keyed, Role.VIEWER)
    async with serving(keyed.app) as port:
        await reads(keyed)
        client = await Client.connect(port)
        await client.send(head("/control/events", method="GET", key=headers["Authorization"].split()[1]))
        begun = await client.reader.readuntil(b"\r\n\r\n")
        assert b"x-ais-role: viewer" in begun.lower()
        keyed.keys.change("alice", **REVOKED)
        async with asyncio.timeout(180):
            while (line := await client.reader.readline()) != b"0\r\n":
                # At the end of a broken stream nothing is waited for, so that no time-out would be noticed either.
                assert line, "the stream broke off"
        client.close()
        assert keyed.app.state.parts.feed.streams == 0


# --- the database is away, late, old or empty -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"error": AWAY}, {"hangs": True}, {"error": RuntimeError("a bug")}])
async def test_a_start_without_the_database_knows_ais_api_key_alone_and_says_so(
    fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("READ_SECONDS", "FIRST_READ_SECONDS", "SHORTEST_PAUSE_SECONDS"):
        monkeypatch.setattr(api_keys, name, 0.01)
    made = World()
    secret = made.keys.add()
    made.keys.__dict__.update(fault)
    async with made.running():
        assert (await made.client.get("/control/mode")).status_code == 200
        refused = await ask(made, bearer(secret))
        assert_unauthenticated(refused)
        assert "accepts only AIS_API_KEY" in refused.headers["X-AIS-Warning"]
        assert refused.headers["Retry-After"] == "1"
        health = await made.stranger.get("/health")
        assert health.headers["X-AIS-Keys"].startswith("AIS_API_KEY alone")
        assert set(health.json()) == {
            "status",
            "aster_connected",
            "db_connected",
            "redis_connected",
            "temporal_connected",
        }
        if "error" in fault:
            made.keys.error = None
            await reads(made)
            assert (await ask(made, bearer(secret))).status_code == 200
            assert (await made.stranger.get("/health")).headers["X-AIS-Keys"] == "current"


@pytest.mark.parametrize("fault", [{"error": AWAY}, {"hangs": True}])
async def test_while_the_database_is_away_the_last_reading_stands(
    keyed: World, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = await with_key(keyed)
    ended = await with_key(keyed, name="bob", **REVOKED)
    keyed.keys.__dict__.update(fault)
    monkeypatch.setattr(api_keys, "FRESH_SECONDS", 0.0)
    assert (await ask(keyed, works, "POST", "/control/kill-switch")).status_code == 200
    assert_unauthenticated(await ask(keyed, ended))
    assert "ago" in (await keyed.stranger.get("/health")).headers["X-AIS-Keys"]


async def test_a_database_that_comes_back_old_takes_no_revocation_back_and_gets_it_again(keyed: World) -> None:
    headers = await with_key(keyed)
    keyed.keys.change("alice", **REVOKED)
    await reads(keyed)
    keyed.keys.change("alice", revoked_at=None, revoked_by=None)
    await until(lambda: all(key.revoked_at for key in keyed.keys.rows.values()))
    assert_unauthenticated(await ask(keyed, headers))


async def test_a_database_that_comes_back_empty_gets_every_key_again_as_it_was(keyed: World) -> None:
    works = await with_key(keyed)
    ended = await with_key(keyed, name="bob", **REVOKED)
    before = dict(keyed.keys.rows)
    keyed.keys.rows.clear()
    await until(lambda: keyed.keys.rows == before)
    await reads(keyed)
    assert (await ask(keyed, works)).status_code == 200
    assert_unauthenticated(await ask(keyed, ended))


async def test_many_lost_keys_are_written_a_part_with_each_reading_and_revoked_ones_first(
    keyed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MOST_WRITTEN", 3)
    for number in range(7):
        await with_key(keyed, name=f"key-{number}", **(REVOKED if number == 6 else {}))
    before, real, written = dict(keyed.keys.rows), keyed.keys.keep_ends, []

    async def keep_ends(ended: Sequence[AccessKey]) -> None:
        written.append([key.name for key in ended])
        await real(ended)

    keyed.keys.keep_ends = keep_ends  # type: ignore[method-assign]
    keyed.keys.rows.clear()
    await until(lambda: keyed.keys.rows == before)
    assert [len(names) for names in written] == [3, 3, 1]
    assert written[0][0] == "key-6"


async def test_an_old_database_that_takes_no_writes_still_brings_back_nothing(keyed: World) -> None:
    headers = await with_key(keyed, **REVOKED)

    async def refuse(ended: object) -> None:
        raise DatabaseUnavailable("read-only")

    keyed.keys.keep_ends = refuse  # type: ignore[method-assign]
    keyed.keys.change("alice", revoked_at=None, revoked_by=None)
    await reads(keyed)
    assert_unauthenticated(await ask(keyed, headers))


def test_a_revocation_holds_within_the_ten_seconds_that_are_promised() -> None:
    """A reading that began just before it, and the whole of the next one."""
    assert api_keys.READ_SECONDS + api_keys.CALL_SECONDS <= 10


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_uses_are_written_to_the_minute_in_the_background_and_kept_while_that_fails(keyed: World) -> None:
    headers = await with_key(keyed)
    keyed.keys.error = AWAY
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            assert (await ask(keyed, headers)).status_code == 200
        await until(lambda: told(logs, "keys cannot be marked as used"))
    assert keyed.keys.uses == {}
    keyed.keys.error = None
    await until(lambda: keyed.keys.uses)
    (used,) = keyed.keys.uses.values()
    assert (used.second, used.microsecond) == (0, 0)
    assert datetime.now(UTC) - used < timedelta(minutes=2)


async def test_a_write_of_uses_that_hangs_keeps_no_reading_waiting(keyed: World) -> None:
    headers = await with_key(keyed)

    async def hang(uses: object) -> None:
        await asyncio.sleep(60)

    keyed.keys.note_uses = hang  # type: ignore[method-assign]
    await ask(keyed, headers)
    keyed.keys.change("alice", **REVOKED)
    await reads(keyed)
    assert_unauthenticated(await ask(keyed, headers))


async def test_refused_keys_are_counted_by_reason_and_logged_by_address_and_never_themselves(keyed: World) -> None:
    headers = await with_key(keyed, **REVOKED)
    shown = [headers["Authorization"].split()[1], World().keys.add(), "guessed-key-that-is-none"]
    with structlog.testing.capture_logs() as logs:
        for key in shown:
            await ask(keyed, bearer(key))
        await keyed.stranger.get("/control/mode")
    (line,) = [entry for entry in logs if entry["event"] == "keys refused"]
    assert line["addresses"] == {"127.0.0.1": 1}
    assert line["names"] == ["alice"]
    assert not [key for key in shown if key in repr(logs) or key.split("_")[-1] in repr(logs)]
    metrics = text_string_to_metric_families((await keyed.stranger.get("/metrics")).text)
    found = {
        sample.labels["reason"]: sample.value
        for family in metrics
        for sample in family.samples
        if sample.name == "ais_http_keys_refused_total"
    }
    assert found == {"revoked": 1, "unknown": 2, "missing": 1}


async def test_the_access_log_says_whose_key_it_was(keyed: World) -> None:
    headers = await with_key(keyed)
    with structlog.testing.capture_logs() as logs:
        await ask(keyed, headers)
    assert [entry["actor"] for entry in logs if entry["event"] == "request"] == ["http:alice"]


# --- on a real PostgreSQL ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watched(url: str, *rings: KeyRing) -> AsyncIterator[None]:
    """Each ring as one API process has it."""
    sources = [PostgresKeys(url) for _ in rings]
    tasks = [asyncio.create_task(KeyWatch(ring, source).run()) for ring, source in zip(rings, sources, strict=True)]
    try:
        yield
    finally:
        for task, source in zip(tasks, sources, strict=True):
            task.cancel()
            source.close()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("READ_SECONDS", "FIRST_READ_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(api_keys, name, 0.05)


@pytest.mark.usefixtures("often")
async def test_every_process_learns_of_a_new_key_and_of_its_end(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    rings = [KeyRing(KEY, "main") for _ in range(2)]
    async with watched(database_url, *rings):
        await until(lambda: all(ring.has_read for ring in rings))
        with engine.begin() as connection:
            made = stored.create(connection, new_key(), "carol", Role.VIEWER, None)
        await until(lambda: all(made.key_id in ring.known for ring in rings))
        with engine.begin() as connection:
            stored.revoke(connection, "carol", "cli:test")
        await until(lambda: all(ring.known[made.key_id].revoked_at for ring in rings))


@pytest.mark.usefixtures("often")
async def test_a_hung_or_locked_database_leaves_the_last_reading_and_no_check_waits(
    database_url: str, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "CALL_SECONDS", 0.5)
    engine = create_engine(database_url, poolclass=NullPool)
    ring = KeyRing(KEY, "main")
    with engine.begin() as connection:
        made = stored.create(connection, new_key(), "dave", Role.VIEWER, None)
    async with watched(database_url, ring):
        await until(lambda: made.key_id in ring.known)
        before = ring.known
        with structlog.testing.capture_logs() as logs:
            with engine.begin() as connection:
                connection.execute(text("LOCK TABLE keys IN ACCESS EXCLUSIVE MODE"))
                await until(lambda: told(logs, "keys cannot be read"))
            await until(lambda: told(logs, "keys are read again"))
            logs.clear()
            with postgres.hung():
                await until(lambda: told(logs, "keys cannot be read"))
                assert ring.check(KEY.encode()) == ("http", Role.ADMIN, None)
            await until(lambda: told(logs, "keys are read again"))
        assert ring.known == before


def told(logs: list[Any], event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


@pytest.mark.usefixtures("often")
async def test_ends_that_a_restored_backup_has_lost_are_written_again_by_a_process_that_knew_them(
    database_url: str,
) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    ring, later = KeyRing(KEY, "main"), KeyRing(KEY, "main")
    with engine.begin() as connection:
        made = stored.create(connection, new_key(), "erin", Role.ADMIN, None)
        stored.revoke(connection, "erin", "cli:test")
    async with watched(database_url, ring):
        await until(lambda: made.key_id in ring.known)
        with engine.begin() as connection:
            connection.execute(text("UPDATE keys SET revoked_at = NULL WHERE name = 'erin'"))
        with engine.connect() as connection:
            still = text("SELECT count(*) FROM keys WHERE name = 'erin' AND revoked_at IS NULL")
            await until(lambda: connection.scalar(still) == 0)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM keys"))
        with engine.connect() as connection:
            await until(lambda: connection.scalar(text("SELECT count(*) FROM keys WHERE name = 'erin'")) == 1)
    async with watched(database_url, later):
        await until(lambda: made.key_id in later.known)
    assert later.known[made.key_id].revoked_at


@pytest.mark.usefixtures("often")
async def test_a_key_that_a_restored_backup_lacks_works_on_and_can_be_listed_and_revoked(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    ring = KeyRing(KEY, "main")
    with engine.begin() as connection:
        made = stored.create(connection, new_key(timedelta(days=9)), "heidi", Role.OPERATOR, ("main",))
    async with watched(database_url, ring):
        await until(lambda: made.key_id in ring.known)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM keys WHERE name = 'heidi'"))
        with engine.connect() as connection:
            await until(lambda: made in stored.read_all(connection))
        with engine.begin() as connection:
            stored.revoke(connection, "heidi", "cli:test")
        await until(lambda: ring.known[made.key_id].revoked_at)


@pytest.mark.usefixtures("often")
async def test_as_many_lost_keys_as_one_reading_writes_are_written_in_a_call(
    new_database_url: Callable[[], str],
) -> None:
    source, lost = PostgresKeys(new_database_url()), FakeKeys()
    for number in range(api_keys.MOST_WRITTEN):
        lost.add(f"key-{number}")
    await source.keep_ends(list(lost.rows.values()))
    found = await source.read(None, {})
    assert found.merged is not None
    assert found.merged.keys == lost.rows
    source.close()


@pytest.mark.usefixtures("often")
async def test_an_emptied_table_of_the_databases_id_makes_no_other_database_this_ones(
    new_database_url: Callable[[], str],
) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    source = PostgresKeys(url)
    found = await source.read(None, {})
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM installation"))
    found = await source.read(found.state, {})
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO installation (database_id) VALUES (gen_random_uuid())"))
    with pytest.raises(WrongDatabase):
        await source.read(found.state, {})
    source.close()


@pytest.mark.usefixtures("often")
async def test_the_keys_of_another_database_are_none_here(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    ring = KeyRing(KEY, "main")
    with structlog.testing.capture_logs() as logs:
        async with watched(url, ring):
            await until(lambda: ring.has_read)
            with engine.begin() as connection:
                connection.execute(text("UPDATE installation SET database_id = gen_random_uuid()"))
                stored.create(connection, new_key(), "mallory", Role.ADMIN, None)
            await until(lambda: told(logs, "keys cannot be read"))
            assert not ring.known


@pytest.mark.usefixtures("often")
async def test_ten_thousand_keys_are_read_once_and_a_change_of_one_is_seen(new_database_url: Callable[[], str]) -> None:
    url = new_database_url()
    engine = create_engine(url, poolclass=NullPool)
    ring = KeyRing(KEY, "main")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO keys (key_id, digest, name, role, created_at, created_by) SELECT lpad(n::text, 10, '0'), "
                "sha256(n::text::bytea), 'key-' || n, 'viewer', now(), 'cli:test' FROM generate_series(1, 10000) AS n"
            )
        )
    async with watched(url, ring):
        await until(lambda: len(ring.known) == 10_000)
        first = ring.known
        with engine.begin() as connection:
            stored.revoke(connection, "key-77", "cli:test")
        await until(lambda: ring.known is not first)
        assert [key.name for key in ring.known.values() if key.revoked_at] == ["key-77"]
