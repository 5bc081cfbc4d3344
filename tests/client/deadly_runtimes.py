"""Runtimes that do to their process what native code can do to it, for a trial's child to import."""

import ctypes
import os
import signal
import sys
import time

import numpy as np

from hedgerow.client.errors import RejectedError
from hedgerow.client.runtimes.linear import LINEAR, LinearRuntime, load_linear

MEBIBYTE = 2**20


def abort() -> None:
    os.write(2, b"F kernel.cc:42 internal check failed\n")
    os.abort()


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> None:
    time.sleep(600)


def leave() -> None:
    os._exit(0)


def leave_with_garbage() -> None:
    os.write(1, b'{"passed": {"sha256": "0", "manifest_sha256": "0"}}\n')
    # Whatever is open: the descriptor for answers among them.
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b'\x00{"passed": {}}\n')
        except OSError:
            continue
    os._exit(0)


def say(said: bytes) -> None:
    """Say something to the agent, on whichever descriptor it listens, and leave as if all were well."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, len(said).to_bytes(8, "big") + said)
        except OSError:
            continue
    os._exit(0)


def refuse_without_a_reason() -> None:
    say(b'{"refused": {}}')


def refuse_with_more() -> None:
    say(b'{"refused": {"reason": "no", "is_final": false, "more": 1}}')


def claim_other_bytes() -> None:
    say(b'{"passed": {"manifest_sha256": "%s", "sha256": "%s"}}' % (b"0" * 64, b"1" * 64))


def claim_with_more() -> None:
    say(b'{"passed": {"manifest_sha256": "%s", "sha256": "%s", "more": 1}}' % (b"0" * 64, b"1" * 64))


def step_with_more() -> None:
    say(b'{"step": "load", "more": 1}')


def say_nothing_known() -> None:
    say(b'{"more": 1}')


def take_all_memory() -> None:
    kept = []
    while True:
        kept.append(np.ones(64 * MEBIBYTE, np.uint8))


def fall_over() -> None:
    raise RuntimeError("Node number 7 failed to invoke")


def chatter() -> None:
    sys.stdout.write("a line of a talkative library\n" * 100_000)
    sys.stderr.write("x" * 5_000_000 + "\nthe last word\n")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_child_behind() -> None:
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


DEEDS = {
    deed.__name__: deed
    for deed in (
        abort,
        segfault,
        hang,
        leave,
        leave_with_garbage,
        refuse_without_a_reason,
        refuse_with_more,
        claim_other_bytes,
        claim_with_more,
        step_with_more,
        say_nothing_known,
        take_all_memory,
        fall_over,
        chatter,
        be_killed,
        leave_a_child_behind,
    )
}


class DeadlyRuntime(LinearRuntime):
    """The linear runtime, but for what it does in between."""

    def __init__(self, where: str, deed: str) -> None:
        self.where, self.deed = where, DEEDS[deed]

    def load(self, path, artifact):
        if self.where == "load":
            self.deed()
        model = super().load(path, artifact)
        return _DeadlyModel(model, self.deed) if self.where == "replay" else model

    def load_train_graph(self, path, graph):
        step = super().load_train_graph(path, graph)

        def deadly(*arguments):
            self.deed()
            return step(*arguments)

        return deadly if self.where == "train" else step


class _DeadlyModel:
    def __init__(self, model, deed) -> None:
        self.model, self.deed = model, deed

    def predict(self, inputs):
        self.deed()
        return self.model.predict(inputs)


def load_deadly(name: str):
    """Return ``linear``, or a runtime such as ``replay.abort``; ``nowhere`` is not installed."""
    if name == LINEAR:
        return load_linear(name)
    if name == "nowhere":
        raise RejectedError("demo", "a runtime", "none", "install it")
    return DeadlyRuntime(*name.split("."))
