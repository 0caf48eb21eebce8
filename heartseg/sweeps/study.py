"""The search of a sweep: an Optuna study in a database.

The study contains the queue of points, the results of all trials, and the values that pruners
compare. A sweep that was killed therefore continues as if it had not been interrupted.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from heartseg.config.params import Params
from heartseg.config.ranges import Choice, Integers, LogUniform, Range, Scalar, Uniform
from heartseg.config.sweep_file import SweepFile, Values
from heartseg.sweeps.folder import trial_dir
from heartseg.tracking.trial import State, Trial

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

STUDY = "study.db"
REASON = "reason"
"""User attribute of a failed trial: the reason."""


class Search:
    """The study of one sweep.

    Args:
        sweep: Content of the sweep file.
        params: Content of params.yaml. The values of the recipe are tried first.
        folder: Folder of the sweep, in which the study is created or found again.
        name: Unique name of the study.
    """

    def __init__(self, sweep: SweepFile, params: Params, folder: Path, name: str):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep = sweep
        self.folder = folder
        self.count = sweep.trial_count(params)
        self.study = _open_study(sweep, folder, name)
        for point in sweep.first_points(params):
            self.study.enqueue_trial(point, skip_if_exists=True)
        self._running: dict[int, optuna.Trial] = {}
        self._interrupted = list(self.trials(TrialState.RUNNING))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in one of these states, or all trials, sorted by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def next(self) -> Trial | None:
        """Return an interrupted trial, else a new trial, or None if there are no more.

        The `epoch` of an interrupted trial is the last one that was reported.
        """
        epoch = 0
        if self._interrupted:
            interrupted = self._interrupted.pop(0)
            epoch = interrupted.last_step or 0
            trial = optuna.Trial(self.study, interrupted._trial_id)
        elif self.count is not None and self._started() >= self.count:
            return None
        else:
            trial = self.study.ask()
        self._running[trial.number] = trial
        run_dir = trial_dir(self.folder, trial.number)
        return Trial(trial.number, self._sample(trial), run_dir, epoch=epoch)

    def anything_left(self) -> bool:
        """Return whether `next` would return a trial."""
        return bool(self._interrupted) or self.count is None or self._started() < self.count

    def finished(self) -> list[Trial]:
        """Return the complete, pruned and failed trials."""
        return [self._to_trial(trial) for trial in self.trials() if trial.state.is_finished()]

    def _to_trial(self, found: FrozenTrial) -> Trial:
        epoch, reason = found.last_step or 0, found.user_attrs.get(REASON, "")
        state: State = "failed"
        if found.state == TrialState.COMPLETE:
            state = "complete"
        elif found.state == TrialState.PRUNED:
            state, reason = "pruned", self.pruned_reason(epoch)
        return Trial(
            found.number,
            dict(found.params),
            trial_dir(self.folder, found.number),
            state=state,
            epoch=epoch,
            value=found.value,
            reason=reason,
        )

    def pruned_reason(self, epoch: int) -> str:
        """Return the reason of a trial that was pruned after an epoch."""
        return f"{self.sweep.pruner.name} at epoch {epoch}"

    def reasons(self) -> list[str]:
        """Return the reasons of all failed trials."""
        return [trial.user_attrs.get(REASON, "") for trial in self.trials(TrialState.FAIL)]

    def report(self, number: int, epoch: int, value: float) -> None:
        """Report the value of a trial after an epoch. Repeated reports have no effect."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The reported value is ignored")
            self._running[number].report(value, epoch)

    def should_prune(self, number: int) -> bool:
        """Return whether to prune the trial after its last reported epoch."""
        return self._running[number].should_prune()

    def complete(self, number: int, value: float) -> None:
        self.study.tell(self._running.pop(number), value)

    def prune(self, number: int) -> None:
        self.study.tell(self._running.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        trial = self._running.pop(number)
        trial.set_user_attr(REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """Return the best complete trial, or None."""
        return _best(self.study)

    def _started(self) -> int:
        return len(self.trials()) - len(self.trials(TrialState.WAITING))

    def _sample(self, trial: optuna.Trial) -> Values:
        values: Values = {}
        for field, searched in self.sweep.space.items():
            if self.sweep.is_active(field, values):
                values[field] = _suggest(trial, field, searched)
        return values


def best_of(folder: Path, name: str) -> FrozenTrial | None:
    """Return the best complete trial of a sweep, or None.

    Args:
        folder: Folder of the sweep.
        name: Name of the study.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / STUDY}")
    return _best(study)


def _best(study: optuna.Study) -> FrozenTrial | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if complete else None


def _suggest(trial: optuna.Trial, field: str, searched: Range) -> Scalar:
    match searched:
        case Choice():
            return cast(Scalar, trial.suggest_categorical(field, searched.choice))
        case Uniform():
            return trial.suggest_float(field, *searched.uniform)
        case LogUniform():
            return trial.suggest_float(field, *searched.loguniform, log=True)
        case Integers():
            return trial.suggest_int(field, *searched.integers, step=searched.step)


def _open_study(sweep: SweepFile, folder: Path, name: str) -> optuna.Study:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / STUDY}")
    direction = "maximize" if sweep.mode == "max" else "minimize"
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction=direction,
        pruner=_build_pruner(sweep),
        load_if_exists=True,
    )
    # With the same seed, a sweep that continues would draw its first points again.
    study.sampler = _build_sampler(sweep, sweep.seed + len(study.get_trials(deepcopy=False)))
    return study


def _build_sampler(sweep: SweepFile, seed: int) -> BaseSampler:
    chosen: Any = sweep.sampler
    conditional = any(searched.when for searched in sweep.space.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match chosen.name:
            case "tpe":
                return optuna.samplers.TPESampler(
                    n_startup_trials=chosen.startup_trials,
                    multivariate=chosen.multivariate,
                    group=chosen.multivariate and conditional,
                    constant_liar=chosen.constant_liar,
                    seed=seed,
                )
            case "cmaes":
                return optuna.samplers.CmaEsSampler(
                    n_startup_trials=chosen.startup_trials,
                    warn_independent_sampling=False,
                    seed=seed,
                )
            case _:  # "random", or "grid", whose points are all enqueued
                return optuna.samplers.RandomSampler(seed=seed)


def _build_pruner(sweep: SweepFile) -> BasePruner:
    chosen: Any = sweep.pruner
    match chosen.name:
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=chosen.min_epochs, reduction_factor=chosen.reduction_factor
            )
        case "median":
            return optuna.pruners.MedianPruner(
                n_startup_trials=chosen.startup_trials, n_warmup_steps=chosen.min_epochs
            )
        case _:
            return optuna.pruners.NopPruner()
