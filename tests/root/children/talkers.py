"""What the child processes of these tests serve, each by its name: what native code can do to a conversation."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hedgerow.children.channel import MessageChannel
from hedgerow.children.limits import bound_process


def echo(channel: MessageChannel) -> None:
    """Answer every message with itself."""
    while (message := channel.receive()) is not None:
        channel.send(message)


def facts(channel: MessageChannel) -> None:
    import resource
    import tempfile

    said = json.loads(channel.receive() or b"{}")
    bound_process(**said.get("bounds", {}))
    answer = {
        "session": os.getsid(0),
        "parent": os.getppid(),
        "stdin": os.read(0, 1).decode(),
        "temporary": tempfile.gettempdir(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "address_space_bytes": resource.getrlimit(resource.RLIMIT_AS)[0],
        "data_bytes": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "core_bytes": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "niceness": os.nice(0),
        "oom": Path("/proc/self/oom_score_adj").read_text().strip(),
        "descriptors": sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()),
    }
    channel.send(json.dumps(answer).encode())


def die(channel: MessageChannel) -> None:
    number = int(channel.receive() or b"0")
    channel.send(b"working")
    sys.stdout.write("double free\n")
    sys.stdout.flush()
    os.kill(os.getpid(), number)


def leave(channel: MessageChannel) -> None:
    code = int(channel.receive() or b"0")
    sys.stdout.write("line 1\n\nline 2\nline 3\nso long\n")
    sys.exit(code)


def fall(_channel: MessageChannel) -> None:
    raise RuntimeError("out of luck")


def say_nothing(channel: MessageChannel) -> None:
    channel.receive()
    time.sleep(600)


def read_nothing(_channel: MessageChannel) -> None:
    time.sleep(600)


def hang_after_the_answer(channel: MessageChannel) -> None:
    channel.send(channel.receive() or b"")
    channel.close()
    time.sleep(600)


def garbage(channel: MessageChannel) -> None:
    channel.receive()
    os.write(channel.fileno(), b'{"answer": "to everything"}\n' * 1000)
    sys.exit(0)


def half_a_message(channel: MessageChannel) -> None:
    channel.receive()
    os.write(channel.fileno(), (1000).to_bytes(8, "big") + b"only this")


def chatter(channel: MessageChannel) -> None:
    request = channel.receive() or b""
    sys.stdout.write("a line of a talkative library\n" * 100_000)
    sys.stdout.write("x" * 5_000_000 + "\nthe last word\n")
    sys.stdout.flush()
    channel.send(request)


def leave_a_child_behind(channel: MessageChannel) -> None:
    child = subprocess.Popen(["sleep", "600"])
    channel.send(str(child.pid).encode())


def leave_files_behind(channel: MessageChannel) -> None:
    import tempfile

    for _file in range(3):
        os.write(tempfile.mkstemp()[0], b"x" * 1000)
    channel.send(tempfile.gettempdir().encode())
    channel.receive()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(channel: MessageChannel) -> None:
    channel.send(str(os.getpid()).encode())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def serve(channel: MessageChannel) -> None:
    """Do what the environment names."""
    globals()[os.environ["TALKER"]](channel)
