"""The files of a package with one task: it sorts words, until its author changes that."""

from string import Template

PYPROJECT = Template("""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "stepback-$name"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["stepback-llm", "pydantic>=2"]

[project.entry-points."stepback.tasks"]
$name = "$module.checker:$title"

[project.entry-points."stepback.generators"]
$name = "$module.generator:${title}Generator"

[tool.hatch.build.targets.wheel]
packages = ["$module"]
""")

CHECKER = Template('''\
"""The task $name: a problem, its prompt, and the test of an answer."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from stepback_core.tasks import Checker, Verdict


class ${title}Problem(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    words: tuple[str, ...]
    """The words to sort."""


class $title(Checker[${title}Problem]):
    name = "$name"
    problem_type = ${title}Problem
    # Its prompt belongs to the test split.
    example = ${title}Problem(words=$example)

    def prompt(self, problem: ${title}Problem) -> str:
        return f"$name:{','.join(problem.words)}"

    def check_step(
        self, problem: ${title}Problem, prefix: Sequence[str], step: str
    ) -> str | None:
        return None if [*prefix, step] == sorted(problem.words)[: len(prefix) + 1] else "not_next"

    def check(self, problem: ${title}Problem, steps: Sequence[str]) -> Verdict:
        return Verdict.of(None if [*steps] == sorted(problem.words) else "not_sorted")
''')

GENERATOR = Template('''\
"""The training data of the task $name."""

from random import Random

from stepback_training.generators import Generator

from $module.checker import $title, ${title}Problem

WORDS = "ant bee cat dog eel fox gnu hen".split()


class ${title}Generator(Generator[${title}Problem]):
    checker = $title()

    def draw(self, rng: Random) -> ${title}Problem:
        return ${title}Problem(words=tuple(rng.sample(WORDS, 4)))

    def reference_paths(self, problem: ${title}Problem) -> list[list[str]]:
        return [sorted(problem.words)]
''')

TEST = Template('''\
"""What must hold for every task, for this one."""

from stepback_training.task_suite import TaskSuite

from $module.generator import ${title}Generator


class Test$title(TaskSuite):
    generator = ${title}Generator()
''')

RECIPE = Template("""\
# stepback data --recipe recipe.toml --out samples.jsonl
# stepback train --recipe recipe.toml --data samples.jsonl --out run
# Both with STEPBACK_TASKS=$name in the environment.
name = "$name"

[data]
task = "$name"
samples = 20_000

[scratch]
hidden_size = 64
intermediate_size = 128
layers = 2
heads = 2

[train]
learning_rate = 1e-3
epochs = 4
batch_tokens = 2048
""")

README = Template("""\
# stepback-$name

A task of Stepback: `$module/checker.py` judges, `$module/generator.py`
makes training data.

```
pip install -e .
pytest
export STEPBACK_TASKS=$name
stepback data --recipe recipe.toml --out samples.jsonl
stepback train --recipe recipe.toml --data samples.jsonl --out run
stepback serve --model run/model
stepback evaluate --task $name --out $name.json
```
""")
