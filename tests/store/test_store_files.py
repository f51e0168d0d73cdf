"""Names, links, permissions and temporary files of stores and outputs."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_store import FORMS, random_hashes, summary
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df import ArgumentError, ColumnError, StoreError, atomic
from imgmatch_df.cli.app import app
from imgmatch_df.store import locks, parquet

pytestmark = pytest.mark.long

ON_UNIX = pytest.mark.skipif(os.name == "nt", reason="links, modes and owners of Unix")


def run_cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def files_of(store):
    return sorted(store.iterdir()) if store.is_dir() else [store]


# Links.


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["same ending", "another ending"])
def test_a_link_to_a_store_stays_a_link(tmp_path, form, name):
    real = tmp_path / "real" / (form if name == "same ending" else "0123abcd")
    real.parent.mkdir()
    link, rows = tmp_path / form, random_hashes(20)
    imgmatch_df.write_hashes(rows.head(10), link)
    link.rename(real)
    link.symlink_to(real)
    assert imgmatch_df.write_hashes(rows, link) == summary(new=10, skipped=10)
    assert link.is_symlink()
    assert link.resolve() == real
    assert_frame_equal(imgmatch_df.read_hashes(link).select(rows.columns), rows)
    assert [path.name for path in (tmp_path / "real").iterdir()] == [real.name]
    assert imgmatch_df.write_hashes(rows.head(15), link, prune=True).n_pruned == 5
    assert imgmatch_df.scan_hashes(link).collect().height == 15


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_dangling_link(tmp_path, form):
    link, rows = tmp_path / form, random_hashes(10)
    link.symlink_to(tmp_path / "real" / form)
    with pytest.raises(StoreError, match=r"no such store: .*, a link to .*real"):
        imgmatch_df.read_hashes(link)
    with pytest.raises(StoreError, match=r"cannot write into '.*real'"):
        imgmatch_df.write_hashes(rows, link)
    (tmp_path / "real").mkdir()
    assert imgmatch_df.write_hashes(rows, link) == summary(new=10)
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == [form]
    assert imgmatch_df.read_hashes(link).height == 10


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_link_to_itself(tmp_path, form):
    link = tmp_path / form
    link.symlink_to(link)
    for call in (lambda: imgmatch_df.read_hashes(link), lambda: imgmatch_df.write_hashes(random_hashes(1), link)):
        with pytest.raises(StoreError, match="symbolic links"):
            call()
    assert link.is_symlink()


@ON_UNIX
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson", ".json"])
def test_an_output_that_is_a_link(tmp_path, suffix):
    rows = tmp_path / "rows.parquet"
    random_hashes(5).write_parquet(rows)
    link, real = tmp_path / f"out{suffix}", tmp_path / "real" / "out"
    link.symlink_to(real)
    found = run_cli("remove-duplicates", rows, "--radius", 4, "-o", link)
    assert found.exit_code == 2
    assert "no such folder" in found.stderr
    real.parent.mkdir()
    for _ in range(2):  # a dangling link, and one to a file
        assert run_cli("remove-duplicates", rows, "--radius", 4, "-o", link).exit_code == 0
        assert link.is_symlink()
        assert real.stat().st_size > 0
    assert [path.name for path in (real.parent).iterdir()] == ["out"]
    link.unlink()
    link.symlink_to(link)
    found = run_cli("remove-duplicates", rows, "--radius", 4, "-o", link)
    assert found.exit_code == 2
    assert "leads to itself" in found.stderr


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_store_under_two_names_has_one_writer(tmp_path, form, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.0)
    store, alias = tmp_path / form, tmp_path / f"alias-{form}"
    alias.symlink_to(store)
    imgmatch_df.write_hashes(random_hashes(5), store)
    code = (
        "import sys\n"
        "from imgmatch_df.store.open import open_store\n"
        "with open_store(sys.argv[1], write=True):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, alias], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match="in use by"):
            imgmatch_df.write_hashes(random_hashes(5), store)
        child.communicate("\n")
    assert imgmatch_df.write_hashes(random_hashes(6), alias).n_new == 1


# Names.

NAMES = ["x[1]", "s[ab]", "g*", "file:a{b,c} 50%41 ~a=1 it's #\N{SNOWMAN}"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*NAMES, "g?"])
def test_odd_names_of_stores(tmp_path, form, name, monkeypatch):
    """Beside a store that the name matches as a pattern, in whose words the key is another one."""
    suffix = Path(form).suffix
    other = random_hashes(3).rename({"source": "id"})
    for neighbour in () if suffix == ".duckdb" else ("sa", "ga", "x1"):
        imgmatch_df.write_hashes(other, tmp_path / f"{neighbour}{suffix}", key="id")
    rows = random_hashes(10)
    folder = tmp_path / name
    folder.mkdir()
    file = f"{name}{suffix or '-parts'}"
    for store in (folder / file,) if suffix == ".duckdb" else (tmp_path / file, folder / file):
        if "?" in name and suffix == ".duckdb":
            with pytest.raises(ArgumentError, match=r"the path of a .duckdb must not contain '\?'.*\nHint: "):
                imgmatch_df.write_hashes(rows, store)
            assert not store.exists()
            continue
        assert imgmatch_df.write_hashes(rows.head(5), store) == summary(new=5)
        assert imgmatch_df.write_hashes(rows, store) == summary(new=5, skipped=5)
        assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
        assert imgmatch_df.scan_hashes(store).select(pl.len()).collect().item() == 10
        with monkeypatch.context() as patch:
            patch.chdir(store.parent)
            assert imgmatch_df.write_hashes(rows, Path(store.name)).n_skipped == 10
        assert run_cli("export", store, "-o", tmp_path / "out.json").exit_code == 0


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson", ".jsonl", ".json"])
@pytest.mark.parametrize("name", ["x[1]", "g*", "h?", "a{b}"])
def test_odd_names_of_tables(tmp_path, suffix, name):
    folder = tmp_path / name
    folder.mkdir()
    frame, table = pl.DataFrame({"path": ["a.jpg", "b.jpg"]}), folder / f"{name}{suffix}"
    write = {".parquet": "write_parquet", ".csv": "write_csv", ".json": "write_json"}.get(suffix, "write_ndjson")
    getattr(frame, write)(table)
    found = run_cli("visual-hash", table, "-o", folder / f"out{name}.parquet")
    assert found.exit_code == 1, found.stderr  # no row has a hash
    assert pl.read_parquet(folder / f"out{name}.parquet", glob=False).height == 2


# Permissions.


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400])
def test_a_store_keeps_its_permissions(tmp_path, form, mode, monkeypatch):
    monkeypatch.setattr(parquet, "_PART_ROWS", 15)
    store, rows = tmp_path / form, random_hashes(40)
    imgmatch_df.write_hashes(rows.head(20), store)
    for file in files_of(store):
        file.chmod(mode)
    imgmatch_df.write_hashes(rows, store)
    imgmatch_df.write_hashes(rows.with_columns(phash=pl.lit(7, pl.UInt64)), store, prune=True)
    assert len(files_of(store)) == (3 if store.is_dir() else 1)
    assert {mode_of(file) for file in files_of(store)} == {mode}


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_nobody_else_may_read_what_is_being_written(tmp_path, form, monkeypatch):
    """Not the copy, not the log: of every file that is there in any moment, others may read none."""
    folder = tmp_path / "stores"
    folder.mkdir()
    store, rows, seen = folder / form, random_hashes(30), set()
    imgmatch_df.write_hashes(rows.head(20), store)
    for file in files_of(store):
        file.chmod(0o600)
    names = {"fsync": os.fsync, "link": os.link, "replace": os.replace}

    def looked(call):
        def look(*arguments, **options):
            seen.update(
                (path.name, mode_of(path))
                for path in folder.rglob("*")
                if path.is_file() and ".lock" not in path.name and mode_of(path.parent) & 0o077
            )
            return call(*arguments, **options)

        return look

    for name, call in names.items():
        monkeypatch.setattr(os, name, looked(call))
    imgmatch_df.write_hashes(rows, store)
    monkeypatch.undo()
    assert seen
    assert {mode for _, mode in seen} == {0o600}, seen


@ON_UNIX
@pytest.mark.skipif(os.name != "nt" and os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("form", FORMS)
def test_a_store_keeps_its_owner(tmp_path, form):
    store, rows = tmp_path / form, random_hashes(20)
    imgmatch_df.write_hashes(rows.head(10), store)
    for file in files_of(store):
        os.chown(file, 1234, 2345)
        file.chmod(0o640)
    imgmatch_df.write_hashes(rows, store)
    assert {(file.stat().st_uid, file.stat().st_gid, mode_of(file)) for file in files_of(store)} == {
        (1234, 2345, 0o640)
    }


@ON_UNIX
def test_a_group_that_cannot_be_kept_gets_no_rights(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.touch()
    old.chmod(0o664)
    new.chmod(0o600)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    atomic.copy_access(old, new)
    assert mode_of(new) == 0o644
    old.chmod(0o660)
    atomic.copy_access(old, new)
    assert mode_of(new) == 0o600


@ON_UNIX
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson", ".json"])
def test_an_output_keeps_its_permissions(tmp_path, suffix):
    rows, out = tmp_path / "rows.parquet", tmp_path / f"out{suffix}"
    random_hashes(5).write_parquet(rows)
    assert run_cli("remove-duplicates", rows, "--radius", 4, "-o", out).exit_code == 0
    assert mode_of(out) == mode_of(rows)  # a new one has what the umask leaves
    out.chmod(0o600)
    assert run_cli("remove-duplicates", rows, "--radius", 4, "-o", out).exit_code == 0
    assert mode_of(out) == 0o600


# Temporary files and locks.

OTHERS_PLANTED = (".{}.draft", ".{}.draft/{}", ".{}.partial.wal", "{}.wal")
PLANTED = [
    ".{}.partial",
    ".{}.lock",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (".{}.draft", ".{}.draft/{}", ".{}.partial.wal", "{}.wal")
    ),
]


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind", ["link", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("hard link", "dangling link"))]
)
@pytest.mark.parametrize("name", PLANTED)
def test_links_with_the_names_of_temporary_files_are_not_followed(tmp_path, form, kind, name):
    folder, victim, rows = tmp_path / "stores", tmp_path / "victim", random_hashes(10)
    folder.mkdir()
    if kind != "dangling link":
        victim.write_bytes(b"keep me")
    for n_rows in (0, 5):  # a new store, and one that is continued
        store = folder / f"{n_rows}{form}"
        if n_rows:
            imgmatch_df.write_hashes(rows.head(n_rows), store)
        planted = folder / name.format(store.name, store.name)
        planted.parent.mkdir(exist_ok=True)
        if kind == "hard link":
            os.link(victim, planted)
        else:
            planted.symlink_to(victim)
        try:
            written = imgmatch_df.write_hashes(rows, store)
        except StoreError:  # some are refused
            planted.unlink()
            written = imgmatch_df.write_hashes(rows, store)
        assert written.n_new == 10 - n_rows
        assert imgmatch_df.read_hashes(store).height == 10
        assert not store.is_symlink()
        if kind == "dangling link":
            assert not victim.exists()
        else:
            assert victim.read_bytes() == b"keep me"
            assert all(not file.samefile(victim) for file in files_of(store))


@ON_UNIX
def test_a_new_file_is_in_no_place_of_another(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep me")
    for kind in ("link", "hard link", "file"):
        path = tmp_path / kind
        if kind == "link":
            path.symlink_to(tmp_path / "nothing")
        elif kind == "file":
            path.touch()
        else:
            os.link(victim, path)
        with pytest.raises(FileExistsError):
            atomic.open_new(path)
    assert victim.read_bytes() == b"keep me"
    assert not (tmp_path / "nothing").exists()


# Readers beside a writer.


@pytest.mark.parametrize("form", FORMS)
def test_readers_beside_a_writer_see_one_state(tmp_path, form):
    """Each read has the rows of one commit, and never fails."""
    store, rows = tmp_path / form, random_hashes(120)
    imgmatch_df.write_hashes(rows.head(10), store)
    done, wrong, n_reads = threading.Event(), [], 0

    def read():
        nonlocal n_reads
        ways = (
            lambda: imgmatch_df.read_hashes(store).select("source", "phash"),
            lambda: imgmatch_df.scan_hashes(store).select("source", "phash").collect(),
            lambda: imgmatch_df.scan_hashes(store).filter(pl.col("phash") >= 0).select("source", "phash").collect(),
        )
        while not done.is_set():
            for way in ways:
                try:
                    found = way()
                except StoreError as error:
                    wrong.append(str(error))
                    continue
                n_reads += 1
                if found.height % 10 or not found.equals(rows.select("source", "phash").head(found.height)):
                    wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n_rows in range(20, 130, 10):
        imgmatch_df.write_hashes(rows.head(n_rows), store)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert n_reads > 5


# Words.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["a\r\nb", "-- 'a\"b", "a\n'; DROP TABLE hashes; --", "ROW"])
def test_odd_names_of_keys(tmp_path, form, key):
    store, rows = tmp_path / form, random_hashes(10).rename({"source": key})
    assert imgmatch_df.write_hashes(rows.head(5), store, key=key) == summary(new=5)
    assert imgmatch_df.write_hashes(rows, store, key=key) == summary(new=5, skipped=5)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    if form.endswith(".duckdb"):
        with duckdb.connect(str(store), read_only=True) as shell:
            assert len(shell.execute("FROM remove_duplicates(4)").fetchall()) == 10
            assert len(shell.execute("FROM duplicate_clusters(4)").fetchall()) == 10
            assert shell.execute("FROM near_duplicates(0)").fetchall() == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["a\0b", "imgmatch_row", "IMGMATCH_NONE", "__imgmatch_row", "__imgmatch_batch"])
def test_names_that_no_key_has(tmp_path, form, key):
    rows = random_hashes(3).rename({"source": key})
    with pytest.raises(ArgumentError, match=r"key must not contain NUL, or begin with .*\nHint: "):
        imgmatch_df.write_hashes(rows, tmp_path / form, key=key)
    assert not (tmp_path / form).exists()


@pytest.mark.parametrize("form", FORMS)
def test_keys_of_64_bits(tmp_path, form):
    store = tmp_path / form
    ids = pl.Series("id", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], dtype=pl.UInt64)
    rows = random_hashes(5).drop("source").insert_column(0, ids)
    assert imgmatch_df.write_hashes(rows.head(4), store, key="id") == summary(new=4)
    assert imgmatch_df.write_hashes(rows, store, key="id") == summary(new=1, skipped=4)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    small = rows.head(2).cast({"id": pl.Int16})
    assert imgmatch_df.write_hashes(small, store, key="id") == summary(skipped=2)
    assert imgmatch_df.write_hashes(rows[3:], store, key="id", prune="all").n_pruned == 3
    assert imgmatch_df.read_hashes(store)["id"].to_list() == ids[3:].to_list()
    with pytest.raises(ColumnError, match="null or does not fit into 64 bits in 1 rows\nHint: "):
        imgmatch_df.write_hashes(small.with_columns(id=pl.Series([3, -3])), store, key="id")


@pytest.mark.parametrize("form", FORMS)
def test_keys_that_do_not_fit(tmp_path, form):
    store = tmp_path / form
    rows = random_hashes(3).drop("source").with_columns(id=pl.Series([1, 2, 3], dtype=pl.Int32))
    imgmatch_df.write_hashes(rows, store, key="id")
    assert imgmatch_df.read_hashes(store).schema["id"] == pl.Int64
    for dtype in (pl.UInt64, pl.Int128):
        wide = rows.with_columns(id=pl.Series([1, 2, 1 << 63], dtype=dtype))
        with pytest.raises(ColumnError, match="null or does not fit into 64 bits in 1 rows\nHint: "):
            imgmatch_df.write_hashes(wide, store, key="id")
    assert imgmatch_df.write_hashes(rows.cast({"id": pl.UInt64}), store, key="id").n_skipped == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_no_room_for_the_output(tmp_path):
    rows = tmp_path / "rows.parquet"
    random_hashes(2000).write_parquet(rows)
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-c", "from imgmatch_df.cli import main; main()", "remove-duplicates", rows, "--radius=4"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=250, check=False,
        )  # fmt: skip
    assert found.returncode
    assert "there is no room for the output" in found.stderr
    assert "check that the file is complete" not in found.stderr
