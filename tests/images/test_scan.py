"""Folders and globs as lazy frames."""

import glob
import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.images import folders, scan

# Polars 1 wraps what a source raises in an error of its own, with the text.
RAISED = (imgmatch_df.ArgumentError, pl.exceptions.ComputeError)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number, name in enumerate(["b.JPG", "a.png", "sub/c.webp", "sub/deep/d.jpeg", "notes.txt", "sub/e[1].gif"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def names(frame: pl.LazyFrame, root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in frame.collect()["path"]]


def test_a_folder_gives_its_pictures_sorted(tree):
    assert names(imgmatch_df.scan_images(tree), tree) == [
        "a.png",
        "b.JPG",
        "sub/c.webp",
        "sub/deep/d.jpeg",
        "sub/e[1].gif",
    ]
    assert names(imgmatch_df.scan_images(tree, recursive=False), tree) == ["a.png", "b.JPG"]


def test_a_glob_gives_the_files_that_it_matches(tree):
    assert names(imgmatch_df.scan_images(tree / "**" / "*.jpeg"), tree) == ["sub/deep/d.jpeg"]
    assert names(imgmatch_df.scan_images(f"{tree}/*.*"), tree) == ["a.png", "b.JPG", "notes.txt"]


def test_one_file_and_a_folder_whose_name_looks_like_a_glob(tree):
    assert names(imgmatch_df.scan_images(tree / "sub" / "e[1].gif"), tree) == ["sub/e[1].gif"]
    (tree / "[x]").mkdir()
    (tree / "[x]" / "y.png").write_bytes(b"")
    assert names(imgmatch_df.scan_images(tree / "[x]"), tree) == ["[x]/y.png"]


def test_several_sources_keep_their_order(tree):
    sources = [tree / "sub" / "c.webp", tree / "*.png", str(tree / "b.JPG")]
    assert names(imgmatch_df.scan_images(sources), tree) == ["sub/c.webp", "a.png", "b.JPG"]
    assert names(imgmatch_df.scan_images([]), tree) == []


def test_schema_sizes_and_times(tree):
    lazy = imgmatch_df.scan_images(tree)
    assert lazy.collect_schema() == {"path": pl.String, "size": pl.UInt64, "modified": pl.Datetime("us", "UTC")}
    frame = lazy.collect()
    assert frame["size"].to_list() == [1, 0, 2, 3, 5]
    seen = datetime.fromtimestamp(int((tree / "a.png").stat().st_mtime), UTC)
    assert frame["modified"][0].replace(microsecond=0) == seen


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_slices_filters_and_projections(tree, monkeypatch, engine):
    lazy = imgmatch_df.scan_images(tree)
    assert lazy.head(2).collect(engine=engine).height == 2
    assert lazy.filter(pl.col("size") > 1).select("size").collect(engine=engine)["size"].to_list() == [2, 3, 5]
    assert lazy.filter(pl.col("path").str.ends_with("png")).head(1).collect(engine=engine).height == 1
    monkeypatch.setattr(scan, "_stat", lambda path: pytest.fail("asked for a size that nobody wants"))
    assert lazy.select("path").collect(engine=engine).height == 5


def test_nothing_is_listed_before_the_query_runs(tree):
    lazy = imgmatch_df.scan_images(tree).filter(pl.col("path").str.ends_with("late.png"))
    (tree / "late.png").write_bytes(b"")
    assert lazy.collect().height == 1
    (tree / "late.png").unlink()
    assert lazy.collect().height == 0


def test_a_file_that_vanished_has_nulls(tree, monkeypatch):
    lazy = imgmatch_df.scan_images(tree)
    find = scan._find

    def find_before_it_vanishes(*args, **options):
        finder = find(*args, **options)
        (tree / "a.png").unlink()
        return finder

    monkeypatch.setattr(scan, "_find", find_before_it_vanishes)
    frame = lazy.collect()
    assert frame.row(0) == (str(tree / "a.png"), None, None)
    assert frame.imgmatch.visual_hash("path")["status"][0] == "not_found"


def test_a_folder_that_cannot_be_listed_is_warned_of(tree, lock):
    lock(tree / "sub")
    for source in (tree, tree / "**" / "*"):
        with pytest.warns(imgmatch_df.ImgMatchWarning, match=r"cannot list '.*/sub' \(Permission denied\)"):
            found = imgmatch_df.scan_images(source).filter(pl.col("path").str.contains(r"\.png$")).collect()
        assert [Path(path).name for path in found["path"]] == ["a.png"]
    assert names(imgmatch_df.scan_images(tree, recursive=False), tree) == ["a.png", "b.JPG"]


def test_more_files_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_BATCH_ROWS", 3)
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
    assert names(imgmatch_df.scan_images(tmp_path), tmp_path) == [f"{number}.png" for number in range(10)]
    assert names(imgmatch_df.scan_images(tmp_path).head(4), tmp_path) == [f"{number}.png" for number in range(4)]


@pytest.mark.parametrize("source", ["", "no-such-folder", [".", ""], 5, None, [5], b".", [b"."], "no.jpg", "~/no-such"])
def test_wrong_sources_raise_at_once(source):
    for function in (imgmatch_df.scan_images, imgmatch_df.count_left_out):
        with pytest.raises(imgmatch_df.ArgumentError, match="Hint: "):
            function(source)
    with pytest.raises(imgmatch_df.ArgumentError, match="recursive must be True or False"):
        imgmatch_df.scan_images(".", recursive="no")


# Globs


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A tree with names of every kind that a glob tells apart."""
    names = [
        "a.jpg",
        "b.JPG",
        "c.Jpg",
        ".h.jpg",
        "[x.jpg",
        "x].jpeg",
        "n.txt",
        "N.TXT",
        "no",
        "e.HEIC",
        ".jpg",
        "ü.pNg",
    ]
    for folder in ("", "one", "one/two", "One", ".hidden", ".hidden/in", "one/.too", "x.jpg", "[y]"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    return tmp_path


PARTS = [
    "*",
    "**",
    "one",
    "?ne",
    "[oO]ne",
    ".*",
    "*.jpg",
    "a.jpg",
    "[!a].jpg",
    "[[]*.jpg",
    "[x.jpg",
    "*.jp?g",
    "*.txt",
    "x*",
]


def test_a_glob_gives_what_the_standard_library_gives(deep, monkeypatch):
    monkeypatch.chdir(deep)
    for n_parts in (1, 2, 3):
        for parts in itertools.product(PARTS, repeat=n_parts):
            # The case of image suffixes aside, by naming every case.
            last, suffix = os.path.splitext(parts[-1])  # noqa: PTH122
            last = last.replace("[x", "[[]x") if suffix == ".jpg" else last
            last += ".[jJ][pP][gG]" if suffix == ".jpg" else suffix
            for start in ("", "./", f"{deep}/", "one/../")[: 4 if n_parts < 3 else 1]:
                pattern = start + "/".join(parts)
                if not glob.has_magic(pattern):
                    continue
                wanted = glob.glob(start + "/".join([*parts[:-1], last]), recursive=True)  # noqa: PTH207
                # `glob` takes "a.jpg/**" for "a.jpg/", which is no file.
                files = sorted({str(Path(path)) for path in wanted if os.path.isfile(path)})  # noqa: PTH113
                finder = folders.Finder()
                assert finder.add(pattern) == bool(files), pattern
                assert list(finder.paths) == files, pattern


@pytest.mark.parametrize("suffix", sorted(folders.KNOWN_SUFFIXES))
def test_an_image_suffix_matches_in_any_case(tmp_path, suffix):
    cases = [suffix, suffix.upper(), suffix.capitalize(), suffix[:-1] + suffix[-1].upper()]
    files = sorted({f"{number}{case}" for number, case in enumerate(cases)})
    for name in [*files, f"0{suffix}.txt", f"0{suffix[1:]}"]:
        (tmp_path / name).write_bytes(b"")
    for pattern in (f"*{suffix}", f"*{suffix.upper()}", f"**/[0-9]{suffix.title()}", f"?{suffix}"):
        assert names(imgmatch_df.scan_images(tmp_path / pattern), tmp_path) == files, pattern
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"cover{suffix.upper()}").write_bytes(b"")
    assert names(imgmatch_df.scan_images(tmp_path / "*" / f"cover{suffix}"), tmp_path) == [
        f"folder/cover{suffix.upper()}"
    ]


@pytest.mark.parametrize(
    "pattern", ["*.jp*g", "*.jp[g]", "*.[jJ][pP]*g", "*.JP[EG]*", "*jpg", "*JPG", "*.j*", "?.[!a]*"]
)
def test_a_suffix_with_wildcards_matches_in_any_case_too(tmp_path, pattern):
    wanted = ["1.jpg", "2.JPG", "3.Jpg", "4.jPG"]
    for name in [*wanted, "5.TXT", "jpg", "x.JSON", "6.ANY", ".jpg"]:
        (tmp_path / name).write_bytes(b"")
    found = names(imgmatch_df.scan_images(tmp_path / pattern), tmp_path)
    assert [name for name in found if name[0] in "1234"] == wanted
    assert pattern == "?.[!a]*" or found == wanted + ["jpg"] * (pattern == "*jpg")


def test_everything_but_the_suffix_of_an_image_matches_in_its_own_case(deep):
    def listed(pattern):
        return names(imgmatch_df.scan_images(deep / pattern), deep)

    assert listed("*.txt") == ["n.txt"]
    assert listed("*.TXT") == ["N.TXT"]
    assert listed("One/a.*") == ["One/a.jpg"]
    assert listed("one/*.jpg") == ["one/[x.jpg", "one/a.jpg", "one/b.JPG", "one/c.Jpg"]
    for pattern in ("ONE/*.jpg", "A*.jpg", "*.Txt"):
        with pytest.raises(imgmatch_df.ArgumentError, match="nothing matches"):
            listed(pattern)


@pytest.mark.parametrize(
    "pattern", ["*.nothing", "sub/*.tiff", "*/*/*/*.jpg", "**/x.jpg", "*.{jpg,JPG}", "[z]*", "*/", "s*"]
)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_glob_that_matches_nothing_raises_at_once_and_when_it_runs(tree, pattern, engine):
    with pytest.raises(imgmatch_df.ArgumentError, match=r"nothing matches .*\nHint: ") as raised:
        imgmatch_df.scan_images([tree, f"{tree}/{pattern}"])
    assert ("braces" in str(raised.value)) == ("{" in pattern)
    assert ("matches folders only" in str(raised.value)) == (pattern in ("*/", "s*"))
    with pytest.raises(imgmatch_df.ArgumentError, match="nothing matches"):
        imgmatch_df.count_left_out(f"{tree}/{pattern}")
    (tree / "late.tiff").write_bytes(b"")
    lazy = imgmatch_df.scan_images(f"{tree}/*.tiff")
    (tree / "late.tiff").unlink()
    with pytest.raises(RAISED, match="nothing matches"):
        lazy.collect(engine=engine)


def test_braces_without_a_glob_have_the_hint_too(tree):
    with pytest.raises(imgmatch_df.ArgumentError, match="braces are not expanded"):
        imgmatch_df.scan_images(f"{tree}/a.{{png,jpg}}")
    (tree / "{x}.png").write_bytes(b"")
    assert names(imgmatch_df.scan_images(f"{tree}/{{x}}*"), tree) == ["{x}.png"]


def test_a_source_that_is_gone_when_the_query_runs_raises(tmp_path):
    (tmp_path / "photos").mkdir()
    lazy = imgmatch_df.scan_images(tmp_path / "photos")
    assert lazy.collect().is_empty()  # an empty folder is no mistake
    (tmp_path / "photos").rmdir()
    with pytest.raises(RAISED, match="no such file or folder"):
        lazy.collect()


def test_each_path_is_listed_once(tree, monkeypatch):
    everything = names(imgmatch_df.scan_images(tree), tree)
    for sources in ([tree, tree], [tree, tree / "sub"], [tree, tree / "**" / "*.jpg"], [f"{tree}/", tree / "a.png"]):
        assert names(imgmatch_df.scan_images(sources), tree) == everything
    monkeypatch.chdir(tree)
    found = imgmatch_df.scan_images(["./sub/*.webp", "sub//c.webp", "sub", "**/**/c.webp"]).collect()["path"].to_list()
    assert found == ["sub/c.webp", "sub/deep/d.jpeg", "sub/e[1].gif"]


def test_the_home_directory(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    monkeypatch.setenv("USERPROFILE", str(tree))
    for source in ("~", Path("~"), ["~"]):
        assert names(imgmatch_df.scan_images(source), tree)[:2] == ["a.png", "b.JPG"]
    assert names(imgmatch_df.scan_images("~/*.jpg"), tree) == ["b.JPG"]
    assert names(imgmatch_df.scan_images("~/sub/c.webp"), tree) == ["sub/c.webp"]
    (tree / "~no one").write_bytes(b"")
    monkeypatch.chdir(tree)
    assert imgmatch_df.scan_images("~no one").collect()["path"].to_list() == ["~no one"]


# What is left out


def counted(source, **options):
    return imgmatch_df.count_left_out(source, **options).rows()


@pytest.fixture
def strange(tree: Path, tmp_path_factory, without_extras) -> Path:
    """A tree with everything that a folder leaves out."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.png").write_bytes(b"")
    for name in ("x.HEIC", "sub/y.heic", "z.cr2", "a.xmp", "b.XMP", "no suffix", "dot.", "sub/.hidden.png"):
        (tree / name).write_bytes(b"")
    (tree / ".thumbnails").mkdir()
    (tree / ".thumbnails" / "t.png").write_bytes(b"")
    (tree / "link").symlink_to(elsewhere)
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "sub" / "link.jpg").symlink_to(elsewhere)
    (tree / "lost").symlink_to(tree / "no such folder")
    (tree / "loop").symlink_to(tree / "loop")
    (tree / "lost.png").symlink_to(tree / "gone.png")
    return tree


