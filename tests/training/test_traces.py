"""Traces of the user's own: every error at once, the split, and what samples they give."""

import json
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar
from stepback_training.config import DataRecipe
from stepback_training.data.samples import Sample, read_samples, write_samples
from stepback_training.data.traces import Trace, is_held_out, read_traces
from stepback_training.generators import is_test_input
from tests import warm

MARKER = Grammar().marker


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def trace(number: int, **fields: Any) -> dict[str, Any]:
    """A right trace of counting."""
    steps = [f"{number}>{number + 1}", f"{number + 1}>{number + 2}"]
    return {"prompt": f"count:{number}", "steps": steps} | fields


def make(folder: Path, lines: list[dict[str, Any]], **fields: Any) -> list[Sample]:
    file = write(folder / "traces.jsonl", *lines)
    recipe = DataRecipe.model_validate({"task": "traces", "files": [str(file)]} | fields)
    write_samples(recipe, folder / "samples.jsonl", processes=2)
    return list(read_samples(folder / "samples.jsonl"))


LINES = [
    trace(n, **({"wrong_step": f"{n + 1}>{n}", "wrong_after": 1} if n % 2 else {}))
    for n in range(100)
]
IN_TRAINING = [line for line in LINES if not is_held_out(line["prompt"])]


def test_every_trace_gives_its_path_and_its_wrong_step_once(tmp_path: Path) -> None:
    samples = make(tmp_path, LINES)
    expected: list[Sample] = []
    for line in IN_TRAINING:
        prompt, steps = line["prompt"], line["steps"]
        expected.append(Sample(prompt=prompt, steps=steps))
        if "wrong_step" in line:
            expected.append(Sample(prompt=prompt, steps=steps[:1], wrong_step=line["wrong_step"]))
    assert samples == expected
    assert 80 < len(IN_TRAINING) < 100


def test_a_number_of_samples_keeps_the_share(tmp_path: Path) -> None:
    samples = make(tmp_path, LINES, samples=4000, backtrack_share=0.25)
    wrong = [sample for sample in samples if sample.wrong_step is not None]
    assert len(samples) == 4000
    assert len(wrong) / 4000 == pytest.approx(0.25, abs=0.03)
    assert {sample.prompt for sample in samples} == {line["prompt"] for line in IN_TRAINING}
    assert not any(is_held_out(sample.prompt) for sample in samples)


def test_of_traces_too_a_share_stops_behind_the_first_step(tmp_path: Path) -> None:
    samples = make(tmp_path, LINES, samples=4000, backtrack_share=0.25, first_steps=0.5)
    several = [s for s in samples if s.wrong_step is None and (s.beginning or len(s.steps) > 1)]
    cut = [sample for sample in several if sample.beginning]
    assert len(cut) / len(several) == pytest.approx(0.5, abs=0.04)
    first = {(line["prompt"], line["steps"][0]) for line in IN_TRAINING}
    assert all((sample.prompt, *sample.steps) in first for sample in cut)


def test_without_wrong_steps_every_sample_is_optimal(tmp_path: Path) -> None:
    samples = make(tmp_path, [trace(n) for n in range(20)], samples=50)
    assert len(samples) == 50 and all(sample.wrong_step is None for sample in samples)


@given(st.text(min_size=1, max_size=20))
def test_the_split_is_the_hash_of_the_prompt(prompt: str) -> None:
    assert is_held_out(prompt) == is_test_input(f"traces:{prompt}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: the line: Invalid JSON"),
        ("[]", ":2: the line: Input should be"),
        ('{"prompt": "p\xff"}', ":2: steps: Field required"),
        (trace(1, hint=2), ":2: hint: Extra inputs are not permitted"),
        (trace(1, prompt=""), ":2: prompt: String should have at least 1"),
        (trace(1, prompt=7), ":2: prompt: Input should be a valid string"),
        (trace(1, prompt=f"a{MARKER}"), f":2: prompt: a prompt must not contain '{MARKER}'"),
        (trace(1, steps=[]), ":2: steps: List should have at least 1"),
        (trace(1, steps="1>2"), ":2: steps: Input should be a valid array"),
        (trace(1, steps=["1>2", ""]), ":2: steps.1: a step must not be empty"),
        (trace(1, steps=["1>2", " "]), ":2: steps.1: a step must not be empty"),
        (trace(1, steps=["1>2\n"]), r":2: steps.0: a step must not contain '\n'"),
        (trace(1, steps=[f"1>2{MARKER}"]), f":2: steps.0: a step must not contain '{MARKER}'"),
        (trace(1, steps=["1<end>"]), ":2: steps.0: a step must not contain '<end>'"),
        (trace(1, wrong_step="x"), ":2: the line: wrong_step and wrong_after: give both"),
        (trace(1, wrong_after=1), ":2: the line: wrong_step and wrong_after: give both"),
        (trace(1, wrong_step="x", wrong_after=3), ":2: the line: wrong_after is 3, of 2 steps"),
        (trace(1, wrong_step="x", wrong_after=-1), ":2: wrong_after: Input should be greater"),
        (trace(1, wrong_step="x", wrong_after="1"), ":2: wrong_after: Input should be a valid"),
        (trace(1, wrong_step="1>2", wrong_after=0), ":2: wrong_step: "),
        (trace(0, wrong_step="0>1", wrong_after=0), ":1 has it as the right step here"),
    ],
)
def test_an_error_is_named_with_file_line_and_field(
    tmp_path: Path, line: object, message: str
) -> None:
    file = write(tmp_path / "mine.jsonl", trace(0), line)
    with pytest.raises(InvalidInput) as caught:
        read_traces([file])
    assert str(caught.value).count("\n") == 1
    assert message in str(caught.value) and "mine.jsonl" in str(caught.value)


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(json.dumps(trace(0)).encode() + b'\n{"prompt": "\xff", "steps": ["a"]}\n')
    with pytest.raises(InvalidInput, match=r"mine.jsonl:2: the line: Invalid JSON"):
        read_traces([file])


