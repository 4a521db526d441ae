"""A device that does the same wrong thing once a second gets one line a minute."""

from gateway.repeats import KINDS_MAX, Repeats


def test_the_first_is_told_and_then_how_many_there_were_once_a_minute() -> None:
    repeats = Repeats()
    told = [(second, repeats.due("large", float(second))) for second in range(150)]
    assert [one for one in told if one[1]] == [(0, 1), (60, 60), (120, 60)]
    assert repeats.due("keyless", 150.0) == 1
    assert repeats.due("large", 1000.0) == 30


def test_what_is_new_all_the_time_is_told_no_more_often() -> None:
    repeats = Repeats()
    told = sum(repeats.due(f"topic {number}", number / 100) > 0 for number in range(6000))
    assert told == KINDS_MAX + 1
