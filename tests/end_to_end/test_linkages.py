"""A linkage is one entry of a table: the verb, the command and the messages use it without further changes."""

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.matching import clusters, join
from imgmatch_df.matching.linkages import LINKAGES, Linkage


def equal_hashes(hashes, radius, components, order, bits):
    """Ignore the radius."""
    return clusters.representatives(join.first_equal(hashes), order)


@pytest.fixture
def equal(monkeypatch):
    monkeypatch.setitem(LINKAGES, "equal", Linkage("ignores the radius", False, equal_hashes))


@pytest.fixture
def frame():
    return pl.DataFrame({"url": list("abcd"), "phash": [2, 3, 2, 2**64 - 1]}, schema_overrides={"phash": pl.UInt64})


@pytest.mark.parametrize("lazy", [False, True])
def test_the_verbs_use_a_new_linkage(equal, frame, lazy):
    data = frame.lazy() if lazy else frame
    found = data.imgmatch.cluster(1, "phash", linkage="equal", keep="last").lazy().collect()
    assert found["cluster_id"].to_list() == [0, 1, 0, 2]
    assert found["kept"].to_list() == [False, True, True, True]
    kept = imgmatch_df.remove_duplicates(data, 1, "phash", linkage="equal").lazy().collect()
    assert kept["url"].to_list() == ["a", "b", "d"]


def test_the_command_uses_a_new_linkage(equal, frame, tmp_path):
    frame.write_parquet(tmp_path / "hashed.parquet")
    out = tmp_path / "kept.parquet"
    words = [str(tmp_path / "hashed.parquet"), "--hash-type", "phash", "--radius", "1", "-o", str(out)]
    for linkage, kept in (("equal", ["a", "b", "d"]), ("connected", ["a", "d"])):
        out.unlink(missing_ok=True)
        result = CliRunner().invoke(app, ["remove-duplicates", *words, "--linkage", linkage])
        assert (result.exit_code, pl.read_parquet(out)["url"].to_list()) == (0, kept), result.output


def test_the_message_names_a_new_linkage(equal, frame):
    with pytest.raises(
        imgmatch_df.ArgumentError,
        match=r"linkage must be one of 'connected', 'star', 'equal', got 'single'\n"
        r"Hint: 'connected' chains near-duplicates, 'star' does not chain them, 'equal' ignores the radius\.",
    ):
        frame.imgmatch.cluster(1, "phash", linkage="single")


def test_local_hashes_need_a_linkage_of_pairs(equal, monkeypatch):
    frame = pl.DataFrame({"local": [bytes(715), None]})
    with pytest.raises(imgmatch_df.ArgumentError, match="linkage='equal' needs distances, and local is"):
        frame.imgmatch.cluster(hash_type="local", linkage="equal")
    linkage = Linkage("keeps all", False, equal_hashes, lambda n_rows, *_: np.arange(n_rows, dtype=np.uint32))
    monkeypatch.setitem(LINKAGES, "none", linkage)
    assert frame.lazy().imgmatch.cluster(hash_type="local", linkage="none").collect()["kept"].to_list() == [True, True]


def test_the_help_lists_the_linkages():
    result = CliRunner().invoke(app, ["remove-duplicates", "--help"], env={"COLUMNS": "200"})
    assert "|".join(LINKAGES) in result.output