def test_the_errors_of_all_files_come_at_once_and_the_first_twenty_are_shown(
    tmp_path: Path,
) -> None:
    one = write(tmp_path / "one.jsonl", trace(0, steps=["", "\n"]), trace(1))
    two = write(tmp_path / "two.jsonl", *["{"] * 30)
    with pytest.raises(InvalidInput) as caught:
        read_traces([one, two])
    _, *errors, rest = str(caught.value).splitlines()
    assert len(errors) == 20
    assert errors[0].startswith(f"{one}:1: steps.0: ")
    assert errors[1].startswith(f"{one}:1: steps.1: ")
    assert errors[2].startswith(f"{two}:1: the line: ")
    assert rest == "... and 12 more"


@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_files_without_traces_are_refused(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(InvalidInput, match="there are no traces"):
        read_traces([write(tmp_path / "mine.jsonl", *lines)])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none.jsonl: cannot be read \(No such file"):
        read_traces([tmp_path / "none.jsonl"])


def test_nothing_but_held_out_traces_are_refused(tmp_path: Path) -> None:
    held = [line for line in LINES if is_held_out(line["prompt"])]
    with pytest.raises(InvalidInput, match=f"all {len(held)} traces belong to the test split"):
        read_traces([write(tmp_path / "mine.jsonl", *held)])


def test_the_same_prompt_may_have_several_paths_and_wrong_steps(tmp_path: Path) -> None:
    prompt = IN_TRAINING[0]["prompt"]
    lines = [
        {"prompt": prompt, "steps": ["a", "b"], "wrong_step": "x", "wrong_after": 0},
        {"prompt": prompt, "steps": ["a", "c"], "wrong_step": "y", "wrong_after": 2},
    ]
    read = read_traces([write(tmp_path / "mine.jsonl", *lines)])
    assert read.training == [Trace.model_validate(line) for line in lines]
    assert [t.right_prefix for t in read.training] == [[], ["a", "c"]]


def test_the_command_says_what_was_left_out_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", *LINES)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "mine"\n[data]\ntask = "traces"\nfiles = ["{file}"]\n'
        "[scratch]\n[train]\nlearning_rate = 1e-3\n"
    )
    done = run_data(recipe, tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert f"{100 - len(IN_TRAINING)} traces were left out" in done.stdout
    before = (tmp_path / "out.jsonl").read_bytes()
    write(file, *LINES, "{")
    done = run_data(recipe, tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "mine.jsonl:101: the line" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == before


def run_data(recipe: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return warm.stepback("data", "--recipe", recipe, "--out", out)


FILE = b"".join(json.dumps(trace(index)).encode() + b"\n" for index in range(3))


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + FILE, FILE.replace(b"\n", b"\r\n"), b"\n" + FILE + b"\n"]
)
def test_a_byte_order_mark_and_other_line_ends_are_skipped(tmp_path: Path, content: bytes) -> None:
    plain, other = tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    plain.write_bytes(FILE)
    other.write_bytes(content)
    assert read_traces([other]) == read_traces([plain])


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (FILE.decode().encode("utf-16"), "UTF-16"),
        (FILE.decode().encode("utf-16-le"), "UTF-16"),
        (b"[" + FILE.strip().replace(b"\n", b",\n") + b"]", "JSON array"),
        (b"\xef\xbb\xbf[" + FILE.strip().replace(b"\n", b",") + b"]", "JSON array"),
    ],
)
def test_a_file_in_another_form_is_called_by_its_form(
    tmp_path: Path, content: bytes, form: str
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=form):
        read_traces([file])


@pytest.mark.parametrize(
    "control",
    [
        "<|im_start|>",
        "<|eot_id|>",
        "<|reserved_special_token_7|>",
        "<\N{FULLWIDTH VERTICAL LINE}User\N{FULLWIDTH VERTICAL LINE}>",
        "<start_of_turn>",
        "<bos>",
        "[INST]",
    ],
)
def test_a_rendered_prompt_is_refused_with_how_to_write_it(tmp_path: Path, control: str) -> None:
    file = write(tmp_path / "mine.jsonl", trace(0, prompt=f"{control}user\nSort cab."))
    with pytest.raises(InvalidInput, match="write what a user would type"):
        read_traces([file])
    for fields in ({"steps": ["a", f"b{control}"]}, {"wrong_step": f"{control}b"}):
        file = write(tmp_path / "mine.jsonl", trace(0, **({"wrong_after": 0} | fields)))
        with pytest.raises(InvalidInput, match=r"step.*between control tokens alone"):
            read_traces([file])


def test_steps_of_several_lines_need_another_separator(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", trace(0, steps=["def f():\n    return 1", "done"]))
    with pytest.raises(InvalidInput, match=r'separator = "\\n\\n"'):
        read_traces([file])
    assert read_traces([file], Grammar(separator="\n\n")).training[0].steps[1] == "done"


@pytest.mark.parametrize("wrong", [{}, {"wrong_step": "x", "wrong_after": 1500}])
def test_long_traces_take_memory_of_the_order_of_their_file(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    lines = [
        {"prompt": f"walk:{n}", "steps": [f"{n}.{step}" for step in range(1600)]} | wrong
        for n in range(20)
    ]
    file = write(tmp_path / "long.jsonl", *lines)
    tracemalloc.start()
    try:
        read_traces([file])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * file.stat().st_size  # Python's strings take some ten times their bytes.
