"""A form of a puzzle that is the same whatever its people are called and the order of its parts."""

from collections import defaultdict
from collections.abc import Sequence

from stepback_core.tasks.knights.statements import Statement, people_of, write_role
from stepback_training.generators.refinement import Colours, certificate, digest


def renamed_form(statements: Sequence[Statement]) -> str:
    """A certificate of the statements by colour refinement: that of all that differ from them by
    names, by order, by repeats, or by which of two people is named first."""
    # Said once more, a statement changes nothing.
    once = {(each.speaker, each.form, frozenset(_parts(each).items())): each for each in statements}
    first = dict.fromkeys(people_of(statements), "person")
    return certificate(first, lambda colours: _around([*once.values()], colours))


def _parts(statement: Statement) -> dict[str, bool]:
    """Each person spoken of, with the role; compared ones have the same."""
    return dict(zip(statement.about, statement.roles or (True, True), strict=True))


def _around(statements: Sequence[Statement], colours: Colours) -> dict[str, list[str]]:
    """Give each person's colour, and each statement with the person's part in it."""
    found = defaultdict[str, list[str]](list)
    for statement in statements:
        parts = _parts(statement).items()
        said = {person: write_role(colours[person], role) for person, role in parts}
        whole = digest([colours[statement.speaker], statement.form, *sorted(said.values())])
        found[statement.speaker].append(f"says {whole}")
        for person, part in said.items():
            found[person].append(f"{part} in {whole}")
    return {person: [colour, *sorted(found[person])] for person, colour in colours.items()}
