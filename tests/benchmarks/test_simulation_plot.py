from benchmarks.simulation_plot import best_points, roof


def test_the_roof_is_bandwidth_until_arithmetic_limits():
    assert roof(2.0, 100.0, 10.0) == 20.0
    assert roof(10.0, 100.0, 10.0) == 100.0
    assert roof(50.0, 100.0, 10.0) == 100.0


def test_each_engine_shows_its_fastest_cohort_of_each_network():
    points = [
        {"engine": "workers", "network": "cnn", "cohort": 1, "flops_per_s": 1.0},
        {"engine": "workers", "network": "cnn", "cohort": 4, "flops_per_s": 3.0},
        {"engine": "workers", "network": "cnn", "cohort": 16, "flops_per_s": 2.0},
        {"engine": "sequential", "network": "cnn", "cohort": 1, "flops_per_s": 0.5},
    ]

    assert [(point["engine"], point["cohort"]) for point in best_points(points)] == [("workers", 4), ("sequential", 1)]
