"""Lists of sources: files, standard input and pipes; and the options about sources."""

import builtins
import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from program import PROGRAM
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.cli.lists import SourceList
from imgmatch_df.errors import ArgumentError
from imgmatch_df.images.exclusion import Exclusion

NAMES = ["a.jpg", "b c.jpg", "#recycle/d.jpg", "ü/é.jpg", "'q' \"r\".jpg", "~x.jpg", "c,d.jpg"]


def call(*words, code=0, stdin=b""):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"}, input=stdin)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(draw(number)))
    return tmp_path / "photos"


def hashed(*words, stdin=b"") -> pl.DataFrame:
    call("visual-hash", *words, "-o", "o.parquet", stdin=stdin)
    return pl.read_parquet("o.parquet")


LIST = "".join(f"photos/{name}\n" for name in NAMES).encode()
FORMS = {
    "plain": LIST,
    "no line break at the end": LIST[:-1],
    "CRLF": LIST.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + LIST,
    "blank lines": b"\n \n" + LIST.replace(b"\n", b"\n\n\t\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_one_source_a_line(photos, form):
    wanted = [f"photos/{name}" for name in NAMES]
    Path("list.txt").write_bytes(FORMS[form])
    Path("list.TXT.gz").write_bytes(gzip.compress(FORMS[form]))
    Path("any name").write_bytes(FORMS[form])
    for words in (["list.txt"], ["list.TXT.gz"], ["l*.txt"], ["--files-from", "any name"]):
        found = hashed(*words)
        assert found["source"].to_list() == wanted
        assert set(found["status"]) == {"ok"}
    for words in (["-"], ["--files-from", "-"]):
        assert hashed(*words, stdin=FORMS[form])["source"].to_list() == wanted


@pytest.mark.parametrize("words", [["-0", "-"], ["--null", "--files-from", "-"], ["--null", "list.txt"]])
def test_names_that_find_prints_with_nul(photos, words):
    names = [*NAMES, "line\nbreak.jpg"]
    (photos / names[-1]).write_bytes(jpeg(draw(9)))
    stdin = "".join(f"photos/{name}\0" for name in names).encode()
    Path("list.txt").write_bytes(stdin)
    found = hashed(*words, stdin=stdin)
    assert found["source"].to_list() == [f"photos/{name}" for name in names]
    assert set(found["status"]) == {"ok"}


def test_lists_are_joined_in_their_order(photos):
    Path("one.txt").write_bytes(b"photos/a.jpg\n")
    Path("two.txt").write_bytes(b"photos/b c.jpg")
    found = hashed("two.txt", "-", "one.txt", stdin=b"photos/c,d.jpg")
    assert found["source"].to_list() == ["photos/b c.jpg", "photos/c,d.jpg", "photos/a.jpg"]


def test_relative_paths_start_from_the_base_folder(photos):
    assert hashed("-", "--base-dir", photos, stdin=b"a.jpg\n")["status"].to_list() == ["ok"]


def test_every_command_reads_a_list(photos):
    (photos / "copy.jpg").write_bytes((photos / "a.jpg").read_bytes())
    stdin = LIST + b"photos/copy.jpg\n"
    call("remove-duplicates", "-", "-o", "k.csv", stdin=stdin)
    kept = pl.read_csv("k.csv", infer_schema=False)
    assert kept.filter(pl.col("kept") == "false")["source"].to_list() == ["photos/copy.jpg"]
    call("rank-images", photos / "a.jpg", "-", "-k", 2, "-o", "r.csv", stdin=stdin)
    assert set(pl.read_csv("r.csv", infer_schema=False)["source"]) == {"photos/a.jpg", "photos/copy.jpg"}
    call("rank-images", photos / "a.jpg", "--files-from", "-", "-k", 1, "-o", "r.csv", stdin=stdin)
    call("find-copies", "-", "-o", "c.csv", stdin=stdin)
    assert pl.read_csv("c.csv").select("left_id", "right_id").rows() == [("photos/a.jpg", "photos/copy.jpg")]
    call("advise", "--files-from", "-", "-o", "a.csv", stdin=stdin)
    call("visual-hash", "-", "-o", "h.duckdb", stdin=stdin)
    call("visual-hash", "-", "-o", "h.duckdb", stdin=b"photos/a.jpg\nphotos/none.jpg\n", code=1)
    call("remove-duplicates", photos, "--reference", "-", "-o", "k.csv", stdin=b"photos/a.jpg\n")
    matched = pl.read_csv("k.csv", infer_schema=False)["reference_id"].drop_nulls()
    assert matched.to_list() == ["photos/a.jpg"] * 2
    assert call("remove-duplicates", "-", "--list-removed", stdin=stdin).stdout == "photos/copy.jpg\n"


WRONG = [
    ([], b"", "SOURCE is missing"),
    (["photos", "--files-from", "-"], b"", "got also SOURCE 'photos'"),
    (["-", "-"], b"", "standard input can be read once"),
    (["-", "photos"], b"", "sources must be of one kind, got a list, images"),
    (["--files-from", "none"], b"", "no such file"),
    (["--files-from", "photos"], b"", "no such file"),
    (["none.txt"], b"", "nothing matches 'none.txt'"),
    (["-"], b"a.jpg\0b.jpg\0", "has NUL characters"),
    (["-"], jpeg(draw(0)), "has NUL characters"),
    (["-0", "-"], b"a.jpg\nb.jpg\n", "leave --null out"),
    (["-"], "a.jpg\n".encode("utf-16"), "standard input is UTF-16"),
    (["-", "--source", "x"], b"a.jpg", "--source is for tables"),
    (["-", "--hidden"], b"a.jpg", "--hidden is for folders and globs"),
    (["-", "--follow-links"], b"a.jpg", "--follow-links is for folders"),
    (["photos", "--null"], b"", "--null is for lists"),
    (["t.csv", "--exclude", "*.jpg"], b"", "--exclude is for folders, globs and lists"),
    (["photos", "--exclude", ""], b"", "exclude must be a pattern"),
    (["photos", "--exclude", "["], b"", "exclude has an invalid pattern, got '['"),
]


@pytest.mark.parametrize(("words", "stdin", "message"), WRONG)
def test_wrong_calls_say_what_is_wrong(photos, words, stdin, message):
    Path("t.csv").write_text("path\nphotos/a.jpg\n")
    said = call("visual-hash", *words, stdin=stdin, code=2).stderr
    assert message in said
    assert "Hint: " in said


def test_an_empty_list_has_no_rows(photos):
    assert hashed("-").height == 0
    call("remove-duplicates", "-", "-o", "k.csv")


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_name_that_is_not_utf8_is_escaped_as_in_a_folder(photos):
    name = os.fsencode(photos) + b"/x\xff.jpg"
    Path(os.fsdecode(name)).write_bytes(jpeg(draw(1)))
    call("visual-hash", "-", "-o", "o.parquet", stdin=name + b"\n", code=1)
    call("visual-hash", photos, "-o", "f.parquet", code=1)
    listed, found = pl.read_parquet("o.parquet"), pl.read_parquet("f.parquet")
    assert listed.select("source", "status").row(0) in found.select("path", "status").rows()


def test_what_a_list_excludes_is_counted(photos):
    said = call("visual-hash", "-", "-o", "o.csv", "--exclude", "#recycle", "--exclude", "c*.JPG", stdin=LIST).stderr
    assert "left out: 2 excluded files" in said
    assert pl.read_csv("o.csv", infer_schema=False).height == len(NAMES) - 2


def test_options_of_folders(photos):
    for name in ("@eaDir", ".hid"):
        (photos / name).mkdir()
        (photos / name / "t.jpg").write_bytes(jpeg(draw(3)))
    said = call("visual-hash", "photos", "-o", "o.csv").stderr
    assert "left out: 3 hidden folders\n" in said  # with #recycle
    assert pl.read_csv("o.csv", infer_schema=False).height == len(NAMES) - 1
    call("visual-hash", "photos", "--hidden", "-o", "o.csv")
    assert pl.read_csv("o.csv", infer_schema=False).height == len(NAMES) + 2
    said = call("visual-hash", "photos", "--exclude", "@eaDir", "--exclude", "photos/ü", "-o", "o.csv").stderr
    assert "left out: 2 hidden folders; 2 excluded folders\n" in said
    # The rules count for the folder of --reference too; a table of --reference has no files to leave out.
    call("remove-duplicates", "photos", "--exclude", "ü", "--reference", "photos", "-o", "k.csv")
    call("visual-hash", "photos", "-o", "ref.parquet")
    call("remove-duplicates", "photos", "--hidden", "--exclude", "ü", "--reference", "ref.parquet", "-o", "k.csv")
    if os.name != "nt":
        (photos.parent / "elsewhere").mkdir()
        (photos.parent / "elsewhere" / "e.jpg").write_bytes(jpeg(draw(8)))
        (photos / "link").symlink_to(photos.parent / "elsewhere")
        call("visual-hash", "photos", "--follow-links", "-o", "o.csv")
        assert "photos/link/e.jpg" in pl.read_csv("o.csv", infer_schema=False)["path"].to_list()


def test_a_report_names_the_options_that_it_was_made_with(photos):
    call("report", "photos", "--exclude", "none", "--hidden", "-o", "r.html")
    text = Path("r.html").read_text(encoding="utf-8")
    assert "imgmatch report photos --exclude none --hidden" in text


@pytest.mark.skipif(os.name == "nt", reason="a pipe by path")
def test_a_pipe_by_path_is_read(photos):
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(LIST))
    writer.start()
    assert hashed("--files-from", "pipe").height == len(NAMES)
    writer.join()


def test_the_program_reads_its_standard_input(photos):
    done = subprocess.run([*PROGRAM, "visual-hash", "-"], input=LIST, capture_output=True, check=True)
    assert done.stdout.decode().count(",ok,") == len(NAMES)


# The reader


def read(path, **options) -> list[str]:
    return SourceList([str(path)], **options).scan(7).collect()["source"].to_list()


def test_lines_of_any_length_are_read_in_parts(tmp_path, monkeypatch):
    path = tmp_path / "l.txt"
    lines = ["x" * (number * 7919 % 200) + str(number) for number in range(2000)]
    for n_bytes, n_lines in ((1, 60), (2, 60), (63, 600), (4096, 2000), (1 << 20, 2000)):
        path.write_text("\n".join(lines[:n_lines]))
        monkeypatch.setattr("imgmatch_df.cli.lists._READ_BYTES", n_bytes)
        assert read(path) == lines[:n_lines]
    frame = SourceList([str(path)]).scan(7)
    assert frame.head(11).collect()["source"].to_list() == lines[:11]
    assert frame.select(pl.len()).collect().item() == 2000
    assert frame.filter(pl.col("source").str.ends_with("99")).collect().height == 20
    found = SourceList([str(path)], exclusion=Exclusion(["*9"]))
    assert found.scan(7).collect().height == 1800
    assert found.left_out().total() == 200
    monkeypatch.setattr("imgmatch_df.cli.lists._MAX_LINE_BYTES", 100)
    monkeypatch.setattr("imgmatch_df.cli.lists._READ_BYTES", 50)
    with pytest.raises((ArgumentError, pl.exceptions.ComputeError), match="a line of more than 100 bytes"):
        read(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_list_is_not_held_in_memory(tmp_path):
    path = tmp_path / "l.txt"
    with path.open("wb") as file:
        for start in range(0, 3_000_000, 100_000):
            file.write(b"".join(b"photos/%09d.jpg\n" % number for number in range(start, start + 100_000)))
    code = f"""
import resource
from imgmatch_df.cli.lists import SourceList
import polars as pl
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
frame = SourceList([{str(path)!r}]).scan(256)
frame.head(10).select(pl.len()).collect()
before = peak()
n = frame.select(pl.len()).collect(engine="streaming").item()
print(n, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    n, more_kb = map(int, done.stdout.split())
    assert n == 3_000_000
    assert more_kb < 150_000  # the lines as Python strings take 250 MB


# Packages that are not installed


@pytest.mark.parametrize(
    ("marks", "package"),
    [("_delta_log/0.json", "deltalake"), ("metadata/v1.metadata.json", "pyiceberg"), ("_versions/1", "pylance")],
)
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, marks, package):
    folder = tmp_path / "t"
    (folder / marks).parent.mkdir(parents=True)
    (folder / marks).write_text("{}")
    pl.DataFrame({"path": ["a.jpg"]}).write_parquet(folder / "part.parquet")
    imported = builtins.__import__

    def without(name, *rest, **named):
        if name in ("deltalake", "pyiceberg", "lance"):
            raise ImportError(name)
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    said = call("visual-hash", folder, code=2).stderr
    assert f"the package {package} is not installed" in said
    assert "pip install 'imgmatch-df[lakes]'" in said


# The home directory


def test_the_home_directory_stands_in_every_option_of_a_path(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    monkeypatch.setenv("USERPROFILE", str(photos.parent))
    monkeypatch.chdir(photos)
    call("visual-hash", "~/photos", "--out=~/o.csv", "--store=~/s.duckdb")
    assert {"o.csv", "s.duckdb"} <= {path.name for path in photos.parent.iterdir()}
    call("visual-hash", "~/photos", "--out=~/h.duckdb")
    call("visual-hash", "-", "--base-dir=~/photos", "-o", "o.csv", stdin=b"a.jpg\n")
    frame = pl.DataFrame({"path": ["a.jpg"]})
    assert frame.imgmatch.visual_hash("path", base_dir="~/photos")["status"].to_list() == ["ok"]
    imgmatch_df.write_hashes(frame, "~/python.duckdb", source="path", base_dir=Path("~/photos"))
    assert (photos.parent / "python.duckdb").is_file()
    assert imgmatch_df.read_hashes("~/python.duckdb").height == 1
    assert not (photos / "~").exists()
