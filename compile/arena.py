"""The tensor arena of TensorFlow Lite Micro: the smallest one in which its own interpreter allocates and runs a file.

A rule of our own for the planner's result is too small where kernels keep data beside the tensors; so the figure is
searched for with the interpreter itself (ADR 0013). It is a figure of the reference kernels in the wheel
``tflite-micro``: optimized kernels, such as CMSIS-NN's, ask for scratch memory beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hedgerow.decode import Fields

__all__ = ["KERNELS", "LARGEST_BYTES", "PACKAGE", "STEP_BYTES", "Arena", "installed_version", "smallest_arena"]

PACKAGE = "tflite-micro"
KERNELS = "TensorFlow Lite Micro's reference kernels"
STEP_BYTES = 16
"""What an arena is rounded up to: the alignment of its buffers."""
LARGEST_BYTES = 64 * 2**20
"""No microcontroller has more."""
_MAXIMUM_CHARS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """What was found.

    Attributes:
        bytes: The smallest arena that works, in steps of :data:`STEP_BYTES`.
        kernels: Whose kernels ran.
        version: Of the wheel ``tflite-micro``.
        scratch_bytes: The most that one operator's CMSIS-NN kernel asks for beside it on a core with DSP instructions;
            None: not known, see *scratch_omitted*.
        scratch_omitted: Why it is not known; else empty.
    """

    bytes: int
    kernels: str
    version: str
    scratch_bytes: int | None
    scratch_omitted: str

    def to_record(self) -> dict[str, object]:
        """Return this as plain JSON values."""
        return {
            "bytes": self.bytes,
            "kernels": self.kernels,
            "version": self.version,
            "scratch_bytes": self.scratch_bytes,
            "scratch_omitted": self.scratch_omitted,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "Arena":
        """Decode an arena.

        Raises:
            DecodeError: A field is wrong.
        """
        arena = cls(
            bytes=fields.integer("bytes", minimum=1, maximum=LARGEST_BYTES),
            kernels=fields.text("kernels", maximum_chars=_MAXIMUM_CHARS),
            version=fields.text("version", maximum_chars=_MAXIMUM_CHARS),
            scratch_bytes=fields.optional_integer("scratch_bytes"),
            scratch_omitted=fields.text("scratch_omitted", maximum_chars=_MAXIMUM_CHARS),
        )
        fields.finish()
        return arena


def installed_version() -> str | None:
    """Return the version of the wheel, or None where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def smallest_arena(works: Callable[[int], bool], *, largest: int = LARGEST_BYTES) -> int | None:
    """Return the least multiple of :data:`STEP_BYTES` that works, or None when *largest* does not.

    Args:
        works: Whether an arena of so many bytes is enough; once it is, it stays so.
        largest: In bytes, a multiple of the step.
    """
    if not works(largest):
        return None
    low, high = 0, largest // STEP_BYTES
    while high - low > 1:
        middle = (low + high) // 2
        if works(middle * STEP_BYTES):
            high = middle
        else:
            low = middle
    return high * STEP_BYTES
