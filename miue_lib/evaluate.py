"""Every table about MI-UE, as cases that are run one by one, kept, and recorded.

A case is one number of a table: whose noise, on how many of the pictures, what the victim does about it, which victim.
The same cases are run at the profile `cpu` by the book's chapters and at `gpu` by `python -m miue_lib evaluate`.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from . import explain
from ._console import Terminated, sigterm_raises
from ._errors import bad, check_choice, check_count, check_number
from ._files import digest_of
from .cache import Cache
from .data import ImageSet
from .defenses import DEFENSES
from .models import MODELS, Classifier
from .noise import METHODS
from .perturbation import Perturbation
from .profiles import Profile
from .results import Record, provenance, read, write
from .train import History

EPSILON = 8 / 255  # of every case that does not say otherwise

_IDENTIFYING = ("table", "row", "column", "data", "profile", "settings", "fingerprints")

Say = Callable[[str], None]
OnEpoch = Callable[[int, History], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One cell of a table.

    table, row, column: where it stands. model: the victim, for `build`.
    method: whose noise; "clean" for none. crafted: what differs from the profile's settings for `craft`.
    share: of each class's pictures that are published with their noise; the others stay clean. only: the one class
        that is published with noise. clean_part: whether the victim gets the clean ones alone, as a control.
    defense: a name of `DEFENSES`; defended: its settings. trained: what differs from the profile's for `fit`.
    start: whether the victim begins with the features of a model that is given when the case is run.
    robust: radius in pixel values at which robust accuracy is measured too; 0 for not at all.

    Raises `ValueError` for a name that is not known, a share out of [0, 1], and parts that contradict each other.
    """

    table: str
    row: str
    column: str
    model: str
    method: str = "clean"
    crafted: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    only: int | None = None
    clean_part: bool = False
    defense: str = "none"
    defended: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    start: bool = False
    robust: float = 0.0

    def __post_init__(self) -> None:
        check_choice("model", self.model, MODELS)
        check_choice("method", self.method, ("clean", *METHODS))
        check_choice("defense", self.defense, ("none", *DEFENSES))
        check_number("share", self.share, 0, 1)
        check_number("robust", self.robust, 0, 1)
        if self.only is not None:
            check_count("only", self.only, 0)
            if self.share < 1:
                raise bad("share", self.share, "1 where only one class is published with noise")
        if self.clean_part and self.only is None and self.share == 1:
            raise bad("clean_part", True, "a share below 1, or one class: else nothing is clean")
        for name in ("crafted", "defended", "trained"):
            object.__setattr__(self, name, dict(getattr(self, name)))  # a copy, of whatever mapping a profile holds

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from a plain victim of clean pictures, as a record keeps it."""
        plain = Case(table=self.table, row=self.row, column=self.column, model=self.model)
        found = {name: value for name, value in asdict(self).items() if value != getattr(plain, name)}
        return {"model": self.model} | found


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What cases are run on: a profile, its pictures, and where noise and victims are kept.

    data: what the pictures are called in records. seed: the k-th run of a case trains with `seed` + 1 + k, on noise
        that was crafted with `seed` + k modulo the profile's `crafts`.
    start: a model whose features the victims of cases with `start` begin with.
    """

    size: Profile
    train: ImageSet
    test: ImageSet
    cache: Cache
    data: str
    seed: int = 0
    start: Classifier | None = None

    def noise(self, case: Case, k: int, *, progress: Say | None = None) -> Perturbation:
        """The noise of the k-th run, for all the pictures."""
        seed = self.seed + k % self.size.crafts
        return self.cache.craft(case.method, self.train, seed=seed, progress=progress, **self._crafting(case))

    def _crafting(self, case: Case) -> dict[str, Any]:
        bound = {"epsilon": EPSILON} if METHODS[case.method].norm == "L∞" else {}
        return bound | dict(self.size.noise[case.method]) | dict(case.crafted)

    def _training(self, case: Case) -> dict[str, Any]:
        return dict(self.size.victim) | dict(case.trained)

    def published(self, case: Case, k: int, *, progress: Say | None = None) -> ImageSet:
        """What the victim of the k-th run finds."""
        if case.method == "clean":
            return self.train
        noisy = self.train.with_(self.noise(case, k, progress=progress))
        if case.only is None and case.share == 1:
            return noisy
        chosen = self._chosen(case, k)
        if case.clean_part:
            return self.train.subset((~chosen).nonzero()[:, 0])
        images = torch.where(chosen[:, None, None, None], noisy.images, self.train.images)
        return replace(noisy, images=images, name=f"{noisy.name} on {int(chosen.sum()):,} of {len(chosen):,}")

    def _chosen(self, case: Case, k: int) -> torch.Tensor:
        """Which pictures carry noise: bool `(N,)`; with one seed, those of a smaller share are among a larger one's."""
        labels = self.train.labels
        if case.only is not None:
            return labels == check_count("only", case.only, 0, len(self.train.classes) - 1)
        generator = torch.Generator().manual_seed(self.seed + k)
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        for c in range(len(self.train.classes)):
            members = (labels == c).nonzero()[:, 0].cpu()
            order = members[torch.randperm(len(members), generator=generator)]
            # Of few pictures, too, one stays clean.
            chosen[order[: min(round(case.share * len(members)), len(members) - 1)]] = True
        return chosen.to(labels.device)

    def defended(self, case: Case, images: ImageSet) -> ImageSet:
        """What the victim trains on, who found these pictures: themselves, unless its defence changes pictures."""
        if not _changes_pictures(case):
            return images
        return self.cache.pictures(DEFENSES[case.defense].run, images, **case.defended)

    def victim(
        self, case: Case, k: int, *, progress: Say | None = None, on_epoch: OnEpoch | None = None
    ) -> tuple[Classifier, History]:
        """The victim of the k-th run, and its curves."""
        published = self.published(case, k, progress=progress)
        recipe = self._training(case)
        if case.defense != "none" and not _changes_pictures(case):
            recipe["defense"] = DEFENSES[case.defense].run(**case.defended)
        published = self.defended(case, published)
        start = None
        if case.start:
            if self.start is None:
                raise bad("start", "no model", "one with the features that the victims of this case begin with")
            start = self.start
        seed = self.seed + 1 + k
        return self.cache.fit(
            case.model, published, test=self.test, seed=seed, start=start, on_epoch=on_epoch, **recipe
        )

    def numbers(self, case: Case, k: int, **report: Any) -> dict[str, float]:
        """What the k-th run of a case gives: accuracies on clean test pictures, in [0, 1].

        "accuracy": after the last epoch; "highest accuracy": after the best one; "robust accuracy": under attack.
        "training seconds": of the victim, when it was trained, on whatever else the machine did. "survives" and
        "disturbance": of the noise after a defence that changes pictures, see `explain.survival`.
        """
        victim, history = self.victim(case, k, **report)
        found = {"accuracy": history.test_accuracy[-1], "highest accuracy": max(history.test_accuracy)}
        found["training seconds"] = history.seconds[-1]
        if case.robust:
            # A short attack is enough to train against; what is left is measured with ten steps, as published.
            attack = {"radius": case.robust, "steps": 10, "seed": self.seed + k}
            found["robust accuracy"] = self.cache.keep(explain.robust_accuracy, victim, self.test, **attack)
        if _changes_pictures(case) and case.method != "clean" and not case.clean_part:
            published = self.published(case, k)
            sets = published, self.defended(case, self.train), self.defended(case, published)
            found |= dict(zip(("survives", "disturbance"), explain.survival(self.train, *sets), strict=True))
        return found

    def identity(self, case: Case) -> str:
        """What this bench's records of a case have in common, whatever their numbers."""
        return _identity(**self._told(case))

    def _told(self, case: Case) -> dict[str, Any]:
        prints = {"train": self.train.fingerprint, "test": self.test.fingerprint}
        if case.start and self.start is not None:
            prints["start"] = digest_of(self.start.state_dict())
        settings = case.settings | {"training": self._training(case)}
        if case.method != "clean":
            settings |= {"crafting": self._crafting(case), "crafting seeds": self.size.crafts}
        place = {"table": case.table, "row": case.row, "column": case.column, "data": self.data}
        return place | {"profile": self.size.name, "settings": settings, "fingerprints": prints}

    def record(self, case: Case, numbers: Sequence[Mapping[str, float]]) -> Record:
        """What the first runs of a case have given."""
        return Record(
            numbers={name: tuple(one[name] for one in numbers) for name in numbers[0]},
            seeds=tuple(self.seed + k for k in range(len(numbers))),
            seconds=sum(one["training seconds"] for one in numbers),
            **self._told(case),
            **provenance(self.train.device),
        )


