"""What the four namespaces share: the docstrings and signatures of the functions that their methods call."""

import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

from imgmatch_df.frames import (
    advice,
    clustering,
    copies,
    expressions,
    hash_numbers,
    hash_text,
    leak_free,
    local_hashes,
    pairs,
    ranking,
    writing,
)
from imgmatch_df.frames.checks import FrameT
from imgmatch_df.options import SourceOptions
from imgmatch_df.report import making

T = TypeVar("T")

_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (
        *(
            expressions.pdq,
            expressions.phash,
            expressions.bmh1,
            local_hashes.local,
            expressions.perceptual_hash,
            expressions.visual_hash,
            expressions.hamming,
            hash_text.to_bits,
            hash_text.from_bits,
            hash_text.to_hex,
            hash_text.from_hex,
            hash_numbers.to_int64,
            hash_numbers.from_int64,
            local_hashes.to_points,
            leak_free.assign_split,
        ),
        *(
            pairs.near_duplicates,
            pairs.explain_near_duplicates,
            pairs.match,
            copies.find_copies,
            ranking.rank_images,
            clustering.cluster,
            clustering.remove_duplicates,
            leak_free.drop_leaks,
        ),
        *(advice.profile_radii, advice.suggest_radius, advice.suggest_min_votes, making.report),
        *(writing.write_hashes, writing.sink_hashes),
    )
}


def with_docstrings(namespace: type[T]) -> type[T]:
    """Give the methods the docstrings of their functions, and methods and functions short signatures."""
    for name, function in _FUNCTIONS.items():
        method = vars(namespace).get(name)
        if method is not None:
            method.__doc__ = _docstring(method, function)
            method.__signature__ = _signature(method)
            function.__signature__ = _signature(function)  # type: ignore[attr-defined]
    return namespace


def _docstring(method: Callable[..., Any], function: Callable[..., Any]) -> str:
    """Return the docstring of the function, without the parameters that the method lacks."""
    docstring = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters.keys() - inspect.signature(method).parameters.keys():
        docstring = re.sub(rf"^{name}\n(?: +.*\n)+", "", docstring, count=1, flags=re.MULTILINE)
        docstring = re.sub(rf"^{name}, (?=.*\n    )", "", docstring, count=1, flags=re.MULTILINE)
    return docstring.replace("Parameters\n----------\n\n", "")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with ``**options: SourceOptions``."""
    signature = inspect.signature(function)
    shown = [
        one.replace(annotation=SourceOptions) if one.kind is inspect.Parameter.VAR_KEYWORD else one
        for one in signature.parameters.values()
    ]
    return signature.replace(parameters=shown)


class Namespace:
    """Base of the namespaces: a repr that lists the methods."""

    _of: ClassVar[str]

    def __repr__(self) -> str:
        verbs = [name for name in _FUNCTIONS if hasattr(self, name)]
        return f"<imgmatch of {self._of}: {', '.join(verbs)}>"


class FrameNamespace(Namespace, Generic[FrameT]):
    """Base of the methods of DataFrames and LazyFrames."""

    def __init__(self, frame: FrameT) -> None:
        self._frame: FrameT = frame
