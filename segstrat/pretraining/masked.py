"""Self-supervision: a backbone learns from images alone, by filling in patches and by finding turns.

A part of a batch is reconstructed in the manner of SimMIM (Xie et al. 2022, arXiv:2111.09886), for
convolutional networks: masked patches get the mean color, a light decoder predicts their pixels from the maps
that an FCN's head uses, and the loss counts masked pixels alone. SparK (Tian et al. 2023, arXiv:2301.03580)
found that the statistics of batch norms suffer from masks; so they are computed again, on whole images, once
the backbone is trained. The rest is turned by a multiple of 90 degrees, and the coarsest map tells by
which one (Gidaris et al. 2018, arXiv:1803.07728). Patches can be filled in from textures; turns take shapes.
"""

import base64
import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segstrat.machine import Machine
from segstrat.models.backbone import Backbone
from segstrat.models.initialize import initialize
from segstrat.pretraining.images import ClassificationData, Images, UnlabelledData
from segstrat.pretraining.job import PretrainData, PretrainReport
from segstrat.pretraining.loop import Learner, center_batches, new_backbone, recipe_batches
from segstrat.pretraining.recipe import MaskedRecipe, Recipe

# Streams 1 to 4 are those of training and of the order and crops of pre-training.
_MASK_STREAM, _HELD_OUT_STREAM = 5, 6
# A turn keeps the axes of an image, so that nothing has to be resampled.
TURNS = 4
# Maps finer than this are not decoded from: heads of FCNs do not use them, and they would cost most.
FINEST_STRIDE = 8
# Images from which the statistics of batch norms are computed at the end, at most.
CALIBRATION_IMAGES = 1024
# Images whose reconstruction the report shows.
EXAMPLES = 6
# Of a linear probe, at most: training images, evenly spaced; and its ridge penalty per image.
PROBE_IMAGES, RIDGE = 2000, 1e-2


