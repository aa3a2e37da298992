"""The page in a real Chromium: what it shows, what it does, and what it never claims."""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from playwright.async_api import Route

from api import feed
from api.coordinator import MAX_UNWRITTEN
from api.errors import ReportsUnavailable
from api.reporting import DecisionPage
from domain.desk.carried import KillRecord, OrderPhase, PendingOrder
from domain.desk.states import Mode, State
from domain.desk.status import MAX_SHOWN
from domain.keys import Role
from domain.trading.assessment import Assessment, Measures, RiskMemory
from domain.trading.market import Position
from domain.trading.orders import Order
from storage.database import DatabaseUnavailable
from storage.decisions import DecisionFilter
from tests.api.world import KEY, make_carried, make_decision, make_observation
from tests.console.conftest import SECONDS, Console, browser_program
from tests.domain.builders import an_order
from tests.storage.test_equity import a_point as an_equity_point
from workflows.gateway import CoordinatorPaused, CoordinatorSilent, NoCoordinator, SignalUnanswered, TemporalUnreachable

D = Decimal
# How long a form rests after a command, as the page has it.
REST_SECONDS = 1.5
HOSTILE = "<img src=x onerror=alert(1)>"
SILENT = "no worker answered for the coordinator of desk 'main'"
SILENT_SENTENCE = "No worker answered for the coordinator of desk 'main'."


async def test_the_link_signs_in_and_lock_forgets_key_and_desk(console: Console) -> None:
    await console.open()
    await console.shows("running")
    assert console.page.url.endswith("/console/")
    assert await console.page.evaluate("Object.entries(sessionStorage)") == [["ais-key", KEY]]
    assert await console.page.evaluate("localStorage.length + document.cookie.length") == 0
    assert "PAPER" in await console.text("#mode")
    await console.page.click("#lock")
    await console.page.wait_for_selector("#signin-form")
    assert await console.page.evaluate("sessionStorage.length") == 0
    content = await console.page.content()
    assert "BTCUSDT" not in content
    assert "coordinator-main" not in content
    # A wrong key comes back to the form with what the server said.
    await console.page.fill("#key", "wrong")
    await console.page.press("#key", "Enter")
    await console.says("#signin-problem", "Not authenticated (401)")
    assert await console.page.evaluate("sessionStorage.length") == 0
    await console.page.fill("#key", KEY)
    await console.page.press("#key", "Enter")
    await console.shows("running")


async def test_real_money_is_unmistakable_and_a_phone_shows_state_and_kill_without_scrolling_sideways(
    console: Console,
) -> None:
    console.gateway.carried.mode = Mode.LIVE
    await console.page.set_viewport_size({"width": 390, "height": 844})
    await console.open()
    await console.shows("running")
    assert "LIVE: REAL MONEY" in await console.text("#mode")
    assert await console.page.evaluate("getComputedStyle(document.body).borderLeftWidth") == "8px"
    assert await console.page.evaluate("document.documentElement.scrollWidth") == 390
    await console.page.mouse.wheel(0, 3_000)
    for selector in ("#state", "#kill-button"):
        box = await console.page.locator(selector).bounding_box()
        assert box is not None
        assert 0 <= box["y"] <= 844 - box["height"]


async def test_hostile_text_stays_text(console: Console) -> None:
    console.gateway.carried.state = State.PAUSED
    console.gateway.carried.reason = console.gateway.carried.actor = HOSTILE
    console.reports.rows = [make_decision(1, summary=HOSTILE, agent_votes={HOSTILE: 0.5})]
    await console.open()
    await console.shows("paused")
    await console.says("#state-why", f"by {HOSTILE}: {HOSTILE}")
    await console.says("#log", HOSTILE)
    await console.page.click("#log summary")
    await console.says("#log .facts", HOSTILE)
    assert await console.page.locator("img").count() == 0


