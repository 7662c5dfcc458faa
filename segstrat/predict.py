"""A trained trial as a function from images to label maps.

Tensor names carry their shape: B images, C channels or classes, H × W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from segstrat.checkpoint import read_checkpoint
from segstrat.config import TrialConfig
from segstrat.data.loading.augment import mirrored_labels
from segstrat.data.loading.batch import normalize
from segstrat.errors import UserError
from segstrat.models import build_model
from segstrat.models.segmenter import Segmenter
from segstrat.records import checkpoint_epochs, checkpoint_name, digest_name
from segstrat.store import Store
from segstrat.tasks import Task
from segstrat.training_state import restore_model


@dataclass(frozen=True)
class TrainedTrial:
    """The model of a trial, ready to predict.

    Args:
        checkpoint: name of the file that the weights are from.
    """

    config: TrialConfig
    tasks: dict[str, Task]
    model: Segmenter
    device: torch.device
    checkpoint: str


def load_trial(
    folder: str | Path | Store, device: str = "cpu", checkpoint: str | None = None
) -> TrainedTrial:
    """The model of a trial's newest checkpoint, or of the named one.

    Raises:
        UserError: if there is none, or if its content does not match its digest. No other checkpoint is
            used instead: predictions must come from the checkpoint that was asked for.
    """
    store = folder if isinstance(folder, Store) else Store(folder)
    names = [checkpoint_name(epoch) for epoch in checkpoint_epochs(store.names())]
    if checkpoint is None and not names:
        raise UserError(f"{store.uri} has no checkpoint; give the folder of a trial that has trained")
    name = checkpoint or names[-1]
    if not store.exists(name):
        raise UserError(f"{store.uri} has no {name}; it has {', '.join(names) or 'no checkpoint'}")
    state = read_checkpoint(store, name)
    if state is None:
        raise UserError(
            f"{(store / name).uri} does not match its digest ({digest_name(name)} is missing or differs): "
            "the file is damaged or was replaced; name another one with --checkpoint"
        )
    config = TrialConfig.from_dict(state["config"])
    labels = state.get("labels", {})  # absent from checkpoints of earlier versions
    tasks = {task: Task(task, classes, **labels.get(task, {})) for task, classes in state["tasks"].items()}
    model = build_model(config, tasks)
    restore_model(model, state)
    target = torch.device(device)
    model.to(target).eval()
    return TrainedTrial(config, tasks, model, target, name)


@torch.inference_mode()
def predict(
    trial: TrainedTrial, image_HWC: np.ndarray, *, scales: Sequence[float] = (1.0,), flip: bool = False
) -> dict[str, np.ndarray]:
    """Label maps (H, W) uint8 of one image, for every task of the model.

    Args:
        image_HWC: RGB uint8 of any size; one that is smaller than the network's stride is enlarged.
        scales: factors on the image's size; class probabilities are averaged over them.
        flip: average over the mirrored image as well, in which left and right parts are swapped.
    """
    height, width = image_HWC.shape[:2]
    image_CHW = torch.from_numpy(np.array(image_HWC)).permute(2, 0, 1)
    standardization = trial.model.backbone.standardization
    image_BCHW = normalize(image_CHW[None].to(trial.device), standardization=standardization)
    least = trial.model.backbone.strides[-1] / min(height, width)
    total: dict[str, torch.Tensor] = {}
    for scale in scales:
        factor = max(scale, least)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        resized = image_BCHW
        if size != (height, width):
            resized = F.interpolate(image_BCHW, size, mode="bilinear", align_corners=False, antialias=True)
        for mirrored in (False, True) if flip else (False,):
            logits = trial.model(resized.flip(3) if mirrored else resized)
            for task, logits_BCHW in logits.items():
                shares = _probabilities(logits_BCHW, (height, width), trial.tasks[task], mirrored=mirrored)
                total[task] = total[task] + shares if task in total else shares
    return {task: shares_BCHW[0].argmax(0).byte().cpu().numpy() for task, shares_BCHW in total.items()}


def _probabilities(
    logits_BCHW: torch.Tensor, size: tuple[int, int], task: Task, *, mirrored: bool
) -> torch.Tensor:
    """Class probabilities at `size`, mirrored back if the image was mirrored."""
    if logits_BCHW.shape[-2:] != size:
        logits_BCHW = F.interpolate(logits_BCHW, size, mode="bilinear", align_corners=False)
    shares = logits_BCHW.float().softmax(1)
    if not mirrored:
        return shares
    shares = shares.flip(3)
    swap = mirrored_labels(task.classes, task.swap)
    if swap is None:
        return shares
    return shares[:, torch.from_numpy(swap[: task.num_classes].astype(np.int64)).to(shares.device)]
