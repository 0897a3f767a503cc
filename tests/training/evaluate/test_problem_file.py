"""Problems from a user's own file: what is read, its side of the split, and what is refused."""

import json
from pathlib import Path

import pytest

from stepback_core.errors import InvalidInput
from stepback_core.tasks import CountdownProblem
from stepback_training.evaluate.flags import parser, read_plan
from stepback_training.evaluate.problem_file import Columns, ProblemFile
from stepback_training.generators import GENERATORS, Split

COUNTDOWN = GENERATORS["countdown"]
GAMES = "Rank,Puzzles,Solved\n1,1 1 4 6,99%\n2,1 1 11 11,99%\n3,1 1 3 8,99%\n"


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, columns: Columns | None = None, rows: range | None = None) -> ProblemFile:
    return ProblemFile.read(path, COUNTDOWN, columns or Columns(), rows)


def test_columns_of_a_csv_make_problems_with_one_target(tmp_path: Path) -> None:
    path = written(tmp_path, "games.csv", b"\xef\xbb\xbf" + GAMES.encode())
    found = read(path, Columns(numbers="Puzzles", target="24"))
    wanted = [[1, 1, 4, 6], [1, 1, 11, 11], [1, 1, 3, 8]]
    assert [each.problem for each in found.questions] == [
        CountdownProblem(numbers=numbers, target=24) for numbers in wanted
    ]


def test_rows_are_counted_from_1_without_the_header(tmp_path: Path) -> None:
    path = written(tmp_path, "games.csv", GAMES)
    found = read(path, Columns(numbers="Puzzles", target="24"), range(2, 4))
    assert [each.problem for each in found.questions] == [
        CountdownProblem(numbers=numbers, target=24) for numbers in ([1, 1, 11, 11], [1, 1, 3, 8])
    ]


