"""`Segmenter`: one backbone, one head per task (thesis Fig. 4.4)."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from segstrat.errors import UserError, unknown_name
from segstrat.models.backbone import Backbone


class Segmenter(nn.Module):
    """Maps images to the logits of each task.

    Args:
        backbone: shared by the tasks; with `weights` it is the pre-trained part of the model.
        heads: task name to a module `(features, size) -> logits`; the new part.
    """

    def __init__(self, backbone: Backbone, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)

    def forward(
        self,
        images_BCHW: torch.Tensor,
        tasks: Iterable[str] | None = None,
        rows: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Logits (B, classes, H, W) of each requested task, at the size of the images.

        Batch norms of the backbone see the whole batch, those of a head only the images that it is given.

        Args:
            images_BCHW: normalized RGB images.
            tasks: heads to compute; all by default. The others get no gradient, not even a zero one.
            rows: for a task that only some images are labelled for, their positions in the batch, 1-D int64
                on the images' device. The head sees only these images, in their order.

        Raises:
            UserError: for an unknown task, or images smaller than the network's stride.
        """
        height, width = images_BCHW.shape[-2:]
        stride = self.backbone.strides[-1]
        if min(height, width) < stride:
            raise UserError(
                f"an image of {height}×{width} pixels is smaller than the stride of {self.backbone.name}, "
                f"{stride}; use images or crops of at least {stride}×{stride}"
            )
        features = self.backbone(self.backbone.padded(images_BCHW))
        logits = {}
        for name in self.heads if tasks is None else tasks:
            if name not in self.heads:
                raise unknown_name("task", name, self.heads)
            chosen = features
            if rows is not None and name in rows:
                chosen = [feature.index_select(0, rows[name]) for feature in features]
            logits[name] = self.heads[name](chosen, (height, width))
        return logits
