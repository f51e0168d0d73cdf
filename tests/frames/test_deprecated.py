"""Old parameter names: they work for one release, warn with the new name, and give what the new one gives."""

import inspect

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df import ArgumentError
from imgmatch_df.frames.deprecated import flag_of_other_function, renamed_parameters

NEW = pl.DataFrame({"phash": [0, 255, None]}, schema={"phash": pl.UInt64})
OLD = pl.DataFrame({"phash": [6, 1], "name": ["a", "b"]}, schema={"phash": pl.UInt64, "name": pl.String})
MATCH = {"radius": 1, "hash_type": "phash"}

RENAMED = {
    "match, stored": ("match", MATCH, {"stored": OLD}, {"reference": OLD}),
    "match, stored_id": (
        "match",
        {**MATCH, "reference": OLD},
        {"stored_id": "name"},
        {"reference_id": "name"},
    ),
    "cluster, against": ("cluster", MATCH, {"against": OLD}, {"reference": OLD}),
    "cluster, stored_id": (
        "cluster",
        {**MATCH, "reference": OLD},
        {"stored_id": "name"},
        {"reference_id": "name"},
    ),
    "remove_duplicates, against": ("remove_duplicates", MATCH, {"against": OLD}, {"reference": OLD}),
}


def function_of(verb, frame):
    return lambda **arguments: getattr(imgmatch_df, verb)(frame, **arguments)


def method_of(verb, frame):
    return getattr(frame.imgmatch, verb)


@pytest.mark.parametrize("face", [function_of, method_of])
@pytest.mark.parametrize("case", RENAMED.values(), ids=RENAMED)
def test_an_old_name_works_and_warns_with_the_new_one(face, case):
    verb, rest, old, new = case
    (old_name,), (new_name,) = old, new
    for frame in (NEW, NEW.lazy()):
        with pytest.warns(DeprecationWarning, match="deprecated") as seen:
            found = face(verb, frame)(**rest, **old)
        assert len(seen) == 1
        message, hint = str(seen[0].message).split("\n")
        assert message == f"{verb}({old_name}=) is deprecated and will be removed in the next release"
        assert hint == f"Hint: use {new_name}=."
        assert seen[0].filename == __file__  # the line of the caller
        assert_frame_equal(found.lazy().collect(), face(verb, frame)(**rest, **new).lazy().collect())


@pytest.mark.parametrize("face", [function_of, method_of])
@pytest.mark.parametrize("case", RENAMED.values(), ids=RENAMED)
def test_both_names_are_refused(face, case):
    verb, rest, old, new = case
    with pytest.raises(ArgumentError, match=rf"{verb} got {next(iter(new))}= and {next(iter(old))}=.*\nHint: pass"):
        face(verb, NEW)(**{**rest, **old, **new})


def test_both_names_are_refused_where_the_new_one_is_positional():
    with pytest.raises(ArgumentError, match="match got reference= and stored="):
        imgmatch_df.match(NEW, OLD, 1, "phash", stored=OLD)
    with pytest.raises(ArgumentError, match="match got reference= and stored="):
        NEW.imgmatch.match(OLD, 1, "phash", stored=OLD)


@pytest.mark.parametrize("face", [function_of, method_of])
def test_explain_is_the_other_function(face):
    for frame in (NEW, NEW.lazy()):
        with pytest.warns(DeprecationWarning, match=r"near_duplicates\(explain=\) .*\nHint: use explain_near"):
            text = face("near_duplicates", frame)(**MATCH, explain=True)
        assert text == face("explain_near_duplicates", frame)(**MATCH)
        with pytest.warns(DeprecationWarning, match="explain"):
            pairs = face("near_duplicates", frame)(**MATCH, explain=False)
        assert_frame_equal(pairs, face("near_duplicates", frame)(**MATCH))
        with pytest.raises(ArgumentError, match="explain must be True or False, got 'yes'"):
            face("near_duplicates", frame)(**MATCH, explain="yes")


def test_signatures_have_the_new_names_only():
    for verb in ("match", "cluster", "remove_duplicates", "near_duplicates"):
        for one in (getattr(imgmatch_df, verb), getattr(NEW.imgmatch, verb)):
            assert not {"stored", "stored_id", "against", "explain"} & inspect.signature(one).parameters.keys()


def test_a_call_without_old_names_does_not_warn():
    @flag_of_other_function("loud", str)
    @renamed_parameters({"a": "b"})
    def function(b, *, c=1):
        return b, c

    assert function(1, c=2) == (1, 2)
    assert function(b=3) == (3, 1)
    with pytest.raises(TypeError):
        function(1, d=2)
