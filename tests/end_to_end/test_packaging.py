"""What the wheel, the source archive and the Docker image are built from."""

import ast
import importlib
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILD = PROJECT["tool"]["hatch"]["build"]["targets"]
# What only a build or a run leaves behind.
LEFT_BEHIND = re.compile(r"(^|/)(__pycache__|\.[^/]*_cache|\.venv)(/|$)")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with their arguments."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in lines]


def copied() -> list[str]:
    """What is copied from the context, not from another stage."""
    sources = []
    for name, arguments in instructions():
        words = shlex.split(arguments)
        if name in ("COPY", "ADD") and not any(word.startswith("--from") for word in words):
            sources += [word for word in words if not word.startswith("--")][:-1]
    return sources


def is_ignored(path: str, text: str) -> bool:
    """Whether Docker leaves a path out: the last pattern decides that matches it or a folder above it."""
    ignored = False
    for line in text.splitlines():
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip().strip("/").removeprefix("./")
        parts = path.split("/")
        if any(matches("/".join(parts[:n]), pattern) for n in range(1, len(parts) + 1)):
            ignored = not negated
    return ignored


def matches(path: str, pattern: str) -> bool:
    """Go's ``filepath.Match``, and ``**`` for any number of folders."""
    regex, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**", i):
            i += 2
            if pattern.startswith("/", i):
                i += 1
                regex += "(.*/)?"
            else:
                regex += ".*"
            continue
        if pattern[i] == "[":
            end = pattern.index("]", i)
            regex += pattern[i : end + 1]
            i = end + 1
            continue
        regex += {"*": "[^/]*", "?": "[^/]"}.get(pattern[i], re.escape(pattern[i]))
        i += 1
    return re.fullmatch(regex, path) is not None


def files_of(source: str) -> list[str]:
    path = ROOT / source
    found = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    names = [one.relative_to(ROOT).as_posix() for one in found]
    return [name for name in names if not LEFT_BEHIND.search(name)]


@pytest.mark.parametrize(
    ("text", "ignored", "taken"),
    [
        ("*\n!a", ["b", "b/c"], ["a", "a/b"]),
        ("*\n!a\n**/x", ["a/x", "a/b/x", "x", "a/x/y"], ["a/b"]),
        ("a\n!a/b", ["a/c"], ["a/b", "a/b/c", "b"]),
        ("# no\n*.py\n!/a.py", ["b.py"], ["a.py", "x/b.py"]),
        ("**/*.py", ["b.py", "x/y/b.py"], ["b.pyc"]),
        ("a/**\n!a/b/**", ["a/c", "a/c/d"], ["a/b/c", "b"]),
        ("?[0-9]", ["a1", "a1/b"], ["ab", "a12"]),
        ("!a\n*", ["a", "b"], []),
    ],
)
def test_the_rules_of_dockerignore(text, ignored, taken):
    assert [path for path in ignored if not is_ignored(path, text)] == []
    assert [path for path in taken if is_ignored(path, text)] == []


def test_the_context_holds_what_the_dockerfile_copies():
    text = (ROOT / ".dockerignore").read_text()
    sources = copied()
    assert sources
    for source in sources:
        assert files_of(source), f"COPY {source}: there is no such file or folder"
        assert [name for name in files_of(source) if is_ignored(name, text)] == []
    assert is_ignored("imgmatch_df/_kernels/__pycache__/x.nbc", text)


def test_the_dockerfile_copies_what_the_wheel_is_built_from():
    project = PROJECT["project"]
    needed = ["pyproject.toml", project["readme"], *project["license-files"]]
    needed += [*BUILD["wheel"]["packages"], *BUILD["wheel"]["force-include"]]
    assert [name for name in needed if name not in copied()] == []
    assert all((ROOT / name).exists() for name in needed)


def test_what_the_dockerfile_runs_exists():
    codes = [
        words[-1] for name, line in instructions() for words in [shlex.split(line)] if "-c" in words and name == "RUN"
    ]
    assert codes
    for code in codes:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_dockerfile_starts_a_command_that_exists():
    from imgmatch_df.cli.app import app

    (line,) = [arguments for name, arguments in instructions() if name == "ENTRYPOINT"]
    program, name, *options = ast.literal_eval(line)
    assert program in PROJECT["project"]["scripts"]
    command = get_command(app).commands[name]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known


def test_the_user_of_the_container_may_write_the_cache():
    """The folder of compiled kernels lies in the home of the user that compiles them."""
    lines = instructions()
    (home,) = [shlex.split(line)[-1] for name, line in lines if name == "RUN" and line.startswith("useradd")]
    (environment,) = [line for name, line in lines if name == "ENV"]
    cache = dict(word.split("=", 1) for word in shlex.split(environment))["NUMBA_CACHE_DIR"]
    assert cache.startswith(f"/home/{home}/")
    names = [name for name, _ in lines]
    warm_up = max(i for i, (name, line) in enumerate(lines) if name == "RUN" and "warm_up" in line)
    assert names.index("USER") < warm_up


def test_the_license_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert re.sub(r"\s+", " ", text).strip().startswith("Apache License Version 2.0, January 2004")
    sections = re.findall(r"^   (\d)\. ", text, re.MULTILINE)
    assert sections == list("123456789")
    assert "END OF TERMS AND CONDITIONS" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_the_source_archive_has_what_the_tests_and_the_readme_need():
    included = BUILD["sdist"]["include"]
    for name in ("benchmarks", "notebooks", "sql", "tests", "LICENSE", "SECURITY.md", "Dockerfile", ".dockerignore"):
        assert any(fnmatch(name, pattern) for pattern in included)
        assert (ROOT / name).exists()
