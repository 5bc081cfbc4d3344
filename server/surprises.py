"""What is no mistake in a task, and may surprise all the same."""

from torch import nn

from hedgerow.task import Task, TaskData

__all__ = ["surprises"]


def surprises(task: Task, model: nn.Module, data: TaskData, partition: tuple[int, ...]) -> list[str]:
    """Return a sentence for everything in a task without mistakes that may surprise whoever trains it.

    Args:
        task: It.
        model: A new one of it.
        data: All of it.
        partition: How many samples each client has.
    """
    found: list[str] = []
    for part, dataset in (("train", data.train), ("held_out", data.held_out)):
        wanted = task.rows(task.wanted(dataset))
        for name, output in task.answers.items():
            told = f"{part}, {name}:" if len(wanted) > 1 else part
            found.extend(f"{told} {note}" for note in output.notes(wanted[name]))
    small = sum(size < task.local.batch_size for size in partition)
    if small:
        found.append(
            f"{small} of {len(partition)} clients have fewer samples than a batch ({task.local.batch_size}), so some "
            "repeat in it"
        )
    buffers = [name for name, _buffer in model.named_buffers()]
    if buffers:
        found.append(
            f"the model keeps {len(buffers)} running statistics, such as {buffers[0]}, which devices do not train; "
            "prefer GroupNorm to BatchNorm"
        )
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    if frozen:
        found.append(f"{frozen} parameters of the model are frozen")
    return found
