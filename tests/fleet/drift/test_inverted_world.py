"""Live: every camera's picture is inverted and nobody labels anew. Nothing may look well, and the alerts say why.

Real agents in processes of their own, a real broker, TUF signatures, ONNX Runtime. Before there were floors this ended
with a FINISHED rollout of a model that was right on nothing, and without an alert.
"""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from hedgerow.children.programs import Programs
from hedgerow.fleet.brokers.development import DevelopmentBroker
from hedgerow.fleet.commands.fleet import make_fleet
from hedgerow.fleet.demo.agents import move_worlds
from hedgerow.fleet.deploy.agents import agent_command, start_agents
from hedgerow.fleet.drift.alert import AlertKind
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.records import RunState
from hedgerow.fleet.retrain.run import RetrainSettings
from hedgerow.fleet.rollout.gates import GatePlan
from hedgerow.fleet.rollout.plan import RolloutPlan
from hedgerow.fleet.rollout.stages import StagePlan
from hedgerow.fleet.rollout.state import RolloutState
from hedgerow.fleet.serving import Retraining, serve_fleet
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.trust.checkpoints import keep_checkpoint

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
DIGITS = Path(__file__).parents[3] / "examples" / "digits"
TASK, TARGET = f"{DIGITS / 'task.py'}:task", "x86-gateway"
PLAN = RolloutPlan(stages=(StagePlan("canary", 0.5), StagePlan("fleet", 1.0)), gate=GatePlan(floor=0.85))
STALE_SOURCE = f'''
import sys
sys.path.insert(0, {str(DIGITS)!r})
from device import stream as labelled_anew


def stream(context):
    """Yield what the example yields, but label nothing a second time: when the world changes, the labels stay."""
    has_served = False
    for sample in labelled_anew(context):
        has_served |= sample.use == "serve"
        if sample.use == "serve" or not has_served:
            yield sample
'''


class Scene:
    """A fleet that serves, with two gateways."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from hedgerow.server.training import train_task
        from hedgerow.task import load_task

        self.folder = FleetFolder(folder / "fleet")
        make_fleet(self.folder, "demo", now=time.time())
        self.checkpoint = train_task(load_task(TASK), folder / "run", rounds=10, clients=8).checkpoint_folder
        self.release(folder / "build-1")
        broker = stack.enter_context(DevelopmentBroker())
        settings = FleetSettings(
            fleet="demo",
            port=0,
            broker_host=broker.host,
            broker_port=broker.port,
            retrain_cool_down_s=0.1,
            retrain_most_failures=2,
        )
        children = stack.enter_context(Programs())
        how = RetrainSettings(rounds=1, minimum_devices=2, round_timeout_s=60, max_drop=0.1)
        fleet = serve_fleet(self.folder, settings, stack, retraining=Retraining(task=TASK, settings=how))
        self.service, self.retrained = fleet.service, fleet.retrained
        shutil.copyfile(self.folder.tuf_metadata / "1.root.json", folder / "root.json")
        (folder / "stale.py").write_text(STALE_SOURCE)
        self.states = [folder / name for name in ("gateway-0", "gateway-1")]
        commands = [
            agent_command(
                state.name,
                TARGET,
                fleet="demo",
                broker=f"{broker.host}:{broker.port}",
                server=fleet.url,
                trusted_root=folder / "root.json",
                state_folder=state,
                source=f"{folder / 'stale.py'}:stream",
                source_options={"clients": "8", "index": str(index), "rate_per_s": "100"},
                window_samples=100,
            )
            for index, state in enumerate(self.states)
        ]
        start_agents(
            children, [(state.name, c) for state, c in zip(self.states, commands, strict=True)], folder / "logs"
        )

    def release(self, out: Path) -> str:
        from hedgerow.compile import compile_checkpoint
        from hedgerow.fleet.trust.releases import create_release

        compile_checkpoint(TASK, self.checkpoint, [TARGET], out)
        manifest = create_release(self.folder, "digits", out, now=time.time())
        keep_checkpoint(self.folder, manifest, self.checkpoint)
        return manifest.release

    def alerts(self, kind: str):
        return [alert for alert in self.service.alerts() if alert.kind == kind]

    def wait_for(self, what: str, is_true, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_true():
            found = [(rollout.id, rollout.state, rollout.reason) for rollout in self.service.rollouts()]
            assert time.monotonic() < deadline, f"{what}: {found}, {self.service.alerts()}, {self.service.runs()}"
            time.sleep(0.1)

    def wait_for_windows(self, windows: int) -> None:
        """Wait until each device has sent so many windows more, and what they mean is known."""
        since = time.time()

        def sent() -> list[int]:
            found = [stored.device for stored in self.service.windows(since=since)]
            return [found.count(device.name) for device in self.service.devices()]

        self.wait_for(f"{windows} windows of each device", lambda: min(sent()) >= windows)

    def roll_out(self, release: str) -> RolloutState:
        rollout = self.service.start_rollout(release, PLAN)
        self.wait_for(f"{release} is over", lambda: self.service.rollout(rollout.id).state.is_terminal)
        return self.service.rollout(rollout.id)


def test_stale_labels_in_an_inverted_world_are_never_green(tmp_path):
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        service = scene.service
        scene.wait_for("both are here", lambda: len([d for d in service.devices() if d.target]) == 2)
        assert scene.roll_out("digits@1").state is RolloutState.FINISHED
        assert service.is_proven("digits@1")
        scene.wait_for_windows(3)
        assert service.alerts() == ()

        move_worlds(scene.states)
        scene.wait_for("the score alert", lambda: scene.alerts(AlertKind.SCORE))
        scene.wait_for("the drift alert", lambda: scene.alerts(AlertKind.DRIFT))
        (score,) = scene.alerts(AlertKind.SCORE)
        assert "lies below the floor of 85.0%, which was asked for" in score.reason

        # The devices have labels, of the world before; they decline, again and again, and a person is told. One that no
        # alert has named yet may still train on them: then the gate sends back what comes of it.
        scene.wait_for("giving up", lambda: scene.alerts(AlertKind.RETRAINING))
        (told,) = scene.alerts(AlertKind.RETRAINING)
        assert "2 retrainings of digits@1 in a row brought no recovery" in told.reason
        assert [run.state for run in service.runs()] == [RunState.FAILED, RunState.FAILED]
        assert {run.reason.split(":")[0] for run in service.runs()} <= {"round 1", "digits@2 was sent back"}

        # A release that equals the one before, at next to nothing.
        equal = scene.release(tmp_path / "build-2")
        rollout = scene.roll_out(equal)
        assert rollout.state is RolloutState.ROLLED_BACK
        assert rollout.reason.startswith("the gate stopped it: below the floor: accuracy ")
        scene.wait_for("digits@1 again", lambda: {d.release for d in service.devices()} == {"digits@1"})
        scene.wait_for_windows(3)
        assert not service.is_proven(equal)
        first, *others = service.rollouts()
        assert (first.release, first.state) == ("digits@1", RolloutState.FINISHED)
        assert {found.state for found in others} == {RolloutState.ROLLED_BACK}
        assert all(found.reason.startswith("the gate stopped it: below the floor") for found in others)
        assert {alert.kind for alert in service.alerts()} == {AlertKind.DRIFT, AlertKind.SCORE, AlertKind.RETRAINING}
        assert len(service.runs()) == 2
