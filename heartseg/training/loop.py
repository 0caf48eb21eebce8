"""The training loop, in plain PyTorch. It does not depend on Ray or MLflow."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils import deterministic

from heartseg.config.recipe import Recipe
from heartseg.data.resident import Resident
from heartseg.datasets import DATASETS
from heartseg.errors import InputError, Stopped
from heartseg.metrics.validation import ClinicalValidation
from heartseg.models import build_network
from heartseg.models.inputs import check_frames
from heartseg.models.outputs import output_channels
from heartseg.training.augment import apply, draw
from heartseg.training.losses import build_loss, training_loss
from heartseg.training.optimizer import build_optimizer, learning_rate
from heartseg.training.sync_norm import synchronise_batch_norm
from heartseg.training.validate import as_input, autocast, predict_labels, validate

State = dict[str, Any]


class StopSignal(IntEnum):
    """Instruction to `fit` after a step. It must be the same on every rank."""

    CONTINUE = 0
    SAVE = 1
    """Save a mid-epoch state and continue."""
    STOP = 2
    """Save a mid-epoch state and stop."""
    ABORT = 3
    """Stop without saving."""


@dataclass(frozen=True)
class Epoch:
    """Result of an epoch, which `fit` reports.

    Attributes:
        number: Number of the epoch, from 1.
        metrics: Metrics of the epoch. They are the same on every rank.
        state: State from which a run can resume. None on all ranks except rank 0.
        last: Whether the training ends with this epoch.
        predict: Function that returns the label maps uint8 (k, S, S) of the first k validation
            images on this rank.
    """

    number: int
    metrics: dict[str, float]
    state: State | None
    last: bool
    predict: Callable[[int], torch.Tensor]


def fit(
    recipe: Recipe,
    train: Resident,
    val: Resident,
    *,
    report: Callable[[Epoch], None],
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    resume_from: State | None = None,
    device_memory_fraction: float = 1.0,
    clinical: bool = False,
    on_step: Callable[[int, int, int, torch.Tensor], None] | None = None,
    poll_stop: Callable[[], StopSignal] | None = None,
    save: Callable[[State], None] | None = None,
) -> None:
    """Train the network of a recipe.

    All random numbers are drawn from (recipe.seed, epoch). On a CPU, a resumed run therefore ends
    with exactly the weights of an uninterrupted one, and several workers see the images that one
    worker would see. Only dropout differs between workers.

    Args:
        recipe: Recipe, which defines the whole training.
        train: Training images.
        val: Validation images.
        report: Function that is called after each epoch on every rank.
        device: Device of the network.
        rank: Index of this worker, from 0. If world_size > 1, the process group must exist.
        world_size: Number of workers.
        resume_from: `Epoch.state` or a state passed to `save`, of the same recipe. The number of
            workers may have been different.
        device_memory_fraction: Largest fraction of the device's memory that the images may take.
            If they need more, each batch is copied to the device when it is used.
        clinical: Whether to measure the clinical error of the validation images after each epoch
            (ef_mae or lvid_mae). It has no effect for the classification of windows.
        on_step: Function that is called after each step with (epoch, step, steps, loss).
        poll_stop: Function that returns the next `StopSignal`. It is called on every rank after
            each step except an epoch's last, and after each epoch except the last. It must return
            the same value on every rank.
        save: Function that is called on rank 0 with a mid-epoch state if `poll_stop` returns
            `SAVE` or `STOP`.

    Raises:
        Stopped: `poll_stop` returned `STOP` or `ABORT`.
        InputError: Batch size, channels, data and number of workers do not fit together, or the
            loss is not finite.
    """
    device = torch.device(device)
    worker_batch = recipe.worker_batch(world_size)
    check_frames(recipe, train.images.shape[1])
    steps = len(train) // recipe.batch_size
    if steps == 0:
        raise InputError(
            f"batch_size {recipe.batch_size} is larger than the {len(train)} training images; "
            "lower it in the recipe"
        )
    set_deterministic()
    torch.manual_seed(recipe.seed)
    labels = len(DATASETS[recipe.dataset].labels)
    network = build_network(recipe.model, output_channels(recipe)).to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if world_size > 1:
        network = synchronise_batch_norm(network, device)
    ema = None
    if recipe.ema_decay:
        average = get_ema_multi_avg_fn(recipe.ema_decay)
        ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    optimizer = build_optimizer(recipe, network)
    loss = build_loss(recipe, device)
    runner = _wrap(network, recipe, device, world_size)
    measure = None
    if clinical and not DATASETS[recipe.dataset].classifies:
        measure = ClinicalValidation(recipe.dataset, val.masks.numpy(), val.about)
    keep = fits_on(device, train, val, fraction=device_memory_fraction)
    train, val = (data.to(device) if keep else data for data in (train, val))

    first, best, stale, mid_epoch_state = 1, None, 0, None
    if resume_from is not None:
        network.load_state_dict(resume_from["model"])
        optimizer.load_state_dict(resume_from["optimizer"])
        if ema is not None:
            ema.load_state_dict(resume_from["ema"])
        first, best, stale = (resume_from[key] for key in ("next_epoch", "best", "stale"))
        if resume_from["last"]:
            return
        mid_epoch_state = resume_from["within_epoch"]

    for epoch in range(first, recipe.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(recipe.seed * 1_000_003 + epoch * 1_009 + rank)  # dropout
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(train), generator=generator)
        total = torch.zeros((), device=device)
        start = 0
        if mid_epoch_state is not None:
            start = mid_epoch_state["step"]
            total += mid_epoch_state["total"] / world_size
            _restore_generators(mid_epoch_state, generator, device, rank, world_size)
            mid_epoch_state = None
        runner.train()
        for step in range(start, steps):
            rate = learning_rate(recipe, (epoch - 1) * steps + step, recipe.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            changes = draw(recipe.batch_size, recipe.augment, generator)
            share = slice(rank * worker_batch, (rank + 1) * worker_batch)
            chosen = order[step * recipe.batch_size :][share]
            images, masks = train.batch(chosen, device)
            images, masks = apply(images, masks, changes.rows(share))
            with autocast(recipe, device):
                output = runner(as_input(images, recipe))
            value = training_loss(output, masks, loss)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if ema is not None:
                ema.update_parameters(network)
            total += value.detach()
            if on_step is not None:
                on_step(epoch, step + 1, steps, value.detach())
            signal = StopSignal.CONTINUE
            if poll_stop is not None and step + 1 < steps:
                signal = poll_stop()
            if signal in (StopSignal.SAVE, StopSignal.STOP):
                within = _within_epoch(step + 1, total, generator, device, world_size)
                if rank == 0 and save is not None:
                    save(_state(recipe, network, ema, optimizer, epoch, best, stale, within))
            if signal in (StopSignal.STOP, StopSignal.ABORT):
                raise Stopped
        if world_size > 1:
            distributed.all_reduce(total)
        train_loss = total.item() / steps / world_size  # .item() also waits for the device
        seconds = time.perf_counter() - started
        if not math.isfinite(train_loss):
            raise InputError(
                f"the training loss became {train_loss} in epoch {epoch}; "
                "lower learning_rate, or set precision: fp32"
            )

        eval_model = network if ema is None else ema.module
        metrics = validate(eval_model, recipe, val, loss, labels, device, rank, world_size, measure)
        metrics |= {
            "train_loss": train_loss,
            "learning_rate": rate,
            "workers": world_size,
            "images_per_second": (steps - start) * recipe.batch_size / seconds,
        }
        better = best is None or metrics["dice_mean"] > best["dice_mean"]
        stale = 0 if better else stale + 1
        if better:
            best = {"epoch": epoch, "dice_mean": metrics["dice_mean"]}
            if recipe.select == "best":
                best["model"] = {
                    k: v.detach().cpu().clone() for k, v in eval_model.state_dict().items()
                }
        last = epoch == recipe.epochs or bool(
            recipe.early_stopping and stale >= recipe.early_stopping
        )
        state = None
        if rank == 0:
            state = _state(recipe, network, ema, optimizer, epoch + 1, best, stale, last=last)

        def predict(count: int, eval_model: nn.Module = eval_model) -> torch.Tensor:
            chosen = torch.arange(min(count, len(val)))
            return predict_labels(eval_model, recipe, val.batch(chosen, device)[0], device).cpu()

        report(Epoch(epoch, metrics, state, last, predict))
        if last:
            break
        # After the last step of an epoch, the checkpoint of the epoch already has everything.
        if poll_stop is not None and poll_stop() in (StopSignal.STOP, StopSignal.ABORT):
            raise Stopped


def set_deterministic() -> None:
    """Use deterministic operations where the device has them.

    Strict mode would raise an error on CUDA in max-unpooling and in the gradient of bilinear
    interpolation.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling uninitialised memory would cost a pass over each tensor.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def fits_on(device: torch.device, *data: Resident, fraction: float) -> bool:
    """Return whether the arrays take at most this fraction of the device's memory."""
    if device.type != "cuda":
        return True
    _, memory = torch.cuda.mem_get_info(device)
    return sum(part.nbytes for part in data) <= fraction * memory


