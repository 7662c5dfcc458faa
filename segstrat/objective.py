"""`Objective`: from a batch to the loss that training minimizes, and to what is counted for the scores.

Tensor names carry their shape: B images, C channels or classes, H × W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from segstrat import distributed
from segstrat.data.boundaries import boundary_counts
from segstrat.data.loading.batch import Batch, normalize
from segstrat.losses import label_weights, pixel_losses, training_loss
from segstrat.machine import Machine
from segstrat.metrics import confusion_counts
from segstrat.models.segmenter import Segmenter
from segstrat.tasks import Task

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TaskOutput:
    """What is counted for one task, on the images of a batch that are labelled for it.

    Args:
        plain_sum: sum of the pixel losses without label smoothing; 0-dim float64.
        counts: as from `confusion_counts`, of the batch or by image.
        ids: names of the images.
        boundary: as from `boundary_counts`, of every image; None where boundaries are not scored.
    """

    plain_sum: torch.Tensor
    counts: torch.Tensor
    ids: list[str]
    boundary: torch.Tensor | None = None


class Objective:
    """The forward pass of a model, the losses of its tasks and their confusion counts.

    Args:
        model: on the machine's device.
        tasks: the tasks by name; the model has a head for each.
        machine: its device and precision.
        label_smoothing: weight of the uniform distribution in the target of the training loss.
        losses: terms of the training loss of every task, see `segstrat.losses.training_loss`.
        class_weights: of the classes of each task; by default they are equal.
        boundary_tolerance: counts boundaries when it evaluates, as `boundary_counts` does; 0 does not.
    """

    def __init__(
        self,
        model: Segmenter,
        tasks: Mapping[str, Task],
        machine: Machine,
        label_smoothing: float = 0.0,
        *,
        losses: Sequence[str] = ("cross_entropy",),
        class_weights: Mapping[str, Sequence[float]] | None = None,
        boundary_tolerance: float = 0.0,
    ) -> None:
        self.model = model
        self.boundary_tolerance = boundary_tolerance
        self.tasks = dict(tasks)
        self.machine = machine
        self.label_smoothing = label_smoothing
        self.losses = tuple(losses)
        self.plain = self.losses == ("cross_entropy",) and not class_weights
        device = machine.torch_device
        self._weights = {
            name: torch.tensor(
                (class_weights or {}).get(name, [1.0] * task.num_classes), dtype=torch.float32, device=device
            )
            for name, task in tasks.items()
            if not self.plain
        }
        self._compiled: Callable[..., tuple[torch.Tensor, dict[str, Tensors]]] | None = None
        self._cuda_graphs = False

    def __call__(
        self, batch: Batch, pixels: Mapping[str, torch.Tensor] | None = None, *, by_image: bool = False
    ) -> tuple[torch.Tensor, dict[str, TaskOutput]]:
        """The loss of a batch, and what is counted for each task that some image is labelled for.

        Each head sees only the images that are labelled for its task.

        Args:
            pixels: labelled pixels by task (0-dim), by which the sum of a task's pixel losses is divided.
                With those of the whole batch, the gradients of its micro-batches add up to that of the batch.
                By default each image's losses are divided by its own labelled pixels, as asynchronous
                updates need it.
            by_image: count the pixels of each image separately.
        """
        labels = {task: batch.labels[task] for task in batch.labelled_tasks()}
        if self._cuda_graphs:
            # Outputs of the step before have been used.
            torch.compiler.cudagraph_mark_step_begin()
        run = self._compiled or self._forward
        loss, results = run(batch.images, labels, batch.rows, pixels, by_image=by_image)
        outputs = {}
        for task, result in results.items():
            if "counts" not in result:
                result["counts"] = self._count(task, result["logits"], result["target"], by_image=by_image)
            ids = [batch.ids[row] for row in batch.indices[task]]
            boundary = None
            if self.boundary_tolerance and not self.model.training:
                boundary = self._count_boundaries(task, result["logits"], result["target"])
            outputs[task] = TaskOutput(result["plain_sum"], result["counts"], ids, boundary)
        return loss, outputs

    def valid_pixels(self, batch: Batch) -> Tensors:
        """Labelled pixels of each task in the whole batch, over all processes; 0-dim.

        Where classes have weights, or pixels of other losses are counted, the sum of their weights.
        """
        if self.plain:
            counts = [(maps != self.tasks[name].ignore_index).sum() for name, maps in batch.labels.items()]
        else:
            counts = [
                label_weights(self._weights[name])[maps.long()].sum(dtype=torch.float64)
                for name, maps in batch.labels.items()
            ]
        total = distributed.summed(torch.stack(counts))
        return dict(zip(batch.labels, total, strict=True))

    def compile(self, *, same_shapes: bool, cuda_graphs: bool) -> None:
        """Compiles everything between images and loss.

        Args:
            same_shapes: whether every batch but an epoch's last has the same shapes. Otherwise, as where some
                images are labelled for some of the tasks, sizes stay dynamic, and CUDA graphs are not used.
            cuda_graphs: replay steps as CUDA graphs. Their gradients live in the graphs' memory only until
                the next step, so they must not accumulate over steps.
        """
        options: dict[str, Any] = {
            "triton.cudagraphs": True,
            "triton.cudagraph_skip_dynamic_graphs": True,
        }
        self._cuda_graphs = cuda_graphs
        self._compiled = torch.compile(
            self._forward, dynamic=False if same_shapes else None, options=options if cuda_graphs else None
        )

    def _forward(
        self,
        images_BCHW: torch.Tensor,
        labels: Tensors,
        rows: Tensors,
        pixels: Mapping[str, torch.Tensor] | None,
        *,
        by_image: bool,
    ) -> tuple[torch.Tensor, dict[str, Tensors]]:
        with self.machine.autocast():
            images_BCHW = normalize(images_BCHW, standardization=self.model.backbone.standardization)
            logits = self.model(images_BCHW, tasks=list(labels), rows=rows)
        total = torch.zeros((), device=images_BCHW.device)
        results = {}
        for name, maps_BHW in labels.items():
            target_BHW = maps_BHW[rows[name]] if name in rows else maps_BHW
            loss, plain_sum = self._task_loss(name, logits[name], target_BHW, pixels)
            total = total + loss
            scores_BCHW = logits[name].detach()
            if images_BCHW.device.type == "cpu":
                # Counted outside: compiled code counts more slowly on a CPU.
                results[name] = {"plain_sum": plain_sum, "logits": scores_BCHW, "target": target_BHW}
            else:
                counts = self._count(name, scores_BCHW, target_BHW, by_image=by_image)
                results[name] = {"plain_sum": plain_sum, "counts": counts}
                if self.boundary_tolerance and not self.model.training:
                    results[name] |= {"logits": scores_BCHW, "target": target_BHW}
        return total, results

    def _task_loss(
        self,
        name: str,
        logits_BCHW: torch.Tensor,
        target_BHW: torch.Tensor,
        pixels: Mapping[str, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted loss of a task and the plain sum of its pixel losses, both 0-dim."""
        ignore = self.tasks[name].ignore_index
        if self.model.training and not self.plain:
            loss, plain_BHW = training_loss(
                self.losses,
                logits_BCHW,
                target_BHW,
                self._weights[name],
                ignore_index=ignore,
                label_smoothing=self.label_smoothing,
                total=None if pixels is None else pixels[name],
                summed=distributed.summed_with_gradient,
            )
            return loss, plain_BHW.sum(dtype=torch.float64)
        smoothing = self.label_smoothing if self.model.training else 0.0
        losses_BHW, plain_BHW = pixel_losses(logits_BCHW, target_BHW, ignore, smoothing)
        count = (target_BHW != ignore).flatten(1).sum(1) if pixels is None else pixels[name]
        share = 1.0 / count.clamp(min=1).float()
        loss = (losses_BHW.flatten(1).sum(1) * share).sum()
        return loss, plain_BHW.detach().sum(dtype=torch.float64)

    def _count(
        self, task: str, logits_BCHW: torch.Tensor, target_BHW: torch.Tensor, *, by_image: bool
    ) -> torch.Tensor:
        classes, ignore = self.tasks[task].num_classes, self.tasks[task].ignore_index
        return confusion_counts(logits_BCHW, target_BHW, classes, ignore, by_image=by_image)

    def _count_boundaries(
        self, task: str, logits_BCHW: torch.Tensor, target_BHW: torch.Tensor
    ) -> torch.Tensor:
        """As from `boundary_counts`, (B, 4, C); on the CPU, so a device waits for it."""
        spec = self.tasks[task]
        maps = (logits_BCHW.argmax(1).byte().cpu().numpy(), target_BHW.byte().cpu().numpy())
        counts = [
            boundary_counts(predicted, labels, spec.num_classes, spec.ignore_index, self.boundary_tolerance)
            for predicted, labels in zip(*maps, strict=True)
        ]
        return torch.from_numpy(np.stack(counts)).to(target_BHW.device)