async def test_what_nobody_confirms_is_stale(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    class Earlier(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(seconds=20)

    await console.open()
    await console.shows("running")
    console.gateway.query_error = CoordinatorSilent(SILENT)
    await console.says("#stale", SILENT_SENTENCE)
    await console.says("#stale", "It is not known whether a worker runs: the desk may be trading.")
    await console.says("#lamps", "worker DOES NOT ANSWER")
    assert "last known" in await console.text("#state-line")
    assert await console.page.get_attribute("body", "data-state") == "unknown"
    # A worker is not to blame for what Temporal does, nor for what a person did.
    for error, said, temporal in (
        (TemporalUnreachable("Temporal cannot be reached"), "may go on trading", "Temporal DOES NOT ANSWER"),
        (NoCoordinator("main", "TERMINATED"), "no open coordinator for this desk", "Temporal answers"),
        (CoordinatorSilent("another version", answered=True), "Another version.", "Temporal answers"),
        (
            CoordinatorPaused("main"),
            "Until then a kill from this page is recorded, and carried out only",
            "Temporal answers",
        ),
    ):
        console.gateway.query_error = error
        await console.says("#stale", said)
        await console.says("#lamps", temporal)
        assert "worker not known" in await console.text("#lamps")
    console.gateway.query_error = None
    await console.shows("running")
    # A proxy hands on only now what was read long ago.
    with monkeypatch.context() as patching:
        patching.setattr(feed, "datetime", Earlier)
        await console.says("#stale", "s late: a proxy holds them back")
    await console.shows("running")
    # The server holds the connection and says nothing.
    console.app.state.parts.feed.close()
    await console.says("#stale", "The API has sent nothing for more than 3 s")
    await console.says("#kill-by-hand", "Without the API, from a terminal, either of these kills:")
    assert "cancel at the venue" not in await console.text("#kill-by-hand"), "nobody has sent a kill"


async def test_a_page_that_has_heard_nothing_yet_says_so_in_every_panel(console: Console) -> None:
    """Found: with no worker up, "Warnings" and "Positions" stood there empty, as if there were none."""
    console.gateway.query_error = CoordinatorSilent(SILENT)
    await console.open()
    for panel in ("#warnings", "#positions", "#orders", "#unknown", "#limits"):
        await console.says(panel, "Not known")
    console.gateway.query_error = None
    await console.shows("running")
    await console.says("#warnings", "None.")


async def test_a_reading_that_no_other_followed_is_told_as_old_with_its_age(console: Console) -> None:
    carried = console.gateway.carried
    carried.observation = make_observation()
    await console.open()
    await console.shows("running")
    assert not await console.page.is_visible(".old-note")
    carried.observation = make_observation(age_seconds=90)
    carried.last_cycle_at = carried.observation.observed_at
    await console.says("#cycle", "OVERDUE: ")
    await console.says("section:has(#positions) .old-note", "90 s ago. This page knows of no newer reading")
    await console.says("#warnings", "The venue has not been read for more than a cycle")
    assert await console.page.locator(".old-note:visible").count() == 3
    # Another desk's worker may be the one that answers, and sends no cancels for this one.
    await console.says("#warnings", "without one, a kill takes effect, but sends no cancels")
    assert "worker not known" in await console.text("#lamps")
    assert await console.page.get_attribute("body", "data-state") == "running", "the state is current"


# That half a second does nothing fails with `..._and_a_shorter_one_does_nothing` too.
@pytest.mark.parametrize(("held", "is_killed"), [(1_100, True), pytest.param(500, False, marks=pytest.mark.thorough)])
async def test_on_a_busy_page_the_time_of_the_hold_counts_and_not_its_late_timer(
    console: Console, held: int, is_killed: bool
) -> None:
    await console.open()
    await console.shows("running")
    # The dearest case: the timer comes after the button was let go.
    await console.page.evaluate("window.setTimeout = () => 0")
    await console.hold(held)
    if is_killed:
        await console.says("#kill-news", "KILLED")
    await console.page.wait_for_timeout(200)
    assert len(console.gateway.signals) == is_killed


async def test_the_keyboard_alone_kills(console: Console) -> None:
    """The mouse has no part in it, nor a script that moves the focus."""
    await console.open()
    await console.shows("running")
    await console.page.keyboard.press("Tab")
    await console.page.keyboard.press("Enter")
    assert await console.page.evaluate("document.activeElement.id") == "kill-button"
    await console.page.keyboard.down("Enter")
    await console.shows("killed")
    await console.page.keyboard.up("Enter")


async def test_a_hold_of_one_second_kills_without_a_question_and_a_shorter_one_does_nothing(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.hold(500)
    await console.page.wait_for_timeout(600)
    assert console.gateway.signals == []
    await console.page.fill("#kill-reason", HOSTILE)
    await console.hold(1_200)
    await console.says("#kill-news", "KILLED")
    await console.shows("killed")
    ((name, payload),) = console.gateway.signals
    assert (name, payload["reason"]) == ("kill", HOSTILE)
    await console.says("#kill-progress", "0 of 4 confirmed by the venue")
    # However it ended: nobody need have restarted anything where Temporal's store came back old.
    console.gateway.carried.state, console.gateway.carried.kill = State.PAUSED, None
    console.gateway.carried.actor, console.gateway.carried.reason = "system", "came back old"
    await console.says("#kill-news", "NO LONGER KILLED: the desk is paused, by system: came back old.")
    assert "RESTART" not in await console.text("#kill-news")
    assert re.search(r"KILLED .*at \d\d:\d\d:\d\d UTC", await console.text("#kill-news"))


async def test_a_kill_is_shown_as_what_is_known_of_it(console: Console) -> None:
    ids: set[str | None] = set()
    await console.open()
    await console.shows("running")
    console.page.on("request", lambda it: ids.add(it.headers.get("idempotency-key")) if it.method == "POST" else None)
    console.gateway.signal_error = TemporalUnreachable("Temporal cannot be reached")
    await console.hold(1_100)
    await console.says("#kill-news", "NOT SENT: not recorded: Temporal cannot be reached")
    await console.says("#kill-by-hand", "temporal workflow signal --workflow-id 'coordinator-main'")
    console.gateway.signal_error = SignalUnanswered("Temporal did not answer")
    await console.says(
        "#kill-news", "IT IS NOT KNOWN whether it arrived: Temporal did not answer the API in time (503)"
    )
    console.gateway.query_error = CoordinatorSilent(SILENT)
    console.gateway.signal_error = None
    await console.says("#kill-news", "RECORDED (202)")
    # Temporal has it: only what is at the venue is left to do.
    by_hand = "Until the kill is confirmed, cancel at the venue by hand: every open order, futures and spot, of BTCUSDT"
    await console.says("#kill-by-hand", by_hand)
    assert "temporal workflow" not in await console.text("#kill-by-hand")
    await console.says("#kill-news", f"Asked again, the API says: {SILENT}")
    assert "KILLED" not in await console.text("#kill-news")
    console.gateway.query_error = None
    await console.says("#kill-news", "KILLED")
    assert len(ids) == 1


async def test_a_kill_is_confirmed_by_whichever_comes_first_the_answer_or_the_status(console: Console) -> None:
    is_seen = asyncio.Event()

    async def slow(route: Route) -> None:
        answer = await route.fetch()
        await is_seen.wait()
        await route.fulfill(response=answer)

    await console.open()
    await console.shows("running")
    await console.page.route("**/control/kill-switch", slow)
    await console.hold(1_100)
    await console.says("#kill-news", "UTC: the coordinator shows this kill.")
    async with console.page.expect_response("**/control/kill-switch"):
        is_seen.set()
    assert await console.text("#kill-label") == "KILL AGAIN: hold 1 s"
    assert [name for name, _ in console.gateway.signals] == ["kill"]


async def test_a_state_from_before_a_confirmed_kill_is_not_shown_after_it(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "STATUS_SECONDS", 60)
    await console.open()
    await console.shows("running")
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED (200)")
    await console.says("#state", "KILLED")
    assert "by the kill from this page" in await console.text("#state-why")
    # Another hold, of which nothing is known, takes nothing back.
    await console.page.route("**/control/kill-switch", lambda route: route.abort())
    await console.hold(1_100)
    await console.says("#kill-news", "IT IS NOT KNOWN whether it arrived")
    assert await console.text("#state") == "KILLED"
    await console.page.unroute("**/control/kill-switch")
    await console.says("#kill-news", "KILLED (200)")


async def test_an_answer_that_is_not_the_apis_is_no_kill_and_no_pause(console: Console) -> None:
    """A hotel's sign-in, a proxy's page: they answer 200 to whatever is asked."""
    answers: list[dict[str, Any]] = [
        {"status": 200, "content_type": "text/html", "body": "<h1>Welcome</h1>"},
        {"status": 302, "headers": {"Location": "/docs"}},
        {"status": 503, "content_type": "application/json", "body": "null"},
    ]

    async def portal(route: Route) -> None:
        await (route.fulfill(**answers.pop(0)) if answers else route.continue_())

    await console.open()
    await console.shows("running")
    opened: list[str] = []
    console.page.on("request", lambda it: opened.append(it.url) if it.url.endswith("/control/events") else None)
    await console.page.route("**/control/kill-switch", portal)
    await console.page.route("**/control/pause", lambda route: route.fulfill(json={"action": "welcome"}))
    await console.page.click("form[aria-label=Pause] button")
    await console.says("#outcomes", "NOT KNOWN whether it arrived: something other than the API answered (200)")
    await console.hold(1_100)
    await console.says("#kill-news", "IT IS NOT KNOWN whether it arrived: something other than the API answered (200)")
    await console.says("#kill-news", "KILLED")
    assert not answers
    # After an attempt without an answer the page's own stream makes room, and comes back.
    await console.until(lambda: len(opened) > 0)
    assert [name for name, _ in console.gateway.signals] == ["kill"]


async def test_what_a_gateway_refuses_is_sent_on_and_what_the_api_refuses_is_not(console: Console) -> None:
    refusals: list[dict[str, Any]] = [
        {"status": 403},
        {"status": 404},
        {"status": 405, "headers": {"X-Request-Id": "7"}},
    ]

    async def gateway(route: Route) -> None:
        await (route.fulfill(json={"detail": "no route"}, **refusals.pop(0)) if refusals else route.continue_())

    await console.open()
    await console.shows("running")
    await console.page.route("**/control/pause", lambda route: route.fulfill(json={"detail": "no"}, status=403))
    await console.page.click("form[aria-label=Pause] button")
    await console.says("#outcomes", "NOT KNOWN whether it arrived: no (403)")
    await console.page.route("**/control/kill-switch", gateway)
    await console.hold(1_100)
    for status in (403, 404, 405):
        await console.says("#kill-news", f"IT IS NOT KNOWN whether it arrived: no route ({status})")
    await console.says("#kill-news", "KILLED")
    assert not refusals


async def test_a_kill_with_a_key_that_the_api_refuses_ends(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.page.evaluate("sessionStorage.setItem('ais-key', 'another')")
    await console.hold(1_100)
    await console.says("#kill-news", "NOT SENT: Not authenticated (401)")
    assert console.gateway.signals == []


async def test_a_kill_with_a_key_of_another_desk_ends_as_not_sent(console: Console) -> None:
    """The API refuses it before it reads the command's id, which is all that tells its other answers from a gateway's."""
    await console.open()
    await console.shows("running")
    other = console.with_key("bob", Role.OPERATOR, desks=("second",))
    await console.page.evaluate("key => sessionStorage.setItem('ais-key', key)", other)
    await console.hold(1_100)
    await console.says(
        "#kill-news", "NOT SENT: The key of http:bob is for the desk second; this is the desk main (403)"
    )
    assert console.gateway.signals == []


async def test_an_api_that_has_restarted_without_its_database_costs_no_page_its_key_and_no_kill(
    console: Console,
) -> None:
    key = console.with_key("alice", Role.OPERATOR)
    await console.open(key)
    await console.shows("running")
    console.keys.error = DatabaseUnavailable("PostgreSQL did not answer within 2.5 s")
    console.forget_keys()
    await console.hold(1_100)
    await console.says("#kill-news", "NOT SENT: Not authenticated (401): this process has not read the keys")
    await console.says("#kill-news", "attempt 2")
    # The stream is refused for the same reason.
    console.app.state.parts.feed.close()
    await console.says("#stale", "this process has not read the keys")
    assert console.gateway.signals == []
    console.keys.error = None
    console.app.state.parts.ring.take(dict(console.keys.rows))
    await console.says("#kill-news", "KILLED")
    await console.shows("killed")
    assert await console.page.evaluate("sessionStorage.getItem('ais-key')") == key
    assert [payload["actor"] for _, payload in console.gateway.signals] == ["http:alice"]


async def test_a_viewers_page_offers_no_command_and_says_what_each_would_take(console: Console) -> None:
    viewer = console.with_key("wall-screen", Role.VIEWER, expires_at=datetime.now(UTC) + timedelta(days=2, hours=1))
    await console.open(viewer)
    await console.shows("running")
    await console.says("#kill-label", "KILL: not with this key (viewer)")
    await console.says(
        "#commands-not", "This key has the role viewer and cannot send these commands. Pause, Resume, Cancel all, "
    )
    await console.says("#commands-not", "Change limit: a key with the role admin.")
    await console.says("#key-note", "This page's key wall-screen expires at")
    assert await console.page.is_disabled("#kill-button")
    assert not await console.page.is_visible("form.command")
    await console.hold(1_100)
    assert console.gateway.signals == []
    # Nothing of that is left for whoever signs in next.
    await console.open(console.with_key("alice", Role.OPERATOR))
    await console.shows("running")
    await console.says(
        "#commands-not", "This key has the role operator and cannot send these commands. Change limit: a key"
    )
    assert await console.page.is_visible("form[aria-label=Pause]")
    assert not await console.page.is_visible("#key-note")
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED")
    assert [payload["actor"] for _, payload in console.gateway.signals] == ["http:alice"]


async def test_a_page_that_stays_open_hears_that_its_key_will_end(console: Console) -> None:
    await console.open(console.with_key("alice", Role.OPERATOR))
    await console.shows("running")
    assert not await console.page.is_visible("#key-note")
    console.keys.change("alice", expires_at=datetime.now(UTC) + timedelta(minutes=30, seconds=30))
    console.app.state.parts.ring.take(dict(console.keys.rows))
    # The same stream goes on; the log is read anew.
    await console.page.select_option("select[aria-label='Which log']", index=1)
    await console.says("#key-note", "in 30 minutes")


async def test_a_key_that_is_mistyped_or_of_another_desk_comes_back_to_the_form_with_the_reason(
    console: Console,
) -> None:
    right = console.with_key("alice", Role.OPERATOR)
    await console.open(right[:-1] + ("0" if right[-1] != "0" else "1"))
    await console.says("#signin-problem", "Not authenticated (401): this key is mistyped")
    await console.page.fill("#key", console.with_key("bob", Role.OPERATOR, desks=("second",)))
    await console.page.press("#key", "Enter")
    await console.says("#signin-problem", "The key of http:bob is for the desk second; this is the desk main (403)")


async def test_a_key_that_no_header_can_hold_is_told_as_that_and_not_as_an_api_out_of_reach(console: Console) -> None:
    await console.open(None)
    await console.page.fill("#key", f"{KEY}\u200b")
    await console.page.press("#key", "Enter")
    await console.says("#signin-problem", "This is not a key: a key has no space and no non-ASCII character")
    assert await console.page.evaluate("sessionStorage.length") == 0
    await console.page.fill("#key", KEY)
    await console.page.press("#key", "Enter")
    await console.shows("running")


async def test_a_browser_that_may_store_nothing_shows_the_desk_all_the_same(console: Console) -> None:
    await console.page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('denied', 'SecurityError'); } })"
    )
    await console.open()
    await console.shows("running")
    await console.page.click("#lock")
    await console.page.wait_for_selector("#signin-form")


