"""`Objective`: from a batch to the predictions and losses of every task.

Tensor names carry their shape: B images, C channels or classes, H × W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from segstrat import distributed
from segstrat.data.loading.batch import Batch, normalize
from segstrat.losses import pixel_losses
from segstrat.machine import Machine
from segstrat.models.segmenter import Segmenter
from segstrat.tasks import Task


@dataclass(frozen=True)
class TaskOutput:
    """Predictions and losses for the images of a batch that are labelled for one task.

    Args:
        logits: (B, C, H, W).
        target: (B, H, W) labels.
        losses: (B, H, W) of each pixel, which training minimizes; with label smoothing.
        plain_losses: (B, H, W), which are reported; without it.
        ids: names of the images.
    """

    logits: torch.Tensor
    target: torch.Tensor
    losses: torch.Tensor
    plain_losses: torch.Tensor
    ids: list[str]


class Objective:
    """The model's forward pass and the losses of its tasks.

    Args:
        model: on the machine's device.
        tasks: the tasks by name; the model has a head for each.
        machine: its precision and device count.
        label_smoothing: weight of the uniform distribution in the target of the training loss.
    """

    def __init__(
        self, model: Segmenter, tasks: Mapping[str, Task], machine: Machine, label_smoothing: float = 0.0
    ) -> None:
        self.model = model
        self.tasks = dict(tasks)
        self.machine = machine
        self.label_smoothing = label_smoothing

    def outputs(self, batch: Batch) -> dict[str, TaskOutput]:
        """Predictions and losses by task, of the tasks that some image is labelled for.

        Each head sees only the images that are labelled for its task.
        """
        with self.machine.autocast():
            logits = self.model(normalize(batch.images), tasks=batch.labelled_tasks(), rows=batch.rows)
        return {name: self._output(name, logits[name], batch) for name in logits}

    def _output(self, name: str, logits_BCHW: torch.Tensor, batch: Batch) -> TaskOutput:
        target_BHW = batch.targets(name)
        ignore = self.tasks[name].ignore_index
        smoothing = self.label_smoothing if self.model.training else 0.0
        losses_BHW = pixel_losses(logits_BCHW, target_BHW, ignore, label_smoothing=smoothing)
        plain_BHW = losses_BHW
        if smoothing:
            with torch.no_grad():
                plain_BHW = pixel_losses(logits_BCHW, target_BHW, ignore)
        ids = [batch.ids[row] for row in batch.indices[name]]
        return TaskOutput(logits_BCHW, target_BHW, losses_BHW, plain_BHW, ids)

    def valid_pixels(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Labelled pixels of each task in the whole batch, over all processes; 0-dim int64."""
        counts = [(maps != self.tasks[name].ignore_index).sum() for name, maps in batch.labels.items()]
        total = distributed.summed(torch.stack(counts))
        return dict(zip(batch.labels, total, strict=True))

    def mean_over_pixels(
        self, outputs: Mapping[str, TaskOutput], pixels: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Sum over tasks of their pixel losses divided by `pixels`.

        With the counts of the whole batch, the gradients of its micro-batches add up to that of the batch.
        """
        total = torch.zeros((), device=self.machine.torch_device)
        for name, output in outputs.items():
            share = 1.0 / pixels[name].clamp(min=1).float()
            total = total + (output.losses.flatten(1).sum(1) * share).sum()
        return total

    def sum_over_images(self, outputs: Mapping[str, TaskOutput]) -> torch.Tensor:
        """Sum over tasks and images of each image's mean pixel loss, as asynchronous updates need it."""
        total = torch.zeros((), device=self.machine.torch_device)
        for name, output in outputs.items():
            valid_B = (output.target != self.tasks[name].ignore_index).flatten(1).sum(1)
            share_B = 1.0 / valid_B.clamp(min=1).float()
            total = total + (output.losses.flatten(1).sum(1) * share_B).sum()
        return total

    def compile(self, *, same_shapes: bool) -> None:
        """Compiles the model for training steps; on CUDA they are replayed as graphs.

        Args:
            same_shapes: whether every batch but an epoch's last has the same shapes. Otherwise, as where some
                images are labelled for some of the tasks, sizes stay dynamic, and such steps are not
                replayed.
        """
        on_cuda = self.machine.torch_device.type == "cuda"
        options = {"triton.cudagraphs": True, "triton.cudagraph_skip_dynamic_graphs": True}
        self.model.compile(dynamic=False if same_shapes else None, options=options if on_cuda else None)
