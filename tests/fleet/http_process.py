"""A fleet's HTTP server in a process of its own, so that its memory can be measured; ends when its stdin does.

Started by tests: ``python -m tests.fleet.http_process FOLDER``.
"""

import json
import sys
from pathlib import Path

from hedgerow.fleet.folder import FleetFolder
from hedgerow.fleet.retrain.wire_round import TrainingExchange
from hedgerow.fleet.web.admin_keys import hash_key, make_key
from hedgerow.fleet.web.api import create_app
from hedgerow.fleet.web.connections import ConnectionLimits
from hedgerow.fleet.web.server import HttpServer
from tests.fleet.virtual_fleet import VirtualFleet

LIMITS = ConnectionLimits(connections=40, per_address=100, header_s=1.5)


def main(path: Path) -> None:
    fleet = VirtualFleet(path)
    fleet.settle()
    key = make_key()
    fleet.service.store.add_admin_key(hash_key(key), "first", 0.0)
    folder = FleetFolder(path)
    folder.tuf_metadata.mkdir(parents=True)
    (folder.tuf_metadata / "timestamp.json").write_text("{}")
    exchange = TrainingExchange()
    tokens = exchange.open_round("run-1", 1, b"w" * 100_000, ["device-0"], lambda _device: None)
    app = create_app(fleet.service, folder, exchange)
    with HttpServer(app, "127.0.0.1", 0, limits=LIMITS) as server:
        facts = {"port": server.port, "key": key, "token": tokens["device-0"]}
        sys.stdout.write(f"{json.dumps(facts)}\n")
        sys.stdout.flush()
        sys.stdin.read()
    fleet.service.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