LEFT_OUT = [
    ("linked_folder", None, 3),
    ("broken_link", "", 2),
    ("missing_extra", ".heic", 2),
    ("other_file", "", 2),
    ("other_file", ".xmp", 2),
    ("hidden_file", ".png", 1),
    ("hidden_folder", None, 1),
    ("missing_extra", ".cr2", 1),
    ("other_file", ".txt", 1),
]


def test_a_folder_counts_what_it_leaves_out(strange):
    frame = imgmatch_df.count_left_out(strange)
    assert frame.rows() == LEFT_OUT
    assert frame.schema == {"reason": pl.String, "suffix": pl.String, "n": pl.UInt32}
    # A link to an image that is gone is listed: its row says so.
    with pytest.warns(imgmatch_df.ImgMatchWarning):
        listed = names(imgmatch_df.scan_images(strange), strange)
    assert listed == ["a.png", "b.JPG", "lost.png", "sub/c.webp", "sub/deep/d.jpeg", "sub/e[1].gif"]
    with pytest.warns(imgmatch_df.ImgMatchWarning):
        all_listed = names(imgmatch_df.scan_images(strange, hidden=True), strange)
    assert set(all_listed) - set(listed) == {".thumbnails/t.png", "sub/.hidden.png"}
    # Every file and folder is listed, counted or walked; with hidden=True nothing is hidden.
    n_all = sum(len(folders_) + len(files) for _, folders_, files in os.walk(strange))
    n_walked = sum(1 for _ in os.walk(strange)) - 1
    assert sum(n for _, _, n in counted(strange, hidden=True)) + len(all_listed) + n_walked == n_all
    assert frame["n"].sum() + len(listed) + (n_walked - 1) + 1 == n_all  # the hidden folder has one file
    assert_frame_equal(imgmatch_df.count_left_out([strange, strange / "sub", f"{strange}/"]), frame)
    assert counted(strange / "sub", recursive=False) == [("hidden_file", ".png", 1), ("missing_extra", ".heic", 1)]
    assert counted(strange / "sub" / "deep") == []
    assert imgmatch_df.count_left_out([]).schema == frame.schema