def _wrap(network: nn.Module, recipe: Recipe, device: torch.device, world_size: int) -> nn.Module:
    runner = network
    if world_size > 1:
        ids = [device] if device.type == "cuda" else None
        runner = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
    return cast(nn.Module, torch.compile(runner)) if recipe.compile else runner


def _state(
    recipe: Recipe,
    network: nn.Module,
    ema: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    next_epoch: int,
    best: dict[str, Any] | None,
    stale: int,
    within: dict[str, Any] | None = None,
    last: bool = False,
) -> State:
    """Return the state from which a run resumes, within `next_epoch` if `within` is given."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "next_epoch": next_epoch,
        "step": 0 if within is None else within["step"],
        "within_epoch": within,
        "last": last,
        "best": best,
        "stale": stale,
        "model": network.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def _within_epoch(
    step: int,
    total: torch.Tensor,
    generator: torch.Generator,
    device: torch.device,
    world_size: int,
) -> dict[str, Any]:
    """Return the state of all workers within an epoch. All ranks must call it."""
    own = [torch.get_rng_state()]
    if device.type == "cuda":
        own.append(torch.cuda.get_rng_state(device))
    dropout: list[Any] = [own]
    summed = total.clone()
    if world_size > 1:
        distributed.all_reduce(summed)
        dropout = [None] * world_size
        distributed.all_gather_object(dropout, own)
    state = {"step": step, "total": summed.cpu(), "chance": generator.get_state()}
    return state | {"dropout": dropout}


def _restore_generators(
    mid_epoch_state: dict[str, Any],
    generator: torch.Generator,
    device: torch.device,
    rank: int,
    world_size: int,
) -> None:
    """Restore the generators; those of dropout only if the number of workers is the same."""
    generator.set_state(mid_epoch_state["chance"])
    if len(mid_epoch_state["dropout"]) != world_size:
        return
    own = mid_epoch_state["dropout"][rank]
    torch.set_rng_state(own[0])
    if device.type == "cuda" and len(own) > 1:
        torch.cuda.set_rng_state(own[1], device)
