"""Each trouble is logged once, and once more when it is over."""

from domain.health.troubles import KnownTroubles


def test_a_trouble_that_lasts_is_new_once() -> None:
    troubles = KnownTroubles()

    assert [troubles.begin(text="refused") for _ in range(3)] == [True, False, False]


def test_another_text_is_another_trouble() -> None:
    troubles = KnownTroubles()

    assert [troubles.begin(text=text) for text in ("refused", "timed out", "refused")] == [True, True, True]


def test_the_end_of_a_trouble_is_noted_once_and_nothing_ends_that_never_began() -> None:
    troubles = KnownTroubles()
    before = troubles.end()
    troubles.begin()

    assert [before, troubles.end(), troubles.end(), troubles.begin()] == [False, True, False, True]


def test_subjects_do_not_mix() -> None:
    troubles = KnownTroubles()
    troubles.begin("database", "away")

    assert troubles.begin("disk", "away")
    assert "database" in troubles
    assert troubles.end("database")
    assert "database" not in troubles
    assert "disk" in troubles
