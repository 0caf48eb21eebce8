"""Tests of `fit` in this process: exact resume, selection, and errors."""

from __future__ import annotations

import copy

import pytest
import torch

from heartseg.config.recipe import Augment
from heartseg.data.resident import Resident
from heartseg.errors import InputError, Stopped
from heartseg.training.checkpoint import load_checkpoint, save_checkpoint, selected_weights
from heartseg.training.loop import StopSignal, fit
from tests.examples import disks, small_recipe

U_NET = {"name": "unet", "in_channels": 1, "channels": [4, 8], "residual_units": 1, "dropout": 0.1}


@pytest.fixture(scope="module")
def train():
    return resident(10, seed=1)


@pytest.fixture(scope="module")
def val():
    return resident(5, seed=2)


def resident(count, seed):
    images, masks = disks(count, seed=seed)
    return Resident(
        torch.from_numpy(images), torch.from_numpy(masks), [f"case{i}" for i in range(count)]
    )


def run(recipe, train, val, **options):
    epochs = []

    def keep(epoch):
        epochs.append(copy.deepcopy((epoch.number, epoch.metrics, epoch.state)))

    fit(recipe, train, val, report=keep, **options)
    return epochs


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": U_NET, "loss": "ce_dice"},
        {"optimizer": "sgd", "ema_decay": 0.9, "select": "best"},
        {"precision": "bf16"},
    ],
)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    params, train, val, tmp_path, changes
):
    """The state goes through a file, as after a kill during the second epoch."""
    recipe = small_recipe(params, **changes)
    whole = run(recipe, train, val)

    class KillError(Exception):
        pass

    def kill(epoch, step, steps, loss):
        if (epoch, step) == (2, 1):
            raise KillError

    def save(epoch):
        save_checkpoint(tmp_path, epoch.state)

    with pytest.raises(KillError):
        fit(recipe, train, val, report=save, on_step=kill)
    resumed = run(recipe, train, val, resume_from=load_checkpoint(tmp_path))
    assert [number for number, _, _ in resumed] == [2, 3]
    assert_same_weights(resumed[-1][2]["model"], whole[-1][2]["model"])
    assert_same_weights(selected_weights(resumed[-1][2])[1], selected_weights(whole[-1][2])[1])
    for (_, mine, _), (_, theirs, _) in zip(resumed, whole[1:], strict=True):
        assert mine["val_loss"] == theirs["val_loss"]
        assert mine["dice_mean"] == theirs["dice_mean"]


@pytest.mark.parametrize("signal", [StopSignal.STOP, StopSignal.SAVE])
def test_a_run_resumes_bit_for_bit_within_an_epoch(params, train, val, tmp_path, signal):
    """No step is repeated, and the training loss of the epoch is that of all its steps."""
    recipe = small_recipe(params, ema_decay=0.9, batch_size=2)
    whole, steps = run(recipe, train, val), []

    def note(epoch, step, count, loss):
        if signal is StopSignal.SAVE and (epoch, step) == (2, 3):
            raise KeyboardInterrupt  # the node is lost one step after the checkpoint
        steps.append((epoch, step))

    def poll_stop():
        return signal if steps[-1] == (2, 2) else StopSignal.CONTINUE

    def save(state):
        save_checkpoint(tmp_path, state)

    with pytest.raises((Stopped, KeyboardInterrupt)):
        fit(
            recipe,
            train,
            val,
            report=lambda epoch: None,
            on_step=note,
            poll_stop=poll_stop,
            save=save,
        )
    state = load_checkpoint(tmp_path)
    assert (state["next_epoch"], state["step"]) == (2, 2)
    signal = StopSignal.CONTINUE
    resumed = run(recipe, train, val, resume_from=state, on_step=note)
    assert_same_weights(resumed[-1][2]["model"], whole[-1][2]["model"])
    assert_same_weights(selected_weights(resumed[-1][2])[1], selected_weights(whole[-1][2])[1])
    assert [m["train_loss"] for _, m, _ in resumed] == [m["train_loss"] for _, m, _ in whole[1:]]
    assert steps == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4, 5)]


def test_a_run_of_single_steps_stops_between_its_epochs(params, train, val):
    recipe = small_recipe(params, batch_size=len(train), epochs=3)
    epochs = []
    with pytest.raises(Stopped):
        fit(
            recipe,
            train,
            val,
            report=lambda epoch: epochs.append(epoch.number),
            poll_stop=lambda: StopSignal.STOP if epochs == [1, 2] else StopSignal.CONTINUE,
        )
    assert epochs == [1, 2]