async def test_pause_and_resume_say_what_became_of_them(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.page.click("form[aria-label=Pause] button")
    await console.shows("paused")
    await console.says("#outcomes", "APPLIED: paused.")
    await console.page.click("form[aria-label=Resume] button")
    await console.shows("running")
    await console.says("#outcomes", "APPLIED: resumed.")


async def test_the_log_keeps_a_bounded_number_of_rows_each_once(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOG_SECONDS", 0.05)
    console.reports.rows = [make_decision(1)]
    await console.open()
    await console.says("#log", "No agent proposed an order")
    rows = console.page.locator("#log .rows > li")
    for newest in range(40, 400, 40):
        console.reports.rows = [make_decision(it) for it in range(newest, 0, -1)]
        await console.says("#log time", make_decision(newest).timestamp.strftime("%H:%M:%S"))
    assert 40 < await rows.count() <= 300
    # Read anew while news is on its way: nothing stands there twice.
    await console.page.route("**/reports/decisions*", late, times=1)
    await console.page.evaluate("document.querySelector('#log-controls select').dispatchEvent(new Event('change'))")
    console.reports.rows = [make_decision(it) for it in range(402, 400, -1)]
    await console.says("#log time", make_decision(402).timestamp.strftime("%H:%M:%S"))
    await console.page.wait_for_timeout(500)
    assert await rows.count() == 2


async def test_the_older_rows_are_a_click_away_from_the_moment_the_page_is_opened(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_decision(it) for it in range(120, 0, -1)]

    async def page(wanted: DecisionFilter) -> DecisionPage:
        first = int(wanted.cursor or 0)
        last = first + wanted.limit
        return rows[first:last], str(last) if last < len(rows) else None

    monkeypatch.setattr(console.reports, "page", page)
    await console.open()
    older = console.page.get_by_role("button", name="Older rows")
    for count in (50, 120):
        await console.page.wait_for_function(
            "(count) => document.querySelectorAll('#log .rows > li').length === count", arg=count, polling=50
        )
        if count == 50:
            # Twice at once: the second click comes while rows are read already.
            await older.evaluate("(button) => { button.click(); button.click(); }")
    assert not await older.is_visible()


async def test_rows_that_could_not_be_loaded_when_they_were_announced_are_loaded_later(console: Console) -> None:
    """A desk that is killed makes no further decision, and the row of its kill would be missing for good."""
    console.reports.rows = [make_decision(1)]
    # When the page is opened, and when the row is announced.
    await console.page.route(
        "**/reports/decisions?limit=50*", lambda route: route.fulfill(status=503, json={"detail": "busy"}), times=2
    )
    await console.open()
    await console.says("#log-problem", "No more rows can be loaded")
    await console.says("#log", "No agent proposed an order")
    assert await console.text("#log-problem") == ""


async def test_a_row_that_is_written_late_stands_where_its_time_belongs(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOG_SECONDS", 0.05)
    console.reports.rows = [make_decision(3), make_decision(1)]
    await console.open()
    await console.says("#log time", make_decision(3).timestamp.strftime("%H:%M:%S"))
    console.reports.rows.insert(1, make_decision(2))
    await console.page.wait_for_function("() => document.querySelectorAll('#log .rows > li').length === 3", polling=50)
    times = await console.page.locator("#log time").all_inner_texts()
    assert times == sorted(times, reverse=True)


async def late(route: Route) -> None:
    await asyncio.sleep(0.3)
    await route.continue_()


# What a review broke.


HOLD_FOUR = """async (key) => {
  const headers = { Authorization: `Bearer ${key}` };
  globalThis.held = await Promise.all([1, 2, 3, 4].map(() => fetch("/control/events", { headers, credentials: "omit" })));
}"""


async def test_tabs_that_hold_all_six_connections_of_a_browser_leave_room_for_a_kill(console: Console) -> None:
    """A browser opens six connections to one host, and each tab holds one for its stream."""
    await console.open()
    await console.shows("running")
    other = console.page
    await other.evaluate(HOLD_FOUR, KEY)
    console.watch(await other.context.new_page())
    await console.open()
    await console.until(lambda: console.app.state.parts.feed.streams == 6)
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED")
    console.page = other
    await console.shows("killed")


async def test_a_tab_in_the_background_holds_no_connection(console: Console) -> None:
    await console.open()
    await console.shows("running")
    for hidden, streams in ((True, 0), (False, 1)):
        if not hidden:
            # What answers without the API's headers does not take away the lines for a terminal.
            await console.page.route("**/control/events", empty_stream, times=1)
        await console.page.evaluate(
            "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )
        await console.until(lambda streams=streams: console.app.state.parts.feed.streams == streams)  # type: ignore[misc]
        if hidden:
            await console.says("#stale", "in the background")
            await console.says("#lamps", "API not known")
    await console.shows("running")
    await console.says("#by-hand", "--workflow-id 'coordinator-main'")


async def hang(_: Route) -> None:
    """Answers nothing."""


async def test_another_hold_sends_a_kill_that_hangs_again_at_once_under_the_same_id(console: Console) -> None:
    ids: list[str | None] = []
    await console.open()
    await console.shows("running")
    console.page.on(
        "request", lambda it: ids.append(it.headers.get("idempotency-key")) if it.method == "POST" else None
    )
    await console.page.route("**/control/kill-switch", hang, times=1)
    await console.hold(1_100)
    await console.says("#kill-news", "SENDING NOW")
    began = time.monotonic()
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED")
    assert time.monotonic() - began < 4
    assert len(ids) == 2
    assert ids[0] == ids[1]


async def test_a_kill_that_is_over_gives_back_no_connection_while_another_tab_sends_its_own(console: Console) -> None:
    await console.open()
    await console.shows("running")
    hanging = console.page
    await hanging.route("**/control/kill-switch", hang, times=1)
    console.watch(await hanging.context.new_page())
    killing = console.page
    await console.open()
    console.watch(await hanging.context.new_page())
    watching = console.page
    await console.open()
    await console.shows("running")
    console.page = hanging
    await console.hold(1_100)
    console.page = killing
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED")
    console.page = watching
    await console.page.wait_for_timeout(700)
    assert await console.page.locator("#stale").is_visible()
    assert "Another tab of this browser is sending a kill" in await console.text("#stale")
    console.page = hanging
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED")
    console.page = watching
    await console.shows("killed")


async def empty_stream(route: Route) -> None:
    await route.fulfill(content_type="text/event-stream", body=": nothing\n\n")


async def test_a_page_that_cannot_draw_says_so_keeps_one_stream_and_kills(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.page.evaluate(
        "['positions', 'kill-by-hand', 'kill-label'].forEach((id) => document.getElementById(id).remove())"
    )
    for number in range(2):
        console.gateway.carried.reason = f"reason {number}"
        await console.says("#state-why", f"reason {number}")
    await console.says("#fault", "This page has a fault")
    assert console.app.state.parts.feed.streams == 1
    assert await console.page.locator("#stale").is_hidden()
    await console.hold(1_100)
    await console.shows("killed")
    assert console.faults
    console.faults.clear()


async def test_what_the_page_cannot_read_is_never_confirmed(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    await console.open()
    await console.shows("running")
    monkeypatch.setattr(feed, "_event", lambda *_: feed.FeedEvent(b"event: status\ndata: {\n\n"))
    await console.says("#stale", "This page cannot read what the API sent")
    await console.page.wait_for_timeout(1_200)
    assert await console.page.get_attribute("body", "data-state") == "unknown"
    assert console.app.state.parts.feed.streams == 1
    console.faults.clear()


async def test_what_keeps_a_connection_alive_confirms_no_state(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may send comments of its own for as long as the API behind it is silent."""
    told: list[float] = []

    def only_a_proxy_speaks(*_: object) -> bytes:
        if told and time.monotonic() - told[-1] < 0.3:
            return b""
        told.append(time.monotonic())
        return b": keep-alive\n\n"

    await console.open()
    await console.shows("running")
    monkeypatch.setattr(console.app.state.parts.feed, "news", only_a_proxy_speaks)
    await console.says("#stale", "The API has sent nothing for more than 3 s.")
    assert len(told) > 1


async def test_a_kill_without_a_network_may_have_arrived_holds_the_page_and_leaves_the_lines_for_a_terminal(
    console: Console,
) -> None:
    await console.open()
    await console.shows("running")
    await console.page.context.set_offline(True)
    await console.hold(1_100)
    await console.says("#kill-news", "SENT, AND IT IS NOT KNOWN whether it arrived")
    await console.says("#stale", "cannot be reached")
    await console.page.wait_for_selector("#lock[disabled]")
    await console.page.close(run_before_unload=True)
    await console.until(lambda: console.faults != [])
    assert console.faults.pop() == "dialog: beforeunload"
    await console.page.context.set_offline(False)
    await console.says("#kill-news", "KILLED")
    await console.shows("killed")
    console.gateway.query_error = CoordinatorSilent(SILENT)
    await console.says("#stale", SILENT_SENTENCE)
    await console.page.context.set_offline(True)
    await console.page.click("#lock")
    await console.says("#signin-by-hand", "temporal workflow signal --workflow-id 'coordinator-main'")


async def test_a_deleverage_is_sent_once_as_it_was_described_and_told_as_the_api_told_it(console: Console) -> None:
    carried = console.gateway.carried
    carried.mode = Mode.SHADOW
    both = [position("BTCUSDT"), position("ETHUSDT")]
    carried.observation = make_observation().model_copy(update={"positions": both})
    await console.open()
    await console.shows("running")
    await console.page.select_option("[aria-label='Position to reduce']", "ETHUSDT")
    # It is gone: another symbol must not stand there under the mouse.
    carried.observation = carried.observation.model_copy(update={"positions": both[:1]})
    await console.says("#deleverage-tells", "No position in ETHUSDT was seen")
    assert await console.page.locator("form[aria-label=Deleverage] button").is_disabled()
    carried.observation = carried.observation.model_copy(update={"positions": both})
    await console.says("#deleverage-tells", "SELL about 0.25 ETHUSDT")
    await console.page.route(
        "**/reports/instructions*",
        lambda route: route.fulfill(
            json=[{"tool": "create_order", "symbol": "ETHUSDT", "outcome": "failed", "attempts": 1, "detail": "no"}]
        ),
    )
    await console.page.dblclick("form[aria-label=Deleverage] button")
    await console.says("#outcomes", "Order prepared: SELL 0.125 ETHUSDT, reduce-only. In mode shadow nothing is sent.")
    await console.says("#outcomes", "0 of 1 confirmed by the venue, 1 failed")
    assert await console.page.get_attribute("#outcomes li", "class") == "bad"
    assert [(name, payload["symbol"]) for name, payload in console.gateway.signals] == [("deleverage", "ETHUSDT")]


async def test_a_deleverage_that_was_filled_in_part_is_told_as_that(console: Console) -> None:
    console.gateway.carried.observation = make_observation().model_copy(update={"positions": [position("BTCUSDT")]})
    console.gateway.shortfall = "0.05 of 0.125 was filled: the book was empty"
    row = {"tool": "create_order", "symbol": "BTCUSDT", "outcome": "confirmed", "attempts": 1, "detail": None}
    await console.page.route("**/reports/instructions*", lambda route: route.fulfill(json=[row]))
    await console.open()
    await console.shows("running")
    await console.says("#deleverage-tells", "SELL about")
    await console.page.click("form[aria-label=Deleverage] button")
    await console.says(
        "#outcomes", "APPLIED IN PART: deleverage prepared. Order prepared: SELL 0.125 BTCUSDT, reduce-only."
    )
    await console.says(
        "#outcomes", "Only in part: 0.05 of 0.125 was filled: the book was empty. 1 of 1 confirmed by the venue."
    )
    assert await console.page.get_attribute("#outcomes li", "class") == "bad"


async def test_a_limit_is_changed_with_the_difference_shown_and_a_refusal_told(console: Console) -> None:
    await console.open()
    await console.shows("running")
    button = "form[aria-label='Change limit'] button"
    await console.page.select_option("[aria-label='Limit to change']", "max_leverage")
    await console.says("#limits-tells", "max leverage is 2.")
    assert await console.page.locator(button).is_disabled()
    await console.page.fill("[aria-label='New value of the limit']", "1.50")
    await console.says("#limits-tells", "max leverage: 2 → 1.5. A tighter limit applies at once")
    await console.page.click(button)
    await console.says("#outcomes", "max leverage: 2 → 1.5. APPLIED: limits set.")
    await console.says("#limits-tells", "max leverage: 1.5 → 1.5")
    await console.page.fill("[aria-label='New value of the limit']", "2")
    await console.page.wait_for_function("(selector) => !document.querySelector(selector).disabled", arg=button)
    await console.page.click(button)
    await console.says("#outcomes", "REFUSED: this loosens max_leverage 1.5 -> 2; pause the desk first")
    assert console.gateway.carried.limits.max_leverage == D("1.5")


async def test_enter_held_down_in_a_form_sends_one_command(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.page.select_option("[aria-label='Limit to change']", "max_leverage")
    await console.page.fill("[aria-label='New value of the limit']", "2.2")
    await console.says("#limits-tells", "max leverage: 2 → 2.2.")
    async with asyncio.timeout(SECONDS):
        sent = asyncio.create_task(console.says("#outcomes", "REFUSED: this loosens"))
        end = time.monotonic() + REST_SECONDS + 1
        while time.monotonic() < end or not sent.done():
            # Each one after the first is a repetition, as a keyboard sends them.
            await console.page.keyboard.down("Enter")
            await asyncio.sleep(0.05)
        await sent
    await console.page.keyboard.up("Enter")
    assert [name for name, _ in console.gateway.signals] == ["set_limits"]
    # Pressed anew, it is a new one.
    await console.page.keyboard.press("Enter")
    await console.until(lambda: len(console.gateway.signals) == 2)


# Tables that are wider than their place, and the page itself.
CUT_OFF = """[...document.querySelectorAll("html, .scroll")]
  .filter((it) => it.scrollWidth > it.clientWidth).map((it) => it.id || it.tagName)"""


def position(symbol: str) -> Position:
    return Position(
        symbol=symbol, market="futures", quantity=Decimal("0.5"), entry_price=Decimal(100), mark_price=Decimal(100)
    )


async def test_it_stays_under_the_prefix_that_a_proxy_gave_it(console: Console) -> None:
    asked: list[str] = []

    async def proxy(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("/desk/", "/"))

    await console.page.route("**/desk/**", proxy)
    console.page.on("request", lambda request: asked.append(request.url))
    await console.page.goto(f"http://127.0.0.1:{console.port}/desk/console/#key={KEY}")
    await console.shows("running")
    await console.says("#lamps", "database answers")
    assert [url for url in asked if "/desk/" not in url] == []


async def test_the_charts_show_the_curve_its_limits_executions_and_what_was_done(console: Console) -> None:
    now = datetime.now(UTC)
    measures = Measures(equity=D(10_490), peak=D(10_490), day_open=D(10_000), leverage=D("0.5"))
    assessed = Assessment(measures=measures, memory=RiskMemory())
    held = {"assessment": assessed, "positions": [position("BTCUSDT"), position("ETHUSDT")]}
    console.gateway.carried.observation = make_observation().model_copy(update=held)
    console.reports.points = [
        an_equity_point(
            0,
            10_000 + 10 * number,
            time=now - timedelta(minutes=60 - number),
            prices={"BTCUSDT": D(64_000 + number % 7)},
        )
        for number in range(50)
    ]
    console.reports.rows = [
        make_decision(1, decision_type="control", summary=HOSTILE, timestamp=now - timedelta(minutes=30))
    ]
    await console.page.set_viewport_size({"width": 390, "height": 844})
    await console.open()
    await console.shows("running")
    await console.says("#charts", "Equity: last 10490, lowest 10000, highest 10490")
    assert await console.page.locator("#charts svg").count() == 6
    assert await console.page.locator("#charts .mark.command").count() == 12
    assert await console.page.locator("#charts line.limit.hard").count() == 5
    for width in (390, 768, 1280, 1920):
        await console.page.set_viewport_size({"width": width, "height": 844})
        assert await console.page.evaluate(CUT_OFF) == [], f"at {width} px"
    await console.page.click("#marks-title")
    await console.says("#marks", HOSTILE)
    console.reports.error = ReportsUnavailable(DatabaseUnavailable("away"))
    await console.page.select_option("#chart-controls select", "1 hour")
    await console.says("#chart-problem", "The charts cannot be loaded")
    assert "Equity" in await console.text("#charts")
    console.reports.error = None
    await console.page.select_option("#chart-controls select", "all")
    await console.page.wait_for_function("() => document.querySelector('#chart-problem').innerText === ''")


# What old data, cut lists and clocks that somebody sets could make the page claim.

CANCEL = {"tool": "cancel_all_orders", "symbol": "BTCUSDT", "attempts": 1, "detail": None, "command_id": "command-1"}


def canceled(number: int, outcome: str) -> dict[str, Any]:
    at = "2026-03-12T14:30:00+00:00"
    return {**CANCEL, "instruction_id": f"cancel-{number}", "prepared_at": at, "outcome": outcome}


async def test_after_a_sleep_what_was_sent_before_it_is_not_shown_as_current(console: Console) -> None:
    """The machine's clock goes on while it sleeps, and a timer of the page does not. (After half an hour it locks.)"""
    asked: list[str] = []
    console.page.on("request", lambda request: asked.append(request.url.rpartition("/control/")[2]))
    await console.open()
    await console.shows("running")
    assert asked.count("events") == 1
    await console.page.evaluate("() => { const now = Date.now; Date.now = () => now() + 600_000; }")
    await console.until(lambda: asked.count("events") == 2)
    await console.shows("running")


async def test_another_desk_at_the_same_address_gets_a_page_on_which_nothing_was_done_yet(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.hold(1_100)
    await console.says("#kill-news", "KILLED")
    await console.shows("killed")
    console.gateway.carried = make_carried(desk="second", started_at=datetime.now(UTC))
    await console.says("#desk-name", "second")
    await console.shows("running")
    assert await console.text("#kill-news") == ""


async def test_a_proxy_whose_clock_is_ahead_makes_no_event_look_late(console: Console) -> None:
    asked: list[str] = []

    async def proxied(route: Route) -> None:
        answer = await route.fetch()
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        await route.fulfill(response=answer, headers={**answer.headers, "date": date})
        asked.append(date)

    await console.page.route("**/health", proxied)
    await console.open()
    await console.until(lambda: len(asked) >= 2)
    # At least one event comes each second.
    await console.page.wait_for_timeout(2_000)
    assert await console.page.locator("body.stale").count() == 0
    await console.page.unroute_all(behavior="ignoreErrors")


async def test_a_proxy_that_keeps_the_stream_to_itself_is_not_told_as_an_api_out_of_reach(console: Console) -> None:
    await console.page.route("**/control/events", hang)
    await console.open()
    await console.says("#stale", "No event arrives from the API: it hangs, or a proxy holds its events back.")
    await console.says("#lamps", "API answers")
    await console.page.unroute_all(behavior="ignoreErrors")
    await console.shows("running")


async def test_charts_from_before_a_time_in_the_background_are_read_anew_at_once(console: Console) -> None:
    asked: list[str] = []
    console.page.on("request", lambda request: asked.append(request.url.rpartition("/reports/")[2].split("?")[0]))
    # The timer of the charts never fires.
    await console.page.add_init_script(
        "const real = setInterval; globalThis.setInterval = (work, ms) => real(work, ms === 15_000 ? 100_000_000 : ms);"
    )
    hide = (
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    await console.open()
    await console.says("#charts", "Equity")
    assert asked.count("equity") == 1
    await console.page.evaluate(hide, True)
    await console.until(lambda: console.app.state.parts.feed.streams == 0)
    await console.page.evaluate("() => { const now = Date.now; Date.now = () => now() + 600_000; }")
    await console.page.evaluate(hide, False)
    await console.until(lambda: asked.count("equity") == 2)


async def test_a_clock_that_is_set_back_hides_no_warning(console: Console) -> None:
    console.gateway.carried.observation_error = "the venue is away"
    await console.open()
    await console.says("#warnings", "The last reading of the venue failed: the venue is away")
    await console.page.evaluate("const now = Date.now; Date.now = () => now() - 3_600_000;")
    await console.says("#clock", "this machine is 60 min off")
    await console.says("#warnings", "The last reading of the venue failed: the venue is away")


async def test_a_desk_that_never_had_a_cycle_is_told_as_one_that_may_have_no_worker(console: Console) -> None:
    console.gateway.carried.started_at = datetime.now(UTC) - timedelta(seconds=60)
    await console.open()
    await console.says("#warnings", "The desk has missed three cycles.")
    await console.says("#lamps", "worker not known")


async def test_outcomes_of_instructions_arrive_without_a_new_decision(console: Console) -> None:
    """A killed desk makes none, and the log went on to say of each cancel that it was prepared."""
    outcomes = ["prepared"]
    await console.page.route("**/reports/instructions*", lambda route: route.fulfill(json=[canceled(1, outcomes[-1])]))
    console.reports.rows = [make_decision(1)]
    await console.open()
    await console.shows("running")
    await console.page.select_option("#log-controls select", "instructions")
    await console.says("#log .kind", "prepared")
    outcomes.append("confirmed")
    await console.says("#log .kind", "confirmed")


async def test_every_cancel_of_many_symbols_is_counted(console: Console) -> None:
    rows = [canceled(number, "confirmed") for number in range(60)]

    async def report(route: Route) -> None:
        found = re.search(r"limit=(\d+)", route.request.url)
        assert found
        await route.fulfill(json=rows[: int(found[1])])

    console.gateway.carried.symbols = [f"S{number}USDT" for number in range(30)]
    await console.page.route("**/reports/instructions*", report)
    await console.open()
    await console.shows("running")
    await console.page.click("form[aria-label='Cancel all'] button")
    await console.says("#outcomes", "60 cancels prepared. 60 of 60 confirmed by the venue.")


async def test_the_rows_of_a_kill_are_its_own_and_as_old_as_they_say(console: Console) -> None:
    is_down = False

    async def report(route: Route) -> None:
        is_first = "command_id=first" in route.request.url
        await (route.abort() if is_down else route.fulfill(json=[canceled(1, "prepared")] * 40 if is_first else []))

    def kill(command_id: str) -> KillRecord:
        return KillRecord(
            command_id=command_id,
            at=datetime.now(UTC),
            row_id="decision_1",
            reason=f"the {command_id} kill",
            actor="cli:x",
            source="operator",
        )

    await console.page.route("**/reports/instructions*", report)
    carried = console.gateway.carried
    carried.state, carried.kill = State.KILLED, kill("first")
    await console.open()
    await console.shows("killed")
    await console.says("#kill-progress", "These are the newest 40. The log below has all of them")
    is_down = True
    await console.says("#kill-progress", "They could not be read again: the facts above are newer.")
    carried.kill = kill("second")
    await console.says("#kill-progress", "the second kill")
    assert await console.page.locator("#kill-progress table").count() == 0


async def test_a_command_that_the_api_did_not_send_is_not_told_as_perhaps_arrived(console: Console) -> None:
    """Found: "NOT KNOWN whether it arrived: … nothing was sent", and the page followed it for ten minutes."""
    await console.open()
    await console.shows("running")
    await console.page.click("form[aria-label='Pause'] button")
    await console.says("#outcomes", "APPLIED: paused.")
    carried = console.gateway.carried
    carried.records = [carried.records[0]] * (MAX_UNWRITTEN + 1)
    await console.until(lambda: console.app.state.parts.desk._rows > MAX_UNWRITTEN)
    await console.page.click("form[aria-label='Cancel all'] button")
    await console.says("#outcomes", "NOT DONE: 2001 rows of the decision log wait for the database")


async def test_of_many_orders_of_unknown_fate_it_counts_all_and_none_twice(console: Console) -> None:
    carried, now = console.gateway.carried, datetime.now(UTC)
    carried.symbols = [f"S{number}USDT" for number in range(MAX_SHOWN // 2)]
    await console.gateway.signal("cancel_all", {"command_id": "before"})
    for number in range(MAX_SHOWN + 10):
        facts = {"order_id": f"ord_{number}", "command_id": "d", "desk": "main", "instruction": an_order()}
        order = Order(**facts, not_after=now, prepared_at=now)
        carried.orders.append(PendingOrder(order=order, phase=OrderPhase.UNKNOWN, since=now))
    await console.open()
    await console.says("#warnings", "Fate unknown: 60 of the desk's orders.")
    await console.says("#unknown", "and 10 more")
    assert await console.page.locator("#unknown tbody tr").count() == 2 * MAX_SHOWN


async def test_a_command_that_the_page_follows_no_more_says_so(console: Console) -> None:
    await console.open()
    await console.shows("running")
    await console.page.click("form[aria-label='Cancel all'] button")
    await console.says("#outcomes", "0 of 4 confirmed by the venue.")
    await console.page.evaluate(
        "const now = performance.now.bind(performance); performance.now = () => now() + 660_000;"
    )
    await console.says("#outcomes", "UTC: this page has stopped following it.")


async def test_charts_say_which_marks_and_executions_they_lack(console: Console) -> None:
    now = datetime.now(UTC)
    console.reports.points = [an_equity_point(0, 10_000, time=now, prices={"BTCUSDT": D(64_000)})]
    console.reports.rows = [
        make_decision(it, decision_type="control", timestamp=now - timedelta(seconds=it)) for it in range(250)
    ]
    fill = {"filled_at": now.isoformat(), "side": "BUY", "quantity": "1", "price": "64000"}
    await console.page.route("**/reports/fills*", lambda route: route.fulfill(json=[fill] * 500))
    await console.open()
    await console.says("#marks-title", "of each, only the newest 200, so older ones are missing")
    await console.says("#charts", "Price of BTCUSDT (with the newest 500 executions only)")
    await console.page.route("**/reports/fills*", lambda route: route.fulfill(status=503, json={"detail": "not known"}))
    await console.page.select_option("#chart-controls select", "1 hour")
    await console.says("#charts", "Price of BTCUSDT (executions not known)")


def test_a_run_of_ci_without_a_browser_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIS_BROWSER", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception):
        browser_program()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        browser_program()