def test_a_linked_folder_that_is_named_is_not_left_out(strange):
    sources = [strange, strange / "link", strange / "sub" / "link.jpg"]
    assert ("linked_folder", None, 1) in counted(sources)
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="1 linked folder"):
        assert "link/far.png" in names(imgmatch_df.scan_images(sources), strange)


def test_a_glob_counts_what_it_passes_over(strange):
    # Two of the links lead out of the tree, one to a folder that it is in.
    assert counted(strange / "**" / "*.png") == [
        ("hidden_file", ".png", 1),
        ("hidden_folder", None, 1),
        ("linked_folder", None, 1),
    ]
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="left out 1 linked folder\n"):
        listed = names(imgmatch_df.scan_images(strange / "**" / "*.png"), strange)
    assert listed == ["a.png", "link/far.png", "lost.png", "sub/link.jpg/far.png"]
    assert counted(strange / "*" / "*.png") == [("hidden_file", ".png", 1), ("hidden_folder", None, 1)]
    assert counted(strange / "*.png") == []
    # What a glob passes over is listed by the folder.
    assert counted([strange, strange / "*" / "*.png"]) == LEFT_OUT


def test_links_that_lead_to_each_other_end(tmp_path):
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"")
        (tmp_path / name / "link").symlink_to(tmp_path / other)
    (tmp_path / "one" / "self").symlink_to(".")
    listed = imgmatch_df.scan_images(tmp_path)
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="left out 3 linked folders\n"):
        assert names(listed, tmp_path) == ["one/a.png", "two/a.png"]
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="linked folders\n"):
        found = names(imgmatch_df.scan_images(tmp_path / "**" / "*.png"), tmp_path)
    assert found == ["one/a.png", "one/link/a.png", "two/a.png", "two/link/a.png"]


