"""A form of a puzzle that is the same whatever its people are called and the order of its parts."""

from collections import defaultdict
from collections.abc import Sequence

from stepback_core.tasks.knights.statements import Statement, people_of
from stepback_training.generators.refinement import Colours, certificate, digest


def renamed_form(statements: Sequence[Statement]) -> str:
    """A certificate of the statements by colour refinement: that of all that differ from them by
    names, by order, or by which of two people is named first."""
    first = dict.fromkeys(people_of(statements), "person")
    return certificate(first, lambda colours: _around(statements, colours))


def _around(statements: Sequence[Statement], colours: Colours) -> dict[str, list[str]]:
    """Give each person's colour, and each statement with the person's part in it."""
    found = defaultdict[str, list[str]](list)
    for statement in statements:
        said = {person: f"{colours[person]}{'-+'[role]}" for person, role in statement.said}
        whole = digest([colours[statement.speaker], statement.form, *sorted(said.values())])
        found[statement.speaker].append(f"says {whole}")
        for person, part in said.items():
            found[person].append(f"{part} in {whole}")
    return {person: [colour, *sorted(found[person])] for person, colour in colours.items()}
