"""A sweep's search: an Optuna study in a database, which holds all that the search knows.

What to try next, what became of each trial, and the values by which pruners compare: all of it
is in the study, so a sweep that was killed goes on as if it had not been.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from heartseg.config.params import Params
from heartseg.config.ranges import Choice, Integers, LogUniform, Range, Scalar, Uniform
from heartseg.config.sweep_file import SweepFile, Values

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

STUDY = "study.db"
REASON = "reason"
"""User attribute of a trial that failed."""


@dataclass(frozen=True)
class Suggestion:
    """A trial to run.

    Attributes:
        number: from 0, for good: it names the trial's folder and run.
        values: sampled values by field.
        epoch: the last one that was reported before the trial was cut off; 0 for a new trial.
    """

    number: int
    values: Values
    epoch: int = 0


class Search:
    """The study of one sweep.

    Args:
        sweep: what is searched.
        params: for the recipe's own values, which are tried first.
        folder: of the sweep; the study is created in it, or found again.
        name: of the study, unique.
    """

    def __init__(self, sweep: SweepFile, params: Params, folder: Path, name: str):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep = sweep
        self.count = sweep.trial_count(params)
        self.study = _open_study(sweep, folder, name)
        for point in sweep.first_points(params):
            self.study.enqueue_trial(point, skip_if_exists=True)
        self._running: dict[int, optuna.Trial] = {}
        self._cut_off = list(self.trials(TrialState.RUNNING))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in one of these states, or all, by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def next(self) -> Suggestion | None:
        """A trial that was cut off, else a new one; None where all were given out."""
        epoch = 0
        if self._cut_off:
            begun = self._cut_off.pop(0)
            epoch = begun.last_step or 0
            trial = optuna.Trial(self.study, begun._trial_id)
        elif self.count is not None and self._begun() >= self.count:
            return None
        else:
            trial = self.study.ask()
        self._running[trial.number] = trial
        return Suggestion(trial.number, self._sample(trial), epoch)

    def anything_left(self) -> bool:
        """Whether `next` would give a trial."""
        return bool(self._cut_off) or self.count is None or self._begun() < self.count

    def reasons(self) -> list[str]:
        """Why trials failed."""
        return [trial.user_attrs.get(REASON, "") for trial in self.trials(TrialState.FAIL)]

    def report(self, number: int, epoch: int, value: float) -> None:
        """Note a trial's value after an epoch; a second time it changes nothing."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The reported value is ignored")
            self._running[number].report(value, epoch)

    def should_prune(self, number: int) -> bool:
        """Whether the trial's last reported epoch shows that it is not worth going on."""
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
        """The best of the trials that ran to their end."""
        return _best(self.study)

    def _begun(self) -> int:
        return len(self.trials()) - len(self.trials(TrialState.WAITING))

    def _sample(self, trial: optuna.Trial) -> Values:
        values: Values = {}
        for field, searched in self.sweep.space.items():
            if self.sweep.is_active(field, values):
                values[field] = _suggest(trial, field, searched)
        return values


def best_of(folder: Path, name: str) -> FrozenTrial | None:
    """The best of a sweep's trials that ran to their end."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / STUDY}")
    return _best(study)


def _best(study: optuna.Study) -> FrozenTrial | None:
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if done else None


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
    # The same seed after an interruption would draw the first points once more.
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
            case _:  # a grid's points are all enqueued, so nothing is left to draw
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