def test_a_folder_that_cannot_be_listed_is_counted(tree, lock):
    lock(tree / "sub")
    assert ("unlisted_folder", None, 1) in counted(tree)
    assert counted(tree / "**" / "*.png") == [("unlisted_folder", None, 1)]
    with pytest.raises(imgmatch_df.ArgumentError, match=r"nothing matches .*; cannot list '.*sub'"):
        imgmatch_df.scan_images(tree / "**" / "*.gif")
    # The folder that cannot be listed is no reason why another one is empty.
    (tree / "empty").mkdir()
    with pytest.raises(imgmatch_df.ArgumentError, match=r"no images in .*empty'\n"):
        scan.list_images([str(tree), str(tree / "empty")])
    with pytest.raises(imgmatch_df.ArgumentError, match=r"^cannot list "):
        scan.list_images([str(tree), str(tree / "sub")])


def test_one_warning_a_run_names_what_could_hold_images(strange, recwarn):
    lazy = imgmatch_df.scan_images([strange, strange / "sub"])
    assert [warning.message for warning in recwarn] == []
    for query in (lazy, lazy.head(1), lazy.select("path")):
        with pytest.warns(imgmatch_df.ImgMatchWarning) as warned:
            query.collect()
        (message,) = [str(warning.message) for warning in warned]
        assert message.startswith(
            "scan_images left out 2 .heic, 1 .cr2 (pip install 'imgmatch-df[heif,raw]'); 3 linked folders; "
            "1 hidden folder; 1 hidden file\nHint: "
        )
        assert "xmp" not in message


