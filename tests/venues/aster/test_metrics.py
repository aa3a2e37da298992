"""Each call of a tool is timed and counted under its name, and data grows old."""

import pytest

from activities.metrics import WorkerMetrics
from activities.venues.port import VenueUnavailable
from tests.venues.aster.fake_server import FakeServer
from tests.venues.aster.running import make_venue


async def test_calls_errors_and_ages_reach_the_workers_metrics(fake: FakeServer, address: str) -> None:
    instruments = WorkerMetrics("main")
    venue = make_venue(address, watch=instruments)
    try:
        await venue.observe(["BTCUSDT"], None)
        await venue.markets(["BTCUSDT"], 2)
        fake.faults.errors = {"get_account_v4": 503}
        with pytest.raises(VenueUnavailable):
            await venue.observe(["BTCUSDT"], None)
    finally:
        await venue.close()
    read = instruments.registry.get_sample_value
    assert read("ais_aster_latency_seconds_count", {"tool": "get_klines"}) == 1
    assert read("ais_aster_latency_seconds_count", {"tool": "get_account_v4"}) == 2
    assert read("ais_aster_errors_total", {"tool": "get_account_v4"}) == 1
    assert read("ais_aster_errors_total", {"tool": "get_klines"}) == 0
    for kind in ("ticker", "positions", "book"):
        age = read("ais_aster_data_age_seconds", {"data_type": kind})
        assert age is not None
        assert 0 <= age < 60
        later = read("ais_aster_data_age_seconds", {"data_type": kind})
        assert later is not None
        assert later > age
