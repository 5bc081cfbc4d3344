"""The embedded broker's own process: rumqttd, started again in place when it panics.

Run as a file (``python -P embedded_process.py HOST PORT``), with the standard library and iotcore alone.

A panic ends one of rumqttd's threads and leaves the process, which from then on lets nobody in. A client that goes away
between its CONNECT and the answer, or one whose name has a slash, does that when it comes again
(``rumqttd/src/server/broker.rs``: ``try_send(...).unwrap()`` while a lock is held). So the standard error, where Rust
tells of panics, is read, and the process becomes itself anew, with the same id and parent; clients reconnect, and what
was retained or waited is lost.
"""

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["MAX_PACKET_BYTES", "main", "rumqttd_config"]

MAX_PACKET_BYTES = 1024 * 1024
"""The largest packet that a development broker takes; whoever sends a larger one is cut off."""

_MAX_CONNECTIONS = 2000
# The log of each topic filter holds what waits for those who are slow or away: at most 8 MiB.
_SEGMENT_BYTES, _SEGMENTS = 2 * 1024 * 1024, 4
_HALF_OPEN_TIMEOUT_MS = 10_000
_LOG_LIMIT_BYTES = 64 * 1024
_PANIC = b" panicked at "


def rumqttd_config(host: str, port: int) -> str:
    """Return a configuration for one loopback listener; the settings are those of rumqttd.toml.

    All are said: what iotcore takes by itself listens on every interface and drops large payloads.

    Args:
        host: A loopback address, or ``localhost``.
        port: Where to listen.
    """
    # rumqttd takes addresses, no names.
    address = "127.0.0.1" if host == "localhost" else host
    listen = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return "\n".join(
        (
            "id = 0",
            "[router]",
            "id = 0",
            f"max_connections = {_MAX_CONNECTIONS}",
            "max_outgoing_packet_count = 200",
            f"max_segment_size = {_SEGMENT_BYTES}",
            f"max_segment_count = {_SEGMENTS}",
            "[v4.1]",
            'name = "v4"',
            f'listen = "{listen}"',
            "next_connection_delay_ms = 0",
            "[v4.1.connections]",
            f"connection_timeout_ms = {_HALF_OPEN_TIMEOUT_MS}",
            f"max_payload_size = {MAX_PACKET_BYTES}",
            "max_inflight_count = 100",
            "dynamic_filters = true",
            "",
        )
    )


def main(argv: Sequence[str]) -> int:
    """Serve on the address ``argv[0]`` and port ``argv[1]`` until a signal; return only when that cannot be."""
    # rumqttd puts every message that it routes into a span of the level "error".
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    os.environ["RUST_BACKTRACE"] = "0"
    _watch_for_panics()
    try:
        _configured(rumqttd_config(argv[0], int(argv[1]))).run_forever()
    except (ImportError, OSError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        sys.stderr.flush()
    return 1


def _configured(config: str) -> Any:
    # Here, not above: where iotcore has no wheel that runs, the log must say so.
    from iotcore.iotcore import IotCoreBroker

    # It reads the file at once.
    with tempfile.TemporaryDirectory(prefix="hedgerow-broker-") as folder:
        path = Path(folder) / "rumqttd.toml"
        path.write_text(config, encoding="utf-8")
        return IotCoreBroker(config_path=str(path))


def _watch_for_panics() -> None:
    log = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    # No daemon: what was said last is passed on before the process ends.
    threading.Thread(target=_pass_on, args=(reading, log), name="stderr").start()


def _pass_on(reading: int, log: int) -> None:
    with os.fdopen(reading, "rb") as said:
        for line in said:
            if os.fstat(log).st_size < _LOG_LIMIT_BYTES:
                os.write(log, line)
            if _PANIC in line:
                os.dup2(log, 2)
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves, no shell


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # The thread that passes on ends with its pipe.
    os.close(2)
    sys.exit(code)
