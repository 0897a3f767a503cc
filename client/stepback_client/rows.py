"""Values of numpy, pandas, pyarrow, torch and datasets as plain ones, without importing these."""

from collections.abc import Mapping
from typing import Any, cast

# How a row of pandas, a named tuple, values of pyarrow, and arrays and scalars of numpy and torch
# become plain ones.
_CONVERSIONS = ("to_dict", "_asdict", "to_pydict", "as_py", "tolist")


def plain(value: Any) -> Any:
    """The value in dictionaries, lists, numbers and strings, as far as it can be."""
    if isinstance(value, Mapping):
        given = cast("Mapping[Any, Any]", value)
        # JSON has only texts as keys.
        return {str(plain(key)): plain(each) for key, each in given.items()}
    if names := getattr(getattr(value, "dtype", None), "names", None):  # a record of numpy
        return {str(name): plain(value[name]) for name in names}
    for conversion in _CONVERSIONS:
        # A class has the methods too, and cannot be called so.
        if not isinstance(value, type) and (convert := getattr(value, conversion, None)):
            return plain(convert())
    if isinstance(value, list | tuple):
        return [plain(each) for each in cast("list[Any]", value)]
    return value
