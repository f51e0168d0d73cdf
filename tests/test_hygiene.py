"""The house itself: what the door shows, how light it is to open, and that every face says the same."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import imgmatch_df
from imgmatch_df import namespaces
from imgmatch_df.options import Options, SourceOptions

PACKAGE = Path(imgmatch_df.__file__).parent
HEAVY = [
    "numba",
    "duckdb",
    "PIL",
    "pyarrow",
    "numpy",
    "isal",
    "simplejpeg",
    "rich",
    "typer",
    "asyncio",
    "pycurl",
    "fsspec",
    "pybase64",
    "filelock",
    "jinja2",
    "markupsafe",
]
FACES = [
    namespaces.ImgMatchExpr,
    namespaces.ImgMatchSeries,
    namespaces.ImgMatchDataFrame,
    namespaces.ImgMatchLazyFrame,
]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    "work",
    [
        "",
        'frame = pl.LazyFrame({"url": ["a"]}).with_columns(p=pl.col("url").imgmatch.phash()).imgmatch.visual_hash()',
    ],
    ids=["import", "building expressions"],
)
def test_is_light(work):
    code = f"""
import sys
import polars as pl
before = set(sys.modules)
import imgmatch_df
{work}
print(sorted(set({HEAVY}) & (set(sys.modules) - before)))
"""
    assert run(code).strip() == "[]"


def test_import_twice_warns_of_nothing():
    run("import imgmatch_df, importlib, sys; import imgmatch_df.namespaces")


def test_the_door_is_true_and_sorted():
    assert imgmatch_df.__all__ == sorted(imgmatch_df.__all__)
    public = {
        name for name, value in vars(imgmatch_df).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public | {"documented"} == set(imgmatch_df.__all__)  # the one module that is public


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_methods_have_the_signatures_of_the_functions(face):
    found = inspect.getmembers(face, inspect.isfunction)
    methods = {name: method for name, method in found if not name.startswith("_")}
    assert methods
    for name, method in methods.items():
        function = getattr(imgmatch_df, name)
        ours = list(inspect.signature(method).parameters.values())[1:]
        truth = list(inspect.signature(function).parameters.values())[1:]
        if face in FACES[:2]:  # an expression has no other column to name
            truth = [parameter for parameter in truth if parameter.name != "source"]
        assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in truth]
        assert [p.default for p in ours] == [p.default for p in truth]
        assert all(value.annotation is not Any for value in (*ours, *truth))


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_methods_have_the_docstrings_of_the_functions(face):
    for name, method in inspect.getmembers(face, inspect.isfunction):
        if name.startswith("_"):
            continue
        docstring, truth = (inspect.getdoc(one).splitlines() for one in (method, getattr(imgmatch_df, name)))
        returns = truth.index("Returns")
        assert docstring[0] == truth[0]
        assert docstring[docstring.index("Returns") :] == truth[returns:]
        # The parameters of the method, and no others, each with its text.
        described = [line for line in docstring[: docstring.index("Returns")] if line and line[0] != " "]
        listed = {word for line in described[1:] for word in re.findall(r"^\W*\w+|(?<=, )\W*\w+", line)}
        parameters = inspect.signature(method).parameters
        if "Parameters" in described:
            assert {str(one).split(":")[0].split(" =")[0] for one in parameters.values()} - {"self"} <= listed
        absent = set(inspect.signature(getattr(imgmatch_df, name)).parameters) - set(parameters)
        assert not any(re.match(rf"{one}(,|$)", line) for one in absent for line in described)
        assert "**options: imgmatch_df.options.SourceOptions" in str(inspect.signature(method)) or (
            "options" not in parameters
        )


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_a_namespace_names_its_verbs(face):
    text = repr(face(pl.DataFrame()))
    assert text.startswith("<imgmatch of ")
    assert sorted(text[:-1].split(": ")[1].split(", ")) == sorted(
        name for name, _ in inspect.getmembers(face, inspect.isfunction) if name[0] != "_"
    )


def test_options_are_the_same_in_both_places():
    assert list(SourceOptions.__annotations__) == list(Options.__dataclass_fields__)


def modules() -> list[str]:
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("module", modules())
def test_docstring_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_public_function_says_what_it_returns_and_raises():
    for name in imgmatch_df.__all__:
        value = getattr(imgmatch_df, name)
        if inspect.isfunction(value):
            for section in ("Parameters\n", "Returns\n", "Examples\n"):
                assert section in value.__doc__, f"{name} lacks {section}"


def test_exceptions_survive_being_rebuilt_from_one_string():
    for name in imgmatch_df.__all__:
        value = getattr(imgmatch_df, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            assert str(value("what happened")) == "what happened"
    assert issubclass(imgmatch_df.ArgumentError, ValueError)
    assert issubclass(imgmatch_df.ColumnError, TypeError)


def test_namespaces_are_registered():
    assert isinstance(pl.col("a").imgmatch, namespaces.ImgMatchExpr)
    assert isinstance(pl.Series().imgmatch, namespaces.ImgMatchSeries)
    assert isinstance(pl.DataFrame().imgmatch, namespaces.ImgMatchDataFrame)
    assert isinstance(pl.LazyFrame().imgmatch, namespaces.ImgMatchLazyFrame)


def test_the_documented_json_is_a_public_module():
    """It is loaded when it is used, and each of its functions describes its parameters."""
    code = """
import sys
import polars as pl
import imgmatch_df
assert "imgmatch_df.documented" not in sys.modules
assert imgmatch_df.documented.__all__ == sorted(imgmatch_df.documented.__all__)
from imgmatch_df import *
print(documented.to_json(documented.ping_response()["status"]))
try:
    imgmatch_df.nonsense
except AttributeError as error:
    print(error)
"""
    assert run(code) == ('{"code": 200, "text": "OK"}\nmodule \'imgmatch_df\' has no attribute \'nonsense\'\n')
    for name in imgmatch_df.documented.__all__:
        value = getattr(imgmatch_df.documented, name)
        assert value.__doc__, f"{name} says nothing"
        if inspect.isfunction(value):
            assert set(inspect.signature(value).parameters) <= set(re.findall(r"\w+", value.__doc__)), name
