"""What kernels must not contain: what numba compiles for seconds at the first command on a machine."""

import ast
from pathlib import Path

import imgmatch_df

PACKAGE = Path(imgmatch_df.__file__).parent


def kernels(tree):
    """Yield the functions of a module that are compiled."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            names = {name.id for one in function.decorator_list for name in ast.walk(one) if isinstance(name, ast.Name)}
            if names & {"kernel", "_inner"}:
                yield function


def copied_slices(function):
    """Return the assignments of a function that copy an array into a slice of another one."""
    return [
        ast.unparse(statement)
        for statement in ast.walk(function)
        if isinstance(statement, ast.Assign)
        and any(
            isinstance(target, ast.Subscript) and any(isinstance(part, ast.Slice) for part in ast.walk(target.slice))
            for target in statement.targets
        )
        # A number, as in `starts[:] = 0`, has no shape, nor has a tuple.
        and isinstance(statement.value, ast.Name | ast.Subscript | ast.Attribute)
    ]


def test_no_kernel_copies_an_array_into_a_slice():
    # The message for arrays of different shapes makes numba compile its functions of text: 1.5 s of processor time.
    found, n_kernels = {}, 0
    for path in PACKAGE.rglob("*.py"):
        for function in kernels(ast.parse(path.read_text(encoding="utf-8"))):
            n_kernels += 1
            if copied := copied_slices(function):
                found[f"{path.name}: {function.name}"] = copied
    assert found == {}
    assert n_kernels > 50


def test_a_copy_into_a_slice_is_found():
    code = "@kernel\ndef link(pool, rows, n):\n    pool[:n] = rows[:n]\n    pool[:] = 0\n    rows[0, :n] = pool\n"
    (function,) = kernels(ast.parse(code))
    assert copied_slices(function) == ["pool[:n] = rows[:n]", "rows[0, :n] = pool"]