def test_a_finished_run_does_not_continue(tiny_recipe, train, val):
    last = run(tiny_recipe, train, val)[-1][2]
    assert run(tiny_recipe, train, val, resume_from=last) == []


def test_another_seed_gives_other_weights(params, train, val):
    ends = [run(small_recipe(params, seed=s, epochs=1), train, val)[-1][2]["model"] for s in (0, 1)]
    key = next(iter(ends[0]))
    assert not torch.equal(ends[0][key], ends[1][key])


@pytest.mark.slow
def test_training_improves_dice(params, train, val):
    recipe = small_recipe(params, epochs=60, learning_rate=0.02)
    last = run(recipe, train, val)[-1][1]
    assert last["dice_lv"] > 0.8
    assert last["dice_mean"] == pytest.approx(
        (last["dice_lv"] + last["dice_myo"] + last["dice_la"]) / 3
    )


def test_validation_does_not_depend_on_the_evaluation_batch(params, train, val):
    metrics = [
        run(small_recipe(params, eval_batch_size=size, epochs=1), train, val)[0][1]
        for size in (1, 2, 5)
    ]
    for other in metrics[1:]:
        assert other["dice_mean"] == metrics[0]["dice_mean"]
        assert other["val_loss"] == pytest.approx(metrics[0]["val_loss"], rel=1e-5)


def test_select_best_takes_the_weights_of_the_best_epoch(params, train, val):
    """With a high learning rate, the last epoch is not the best one."""
    recipe = small_recipe(params, select="best", epochs=6, learning_rate=0.02)
    epochs = run(recipe, train, val)
    dice = [metrics["dice_mean"] for _, metrics, _ in epochs]
    best = dice.index(max(dice))
    number, weights = selected_weights(epochs[-1][2])
    assert number == best + 1
    assert_same_weights(weights, epochs[best][2]["model"])


def test_early_stopping_counts_epochs_without_a_better_dice(params, train, val):
    recipe = small_recipe(params, early_stopping=2, epochs=30, learning_rate=1e-12)
    epochs = run(recipe, train, val)
    dice = [metrics["dice_mean"] for _, metrics, _ in epochs]
    assert len(epochs) < 30
    assert max(dice[-2:]) <= max(dice[:-2])
    assert epochs[-1][2]["last"] is True


def test_moving_average_differs_from_the_weights(params, train, val):
    state = run(small_recipe(params, ema_decay=0.99, epochs=1), train, val)[-1][2]
    _, averaged = selected_weights(state)
    assert averaged.keys() == state["model"].keys()
    weights = [key for key in averaged if key.endswith("weight")]
    assert not all(torch.equal(averaged[key], state["model"][key]) for key in weights)


def test_the_image_is_repeated_in_all_input_channels(params, train, val):
    model = U_NET | {"in_channels": 3}
    (epoch,) = run(small_recipe(params, model=model, epochs=1), train, val)
    assert 0 <= epoch[1]["dice_mean"] <= 1
    assert next(iter(epoch[2]["model"].values())).shape[1] == 3


def test_a_batch_larger_than_the_data_is_rejected(params, train, val):
    with pytest.raises(InputError, match="batch_size 16 is larger than the 10 training images"):
        run(small_recipe(params, batch_size=16), train, val)


def test_a_batch_that_workers_cannot_share_is_rejected(params, train, val):
    with pytest.raises(InputError, match="3 workers cannot share batch_size"):
        run(small_recipe(params, batch_size=4), train, val, world_size=3)


def test_divergence_is_reported(params, train, val):
    with pytest.raises(InputError, match="lower learning_rate"):
        run(small_recipe(params, learning_rate=1e30, schedule="constant"), train, val)


def test_augmentation_applies_to_training_only(params, train, val):
    """Validation of an untrained network (rate near 0) does not see the augmentation.

    The network has no running statistics, which would carry what training saw into validation.
    """
    quiet = Augment(
        probability=0, flip_left_right=False, rotate_degrees=0, scale=0, shift=0, brightness=0,
        contrast=0, gamma=0, speckle=0, blur=0,
    )  # fmt: skip
    wild = quiet.model_copy(update={"probability": 1.0, "rotate_degrees": 90.0, "speckle": 0.5})
    losses = [
        run(
            small_recipe(
                params, model=U_NET, augment=a.model_dump(), learning_rate=1e-12, epochs=1
            ),
            train,
            val,
        )[0][1]
        for a in (quiet, wild)
    ]
    assert losses[0]["val_loss"] == pytest.approx(losses[1]["val_loss"], rel=1e-6)
    assert losses[0]["train_loss"] != pytest.approx(losses[1]["train_loss"], rel=1e-3)
