"""The admin API: what an operator sees and asks for, below ``/v1``; with downloads and training rounds beside it.

Inside, everything is the service's; here are paths, keys and JSON.
"""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query
from fastapi.responses import Response

from hedgerow import __version__
from hedgerow.errors import HedgerowError
from hedgerow.fleet.errors import CommandNotBegunError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.registry import Device
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.rollout.state import Rollout
from hedgerow.fleet.service.commands import Command
from hedgerow.fleet.service.doubts import RefusedReport
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.trust.expiry import expiry_alarms
from hedgerow.fleet.trust.signing import expiries
from hedgerow.fleet.web.bodies import RolloutBody
from hedgerow.fleet.web.downloads import download_router
from hedgerow.fleet.web.http_errors import add_problem_handlers, problem_of
from hedgerow.fleet.web.keyed_routes import Actor, keyed_router
from hedgerow.fleet.web.request_bodies import BoundedBodies
from hedgerow.fleet.web.training import training_router
from hedgerow.wire.device import Desired
from hedgerow.wire.topics import NAME

__all__ = ["create_app"]

_Record = dict[str, Any]
_Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=64, pattern=f"^{NAME.pattern}$")]
"""Under which a client asks for something; asking again under it does nothing new and gives the same answer."""


def create_app(
    service: FleetService,
    folder: FleetFolder,
    exchange: TrainingExchange | None = None,
    *,
    approve_retraining: Callable[[], bool] | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: The fleet service, started.
        folder: Where the signed repository is.
        exchange: What training rounds go through; None: there is no training here.
        approve_retraining: Starts the retraining that waits and returns whether one did; None: none ever waits.
    """
    app = FastAPI(title="Hedgerow fleet", version=__version__, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    app.add_middleware(BoundedBodies)
    add_problem_handlers(app)

    @app.get("/healthz", tags=["health"])
    def healthz() -> _Record:
        """Say that the service answers and its store can be read."""
        return {
            "status": "ok",
            "version": __version__,
            "fleet": service.settings.fleet,
            "devices": service.count_devices(),
        }

    app.include_router(download_router(folder))
    if exchange is not None:
        app.include_router(training_router(exchange))
    app.include_router(_admin_router(service, folder, approve_retraining or (lambda: False)))
    return app


def _admin_router(service: FleetService, folder: FleetFolder, approve_retraining: Callable[[], bool]) -> APIRouter:
    router = keyed_router("/v1", service.admin_key_hashes)
    _add_fleet_routes(router, service, folder)
    _add_device_routes(router, service)
    _add_rollout_routes(router, service)
    _add_record_routes(router, service, approve_retraining)
    return router


def _add_fleet_routes(router: APIRouter, service: FleetService, folder: FleetFolder) -> None:
    @router.get("/status")
    def status() -> _Record:
        """Return how the fleet stands: its size, until when its signatures count, and which of them end soon."""
        ends = expiries(folder)
        return {
            "fleet": service.settings.fleet,
            "version": __version__,
            "devices": service.count_devices(),
            "signatures": ends,
            "alarms": [alarm.to_record() for alarm in expiry_alarms(ends, time.time())],
        }

    @router.get("/releases")
    def releases() -> list[_Record]:
        """Return the signed releases."""
        found = []
        for release in service.catalogue.releases():
            manifest = service.catalogue.manifest(release)
            targets = sorted(artifact.target for artifact in manifest.artifacts)
            answers = manifest.model_schema.answers
            found.append(
                {
                    "release": release,
                    "task": manifest.task,
                    "created_at": manifest.created_at,
                    "parent": manifest.lineage.parent,
                    "targets": targets,
                    "outputs": {name: output.kind for name, output in answers.items()},
                    "score": answers.score_name if answers else None,
                    "metrics": dict(manifest.metrics),
                }
            )
        return found

    @router.get("/releases/{release}", response_class=Response)
    def release(release: str) -> Response:
        """Return a release's manifest, byte for byte as it was signed."""
        return Response(service.catalogue.manifest(release).encode(), media_type="application/json")


def _add_device_routes(router: APIRouter, service: FleetService) -> None:
    def record_of(device: Device) -> _Record:
        return _device(device, service.desired(device.name), service.refusal(device.name))

    @router.get("/devices")
    def devices() -> list[_Record]:
        """Return all devices."""
        return [record_of(device) for device in service.devices()]

    @router.get("/devices/{name}")
    def device(name: str) -> _Record:
        """Return one device."""
        return record_of(service.device(name))

    @router.post("/devices/{name}/reset")
    def reset(name: str, by: Actor, key: _Key = None) -> _Record:
        """Believe nothing that a device said so far; its next report counts, whatever it says."""
        return record_of(service.reset_device(name, actor=by, command_id=key))

    @router.delete("/devices/{name}")
    def forget(name: str, by: Actor, key: _Key = None) -> _Record:
        """Keep nothing of a device; return it as it was. If it reports again, it is new."""
        return _device(service.forget_device(name, actor=by, command_id=key), None)


def _add_rollout_routes(router: APIRouter, service: FleetService) -> None:
    @router.post("/rollouts", status_code=201)
    def start_rollout(body: RolloutBody, by: Actor, key: _Key = None) -> _Record:
        """Start a rollout."""
        return _rollout(service.start_rollout(body.release, body.plan.to_domain(), actor=by, command_id=key))

    @router.get("/rollouts")
    def rollouts() -> list[_Record]:
        """Return all rollouts, without their executions."""
        return [_without(_rollout(rollout), "executions") for rollout in service.rollouts()]

    @router.get("/rollouts/{rollout_id}")
    def rollout(rollout_id: str) -> _Record:
        """Return one rollout with its executions."""
        return _rollout(service.rollout(rollout_id))

    @router.post("/rollouts/{rollout_id}/pause")
    def pause(rollout_id: str, by: Actor, key: _Key = None) -> _Record:
        """Hold a running rollout."""
        return _rollout(service.pause(rollout_id, actor=by, command_id=key))

    @router.post("/rollouts/{rollout_id}/resume")
    def resume(rollout_id: str, by: Actor, key: _Key = None) -> _Record:
        """Let a paused rollout go on."""
        return _rollout(service.resume(rollout_id, actor=by, command_id=key))

    @router.post("/rollouts/{rollout_id}/abort")
    def abort(rollout_id: str, by: Actor, key: _Key = None) -> _Record:
        """End a rollout; exposed devices go back."""
        return _rollout(service.abort(rollout_id, actor=by, command_id=key))

    @router.post("/rollouts/{rollout_id}/approve")
    def approve(rollout_id: str, by: Actor, key: _Key = None) -> _Record:
        """Approve a rollout that waits for it."""
        return _rollout(service.approve(rollout_id, actor=by, command_id=key))


def _add_record_routes(router: APIRouter, service: FleetService, approve_retraining: Callable[[], bool]) -> None:
    @router.get("/commands/{command_id}")
    def command(command_id: str) -> _Record:
        """Return how a command stands that was asked for since the service was started, with its answer if it is over.

        Its id is what an answer 202 named, or the Idempotency-Key that it was asked under.
        """
        return _command(service.command(command_id), service.writer.timeout_s)

    @router.get("/alerts")
    def alerts() -> list[_Record]:
        """Return all alerts."""
        return [alert.to_record() for alert in service.alerts()]

    @router.get("/windows")
    def windows(
        device: str | None = None,
        release: str | None = None,
        since: Annotated[float, Query(ge=0)] = 0.0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> list[_Record]:
        """Return the latest windows, the oldest first."""
        found = service.windows(device, since=since, release=release, limit=limit)
        return [{"device": w.device, "received_at": w.received_at, "window": w.window.to_record()} for w in found]

    @router.get("/runs")
    def runs() -> list[_Record]:
        """Return all retrainings."""
        return [
            {
                "id": run.id,
                "state": run.state.value,
                "trigger": run.trigger,
                "parent": run.parent,
                "release": run.release,
                "started_at": run.started_at,
                "ended_at": run.ended_at,
                "reason": run.reason,
            }
            for run in service.runs()
        ]

    @router.post("/runs/approve", status_code=202)
    def approve_run() -> _Record:
        """Start the retraining that waits for approval."""
        if not approve_retraining():
            raise HTTPException(409, "expected a retraining that waits for approval, found none")
        return {"approved": True}


def _device(device: Device, desired: Desired | None, refusal: RefusedReport | None = None) -> _Record:
    return {
        "name": device.name,
        "target": device.target,
        "release": device.release,
        "previous": device.previous,
        "online": device.online,
        "desired": desired.to_record() if desired else None,
        "desired_version": device.desired_version,
        "agent_version": device.agent_version,
        "runtimes": list(device.runtimes),
        "last_seen": device.last_seen,
        "refused": {"reason": refusal.reason, "at": refusal.at} if refusal is not None else None,
        "problems": list(device.problems),
    }


def _rollout(rollout: Rollout) -> _Record:
    return rollout.to_record()


def _command(command: Command[Any], timeout_s: float) -> _Record:
    record: _Record = {"id": command.id, "what": command.what, "state": command.state, "answer": None, "problem": None}
    if record["state"] == "done":
        result = command.future.result()
        if isinstance(result, Device):
            record["answer"] = _device(result, None)
        elif isinstance(result, Rollout | Desired):
            record["answer"] = result.to_record()
    elif record["state"] == "failed":
        is_taken_back = command.future.cancelled()
        error = CommandNotBegunError(command.id, timeout_s) if is_taken_back else command.future.exception()
        record["problem"] = problem_of(error) if isinstance(error, HedgerowError) else problem_of(None)
    return record


def _without(record: Mapping[str, Any], name: str) -> _Record:
    return {key: value for key, value in record.items() if key != name}
