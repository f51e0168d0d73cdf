"""No public name, and no class, is defined in two modules with two meanings."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "imgmatch_df"

# Names that several modules define on purpose.
ALLOWED = {
    "report": "the verb, and the command of that name",
    "Array": "an alias for annotations, of NumPy arrays",
    "Data": "an alias for annotations, of encoded bytes",
    "Pixels": "an alias for annotations, of decoded images",
    "T": "a type variable",
    "hash_image": "what decodes and hashes, and the kernel of each kind",
    "cluster": "the verb, also on Spark",
    "explain_near_duplicates": "the verb, also on Spark",
    "find_copies": "the verb, also on Spark, and the command of that name",
    "from_bits": "the expression, and the function of a Series that it maps",
    "from_hex": "the expression, and the function of a Series that it maps",
    "match": "the verb, also on Spark, and the command of that name",
    "near_duplicates": "the verb, also on Spark",
    "fingerprint": "of an image and of a call, each in its module",
    "Nodes": "rows that count as one in a join, on one machine and on Spark",
    "ID": "a documented field, and a column of Spark's files",
    "SIZE": "a column of images, and a column of Spark's files",
    "rank_images": "the verb, and the command of that name",
    "read_hashes": "of a store, and of a table of a lake with Spark",
    "read_header": "one decoder each",
    "read_pixels": "one decoder each",
    "only_pixels": "one decoder each",
    "remove_duplicates": "the verb, and the command of that name",
    "to_bits": "the expression, and the function of a Series that it maps",
    "to_hex": "the expression, and the function of a Series that it maps",
    "unpack": "of the pixels of an image, and of the points of local hashes",
    "write_hashes": "to a store, and to a table of a lake with Spark",
    "visual_hash": "the verb, and the command of that name",
}


def definitions(path: Path) -> set[str]:
    """Return the names that a module defines at its top level: public ones, and classes without their underscore."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name.lstrip("_"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def clashes(folder: Path) -> dict[str, list[str]]:
    """Return the names that several modules define, with the modules."""
    modules = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for name in definitions(path):
            modules[name].append(str(path.relative_to(folder)))
    return {name: found for name, found in modules.items() if len(found) > 1}


def test_no_name_has_two_meanings():
    new = {name: found for name, found in clashes(PACKAGE).items() if name not in ALLOWED}
    assert new == {}, "rename one of each, or say in ALLOWED why several modules define it"


def test_no_exception_is_left_over():
    assert ALLOWED.keys() - clashes(PACKAGE).keys() == set()


def test_a_clash_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("class _Call:\n    pass\n\n\nLIMIT: int = 1\n_private = 2\n")
    (tmp_path / "b.py").write_text("class Call:\n    pass\n\n\ndef LIMIT(): ...\n\n\n_private = 3\n")
    assert clashes(tmp_path) == {"Call": ["a.py", "b.py"], "LIMIT": ["a.py", "b.py"]}
