"""One backbone, several heads: what each head sees, and where its gradient goes."""

import pytest
import torch
from torch import nn

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.models import build_model
from segstrat.models.initialize import ScoreLayer
from segstrat.models.segmenter import Segmenter
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 5), "parts": Task("parts", 3), "boundaries": Task("boundaries", 2)}


def build(model: str = "fcn8s", **fields) -> Segmenter:
    net = build_model(TrialConfig(model=model, **({"width": 1 / 16} | fields)), TASKS)
    for layer in net.modules():
        if isinstance(layer, ScoreLayer):
            nn.init.normal_(layer.weight)
    return net


def gradient_sizes(module: nn.Module) -> list[float | None]:
    return [None if p.grad is None else float(p.grad.abs().sum()) for p in module.parameters()]


@pytest.mark.parametrize("model", ["fcn32s", "fcn8s", "sunet64"])
@pytest.mark.parametrize("task", list(TASKS))
def test_a_head_gets_gradient_from_its_own_loss_only(model: str, task: str):
    net = build(model)
    logits = net(torch.randn(2, 3, 64, 64))
    assert {name: value.shape[1] for name, value in logits.items()} == {
        "semseg": 5,
        "parts": 3,
        "boundaries": 2,
    }
    logits[task].square().sum().backward()
    for name, head in net.heads.items():
        if name == task:
            assert all(
                size is not None and size > 0
                for size in gradient_sizes(head.score if model != "sunet64" else head)
            )
        else:
            assert gradient_sizes(head) == [None] * len(list(head.parameters()))
    assert any(size for size in gradient_sizes(net.backbone))


def test_only_the_asked_heads_run():
    net = build()
    ran = []
    for name, head in net.heads.items():
        head.register_forward_hook(lambda *_, name=name: ran.append(name))
    assert list(net(torch.randn(2, 3, 64, 64), tasks=["parts"])) == ["parts"]
    assert ran == ["parts"]


def test_each_head_sees_only_the_images_that_are_labelled_for_it():
    net = build().eval()
    images = torch.randn(4, 3, 64, 64)
    whole = net(images)
    mixed = net(images, ["semseg", "parts"], {"semseg": torch.tensor([3, 0]), "parts": torch.tensor([1])})
    assert list(mixed) == ["semseg", "parts"]
    torch.testing.assert_close(mixed["semseg"], whole["semseg"][[3, 0]])
    torch.testing.assert_close(mixed["parts"], whole["parts"][[1]])
    sum(value.sum() for value in mixed.values()).backward()
    assert gradient_sizes(net.heads["boundaries"]) == [None] * 9


def test_an_image_without_a_task_gets_no_gradient_from_it():
    # In evaluation mode images do not meet in batch norm, so that the gradient distinguishes them.
    net = build().eval()
    images = torch.randn(3, 3, 32, 32, requires_grad=True)
    logits = net(images, tasks=["semseg"], rows={"semseg": torch.tensor([0, 2])})
    logits["semseg"].square().sum().backward()
    per_image = images.grad.flatten(1).abs().sum(1)
    assert per_image[1] == 0
    assert (per_image[[0, 2]] > 0).all()


def test_the_batch_norm_of_the_backbone_sees_the_whole_mixed_batch():
    images = torch.randn(4, 3, 64, 64)
    statistics = []
    for rows in (None, {"semseg": torch.tensor([0]), "parts": torch.tensor([1, 2])}):
        net = build("sunet64")
        net(images, rows=rows)
        statistics.append((net.backbone.norm.running_mean, net.heads["semseg"].layers[1].running_mean))
    assert torch.equal(statistics[0][0], statistics[1][0])
    assert not torch.equal(statistics[0][1], statistics[1][1])


def test_an_unknown_task_is_named():
    with pytest.raises(UserError, match="unknown task 'semsegg': did you mean 'semseg'"):
        build()(torch.randn(2, 3, 64, 64), tasks=["semsegg"])


def test_frozen_batch_norm_stays_as_it_is():
    torch.manual_seed(0)
    net = build("sunet64", freeze_batch_norm=True)
    norms = list(net.backbone.batch_norms())
    net.eval()
    net.train()
    assert net.backbone.training
    assert not any(norm.training for norm in norms)
    assert net.heads["semseg"].layers[1].training
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    net(torch.randn(2, 3, 64, 64))["semseg"].square().mean().backward()
    optimizer.step()
    frozen = {name for name in before if "norm" in name}
    assert len(frozen) == 5 * len(norms)
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, before[name]) == (name in frozen), name


def test_batch_norm_moves_where_it_is_not_frozen():
    net = build("fcn32s")
    before = net.backbone.bn1.running_mean.clone()
    net(torch.randn(2, 3, 64, 64))
    assert not torch.equal(before, net.backbone.bn1.running_mean)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_channels_last_images_give_the_same_logits():
    net = build().eval()
    images = torch.randn(2, 3, 64, 64)
    plain = net(images)["parts"]
    net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        net(images.to(memory_format=torch.channels_last))["parts"], plain, rtol=1e-3, atol=1e-4
    )
