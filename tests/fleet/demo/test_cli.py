"""What the demo's command prints at its end."""

import pytest

from hedgerow import installation
from hedgerow.cli import main
from hedgerow.fleet.demo.cli import _print_table
from hedgerow.fleet.demo.result import (
    ArtifactResult,
    BadReleaseResult,
    DemoResult,
    DeviceTrainResult,
    DriftResult,
    FirstTrainResult,
    RolloutResult,
)

CHECKS = {f"check {number}": "passed" for number in range(12)}


@pytest.fixture
def result():
    formats = {"raspberry-pi-4": "onnx", "android-arm64": "tflite", "iphone-15": "mlpackage"}
    return DemoResult(
        seconds=155.0,
        broker="mosquitto 2.0.11",
        devices=8,
        train=FirstTrainResult("fedavg", 20, 0.984),
        artifacts=[
            ArtifactResult(target, format_, 74_077, 287_894, 0.988, 0.984, "0" * 64, CHECKS)
            for target, format_ in formats.items()
        ],
        rollout=RolloutResult("FINISHED", 8, 0),
        drift=DriftResult(["pi-0"], True, ["pi-0"], ["image.mean"], 0.5, 2, 0, 0.943, 0.004),
        retrain=DeviceTrainResult("score alert", "FleetGrid", 24, 0.972, 0.97),
        bad_release=BadReleaseResult(True, 2, True, "below the floor"),
        final_release="digits@2",
    )


def test_each_artifact_is_one_whole_line_on_a_terminal_of_80_columns(result, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    _print_table(result)

    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    for artifact in result.artifacts:
        assert f"{artifact.target} {artifact.format} 74,077 287,894 98.8% 98.4% 12 of 12" in lines


@pytest.mark.parametrize("absent", ["coremltools", "flwr", "sklearn"])
def test_what_any_part_needs_is_asked_for_before_the_demo_begins(absent, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(installation, "is_installed", lambda module: module != absent)

    assert main(["demo", "--out", str(tmp_path / "demo")]) == 1

    said = capsys.readouterr().err
    assert said.startswith(
        f"hedgerow: the demo needs the packages of the extra 'all', and the module {absent!r} is not"
    )
    assert list(tmp_path.iterdir()) == []
