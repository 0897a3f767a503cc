"""Values of numpy, pandas, pyarrow, torch and datasets as plain ones, without importing these."""

from collections.abc import Mapping
from typing import Any, cast

# How a row of pandas, a named tuple, values of pyarrow, and arrays and scalars of numpy and torch
# become plain ones.
_CONVERSIONS = ("to_dict", "_asdict", "to_pydict", "as_py", "tolist")
# Types of pandas for a value that is missing; NaN is another.
_MISSING = frozenset({"NAType", "NaTType"})


def plain(value: Any) -> Any:
    """The value in dictionaries, lists, numbers and strings, as far as it can be. What is missing
    is None, since JSON has no NaN."""
    if isinstance(value, Mapping):
        given = cast("Mapping[Any, Any]", value)
        # JSON has only texts as keys.
        return {str(plain(key)): plain(each) for key, each in given.items()}
    if names := getattr(getattr(value, "dtype", None), "names", None):  # a record of numpy
        return {str(name): plain(value[name]) for name in names}
    if _is_missing(value):
        return None
    for conversion in _CONVERSIONS:
        # A class has the methods too, and cannot be called so.
        if not isinstance(value, type) and (convert := getattr(value, conversion, None)):
            converted = plain(convert())
            return _without_index(converted) if _is_numbered(value) else converted
    if isinstance(value, list | tuple):
        return [plain(each) for each in cast("list[Any]", value)]
    return value


def _is_missing(value: Any) -> bool:
    return type(value).__name__ in _MISSING or (isinstance(value, float) and value != value)


def _is_numbered(value: Any) -> bool:
    """Tell whether a row begins with its number, as those of pandas' `itertuples` do."""
    module = type(value).__module__
    return module.startswith("pandas") and isinstance(value, tuple)


def _without_index(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in fields.items() if name != "Index"}