def _changes_pictures(case: Case) -> bool:
    return case.defense != "none" and DEFENSES[case.defense].kind == "pictures"


@dataclass(frozen=True)
class _Run:
    """One run of a case, to be made in another process; its noise alone, if `noise_only`."""

    bench: Bench
    case: Case
    k: int
    noise_only: bool = False

    def __call__(self) -> dict[str, float]:
        if not self.noise_only:
            return self.bench.numbers(self.case, self.k)
        self.bench.noise(self.case, self.k)
        return {}


def side_by_side(cases: Iterable[Case], bench: Bench, *, say: Say = print) -> list[Record]:
    """A record of every case, of as many seeds as the profile has: on a CPU a process for each core (`at_once`)."""
    todo = list(cases)
    begun = time.perf_counter()
    runs = [_Run(bench, case, k) for k in range(bench.size.seeds) for case in todo]
    # All noise first, each once: two victims of one noise, side by side, would both craft it.
    of_noise = {
        (run.case.method, repr(run.case.crafted), run.k % bench.size.crafts): replace(run, noise_only=True)
        for run in runs
        if run.case.method != "clean"
    }
    for _ in bench.cache.at_once(of_noise.values()):
        pass
    numbers = list(bench.cache.at_once(runs))
    say(f"{len(todo)} cases, {bench.size.seeds} seeds each, in {time.perf_counter() - begun:.0f} s")
    return [bench.record(case, numbers[place :: len(todo)]) for place, case in enumerate(todo)]