def test_plain_files_are_counted_without_a_warning(tree):
    (tree / "a.xmp").write_bytes(b"")
    (tree / "clip.MOV").write_bytes(b"")
    assert names(imgmatch_df.scan_images(tree), tree)[0] == "a.png"  # a warning would be an error
    assert counted(tree) == [("other_file", ".mov", 1), ("other_file", ".txt", 1), ("other_file", ".xmp", 1)]


@pytest.mark.parametrize("suffix", sorted(folders.UNREAD_SUFFIXES))
def test_every_format_that_is_not_read_is_warned_of(tmp_path, suffix):
    (tmp_path / f"x{suffix.upper()}").write_bytes(b"")
    assert counted(tmp_path) == [("unread_format", suffix, 1)]
    with pytest.warns(imgmatch_df.ImgMatchWarning, match=f"left out 1 {suffix}\n"):
        assert imgmatch_df.scan_images(tmp_path).collect().is_empty()


def test_the_text_of_what_is_left_out_is_short():
    text = folders.left_out_text
    assert text({}) == ""
    assert text({("unlisted_folder", None): 2}) == ""
    left_out = {
        ("unread_format", ".psd"): 1200,
        ("other_file", ""): 3,
        ("other_file", "." + "x" * 300 + "\x1b[31m"): 1,
        ("hidden_folder", None): 1,
        ("linked_folder", None): 2,
    }
    assert text(left_out) == (
        "1,200 .psd; 4 other files (3 without a suffix, 1 .xxxxxxxxxxxxxx…); 2 linked folders; 1 hidden folder"
    )
    assert text(left_out, only_warned=True) == "1,200 .psd; 2 linked folders; 1 hidden folder"
    many = {("other_file", f".{number}"): 100 - number for number in range(40)}
    assert text(many).endswith("93 .7, 2,448 of 32 more suffixes)")
    assert text({("other_file", ".\x1b[2J"): 1}) == "1 other file (1 .\N{REPLACEMENT CHARACTER}[2J)"


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_suffix_that_is_not_utf8_is_counted(tmp_path):
    with open(os.fsencode(tmp_path) + b"/a.\xff", "wb"):  # noqa: PTH123
        pass
    assert counted(tmp_path) == [("other_file", ".\\xff", 1)]
