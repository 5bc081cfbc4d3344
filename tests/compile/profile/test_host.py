from hedgerow.compile.profile.host import HostLatency, measure_latency
from hedgerow.decode import Fields


class Clock:
    """Predictions that take 1, 2, 3, ... ms."""

    def __init__(self) -> None:
        self.now_s, self.calls = 0.0, 0

    def __call__(self) -> float:
        return self.now_s

    def predict(self) -> None:
        self.now_s += self.calls / 1000
        self.calls += 1


def test_the_median_and_the_worst_of_a_hundred_by_nearest_rank():
    clock = Clock()
    found = measure_latency(clock.predict, clock, budget_s=100.0)
    assert found == HostLatency(100.0, 198.0, 200)


def test_the_first_prediction_is_not_counted_and_three_are_made_at_least():
    clock = Clock()
    found = measure_latency(clock.predict, clock, budget_s=0.0)
    assert found == HostLatency(2.0, 3.0, 3)
    assert clock.calls == 4


def test_a_latency_comes_back():
    latency = HostLatency(0.5, 1.5, 7)
    assert HostLatency.from_fields(Fields(latency.to_record(), "latency")) == latency
