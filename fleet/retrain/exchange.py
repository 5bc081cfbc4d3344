"""Where devices fetch a round's weights and leave their updates: the HTTP half of a federated round, without HTTP.

Every device of a round has a random token of its own; only hashes of tokens are kept, and they go with the round.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hedgerow.fleet.errors import TrainingRoundError

__all__ = ["TrainingExchange", "Upload"]

# Equal arrays encode to equal lengths; the rest is for a header that another version might write.
_SLACK_BYTES = 64 * 1024


@dataclass(slots=True)
class _Round:
    weights: bytes
    token_hashes: dict[str, bytes]
    on_upload: Callable[[str], None]
    uploads: dict[str, bytes] = field(default_factory=dict)
    arriving: "dict[str, Upload]" = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)

    @property
    def limit_bytes(self) -> int:
        return len(self.weights) + _SLACK_BYTES


class Upload:
    """An update on its way; a device has one at a time, the one that was begun last.

    Args:
        limit_bytes: How long it may be.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._pieces: bytearray | None = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            TrainingRoundError: The update is too long, another one came after it, or its round is over.
        """
        pieces = self._open()
        if len(pieces) + len(piece) > self.limit_bytes:
            self.drop()
            detail = f"expected at most {self.limit_bytes} bytes, found more; send weights like the round's"
            raise TrainingRoundError(413, detail)
        pieces += piece

    def take(self) -> bytes:
        """Return all bytes and keep none; errors as for :meth:`add`."""
        whole = bytes(self._open())
        self.drop()
        return whole

    def drop(self) -> None:
        """Keep nothing, and take nothing more."""
        self._pieces = None

    def _open(self) -> bytearray:
        if self._pieces is None:
            raise TrainingRoundError(409, "expected the only update of this device, found a later one or no open round")
        return self._pieces


class TrainingExchange:
    """The open rounds. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, int], _Round] = {}
        self._lock = threading.Lock()

    def open_round(
        self, run: str, number: int, weights: bytes, devices: Sequence[str], on_upload: Callable[[str], None]
    ) -> dict[str, str]:
        """Offer *weights* to *devices* until the round is closed.

        Args:
            run: Identity of the training run.
            number: Number of the round.
            weights: The encoded global weights.
            devices: Who may fetch them and send an update.
            on_upload: Called with a device's name after its update came, in the thread that brought it.

        Returns:
            Each device's token. It is not kept and cannot be asked for again.
        """
        tokens = {device: secrets.token_urlsafe(32) for device in devices}
        hashes = {device: _hash(token) for device, token in tokens.items()}
        with self._lock:
            self._rounds[run, number] = _Round(weights, hashes, on_upload)
        return tokens

    def close_round(self, run: str, number: int) -> None:
        """Forget a round, its tokens and its updates."""
        with self._lock:
            work = self._rounds.pop((run, number), None)
            for upload in work.arriving.values() if work is not None else ():
                upload.drop()

    def weights(self, run: str, number: int, token: str) -> bytes:
        """Return a round's weights to the holder of one of its tokens.

        Raises:
            TrainingRoundError: The round is not open, or the token is none of its tokens.
        """
        with self._lock:
            work = self._open(run, number)
            presented, owner = _hash(token), None
            for device, known in work.token_hashes.items():
                if hmac.compare_digest(known, presented):
                    owner = device
            if owner is None:
                raise _refused()
            work.fetched.add(owner)
            return work.weights

    def begin(self, run: str, number: int, device: str, token: str) -> Upload:
        """Let a device send its update; one that it began earlier and did not finish is dropped.

        Raises:
            TrainingRoundError: The round is not open, or the token is not this device's.
        """
        with self._lock:
            work = self._authorized(run, number, device, token)
            if device in work.arriving:
                # Its connection may have broken without our noticing; half an update is kept once, not for each try.
                work.arriving[device].drop()
            work.arriving[device] = Upload(work.limit_bytes)
            return work.arriving[device]

    def finish(self, run: str, number: int, device: str, upload: Upload) -> None:
        """Keep a device's update, now that it came whole; a later one of the same round replaces it.

        Raises:
            TrainingRoundError: The round is over, or the device began another update.
        """
        with self._lock:
            work = self._open(run, number)
            work.uploads[device] = upload.take()
            if work.arriving.get(device) is upload:
                del work.arriving[device]
        work.on_upload(device)

    def accept(self, run: str, number: int, device: str, token: str, payload: bytes) -> None:
        """Take a whole update at once.

        Raises:
            TrainingRoundError: The round is not open, the token is not this device's, or the payload is too long.
        """
        upload = self.begin(run, number, device, token)
        upload.add(payload)
        self.finish(run, number, device, upload)

    def upload(self, run: str, number: int, device: str) -> bytes | None:
        """Return a device's update, or None while it has not come."""
        with self._lock:
            work = self._rounds.get((run, number))
            return work.uploads.get(device) if work else None

    def has_fetched(self, run: str, number: int, device: str) -> bool:
        """Return whether a device has fetched the round's weights."""
        with self._lock:
            work = self._rounds.get((run, number))
            return work is not None and device in work.fetched

    def _open(self, run: str, number: int) -> _Round:
        try:
            return self._rounds[run, number]
        except KeyError:
            detail = f"expected an open training round, found that round {number} of {run} is not; wait for the next"
            raise TrainingRoundError(404, detail) from None

    def _authorized(self, run: str, number: int, device: str, token: str) -> _Round:
        work = self._open(run, number)
        # A device outside the round is compared too, so that the answer takes as long.
        known = work.token_hashes.get(device, b"\0" * 32)
        if not hmac.compare_digest(known, _hash(token)):
            raise _refused()
        return work


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refused() -> TrainingRoundError:
    return TrainingRoundError(401, "expected this round's token, found another; take it from the training task")
