"""The tables of the guide "From a million to a billion" are those of the sizes and plans of the package."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_current():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import to_a_billion

        texts = to_a_billion.texts()
    page = to_a_billion.PAGE.read_text(encoding="utf-8")
    assert page.count(":begin -->") == page.count(":end -->") == len(texts)
    for marker, text in texts.items():
        between = page.split(f"<!-- {marker}:begin -->")[1].split(f"<!-- {marker}:end -->")[0]
        assert between.strip() == text.strip(), f"{marker}: run python benchmarks/to_a_billion.py"
