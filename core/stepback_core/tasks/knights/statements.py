"""Statements of knights and knaves: what each one says, and when it breaks the rules.

A statement is written in words (`A says B is a knave or C is a knight.`) and, for a model, in signs
(`A:B-|C+`): `+` is a knight, `-` a knave, `=` alike, `#` different, `|` or, `&` and.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Roles = Mapping[str, bool]
"""People whose roles are known: true for a knight."""

_SPEAKER, _ONE, _OTHER = (f"(?P<{name}>[A-Z])" for name in ("speaker", "one", "other"))
_LEFT, _RIGHT = (f"(?P<{name}>[A-Z])" for name in ("left", "right"))
_ROLE, _OTHER_ROLE = (f" is a (?P<{name}>knight|knave)" for name in ("role", "other_role"))
_WORDS = re.compile(
    rf"{_SPEAKER} says (?:{_ONE}{_ROLE}(?: (?P<joined>and|or) {_OTHER}{_OTHER_ROLE})?|"
    rf"{_LEFT} and {_RIGHT} (?P<compared>are alike|differ))\.",
    re.ASCII,
)
_SIGNS = re.compile(
    rf"{_SPEAKER}:(?:{_ONE}(?P<role>[+-])(?:(?P<joined>[&|]){_OTHER}(?P<other_role>[+-]))?|"
    rf"{_LEFT}(?P<compared>[=#]){_RIGHT})",
    re.ASCII,
)
_KNIGHT = ("knight", "+")


class Form(StrEnum):
    """How a statement joins what it says, by its sign."""

    ROLE = ""
    AND = "&"
    OR = "|"
    ALIKE = "="
    DIFFER = "#"


_FORMS = {
    **{form.value: form for form in Form},
    "and": Form.AND,
    "or": Form.OR,
    "are alike": Form.ALIKE,
    "differ": Form.DIFFER,
}
_ROLES_IN_WORDS = {True: "a knight", False: "a knave"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence in which one person speaks of one or two."""

    speaker: str
    form: Form
    about: tuple[str, ...]
    """Those who are spoken of, one or two."""
    roles: tuple[bool, ...] = ()
    """The role that the speaker gives each; none if two are said to be alike or to differ."""

    @property
    def people(self) -> tuple[str, ...]:
        """The speaker and those spoken of."""
        return (self.speaker, *self.about)

    @property
    def said(self) -> list[tuple[str, bool]]:
        """Each person with the role that is said; none if two are compared."""
        return [*zip(self.about, self.roles, strict=True)] if self.roles else []

    def fits(self, roles: Roles) -> bool:
        """Tell if a knight's statement is true and a knave's false; needs a role for each of its
        people."""
        return self._is_true(roles) == roles[self.speaker]

    def _is_true(self, roles: Roles) -> bool:
        if self.form in (Form.ALIKE, Form.DIFFER):
            one, other = (roles[person] for person in self.about)
            return (one == other) == (self.form is Form.ALIKE)
        parts = [roles[person] == role for person, role in self.said]
        return any(parts) if self.form is Form.OR else all(parts)


def read_words(text: str) -> Statement | None:
    """Read a sentence; None if it is no statement."""
    return _read(_WORDS, text)


def read_signs(text: str) -> Statement | None:
    """Read what `write_signs` writes; None for any other text."""
    return _read(_SIGNS, text)


def _read(pattern: re.Pattern[str], text: str) -> Statement | None:
    found = pattern.fullmatch(text)
    if found is None:
        return None
    if found["compared"]:
        about = (found["left"], found["right"])
        return Statement(found["speaker"], _FORMS[found["compared"]], about)
    said = [(found["one"], found["role"]), (found["other"], found["other_role"])]
    about = tuple(person for person, _ in said if person)
    roles = tuple(role in _KNIGHT for _, role in said if role)
    return Statement(found["speaker"], _FORMS[found["joined"] or ""], about, roles)


def write_words(statement: Statement) -> str:
    parts = [f"{person} is {_ROLES_IN_WORDS[role]}" for person, role in statement.said]
    people = " and ".join(statement.about)
    said = {
        Form.ROLE: "".join(parts),
        Form.AND: " and ".join(parts),
        Form.OR: " or ".join(parts),
        Form.ALIKE: f"{people} are alike",
        Form.DIFFER: f"{people} differ",
    }
    return f"{statement.speaker} says {said[statement.form]}."


def write_signs(statement: Statement) -> str:
    parts = [write_role(person, role) for person, role in statement.said] or statement.about
    return f"{statement.speaker}:{statement.form.join(parts)}"


def write_role(person: str, role: bool) -> str:
    return person + "-+"[role]


def people_of(statements: Sequence[Statement]) -> list[str]:
    """Everybody who speaks or is spoken of, in the order of their names."""
    return sorted({person for statement in statements for person in statement.people})


def people_left(statements: Sequence[Statement], roles: Roles) -> list[str]:
    """Those of them who have no role."""
    return [person for person in people_of(statements) if person not in roles]


def is_contradicted(statements: Sequence[Statement], roles: Roles, person: str) -> bool:
    """Tell if a statement of a person or about one, all of whose people have roles, does not fit
    them."""
    return any(
        not statement.fits(roles)
        for statement in statements
        if person in statement.people and all(each in roles for each in statement.people)
    )


def solutions(statements: Sequence[Statement], roles: Roles) -> Iterator[dict[str, bool]]:
    """Every way to give roles to the rest so that all statements fit. Those that the given roles
    decide must fit already."""
    rest = people_left(statements, roles)
    if not rest:
        yield dict(roles)
        return
    for role in (True, False):
        more = {**roles, rest[0]: role}
        if not is_contradicted(statements, more, rest[0]):
            yield from solutions(statements, more)


def has_solution(statements: Sequence[Statement], roles: Roles) -> bool:
    """Tell if there is any such way."""
    return next(solutions(statements, roles), None) is not None
