"""A fleet that serves: link, store, service, HTTP server and retraining loop, put together and taken apart in order."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hedgerow.errors import HedgerowError
from hedgerow.fleet.errors import RetrainError
from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.retrain.loop import RetrainLoop
from hedgerow.fleet.retrain.policy import RetrainPolicy
from hedgerow.fleet.retrain.run import Retrainer, RetrainResult, RetrainSettings
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.service.fleet_service import FleetService
from hedgerow.fleet.settings import FleetSettings
from hedgerow.fleet.store.writing import Store
from hedgerow.mqtt_link import MqttLink
from hedgerow.progress import Report, silent
from hedgerow.task import load_task

if TYPE_CHECKING:
    from hedgerow.compile import CompileWorkers

__all__ = ["Retraining", "ServingFleet", "serve_fleet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """What a drift alert sets off.

    Attributes:
        task: Reference of the task, ``module:attribute`` or ``file.py:attribute``.
        settings: How it trains and rolls out; None: as the fleet's settings say.
        workers: Warm compile processes; None: new ones for each retraining.
        report: Told every step.
    """

    task: str
    settings: RetrainSettings | None = None
    workers: "CompileWorkers | None" = None
    report: Report = silent


@dataclass(frozen=True, slots=True)
class ServingFleet:
    """A fleet that serves.

    Attributes:
        service: Its service, started.
        url: Address of its HTTP server.
        retrained: What retrainings came to, the first first; appended to by the retraining thread.
    """

    service: FleetService
    url: str
    retrained: list[RetrainResult | HedgerowError] = field(default_factory=list)


def serve_fleet(
    folder: FleetFolder, settings: FleetSettings, stack: ExitStack, *, retraining: Retraining | None = None
) -> ServingFleet:
    """Start everything that ``hedgerow fleet serve`` runs; *stack* stops it in reverse order.

    Args:
        folder: The fleet's, made by ``hedgerow fleet init``.
        settings: Addresses, times and thresholds.
        stack: Takes what must be stopped.
        retraining: What drift alerts set off; None: nothing.

    Raises:
        BrokerUnreachableError: No broker answers.
        PortInUseError, ServeError: The HTTP server cannot listen.
        SigningError, StoreError: The folder is damaged.
        TaskError: The task to retrain cannot be imported.
    """
    from hedgerow.fleet.trust.catalogue import FolderCatalogue
    from hedgerow.fleet.web.api import create_app
    from hedgerow.fleet.web.server import HttpServer, bind

    if retraining is not None:
        load_task(retraining.task)
    catalogue = FolderCatalogue(folder)
    catalogue.releases()
    # The port and the store before the broker: a second service must not take the first one's place there.
    bound = bind(settings.host, settings.port)
    stack.callback(bound.close)
    store = Store(folder.database)
    stack.callback(store.close)
    exchange = TrainingExchange()
    link = MqttLink(f"hedgerow-{settings.fleet}", settings.broker_host, settings.broker_port)
    stack.callback(link.close)
    service = FleetService(settings, link, store, catalogue)
    retrained: list[RetrainResult | HedgerowError] = []
    loop = _loop(service, exchange, folder, retraining, retrained) if retraining is not None else None
    app = create_app(service, folder, exchange, approve_retraining=loop.approve if loop else None)
    server = HttpServer(app, settings.host, settings.port, bound=bound)
    server.start()
    stack.callback(server.stop)
    stack.enter_context(service)
    if loop is not None:
        stack.enter_context(loop)
    return ServingFleet(service, server.url, retrained)


def _loop(
    service: FleetService,
    exchange: TrainingExchange,
    folder: FleetFolder,
    retraining: Retraining,
    retrained: list[RetrainResult | HedgerowError],
) -> RetrainLoop:
    retrainer = Retrainer(
        service=service,
        exchange=exchange,
        folder=folder,
        task=retraining.task,
        settings=retraining.settings or RetrainSettings.by(service.settings),
        workers=retraining.workers,
        report=retraining.report,
    )

    def work(*, release: str, trigger: str, run_id: str | None) -> str | None:
        outcome: RetrainResult | HedgerowError = RetrainError(
            "expected the retraining to end in order, found a crash; the log has the traceback"
        )
        try:
            result = outcome = retrainer.retrain(release, trigger=trigger, run_id=run_id)
        except HedgerowError as exc:
            outcome = exc
            raise
        finally:
            retrained.append(outcome)
        return result.release

    return RetrainLoop(service, RetrainPolicy.by(service.settings), work)
