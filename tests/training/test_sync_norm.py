"""Tests of the synchronised norm in a group of one; tests/cluster/test_train.py has two workers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributed

from heartseg.training.sync_norm import SyncBatchNorm2d, synchronise_batch_norm


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    store = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_group_of_one_is_plain_batch_norm():
    torch.manual_seed(0)
    plain = torch.nn.BatchNorm2d(3, momentum=0.3)
    torch.nn.init.uniform_(plain.weight)
    torch.nn.init.uniform_(plain.bias)
    ours = synchronise_batch_norm(copy.deepcopy(plain), torch.device("cpu"))
    assert type(ours) is SyncBatchNorm2d
    x = torch.randn(4, 3, 5, 6) * 3 + 2
    outputs, gradients = [], []
    for norm in (plain, ours):
        for _ in range(2):  # twice, so that running statistics have a history
            mine = x.clone().requires_grad_()
            y = norm(mine)
            norm.zero_grad()
            (y * torch.arange(y.numel()).reshape(y.shape).sin()).sum().backward()
        outputs.append(y)
        gradients.append([mine.grad, norm.weight.grad, norm.bias.grad])
    assert torch.allclose(*outputs, atol=1e-5)
    for theirs, own in zip(*gradients, strict=True):
        assert torch.allclose(theirs, own, atol=1e-4)
    assert torch.allclose(plain.running_mean, ours.running_mean, atol=1e-6)
    assert torch.allclose(plain.running_var, ours.running_var, atol=1e-5)
    assert torch.allclose(plain.eval()(x), ours.eval()(x), atol=1e-6)


@pytest.mark.usefixtures("group")
def test_half_precision_input_keeps_full_precision_statistics():
    """As under autocast. A mean far from zero would drown the variance in bf16's three digits."""
    ours = synchronise_batch_norm(torch.nn.BatchNorm2d(1, momentum=1.0), torch.device("cpu"))
    x = (torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 30).bfloat16()
    assert ours(x).dtype == torch.bfloat16
    assert ours.running_var.dtype == torch.float32
    assert ours.running_var.item() == pytest.approx(x.float().var().item(), rel=1e-2)