def test_a_line_of_json_is_a_problem_as_it_stands(tmp_path: Path) -> None:
    lines = [{"numbers": [4, 16, 25, 82], "target": 95}, {"numbers": [1, 2, 3, 4], "target": 24}]
    path = written(tmp_path, "own.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert [each.problem.model_dump() for each in read(path).questions] == lines


@pytest.mark.parametrize("cell", [".1..4..1.32.....", ".1../4..1/.32./....", "0100400103200000"])
def test_a_grid_is_one_cell_of_a_csv(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, "puzzles.csv", f"puzzle,solution\n{cell},?\n")
    task = GENERATORS["sudoku"]
    [question] = ProblemFile.read(path, task, Columns(grid="puzzle")).questions
    assert task.checker.prompt(question.problem) == task.checker.prompt(task.checker.example)


def test_statements_of_knights_are_one_cell_of_a_csv(tmp_path: Path) -> None:
    task = GENERATORS["knights"]
    text = " ".join(task.checker.example.statements)
    path = written(tmp_path, "islands.csv", f"puzzle,solution\n{text},?\n")
    [question] = ProblemFile.read(path, task, Columns(statements="puzzle")).questions
    assert question.problem == task.checker.example
    path = written(tmp_path, "islands.csv", f"puzzle\n{text.removesuffix('.')}\n")
    with pytest.raises(
        InvalidInput, match=r"statements\.3: 'D says A is a knave or B is a knight' is not"
    ):
        ProblemFile.read(path, task, Columns(statements="puzzle"))


def test_line_ends_of_other_kinds_may_stand_inside_of_a_record(tmp_path: Path) -> None:
    """A line separator (U+2028) in a string of JSON, a form feed in a cell."""
    line = json.dumps({"numbers": [1, 2, 3, 4], "goal": 24, "note": "\u2028"}, ensure_ascii=False)
    path = written(tmp_path, "own.jsonl", f"{line}\r\n\r\n{line}\n")
    assert len(read(path, Columns(numbers="numbers", target="goal")).questions) == 2
    path = written(tmp_path, "own.csv", "numbers,note\r\n1 2 3 4,a\x0cb\x85c\r\n")
    assert len(read(path, Columns(numbers="numbers", target="24")).questions) == 1


def test_each_problem_is_on_its_own_side_of_the_split(tmp_path: Path) -> None:
    """Held-out inputs, inputs of training, and a target that no training has."""
    held_out, trained, new = ([4, 16, 25, 82], 95), ([1, 2, 3, 4], 24), ([1, 2, 3, 4], 17)
    lines = [json.dumps({"numbers": n, "target": t}) for n, t in (held_out, trained, new)]
    found = read(written(tmp_path, "own.jsonl", "\n".join(lines)))
    sides = [each.split for each in found.questions]
    assert sides == [Split.TEST_SEEN, Split.TRAIN, Split.TEST_NEW]
    assert found.problems == {Split.TRAIN: 1, Split.TEST_SEEN: 1, Split.TEST_NEW: 1}
    assert [each.number for each in found.questions] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("games.csv", GAMES, Columns(), "name its columns: --numbers and --target, or --grid"),
        ("games.csv", GAMES, Columns(numbers="puzzle", target="24"), "no column 'puzzle'; it has"),
        ("games.csv", GAMES, Columns(numbers="Puzzles", target="Goal"), "no column 'Goal'"),
        ("games.csv", GAMES, Columns(numbers="Puzzles"), "games.csv:2: target: Field required"),
        ("games.csv", GAMES, Columns(numbers="Solved", target="24"), "games.csv:2: numbers: '99%'"),
        ("games.csv", "Puzzles\n", Columns(numbers="Puzzles", target="24"), "has no problems"),
        ("games.csv", "a,b\n1\n", Columns(numbers="a", target="b"), "games.csv:2: has not as many"),
        ("games.csv", b"a\n\xff\n", Columns(numbers="a", target="24"), "is not UTF-8"),
        ("games.txt", GAMES, Columns(numbers="Puzzles", target="24"), ".csv, .jsonl or .json"),
        ("own.jsonl", "{}\n[1]\n", Columns(), "own.jsonl:2: is no JSON object"),
        ("games.csv", GAMES.encode("utf-16"), Columns(numbers="Puzzles", target="24"), "UTF-16"),
        ("own.jsonl", "{numbers}\n", Columns(), "own.jsonl:1: is no JSON"),
        ("own.jsonl", '{"numbers": [1, 2]}', Columns(), "own.jsonl:1: target: Field required"),
        ("own.jsonl", '{"numbers": [1, 2], "target": 3, "x": 1}', Columns(), "1: x: Extra inputs"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, columns: Columns, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(written(tmp_path, name, content), columns)
    assert said in str(refused.value)


def test_all_bad_lines_come_at_once(tmp_path: Path) -> None:
    lines = "\n".join(['{"numbers": [1, 2], "target": 0}'] * 25)
    with pytest.raises(InvalidInput) as refused:
        read(written(tmp_path, "own.jsonl", lines))
    assert str(refused.value).count(": target: ") == 20 and "and 5 more" in str(refused.value)


def test_more_rows_than_the_file_has_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "games.csv", GAMES)
    with pytest.raises(InvalidInput, match="there are 3, not 1000"):
        read(path, Columns(numbers="Puzzles", target="24"), range(901, 1001))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_the_plan_says_which_file(tmp_path: Path) -> None:
    path = written(tmp_path, "games.csv", GAMES)
    flags = ["--file", str(path), "--numbers", "Puzzles", "--target", "24", "--rows", "1-2"]
    plan, asked = read_plan(parser().parse_args([*flags, "--out", "e.json"]))
    assert plan.source is not None and plan.source.name == "games.csv"
    assert plan.problems == len(asked) == sum(plan.source.problems.values()) == 2


def test_flags_of_a_file_need_one() -> None:
    with pytest.raises(ValueError, match="are of --file"):
        read_plan(parser().parse_args(["--numbers", "Puzzles", "--out", "e.json"]))


PROSQA = [
    {
        "question": "Tom is a terpus. Every terpus is a lempus. Every gerpus is an impus. "
        "Is Tom a lempus or impus?",
        "answer": "Tom is a lempus.",
        "steps": ["Tom is a terpus.", "Every terpus is a lempus."],
    }
]


def test_questions_of_prosqa_are_read_as_it_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "prosqa.json"
    file.write_text(json.dumps(PROSQA))
    task = GENERATORS["deduction"]
    [question] = ProblemFile.read(file, task, Columns(question="question")).questions
    assert task.checker.check(
        question.problem, [*PROSQA[0]["steps"], str(PROSQA[0]["answer"])]
    ).strict


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"question": "Is it?"}', "is no list of JSON objects"),
        ("[1]", "is no list of JSON objects"),
        ("[]", "has no problems"),
        ('[{"question": "Every gerpus is an impus."}]', "json:1: question: .* no sentences"),
        ('[{"question": 4}]', "json:1: question: 4 is no sentences"),
        (
            '[{"question": "Max is tall. Is Max a lempus or a gerpus?"}]',
            "facts.0: 'Max is tall.' is not",
        ),
        ('[{"asked": ""}]', "has no column 'question'; it has asked"),
    ],
)
def test_a_file_without_questions_is_refused_with_the_place(
    content: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "prosqa.json"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        ProblemFile.read(file, GENERATORS["deduction"], Columns(question="question"))