class Decoder(nn.Module):
    """Predicts pixels from feature maps: each finer map is added on the way up, then cells become patches.

    Args:
        backbone: whose maps it gets.
        channels: of its own maps.
    """

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        strides = backbone.strides
        self.levels = [level for level, stride in enumerate(strides) if stride >= FINEST_STRIDE] or [-1]
        self.stride = strides[self.levels[0]]
        self.lateral = nn.ModuleList(
            nn.Conv2d(backbone.channels[level], channels, 1) for level in self.levels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
            for _ in self.levels
        )
        self.pixels = nn.Conv2d(channels, 3 * self.stride**2, 1)

    def forward(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Standardized pixels (B, 3, *size)."""
        x = None
        for level, lateral, smooth in zip(
            reversed(self.levels), reversed(self.lateral), reversed(self.smooth), strict=True
        ):
            finer = lateral(features[level])
            if x is not None:
                finer = finer + F.interpolate(x, finer.shape[-2:], mode="bilinear", align_corners=False)
            x = smooth(finer)
        images_BCHW = F.pixel_shuffle(self.pixels(x), self.stride)
        # Maps of layers without padding are smaller than the image, those of an odd size larger.
        if images_BCHW.shape[-2] < size[0] or images_BCHW.shape[-1] < size[1]:
            return F.interpolate(images_BCHW, size, mode="bilinear", align_corners=False)
        return images_BCHW[..., : size[0], : size[1]]


def draw_masks(rng: np.random.Generator, count: int, size: int, patch: int, share: float) -> torch.Tensor:
    """Which pixels of square images are masked: random patches, equally many in every image.

    Returns:
        (count, 1, size, size) bool.
    """
    side = -(-size // patch)
    ranks = rng.random((count, side * side)).argsort(axis=1).argsort(axis=1)
    masked = torch.from_numpy(ranks < round(share * side * side)).reshape(count, 1, side, side)
    return masked.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[..., :size, :size]


def mean_color(images_BCHW: torch.Tensor, masks_B1HW: torch.Tensor) -> torch.Tensor:
    """The images with the mean color of their visible pixels in the masked ones."""
    seen = ~masks_B1HW
    mean = (images_BCHW * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    return torch.where(masks_B1HW, mean, images_BCHW)


def nearest_patch(images_BCHW: torch.Tensor, masks_B1HW: torch.Tensor, patch: int) -> torch.Tensor:
    """The images with a copy of the nearest visible patch in each masked one, of equals the first."""
    filled = images_BCHW.clone()
    size = images_BCHW.shape[-1]
    corners = [(top, left) for top in range(0, size, patch) for left in range(0, size, patch)]
    places = torch.tensor(corners, dtype=torch.float32)
    distances = torch.cdist(places, places)
    for index, mask_HW in enumerate(masks_B1HW[:, 0]):
        hidden = torch.tensor([bool(mask_HW[top, left]) for top, left in corners])
        nearest = distances.masked_fill(hidden[None, :], torch.inf).argmin(1)
        for cell in hidden.nonzero()[:, 0].tolist():
            (top, left), (from_top, from_left) = corners[cell], corners[int(nearest[cell])]
            part = images_BCHW[index, :, from_top : from_top + patch, from_left : from_left + patch]
            h, w = min(part.shape[1], size - top), min(part.shape[2], size - left)
            filled[index, :, top : top + h, left : left + w] = part[:, :h, :w]
    return filled


def turned(images_BCHW: torch.Tensor, turns_B: torch.Tensor) -> torch.Tensor:
    """Square images, each turned counterclockwise by its number of quarters, (B,)."""
    turns = zip(images_BCHW, turns_B.tolist(), strict=True)
    return torch.stack([torch.rot90(image, turn, (1, 2)) for image, turn in turns])


class MaskedLearner(Learner):
    """A backbone that sees images with masked patches and turned ones, a decoder, a classifier of turns."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = Decoder(backbone, channels)
        self.turn = nn.Linear(backbone.channels[-1], TURNS)

    def forward(self, images_BCHW: torch.Tensor, masks_B1HW: torch.Tensor) -> torch.Tensor:
        """Reconstructions (B, 3, H, W) of standardized images, from what is not masked."""
        seen_BCHW = images_BCHW.masked_fill(masks_B1HW, 0.0)
        return self.decoder(self.backbone(self.backbone.padded(seen_BCHW)), tuple(images_BCHW.shape[-2:]))

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """AdamW, which masked reconstruction is usually trained with."""
        return torch.optim.AdamW(
            self.parameters(),
            recipe.learning_rate,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
        )

    def loss(
        self,
        images_BCHW: torch.Tensor,
        labels_B: torch.Tensor,  # noqa: ARG002
        recipe: Recipe,
        machine: Machine,
        place: tuple[int, int],
    ) -> torch.Tensor:
        """Mean squared error of masked pixels, in standard deviations, and cross-entropy of turns."""
        rng = np.random.default_rng([recipe.seed, _MASK_STREAM, *place, 1])
        images_BCHW = self.standardized(images_BCHW, machine.torch_device)
        # Batch norms of the decoder need two images where its maps have one cell.
        filled = min(len(images_BCHW), max(2, round(_masked_recipe(recipe).filled_share * len(images_BCHW))))
        masks_B1HW = _masks(rng, images_BCHW[:filled], recipe)
        turns_B = torch.from_numpy(rng.integers(0, TURNS, len(images_BCHW) - filled)).to(images_BCHW.device)
        masked_BCHW = images_BCHW[:filled].masked_fill(masks_B1HW, 0.0)
        seen_BCHW = masked_BCHW
        if len(turns_B):
            seen_BCHW = torch.cat([masked_BCHW, turned(images_BCHW[filled:], turns_B)])
        seen_BCHW = seen_BCHW.contiguous(memory_format=torch.channels_last)
        with machine.autocast():
            maps = self.backbone(self.backbone.padded(seen_BCHW))
            size = (images_BCHW.shape[-2], images_BCHW.shape[-1])
            filled_BCHW = self.decoder([features[:filled] for features in maps], size)
            logits_BT = self.turn(maps[-1][filled:].mean((2, 3)))
        loss = _masked_error(filled_BCHW.float(), images_BCHW[:filled], masks_B1HW)
        if len(turns_B):
            loss = loss + _masked_recipe(recipe).turn_weight * F.cross_entropy(logits_BT.float(), turns_B)
        return loss

    @torch.inference_mode()
    def evaluate(
        self, images: Images, recipe: Recipe, machine: Machine
    ) -> Generator[None, None, dict[str, float]]:
        """The error of masked pixels, as a share of that of the mean color of each image's visible ones."""
        self.eval()
        errors = torch.zeros(2, dtype=torch.float64)
        for images_BCHW, masks_B1HW in self._masked(images, recipe, machine):
            with machine.autocast():
                filled_BCHW = self(images_BCHW, masks_B1HW).float()
            plain_BCHW = mean_color(images_BCHW, masks_B1HW)
            for index, guess in enumerate((filled_BCHW, plain_BCHW)):
                errors[index] += len(images_BCHW) * float(_masked_error(guess, images_BCHW, masks_B1HW))
            yield
        own, plain = errors.tolist()
        return {"error": own / plain if plain else 1.0}

    @torch.inference_mode()
    def _turns_found(self, images: Images, recipe: Recipe, machine: Machine) -> float:
        """Share of the four turns of every image that are told right."""
        self.eval()
        hits = 0
        for images_BCHW, _ in center_batches(images, recipe, machine):
            images_BCHW = self.standardized(images_BCHW, machine.torch_device)
            for turn in range(TURNS):
                turns_B = torch.full((len(images_BCHW),), turn, device=images_BCHW.device)
                with machine.autocast():
                    maps = self.backbone(self.backbone.padded(turned(images_BCHW, turns_B)))
                    hits += int((self.turn(maps[-1].mean((2, 3))).argmax(1) == turns_B).sum())
        return hits / (TURNS * len(images))

    def _masked(
        self, images: Images, recipe: Recipe, machine: Machine
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Center crops on the device and their masks, the same ones whenever they are drawn."""
        for index, (images_BCHW, _) in enumerate(center_batches(images, recipe, machine)):
            images_BCHW = self.standardized(images_BCHW, machine.torch_device)
            rng = np.random.default_rng([0, _HELD_OUT_STREAM, index, 1])
            yield images_BCHW, _masks(rng, images_BCHW, recipe)

    @torch.inference_mode()
    def _copying_error(self, images: Images, recipe: Recipe, machine: Machine) -> float:
        """The error of copying the nearest visible patch, in the unit of `evaluate`."""
        errors = torch.zeros(2, dtype=torch.float64)
        for images_BCHW, masks_B1HW in self._masked(images, recipe, machine):
            copied_BCHW = nearest_patch(images_BCHW, masks_B1HW, _masked_recipe(recipe).patch)
            plain_BCHW = mean_color(images_BCHW, masks_B1HW)
            for index, guess in enumerate((copied_BCHW, plain_BCHW)):
                errors[index] += len(images_BCHW) * float(_masked_error(guess, images_BCHW, masks_B1HW))
        copied, plain = errors.tolist()
        return copied / plain if plain else 1.0

    @torch.inference_mode()
    def _examples(self, images: Images, recipe: Recipe, machine: Machine) -> str:
        """A JPEG in base64: a few images, below them what is seen, below that their reconstructions."""
        self.eval()
        images_BCHW, masks_B1HW = next(self._masked(images.first(EXAMPLES), recipe, machine))
        filled_BCHW = self(images_BCHW, masks_B1HW)
        seen_BCHW = images_BCHW.masked_fill(masks_B1HW, 0.0)
        rows = [images_BCHW, seen_BCHW, torch.where(masks_B1HW, filled_BCHW, images_BCHW)]
        standardization = self.backbone.standardization
        mean, deviation = (
            torch.tensor(values).reshape(3, 1, 1) for values in (standardization.mean, standardization.std)
        )
        picture_CHW = torch.cat([torch.cat(list(row.float().cpu() * deviation + mean), 2) for row in rows], 1)
        pixels_HWC = (picture_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "JPEG", quality=85)
        return base64.b64encode(file.getvalue()).decode()

    def finish(
        self, data: PretrainData, recipe: Recipe, machine: Machine, reports: Sequence[PretrainReport]
    ) -> Generator[None, None, dict[str, Any]]:
        """Scores copying the nearest patch, computes the statistics of batch norms, probes the features."""
        found: dict[str, Any] = {
            "nearest_patch_error": self._copying_error(data.val, recipe, machine),
            "losses": [report.train_loss for report in reports],
            "errors": [report.error for report in reports],
            "examples": self._examples(data.val, recipe, machine),
            "turns_found": self._turns_found(data.val, recipe, machine),
        }
        yield
        yield from calibrate(self, data.train, recipe, machine)
        probe = data.probe if isinstance(data, UnlabelledData) else None
        if probe is not None:
            found["probe"] = yield from linear_probe(self, probe, recipe, machine)
            twin = build_masked(self.backbone.name, self.backbone.width, recipe).to(machine.torch_device)
            yield from calibrate(twin, data.train, recipe, machine)
            found["probe_of_random_features"] = yield from linear_probe(twin, probe, recipe, machine)
        return found


def build_masked(backbone: str, width: float, recipe: Recipe) -> MaskedLearner:
    """A learner, of which each parameter is initialized from (recipe.seed, its name).

    Raises:
        UserError: for an unknown backbone, or a width out of range.
    """
    model = MaskedLearner(new_backbone(backbone, width, recipe), _masked_recipe(recipe).decoder_channels)
    initialize(model.decoder, recipe.seed, prefix="decoder")
    initialize(model.turn, recipe.seed, prefix="turn")
    return model


def _masked_recipe(recipe: Recipe) -> MaskedRecipe:
    if not isinstance(recipe, MaskedRecipe):
        raise TypeError(f"masked reconstruction needs a MaskedRecipe, not {type(recipe).__name__}")
    return recipe


def _masks(rng: np.random.Generator, images_BCHW: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    masked, size = _masked_recipe(recipe), images_BCHW.shape[-1]
    masks = draw_masks(rng, len(images_BCHW), size, masked.patch, masked.mask_share)
    return masks.to(images_BCHW.device)


def _masked_error(
    filled_BCHW: torch.Tensor, images_BCHW: torch.Tensor, masks_B1HW: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the masked pixels and channels of a batch."""
    squared = (filled_BCHW - images_BCHW).square() * masks_B1HW
    return squared.sum() / (masks_B1HW.sum() * images_BCHW.shape[1])


def calibrate(
    learner: MaskedLearner, images: Images, recipe: Recipe, machine: Machine
) -> Generator[None, None, None]:
    """Sets the statistics of batch norms to those of whole training crops: the mean over their batches."""
    backbone = learner.backbone
    norms = [norm for norm in backbone.batch_norms() if isinstance(norm, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    backbone.train()
    batches = recipe_batches(images, recipe, machine, recipe.epochs)
    with closing(batches):  # type: ignore[type-var]
        for images_BCHW, _ in islice(batches, max(1, CALIBRATION_IMAGES // recipe.batch_size)):
            with torch.no_grad(), machine.autocast():
                backbone(backbone.padded(learner.standardized(images_BCHW, machine.torch_device)))
            yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def linear_probe(
    learner: MaskedLearner, data: ClassificationData, recipe: Recipe, machine: Machine
) -> Generator[None, None, float]:
    """Accuracy of a linear classifier of frozen features on the validation images; yields between batches.

    Features are the means over each map that an FCN's head uses, standardized; the classifier is ridge
    regression to one-hot labels, which has one solution and no step size.
    """
    every = max(1, len(data.train) // PROBE_IMAGES)
    train = Images(list(range(0, len(data.train), every)), data.train.read)
    features = []
    for images in (train, data.val):
        means = yield from _pooled(learner, images, recipe, machine)
        features.append(means.double().cpu())
    train_ND, val_ND = features
    mean, deviation = train_ND.mean(0), train_ND.std(0) + 1e-6
    train_ND, val_ND = (train_ND - mean) / deviation, (val_ND - mean) / deviation
    labels_N = torch.from_numpy(data.train.labels[::every])
    targets_NC = F.one_hot(labels_N, len(data.classes)).double()
    shares_C = targets_NC.mean(0)
    penalty = RIDGE * len(train_ND) * torch.eye(train_ND.shape[1], dtype=torch.float64)
    weights_DC = torch.linalg.solve(train_ND.T @ train_ND + penalty, train_ND.T @ (targets_NC - shares_C))
    guesses_N = (val_ND @ weights_DC + shares_C).argmax(1)
    return float((guesses_N == torch.from_numpy(data.val.labels)).double().mean())


@torch.inference_mode()
def _pooled(
    learner: MaskedLearner, images: Images, recipe: Recipe, machine: Machine
) -> Generator[None, None, torch.Tensor]:
    """The means over the feature maps of every image, (N, D)."""
    backbone = learner.backbone.eval()
    rows = []
    for images_BCHW, _ in center_batches(images, recipe, machine):
        with machine.autocast():
            maps = backbone(backbone.padded(learner.standardized(images_BCHW, machine.torch_device)))
        rows.append(torch.cat([maps[level].float().mean((2, 3)) for level in learner.decoder.levels], 1))
        yield
    return torch.cat(rows)
