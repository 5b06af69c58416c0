"""What two sides that took turns are said to have done."""

from tests.bench.figures import Span, against


def _span(*rates: float) -> Span:
    return Span("broker", "steady", 32, int(sum(rates)), float(len(rates)), (1.0, 2.0, 3.0), (), {}, rates)


def test_all_rounds_together_are_judged_and_the_least_and_the_most_are_shown() -> None:
    whole, least, most = against("ratio", _span(100, 90, 50), _span(100, 60, 40), at_least=2.0)
    assert (whole.seen, whole.at_least, whole.met) == (1.2, 2.0, False)
    assert (least.name, least.seen, least.wanted) == ("ratio, least of 3 rounds", 1.0, "")
    assert (most.name, most.seen, most.wanted) == ("ratio, most of 3 rounds", 1.5, "")


def test_two_rounds_say_nothing_of_how_far_they_differ() -> None:
    (whole,) = against("ratio", _span(100, 90), _span(50, 60))
    assert whole.seen == 190 / 110
    assert whole.met