def run(
    cases: Iterable[Case],
    bench: Bench,
    out: str | Path,
    *,
    minutes: float | None = None,
    tell: Say = print,
    say: Say = print,
) -> int:
    """Run cases one after the other and write their records under `out`; return how many runs are left.

    A record grows by a seed at a time, the first seed of all cases of a table first. What is recorded there for the
    same case, settings and pictures is not run again, and what was being crafted or trained goes on from its
    checkpoint; but a record that lacks seeds and is of another version of the library, or another machine, begins anew.

    minutes: stop after so many, at the end of a round or an epoch. What has neither, a method without rounds, a
        purifier, the measurement of robust accuracy, is run to its end.
    tell: called with a line for each result. say: with a line for each round and epoch on the way.

    A case that fails does not keep the others from being run: the first error is raised after them, as a
    `RuntimeError` that names the case. An `OSError`, where nothing can be written, is raised at once.
    """
    clock = _Clock(minutes, say)
    todo = [(case, k) for table in _by_table(cases) for k in range(bench.size.seeds) for case in table]
    done = _recorded(bench, Path(out), tell)
    left = [(case, k) for case, k in todo if k >= len(done.get(bench.identity(case), []))]
    tell(f"{len(todo) - len(left)} of {len(todo)} runs are recorded")
    failed: dict[str, BaseException] = {}
    for place, (case, k) in enumerate(left):
        name = f"{case.table}, {case.row}, {case.column}"
        if name in failed:
            continue
        if clock.is_up():
            return len(left) - place
        try:
            with _sigterm_raises():
                found = bench.numbers(case, k, progress=clock.progress(case), on_epoch=clock.on_epoch)
        except (_OutOfTime, Terminated):
            if not clock.is_up():
                raise
            return len(left) - place
        except (ValueError, FloatingPointError, RuntimeError) as error:
            failed[name] = error
            tell(f"{name}, seed {bench.seed + k}: failed: {error}")
            continue
        numbers = done.setdefault(bench.identity(case), [])
        numbers.append(found)
        write(bench.record(case, numbers), out)
        words = ", ".join(f"{key} {value:.4f}" for key, value in found.items() if key.endswith("accuracy"))
        tell(f"{name}, seed {bench.seed + k}: {words}; {len(left) - place - 1} left")
    for name, first in failed.items():
        raise RuntimeError(f"{len(failed)} cases failed, the first of them {name}: {first}") from first
    return 0


def _sigterm_raises() -> AbstractContextManager[None]:
    """Signals are the main thread's: in another one, a run ends with the program."""
    return sigterm_raises() if threading.current_thread() is threading.main_thread() else nullcontext()


class _OutOfTime(Exception):
    pass


class _Clock:
    """Says when time is up, where a run can be stopped and gone on with."""

    def __init__(self, minutes: float | None, say: Say) -> None:
        self.end = math.inf if minutes is None else time.perf_counter() + 60 * check_number("minutes", minutes, 0)
        self.say = say

    def is_up(self) -> bool:
        return time.perf_counter() >= self.end

    def progress(self, case: Case) -> Say:
        """To be called with each line of crafting: asks it to stop, as a signal would, if it can go on later."""
        stops = case.method in METHODS and METHODS[case.method].takes("execution")

        def heard(line: str) -> None:
            self.say(f"  {line}")
            if stops and self.is_up():
                signal.raise_signal(signal.SIGTERM)

        return heard

    def on_epoch(self, epoch: int, history: History) -> None:
        self.say(f"  epoch {epoch}: loss {history.loss[-1]:.3f}, {history.seconds[-1]:.0f} s")
        if self.is_up():
            raise _OutOfTime


def _by_table(cases: Iterable[Case]) -> list[list[Case]]:
    tables: dict[str, list[Case]] = {}
    for case in cases:
        tables.setdefault(case.table, []).append(case)
    return list(tables.values())


def _recorded(bench: Bench, out: Path, tell: Say) -> dict[str, list[dict[str, float]]]:
    """Identity → the numbers of the runs that are recorded."""
    here = provenance(bench.train.device)
    found, other = {}, 0
    for record in read(out) if out.exists() else []:
        whole = len(record.seeds) >= bench.size.seeds
        same = record.code == here["code"] and record.hardware == here["hardware"]
        begins = record.seeds == tuple(bench.seed + k for k in range(len(record.seeds)))
        if begins and (whole or same) and not record.source:
            numbers = [{name: values[k] for name, values in record.numbers.items()} for k in range(len(record.seeds))]
            found[_identity(**vars(record))] = numbers
            other += not same
    if other:
        tell(f"{other} whole records are of other code or another machine, and stay; to make them again, remove them")
    return found


def _identity(**fields: Any) -> str:
    return json.dumps({name: fields[name] for name in _IDENTIFYING}, sort_keys=True)
