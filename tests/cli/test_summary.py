"""The summary on the screen: chained clusters, the farthest copy, and the bytes of the removed files."""

import os

import polars as pl
import pytest
from drawing import draw, jpeg
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal

import imgmatch_df
from imgmatch_df.cli import display
from imgmatch_df.cli.removed import freed_bytes


def summary(hashes, *options):
    """Return the summary of images whose hashes differ by these bits, and which are not blank."""
    frame = pl.DataFrame({"path": [f"{number}.jpg" for number in range(len(hashes))]})
    bits = pl.Series("phash", [0x2BCD12345678ABC0 ^ one for one in hashes], pl.UInt64)
    frame.with_columns(bits).write_parquet("in.parquet")
    code, seen = on_a_terminal("remove-duplicates", "in.parquet", "--no-progress", *options)
    assert code == 0
    return seen


@ON_A_SYSTEM_WITH_TERMINALS
@pytest.mark.parametrize(
    ("hashes", "radius", "is_chained"),
    [
        ([0b01, 0b00, 0b11], 1, True),  # the kept one is in the middle
        ([0b00, 0b01, 0b11], 1, True),
        ([0b01, 0b00, 0b11], 2, False),
        ([0b00, 0b01], 1, False),
        ([0b11] * 4, 0, False),
    ],
)
def test_a_cluster_that_is_wider_than_the_radius_is_chained(tmp_path, monkeypatch, hashes, radius, is_chained):
    monkeypatch.chdir(tmp_path)
    seen = summary(hashes, "--radius", radius)
    assert ("(chained)" in seen) == is_chained
    assert "(chained)" not in summary(hashes, "--radius", radius, "--linkage", "star")


@ON_A_SYSTEM_WITH_TERMINALS
def test_of_a_large_cluster_only_the_distances_to_the_kept_row_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    middle_is_kept = [0b01, *[0b00] * 5, *[0b11] * 5]
    assert "(chained)" in summary(middle_is_kept, "--radius", 1)
    monkeypatch.setattr(display, "CHAIN_ROWS", 10)
    assert "(chained)" not in summary(middle_is_kept, "--radius", 1)
    assert "2 bits (chained)" in summary([0b00, *[0b01] * 5, *[0b11] * 5], "--radius", 1)


@ON_A_SYSTEM_WITH_TERMINALS
def test_bytes_of_files_with_two_names_count_once_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [jpeg(draw(seed)) for seed in range(2)]
    names = ["0a", "1a", "1b", "1c"]
    for name in names:
        (tmp_path / f"{name}.jpg").write_bytes(data[int(name[0])])
    os.link("0a.jpg", "0b.jpg")  # removed beside its kept name
    os.link("1c.jpg", "1d.jpg")  # two names of one removed file
    found = imgmatch_df.scan_images(".").imgmatch.cluster(0, source="path").collect()
    removed = found.filter(~pl.col("kept"))["path"].str.replace("./", "", literal=True).to_list()
    assert removed == ["0b.jpg", "1b.jpg", "1c.jpg", "1d.jpg"]
    assert freed_bytes(found, "path") == 2 * len(data[1])
    assert freed_bytes(found, None) is None
    assert freed_bytes(found.drop("size"), "path") is None
    _, seen = on_a_terminal("remove-duplicates", ".", "--no-progress")
    assert f"moving the removed files away frees {display.bytes_text(2 * len(data[1]))}" in seen
    _, seen = on_a_terminal("remove-duplicates", "0a.jpg", "1a.jpg", "--no-progress")
    assert "frees" not in seen
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "1.jpg").write_bytes(data[1])
    _, seen = on_a_terminal("remove-duplicates", "1a.jpg", "0a.jpg", "--reference", "known", "--no-progress")
    assert f"frees {display.bytes_text(len(data[1]))}" in seen


@ON_A_SYSTEM_WITH_TERMINALS
@pytest.mark.parametrize(
    "words",
    [
        ["visual-hash", "in.parquet"],
        ["remove-duplicates", "in.parquet", "--radius", "4"],
        ["rank-images", "one.jpg", "in.parquet"],
        ["find-copies", "in.parquet"],
        ["match", "in.parquet", "other.parquet", "--hash-type", "phash"],
        ["leaks", "in.parquet", "other.parquet"],
        ["report", "in.parquet", "--radius", "4", "-o", "out.html"],
    ],
    ids=lambda words: words[0],
)
def test_rows_without_a_name_are_shown_by_their_number(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    images = [jpeg(draw(seed, 200, 150)) for seed in (1, 1, 2)]
    frame = pl.DataFrame({"image": images})
    for name in ("in", "other"):
        frame.write_parquet(f"{name}.parquet")
    (tmp_path / "one.jpg").write_bytes(images[0])
    code, seen = on_a_terminal(*words, "--no-progress")
    assert code == (3 if words[0] in ("match", "leaks") else 0), seen
    if words[0] == "report":
        assert (tmp_path / "out.html").stat().st_size > 10_000
    else:
        assert "row 1" in seen
