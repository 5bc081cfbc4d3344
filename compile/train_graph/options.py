"""What a train graph holds beyond plain SGD, chosen when it is compiled. Needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hedgerow.errors import UnknownNameError

__all__ = ["BATCH_NORMS", "OPTIMIZERS", "TARGETS", "StepOptions"]

OPTIMIZERS = ("sgd", "momentum", "adam")
BATCH_NORMS = ("frozen", "train")
TARGETS = ("classes", "values")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How a train graph steps. The defaults are plain SGD on everything, with the checkpoint's statistics.

    Attributes:
        optimizer: ``sgd``, ``momentum`` or ``adam``, each as ``torch.optim`` has it.
        momentum: Of ``momentum``; 0.9 is usual.
        betas, epsilon: Of ``adam`` (Kingma and Ba 2015, arXiv 1412.6980).
        proximal: Add ``mu (w - anchor)`` to each gradient (FedProx: Li et al. 2020, arXiv 1812.06127); *mu* and the
            anchors are inputs.
        control_variates: Add an input of the parameter's shape to each gradient: the server's control variate minus
            the device's (SCAFFOLD: Karimireddy et al. 2020, arXiv 1910.06378).
        trainable: Patterns (as of ``fnmatch``) of the names of the parameters that train, such as ``head.*`` or
            ``*.lora_*``; None: all that require a gradient. With a choice, the graph gives back only what changes.
        batch_norm: ``frozen`` uses the running statistics and leaves them; ``train`` normalises with the batch's and
            moves the running ones.
        dropout: Drop; each mask is an input. Otherwise nothing is dropped.
        targets: What the labels are: ``classes`` (an index for each sample) or ``values`` (a float for each logit).
    """

    optimizer: str = "sgd"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    proximal: bool = False
    control_variates: bool = False
    trainable: tuple[str, ...] | None = None
    batch_norm: str = "frozen"
    dropout: bool = False
    targets: str = "classes"

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("batch norm mode", self.batch_norm, BATCH_NORMS),
            ("kind of targets", self.targets, TARGETS),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if not 0 <= self.momentum < 1 or not all(0 <= beta < 1 for beta in self.betas) or self.epsilon <= 0:
            raise ValueError("momentum and betas lie in [0, 1), and epsilon above 0")

    def trained(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return which of the parameters *names* train, in their order.

        Raises:
            UnknownNameError: A pattern matches none.
        """
        known = tuple(names)
        if self.trainable is None:
            return known
        for pattern in self.trainable:
            if not any(fnmatchcase(name, pattern) for name in known):
                raise UnknownNameError("trainable parameter", pattern, known)
        return tuple(name for name in known if any(fnmatchcase(name, pattern) for pattern in self.trainable))
