"""The row rule: a file imports only from rows below its own, so there can be no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imgmatch_df"

ROWS = [
    [
        "archives",
        "atomic",
        "errors",
        "http_options",
        "image_columns",
        "incomplete",
        "local_files",
        "naming",
        "columns",
        "options",
        "schemes",
        "sources",
        "threads",
        "progress",
        "turns",
        "_kernels",
    ],
    ["images", "fetching", "hashes", "matching"],
    ["batch", "store"],
    ["frames", "moving"],
    ["documented"],
    ["server", "report", "spark"],
    ["__init__", "__main__", "namespaces", "cli"],
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
WORDS, DOORS = 0, len(ROWS) - 1


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    units = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            modules = [node.module]
            if node.module == "imgmatch_df":
                modules = [f"imgmatch_df.{alias.name}" for alias in node.names]
        units |= {name.split(".")[1] for name in modules if name.startswith("imgmatch_df.")}
    return units


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the package that are imported when this one is."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= named & MODULES or {node.module} & MODULES
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py"))
MODULES = {module_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_rows_below(path):
    unit = unit_of(path)
    assert unit in ROW_OF, f"{unit} stands on no row"
    for other in imported_units(path) - {unit}:
        # Words lean on words, and doors on doors.
        among = ROW_OF[other] == ROW_OF[unit] in {WORDS, DOORS}
        assert among or ROW_OF[other] < ROW_OF[unit], (
            f"{unit} (row {ROW_OF[unit]}) imports {other} (row {ROW_OF[other]})"
        )


def test_no_circle_of_imports():
    """Modules in the order of their imports, as far as imports at the top of a file go."""
    graph = {module_of(path): imported_modules(path) for path in FILES}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_passes_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_only_kernels_import_numba():
    for path in FILES:
        if not {"_kernels", "kernels"} & set(path.relative_to(PACKAGE).parts):
            assert "import numba" not in path.read_text()
            assert "from numba" not in path.read_text()


def test_a_violation_is_seen(tmp_path):
    bad = tmp_path / "errors.py"
    bad.write_text("def f():\n    from imgmatch_df.frames.expressions import phash\n")
    assert imported_units(bad) == {"frames"}
    bad.write_text("from imgmatch_df.frames import expressions as pipeline\nimport imgmatch_df.hashes.kernels.opencv\n")
    assert imported_units(bad) == {"frames", "hashes"}
