"""The row rule: a file imports only from rows below its own, so there can be no circle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imgmatch_df"

ROWS = [
    ["errors", "incomplete", "rows", "schema", "statements", "threads"],
    [
        "addresses",
        "alpha",
        "atomic",
        "columns",
        "decode_budget",
        "exif",
        "foreign",
        "gif",
        "jp2",
        "local_files",
        "macros",
        "manifest",
        "memory",
        "options",
        "pixels",
        "png",
        "progress",
        "pixel_budget",
        "quiet",
        "seen",
        "sources",
        "tiff_tags",
        "webp",
        "_kernels",
    ],
    [
        *("answers", "bmp", "circuit_breaker", "connections", "decode_costs", "documented", "duckdb_files"),
        *("folders", "jpeg", "naming", "pnm", "tiff_colours", "tiff_streams"),
    ],
    ["cloud", "tiff", "torn", "web"],
    ["network"],
    [
        "fetch",
        "decode",
        "hashing",
        "scan",
        "join",
        "clusters",
        "records",
        "duckdb_store",
        "fingerprints",
        "parquet_store",
    ],
    ["store"],
    ["image_hashes"],
    ["isolation"],
    ["isolation_process"],
    ["batches"],
    ["sharing"],
    ["pipeline"],
    ["frames"],
    ["chunks", "known"],
    ["grouping", "pairing", "storing"],
    ["formats", "given_hashes", "renaming", "table_files"],
    ["arguments", "exporting", "files", "listing", "reporting", "screen", "targets"],
    ["inputs"],
    ["namespaces", "cli", "demo", "server", "spark", "report"],
    ["__init__"],
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
# Inside a row, words may lean on words: schema raises errors, and kernels share one popcount.
WITHIN_ROW = {
    ("schema", "errors"),
    ("threads", "errors"),
    ("manifest", "options"),
    ("_kernels", "_kernels"),
    ("cli", "demo"),
    ("cli", "server"),
    ("server", "server"),
}


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


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_rows_below(path):
    unit = unit_of(path)
    assert unit in ROW_OF, f"{unit} stands on no row"
    for other in imported_units(path):
        if (unit, other) not in WITHIN_ROW:
            assert ROW_OF[other] < ROW_OF[unit], f"{unit} (row {ROW_OF[unit]}) imports {other} (row {ROW_OF[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_passes_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_only_kernels_import_numba():
    for path in FILES:
        if unit_of(path) != "_kernels":
            assert "import numba" not in path.read_text()
            assert "from numba" not in path.read_text()


def test_a_violation_is_seen(tmp_path):
    bad = tmp_path / "errors.py"
    bad.write_text("def f():\n    from imgmatch_df.pipeline import phash\n")
    assert imported_units(bad) == {"pipeline"}
    bad.write_text("from imgmatch_df import pipeline\nimport imgmatch_df._kernels.pictures\n")
    assert imported_units(bad) == {"pipeline", "_kernels"}
