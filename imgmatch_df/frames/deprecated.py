"""Deprecated parameters of public functions, which work for one more release and issue a `DeprecationWarning`.

Signatures, type hints and docstrings have the new parameters only.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar

from imgmatch_df.errors import ArgumentError, warn
from imgmatch_df.options import check_flag

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# The other side of a comparison: its old parameter names, and the new ones.
REFERENCE_OF_MATCH: Final = {"stored": "reference", "stored_id": "reference_id"}
REFERENCE_OF_CLUSTER: Final = {"against": "reference", "stored_id": "reference_id"}
REFERENCE_OF_REMOVE: Final = {"against": "reference"}


def renamed_parameters(new_names: Mapping[str, str]) -> Callable[[FunctionT], FunctionT]:
    """Make a function accept parameters under their old names.

    Parameters
    ----------
    new_names
        The new name of each old one.

    Returns
    -------
    Callable
        A decorator. The decorated function raises `ArgumentError` if a call has a parameter under both names.
    """

    def decorate(function: FunctionT) -> FunctionT:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old, new in new_names.items():
                if old not in kwargs:
                    continue
                value = kwargs.pop(old)
                if new in kwargs or new in list(inspect.signature(function).parameters)[: len(args)]:
                    raise ArgumentError(
                        f"{function.__name__} got {new}= and {old}=, which is the old name of {new}=\n"
                        f"Hint: pass {new}= only."
                    )
                _warn(f"{function.__name__}({old}=)", f"{new}=")
                kwargs[new] = value
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def flag_of_other_function(flag: str, other: Callable[..., Any]) -> Callable[[FunctionT], FunctionT]:
    """Make a function accept a flag that stands for another function.

    Parameters
    ----------
    flag
        The old parameter. True calls `other` with all other arguments.
    other
        The function to call. It has the parameters of the decorated function.
    """

    def decorate(function: FunctionT) -> FunctionT:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if flag not in kwargs:
                return function(*args, **kwargs)
            value = kwargs.pop(flag)
            check_flag(flag, value, f"{other.__name__} returns a text about the plan.")
            _warn(f"{function.__name__}({flag}=)", other.__name__)
            return (other if value else function)(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _warn(old: str, new: str) -> None:
    warn(f"{old} is deprecated and will be removed in the next release\nHint: use {new}.", DeprecationWarning)
