"""The rounds of self-improvement, each phase of them resumable.

    DIR/improve.json                what came of it
    DIR/0/validation.jsonl ...      the model that the run starts from, measured
    DIR/1/solved.jsonl              what search made of the round's problems, a line each
    DIR/1/samples.jsonl             what the round trains on
    DIR/1/train/                    its training; train/model is what the next round asks
    DIR/model/                      the best round's, where that is wanted

A journal grows line by line, every other file and folder appears whole. So a run that was killed
goes on by doing everything again: what is there is not done twice.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stepback_client import SolveOptions, solve_body
from stepback_core.manifest import Manifest, weights_digest
from stepback_core.schemas import Select, Strategy
from stepback_core.validation import first_error
from stepback_training.config import BaseModelChoice, DataRecipe, ImproveRecipe, Recipe
from stepback_training.generators import GENERATORS
from stepback_training.improve.outcomes import SearchOutcome
from stepback_training.improve.problems import held_out_questions, training_questions
from stepback_training.improve.record import Record, Round, Score
from stepback_training.improve.samples import Counts, keep, write_mixture
from stepback_training.improve.served_checkpoint import Engines, SearchConfig, Weights
from stepback_training.sampling.problems import Question, seed_of
from stepback_training.train.run_folder import WITHOUT_EFFECT, agree, locked

_GREEDY = SolveOptions(strategy=Strategy.GREEDY, select=Select.PERPLEXITY)
_REPORTED = (
    *("final_loss", "samples", "tokens", "optimizer_steps", "hours"),
    *("device", "threads", "peak_gpu_memory_gib"),
)


def improve(
    recipe: Recipe,
    engines: Engines,
    run: Path,
    *,
    best: bool = False,
    report: Callable[[Round], None] = lambda each: None,
) -> Record:
    """Run, or go on with, the rounds of a recipe. `report` is called with each round once it is
    over.

    Raises ValueError for what cannot be run so, StepbackError, OSError and Stopped where
    the engines do not do their part; the same call goes on from there.
    """
    start = _start(recipe)
    # Two commands on one folder would write the same journals.
    with locked(run):
        agree(run / "run.json", identity(recipe, weights_digest(start)), renewed)
        return _Improvement(recipe, engines, run, start).run(best=best, report=report)


def _start(recipe: Recipe) -> Path:
    """The checkpoint to start from. Raises ValueError where rounds cannot start from it."""
    if recipe.base is None:
        raise ValueError("[base]: its path must name the checkpoint that the controller serves")
    folder = Path(recipe.base.path)
    manifest = Manifest.read(folder)
    for part, wanted, found in (
        ("name", manifest.name, recipe.name),
        ("[data] tasks", sorted(manifest.tasks), sorted(recipe.data.names)),
    ):
        if wanted != found:
            raise ValueError(
                f"{part} is {found}, but {folder} has {wanted}: a round trains all that the model "
                "knows, under the name that it is served by"
            )
    config = json.loads((folder / "config.json").read_bytes())
    if config.get("tie_word_embeddings"):
        # The server would refuse the reload, after the first round has been paid for.
        raise ValueError(f"{folder}: its embeddings are tied; export it untied, and serve that")
    # Before the first search is paid for.
    _check_search(recipe.improve or ImproveRecipe(), recipe.data)
    return folder


def _check_search(plan: ImproveRecipe, data: DataRecipe) -> None:
    """Raises ValueError where no server may take such a search."""
    try:
        solve_body(GENERATORS[data.names[0]].checker.example, _search_options(plan))
    except ValidationError as error:
        raise ValueError(f"[improve] {first_error(error, whole='its search')}") from error


def _search_options(plan: ImproveRecipe) -> SolveOptions:
    """Tell how a round searches, but for what is chosen."""
    options = SolveOptions(
        strategy=plan.strategy,
        breadth=plan.breadth,
        backtracks=plan.backtracks,
        temperature=plan.temperature,
    )
    return options if plan.tokens is None else options | SolveOptions(tokens=plan.tokens)


def identity(recipe: Recipe, start: str) -> dict[str, Any]:
    """Identity of a run; `start` is the digest of the weights that it starts from."""
    plain = recipe.model_dump(mode="json", exclude={"train": {*WITHOUT_EFFECT}})
    # More of them go on from there.
    (plain["improve"] or {}).pop("rounds", None)
    return {"recipe": plain, "start_sha256": start}


def renewed(started: dict[str, Any]) -> dict[str, Any]:
    """An identity as it would be written now: newer fields of a recipe stand at their defaults."""
    return identity(Recipe.model_validate(started["recipe"]), started["start_sha256"])


class _Improvement:
    def __init__(self, recipe: Recipe, engines: Engines, run: Path, start: Path) -> None:
        self._recipe = recipe
        self._plan = recipe.improve or ImproveRecipe()
        self._engines = engines
        self._run = run
        self._start = start
        self._known: dict[int, Weights] = {}
        stream = training_questions(recipe.data, self._plan.seed)
        # Taken first, so that they stay the same whatever the number of rounds.
        self._validation = list(islice(stream, self._plan.validation))
        self._training = list(islice(stream, self._plan.rounds * self._plan.problems))
        self._tests = held_out_questions(recipe.data, self._plan.seed, self._plan.test)

    def run(self, *, best: bool, report: Callable[[Round], None]) -> Record:
        record = Record.begin(self._recipe.model_dump(mode="json"), self._plan.seed)
        for number in range(self._plan.rounds + 1):
            record.rounds.append(self._round(number))
            record.write(self._run / "improve.json")
            report(record.rounds[-1])
        if best:
            self._keep(record.best.number)
        return record

    def _round(self, number: int) -> Round:
        if not number:
            return Round(number=0, **self._measurements(0))
        solved = self._solve(number)
        samples, counts = self._mix(number)
        checkpoint = self._train(number, samples)
        training = Manifest.read(checkpoint).training
        return Round(
            number=number,
            search=Score.of(solved),
            paths=counts.optimal,
            samples=counts,
            training={name: training[name] for name in _REPORTED if name in training},
            **self._measurements(number),
        )

    def _folder(self, number: int) -> Path:
        return self._run / str(number)

    def _checkpoint(self, number: int) -> Path:
        return self._folder(number) / "train/model" if number else self._start

    # What a round learns from

    def _solve(self, number: int) -> list[SearchOutcome]:
        """Return the outcomes of a round's problems; only unknown ones are searched."""
        plan = self._plan
        config = SearchConfig(
            name="search",
            options=_search_options(self._plan) | SolveOptions(select=plan.select),
            seed=plan.seed,
            keeps_errors=plan.wrong_steps == "own",
        )
        questions = self._questions(number)
        return self._ask(number, number - 1, questions, config, "solved.jsonl")

    def _questions(self, number: int) -> Sequence[Question]:
        size = self._plan.problems
        return self._training[(number - 1) * size : number * size]

    def _mix(self, number: int) -> tuple[Path, Counts]:
        """The round's samples: of everything that was solved until now."""
        path = self._folder(number) / "samples.jsonl"
        counts_path = self._folder(number) / "counts.json"
        # Appears whole, so where it exists it is right.
        if not path.exists():
            rounds = range(1, number + 1)
            kept = keep(outcome for each in rounds for outcome in self._solve(each))
            if not kept:
                raise ValueError(f"round {number}: the search has solved nothing to train on")
            seed = seed_of(self._plan.seed, "mixture", number)
            counts = write_mixture(self._recipe, kept, self._measured_by(), path, seed, counts_path)
            return path, counts
        return path, Counts.model_validate_json(counts_path.read_bytes())

    def _measured_by(self) -> set[str]:
        questions = [*self._validation, *(each for kind in self._tests.values() for each in kind)]
        return {question.prompt for question in questions}

    def _train(self, number: int, samples: Path) -> Path:
        folder = self._checkpoint(number)
        if not folder.exists():
            self._engines.release()
            # Imported here: torch takes seconds, and a bad command line should not wait for it.
            from stepback_training.train.sft import train

            changes = {
                # From the round before, not from the start: each round's errors are those of the
                # model that made them.
                "base": BaseModelChoice(path=str(self._checkpoint(number - 1))),
                "train": self._recipe.round_train,
            }
            train(self._recipe.model_copy(update=changes), samples, self._folder(number) / "train")
        return folder

    # What it is worth

    def _measurements(self, number: int) -> dict[str, Any]:
        """Measure the checkpoint of a round: the fields of `Round` that every round has."""
        greedy = SearchConfig(name="greedy", options=_GREEDY, seed=self._plan.seed)
        validation = self._ask(number, number, self._validation, greedy, "validation.jsonl")
        fields: dict[str, Any] = {
            "checkpoint": str(self._checkpoint(number)),
            "digest": self._weights(number).digest,
            "validation": Score.of(validation),
            "greedy": self._tested(number, greedy),
        }
        if self._plan.test_search:
            # Without an oracle: what is chosen must not hang on the checker.
            options = _search_options(self._plan) | SolveOptions(select=Select.PERPLEXITY)
            searched = SearchConfig(name="search", options=options, seed=self._plan.seed)
            fields["searched"] = self._tested(number, searched)
        return fields

    def _tested(self, number: int, config: SearchConfig) -> dict[str, Score]:
        return {
            test: Score.of(
                self._ask(number, number, questions, config, f"{config.name}-{test}.jsonl")
            )
            for test, questions in self._tests.items()
        }

    def _ask(
        self,
        number: int,
        served: int,
        questions: Sequence[Question],
        config: SearchConfig,
        name: str,
    ) -> list[SearchOutcome]:
        """Return the outcomes of the model of round `served`; round `number` keeps them."""
        path = self._folder(number) / name
        title = f"round {number}: {path.stem}"
        return self._engines.ask(questions, config, self._weights(served), path, title)

    def _weights(self, number: int) -> Weights:
        """A round's, read once: the digest of a large model takes its time."""
        if number not in self._known:
            self._known[number] = Weights.at(self._recipe.name, self._checkpoint(number))
        return self._known[number]

    def _keep(self, number: int) -> None:
        """Copy a round's model to where it stays, and serve it."""
        from stepback_training.train.checkpoint import replace_folder

        folder = self._run / "model"
        weights = self._weights(number)
        # A run that went on may have a better round now.
        if not folder.exists() or weights_digest(folder) != weights.digest:
            staging = folder.with_name("model.partial")
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(weights.folder, staging)
            replace_folder(staging, folder)
        self._engines.serve(Weights(weights.model, folder, weights.digest))
