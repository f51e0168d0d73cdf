"""What is listed of tar and zip archives, and where each member is."""

import io
import os
import random
import struct
import tarfile
import warnings
import zipfile
import zlib

import polars as pl
import pytest
from archives import add, image, write_tar, write_zip

import imgmatch_df
from imgmatch_df.archives import index, tar
from imgmatch_df.archives.contents import CUT
from imgmatch_df.archives.tar import list_tar
from imgmatch_df.fetching.read import read_source
from imgmatch_df.images import scan
from imgmatch_df.options import Options

FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(source, **options):
    frame = imgmatch_df.scan_images(source, **options).collect()
    assert frame.schema == imgmatch_df.scan_images(source, **options).collect_schema()
    return frame


def read(path, **options):
    return read_source(path, Options(**options))


def contents_of(path):
    with path.open("rb") as file:
        return list_tar(file.fileno(), path.stat().st_size)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_tar_of_samples(here, format_):
    images = {f"d/{number:04}.JPG": image(number) for number in range(4)}
    members = {name: data for key, data in images.items() for name, data in ((key, data), (key[:-3] + "json", b"{}"))}
    path = write_tar(here / "0.tar", members, format_)
    frame = listed("*.tar", sample_keys=True)
    assert frame["path"].to_list() == [f"0.tar/{name}" for name in images]
    assert frame["size"].to_list() == list(map(len, images.values()))
    assert frame["key"].to_list() == [name[:-4] for name in images]
    assert (frame["modified"].dt.epoch("us") == path.stat().st_mtime_ns // 1000).all()
    assert [read(path) for path in frame["path"]] == list(images.values())
    assert read("0.tar/d/0000.json") == b"{}"
    assert imgmatch_df.count_left_out("0.tar").rows() == [("other_file", ".json", 4)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip(here, method):
    images = {"ä/1.jpg": image(1), "2.png": image(2)}
    path = write_zip(here / "a.zip", images, method)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("folder.jpg/", b"")
    frame = listed("a.zip")
    assert frame["path"].to_list() == ["a.zip/ä/1.jpg", "a.zip/2.png"]
    assert frame["size"].to_list() == list(map(len, images.values()))
    assert [read(path) for path in frame["path"]] == list(images.values())


def test_names_in_a_zip_do_not_depend_on_the_version_of_python(here):
    """UTF-8 with its flag, without it, in the field of Info-ZIP, and code page 437."""

    class Raw(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):  # of zipfile
            return self.filename.encode("latin-1"), self.flag_bits & ~0x800

    expected = ["flag é.jpg", "no flag é.jpg", "field é.jpg", "437 é.jpg", "lie Θ.jpg"]
    raw = [None, "no flag é.jpg".encode(), b"field \x82.jpg", b"437 \x82.jpg", b"lie \xe9.jpg"]
    with zipfile.ZipFile("a.zip", "w") as archive:
        for number, (name, data) in enumerate(zip(expected, raw, strict=True)):
            info = zipfile.ZipInfo(name) if data is None else Raw(data.decode("latin-1"))
            if name.startswith(("field", "lie")):
                crc = zlib.crc32(data) ^ name.startswith("lie")
                field = b"\1" + crc.to_bytes(4, "little") + name.encode()
                info.extra = struct.pack("<HH", 0x7075, len(field)) + field
            archive.writestr(info, image(number))
    assert listed("a.zip")["path"].to_list() == [f"a.zip/{name}" for name in expected]
    assert [read(f"a.zip/{name}") for name in expected] == list(map(image, range(5)))


def test_a_part_of_a_split_zip(here):
    path = write_zip(here / "a.zip", {"a.jpg": image(1)})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 34] = 1
    path.write_bytes(data)
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="a part of a split zip archive"):
        assert collect("a.zip").is_empty()


def test_a_zip_after_other_bytes_and_with_large_offsets(here):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as member:
        member.write(image(1))
    (here / "a.zip").write_bytes(b"#!/bin/sh\n" * 100 + stream.getvalue())
    assert read("a.zip/a.jpg") == image(1)


def test_every_header_is_listed_as_tarfile_lists_it(here):
    """Names and numbers of every form, read here or by tarfile: the same files at the same places."""
    rng = random.Random(5)
    letters = ["a", "b/", "é", "ü", ".", " ", "\udcff", "'", "x" * 30]
    for format_ in FORMATS:
        path = here / f"{format_}.tar"
        # Without an encoding the names stay bytes, as GNU tar writes them.
        with tarfile.open(path, "w", format=format_, encoding="utf-8", errors="surrogateescape") as archive:
            for number in range(120):
                name = "".join(rng.choices(letters, k=rng.randint(0, 8))) + f"{number}.jpg"
                if format_ == tarfile.USTAR_FORMAT and (len(name) > 60 or not name.isascii()):
                    name = f"{number}.jpg"
                if "\udcff" in name and format_ == tarfile.PAX_FORMAT:
                    name = name.replace("\udcff", "")
                facts = {"uid": rng.choice([0, 3_000_000_000]) if format_ != tarfile.USTAR_FORMAT else 0}
                if format_ == tarfile.PAX_FORMAT and number % 3 == 0:
                    facts["pax_headers"] = {"comment": "size=9\nß", "SCHILY.xattr.user.a": "path=b"}
                add(archive, name, rng.randbytes(rng.choice([0, 1, 511, 512, 513, 3000])), **facts)
        with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
            expected = [(member.name, member.offset_data, member.size) for member in archive]
        found = contents_of(path)
        assert list(zip(found.names, found.offset, found.size, strict=True)) == expected
        assert found.note is None


def test_usual_headers_are_not_left_to_tarfile(here, monkeypatch):
    monkeypatch.setattr(tar, "_open_part", lambda _: pytest.fail("tarfile reads a usual header"))
    for format_ in FORMATS:
        path = write_tar(here / "a.tar", {"a.jpg": image(1), "b.jpg": image(2)}, format_)
        assert contents_of(path).names == ["a.jpg", "b.jpg"]
    write_tar(here / "long.tar", {"é" + "l" * 200: b"1"})
    assert contents_of(here / "long.tar").names == ["é" + "l" * 200]


def test_members_of_one_name_are_all_listed(here):
    for name in ("a.tar", "a.zip"):
        members = [("x.jpg", 1), (";1/x.jpg", 2), ("./x.jpg", 3), ("x.jpg", 4)]
        if name == "a.tar":
            with tarfile.open(name, "w") as archive:
                for member, seed in members:
                    add(archive, member, image(seed))
        else:
            with zipfile.ZipFile(name, "w") as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of zipfile, about the second name
                for member, seed in members:
                    archive.writestr(member, image(seed))
        paths = [f"{name}/;2/x.jpg", f"{name}/;1/x.jpg", f"{name}/;3/x.jpg", f"{name}/x.jpg"]
        assert listed(name)["path"].to_list() == paths
        assert [read(path) for path in paths] == [image(seed) for _, seed in members]


def test_links_in_a_tar(here):
    with tarfile.open("a.tar", "w") as archive:
        add(archive, "d/a.jpg", image(1))
        add(archive, "hard.jpg", type=tarfile.LNKTYPE, linkname="d/a.jpg")
        add(archive, "d/a.jpg", image(2))
        add(archive, "e/soft.jpg", type=tarfile.SYMTYPE, linkname="../d/a.jpg")
        add(archive, "twice.jpg", type=tarfile.SYMTYPE, linkname="e/soft.jpg")
        add(archive, "early.jpg", type=tarfile.LNKTYPE, linkname="late.jpg")
        add(archive, "late.jpg", image(3))
        add(archive, "loop.jpg", type=tarfile.SYMTYPE, linkname="loop.jpg")
        add(archive, "out.jpg", type=tarfile.SYMTYPE, linkname="/etc/hostname")
        add(archive, "up.jpg", type=tarfile.SYMTYPE, linkname="../../d/a.jpg")
        add(archive, "device.jpg", type=tarfile.CHRTYPE)
        add(archive, "folder.jpg", type=tarfile.DIRTYPE)
    seeds = {"hard": 1, "e/soft": 2, "twice": 2, "late": 3}
    broken = ["early", "loop", "out", "up"]
    frame = listed("a.tar")
    assert {path: size for path, size in frame.select("path", "size").iter_rows() if "d/a" not in path} == {
        **{f"a.tar/{name}.jpg": len(image(seed)) for name, seed in seeds.items()},
        **{f"a.tar/{name}.jpg": None for name in broken},
    }
    for name, seed in seeds.items():
        assert read(f"a.tar/{name}.jpg") == image(seed)
    for name in broken:
        assert read(f"a.tar/{name}.jpg").status == "not_found"
    assert imgmatch_df.count_left_out("a.tar").rows() == [("other_file", "", 1)]


def test_links_in_a_zip(here):
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/a.jpg", image(1))
        for name, target in (("soft.jpg", "d/a.jpg"), ("out.jpg", "/etc/hostname")):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, target)
    assert listed("a.zip")["size"].to_list() == [len(image(1)), len(image(1)), None]
    assert read("a.zip/soft.jpg") == image(1)
    assert read("a.zip/out.jpg").status == "not_found"


def test_a_sparse_file(here):
    """The oldest form of GNU tar, written by hand: a hole of 4,096 bytes, then the image."""
    data = image(1)
    info = tarfile.TarInfo("a.jpg")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"%011o\0" % len(data)
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (4096, len(data))
    header[483:495] = b"%011o\0" % (4096 + len(data))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    others = write_tar(here / "b.tar", {"b.jpg": image(2)}).read_bytes()
    (here / "a.tar").write_bytes(bytes(header) + data + bytes(-len(data) % 512) + others)
    assert listed("a.tar")["size"].to_list() == [4096 + len(data), len(image(2))]
    assert read("a.tar/a.jpg") == bytes(4096) + data
    assert read("a.tar/b.jpg") == image(2)
    assert read("a.tar/a.jpg", max_bytes=4096).status == "too_many_bytes"


def test_a_cut_tar_lists_what_is_whole_and_says_so(here):
    path = write_tar(here / "a.tar", {f"{number}.jpg": image(number) for number in range(3)}, tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    ends = contents_of(path).offset[2]
    for n_bytes, n_whole, note in (
        (ends + 100, 2, "it is cut within '2.jpg'"),
        (ends - 100, 2, "it is cut or damaged at byte"),
        (ends - 512, 2, "it has no end mark"),
        (ends + len(image(2)), 3, "it is cut"),
    ):
        path.write_bytes(whole[:n_bytes])
        with pytest.warns(imgmatch_df.ImgMatchWarning, match=f"cannot list the rest of 'a.tar' .{note}"):
            frame = collect("a.tar")
        assert sum(isinstance(read(one), bytes) for one in frame["path"]) == n_whole
    path.write_bytes(whole[: ends + 100])
    assert contents_of(path).kind[-1] == CUT
    assert read("a.tar/2.jpg").detail.startswith("the archive is cut: it has 100 of")


def collect(source):
    return imgmatch_df.scan_images(source).collect()


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.tar", b"", "zero bytes"),
        ("a.tar", b"no tar" * 500, "not a tar archive"),
        ("a.cbt", b"\x1f\x8b" + bytes(600), "a compressed tar, decompress it"),
        ("a.zip", b"", "not a whole zip archive"),
        ("a.cbz", b"PK\3\4" + bytes(600), "not a whole zip archive"),
    ],
)
def test_what_is_no_archive_is_named(here, name, data, word):
    (here / name).write_bytes(data)
    write_zip(here / "b.zip", {"b.jpg": image(1)})
    with pytest.warns(imgmatch_df.ImgMatchWarning, match=f"cannot list '{name}' .{word}"):
        assert collect([name, "b.zip"])["path"].to_list() == ["b.zip/b.jpg"]
    assert word in read(f"{name}/a.jpg").detail
    assert read(f"{name}/a.jpg").status == "fetch_failed"
    with pytest.raises(imgmatch_df.ArgumentError, match=f"cannot list '{name}' .{word}"):
        scan.list_images([name])


def test_empty_archives_and_a_second_archive(here):
    (here / "a.tar").write_bytes(bytes(10240))
    write_zip(here / "a.zip", {})
    assert listed(["a.tar", "a.zip"]).is_empty()
    one = write_tar(here / "1.tar", {"a.jpg": image(1)}).read_bytes()
    (here / "2.tar").write_bytes(one + one)
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="perhaps of a second archive"):
        assert collect("2.tar").height == 1


def test_archives_in_a_folder_are_counted_and_opened_only_by_name(here):
    (here / "photos").mkdir()
    (here / "photos" / "a.jpg").write_bytes(image(1))
    write_zip(here / "photos" / "b.ZIP", {"b.jpg": image(2)})
    with pytest.warns(imgmatch_df.ImgMatchWarning, match=r"left out 1 archive\n"):
        assert collect("photos")["path"].to_list() == ["photos/a.jpg"]
    assert imgmatch_df.count_left_out("photos").rows() == [("archive", ".zip", 1)]
    with pytest.warns(imgmatch_df.ImgMatchWarning):
        both = collect(["photos", "photos/*.zip"])
    assert both["path"].to_list() == ["photos/a.jpg", "photos/b.ZIP/b.jpg"]
    (here / "photos" / "a.jpg").unlink()
    with pytest.raises(imgmatch_df.ArgumentError, match=r"2 archives|1 archive\nHint: name the archives: 'photos/"):
        scan.list_images(["photos"])
    (here / "x.tar").mkdir()
    (here / "x.tar" / "a.jpg").write_bytes(image(1))
    assert listed("x.tar")["path"].to_list() == ["x.tar/a.jpg"]
    assert read("x.tar/a.jpg") == image(1)


def test_compressed_tars_are_refused_with_a_hint(here):
    (here / "a.tar.gz").write_bytes(b"")
    for source in ("a.tar.gz", "*.tar.gz"):
        with pytest.raises(imgmatch_df.ArgumentError, match=r"is a compressed tar\nHint: decompress it"):
            imgmatch_df.scan_images(source)
    assert read("a.tar.gz/a.jpg").status == "bad_source"
    write_zip(here / "b.zip", {"b.jpg": image(1)})
    with pytest.raises(imgmatch_df.ArgumentError, match=r"no such file.*\nHint: 'b.zip' lists all images"):
        imgmatch_df.scan_images("b.zip/b.jpg")


def test_batches_slices_and_columns(here, monkeypatch):
    monkeypatch.setattr(scan, "_BATCH_ROWS", 3)
    for name in ("a.tar", "c.tar"):
        write_tar(here / name, {f"{number}.jpg": image(1) for number in range(7)})
    (here / "b.jpg").write_bytes(image(2))
    lazy = imgmatch_df.scan_images(["a.tar", "b.jpg", "c.tar"], sample_keys=True)
    whole = lazy.collect()
    assert whole.height == 15
    assert whole["key"].to_list() == [*map(str, range(7)), None, *map(str, range(7))]
    for engine in ("in-memory", "streaming"):
        for n_rows in (0, 1, 3, 8, 12, 99):
            assert lazy.head(n_rows).collect(engine=engine).equals(whole.head(n_rows))
        assert lazy.select("size").collect(engine=engine).equals(whole.select("size"))
        wanted = pl.col("path").str.ends_with("6.jpg")
        assert lazy.filter(wanted).collect(engine=engine).equals(whole.filter(wanted))


def test_the_index_is_made_once_and_bounded(here, monkeypatch):
    index._kept.clear()
    made = []
    monkeypatch.setattr(index, "list_tar", lambda *args: made.append(args) or list_tar(*args))
    for name in ("a.tar", "b.tar"):
        write_tar(here / name, {f"{number}.jpg": image(number) for number in range(20)})
    frame = imgmatch_df.scan_images("*.tar")
    assert frame.select(pl.col("path").imgmatch.phash().is_not_null().all()).collect().item()
    assert len(made) == 2
    index._kept.clear()
    paths = listed("*.tar")["path"].shuffle(seed=1)
    index._kept.clear()
    made.clear()
    assert paths.imgmatch.phash().null_count() == 0
    assert len(made) == 2
    monkeypatch.setattr(index, "_MAX_MEMBERS", 20)
    write_tar(here / "c.tar", {f"{number}.jpg": image(number) for number in range(30)})
    assert read("c.tar/29.jpg") == image(29)
    assert list(map(len, index._kept.values())) == [30]


def test_a_changed_archive_is_listed_again(here):
    path = write_tar(here / "a.tar", {"a.jpg": image(1), "b.jpg": image(2)})
    lazy = imgmatch_df.scan_images("a.tar")
    paths = lazy.collect()["path"]
    write_tar(path, {"c.jpg": image(3), "b.jpg": image(4)})
    os.utime(path, ns=(1, 1))
    assert read(paths[0]).status == "not_found"
    assert read(paths[1]) == image(4)
    path.unlink()
    assert read(paths[1]).status == "not_found"
    with pytest.raises((imgmatch_df.ArgumentError, pl.exceptions.ComputeError)):  # Polars 1.40 wraps it
        lazy.collect()


@pytest.mark.parametrize("size", ["-512", "-1", "99999999999999999999", "9" * 400, str(2**62), "1e3", ""])
def test_sizes_that_no_file_has(here, size):
    with tarfile.open("a.tar", "w") as archive:
        add(archive, "a.jpg", image(1))
        add(archive, "b.jpg", image(2), pax_headers={"size": size})
        add(archive, "c.jpg", image(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = collect("a.tar")
    assert frame["path"][0] == "a.tar/a.jpg"
    assert read("a.tar/a.jpg") == image(1)
    for path in frame["path"][1:]:
        found = read(path)
        assert found in (image(2), image(3)) or found.status in ("fetch_failed", "missing")
    assert len(caught) <= 1


def test_binary_numbers(here):
    """A negative size in base 256, which sends a reader back, and one of 2**90."""
    whole = write_tar(here / "a.tar", {"a.jpg": image(1), "b.jpg": image(2)}, tarfile.GNU_FORMAT).read_bytes()
    at = contents_of(here / "a.tar").offset[1] - 512
    for field in ((2**96 - 4096).to_bytes(12, "big"), b"\x80" + (2**80).to_bytes(11, "big")):
        header = bytearray(whole[at : at + 512])
        header[124:136] = field
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (here / "a.tar").write_bytes(whole[:at] + bytes(header) + whole[at + 512 :])
        with pytest.warns(imgmatch_df.ImgMatchWarning, match="cannot list the rest of"):
            assert collect("a.tar")["path"][0] == "a.tar/a.jpg"


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_rules_of_a_listing_apply_in_archives(here, write):
    """A zip of macOS has a hidden file beside each image."""
    names = ["a.jpg", "__MACOSX/._a.jpg", ".b.jpg", ".hidden/c.png", "previews/d.JPG", "e.gif"]
    path = write(here / "x.zip" if write is write_zip else here / "x.tar", {name: image(1) for name in names})

    def found(**options):
        rows = imgmatch_df.scan_images(path.name, **options).collect()
        return {one.removeprefix(f"{path.name}/") for one in rows["path"]}

    with pytest.warns(imgmatch_df.ImgMatchWarning, match="3 hidden files"):
        assert found() == {"a.jpg", "previews/d.JPG", "e.gif"}
    assert found(hidden=True) == set(names)
    for exclude, left in (
        ("previews", {"a.jpg", "e.gif"}),
        (["*.jpg", "e.*"], set()),
        ("/a.jpg", {"previews/d.JPG", "e.gif"}),
    ):
        with pytest.warns(imgmatch_df.ImgMatchWarning, match="hidden file"):
            assert found(exclude=exclude) == left
    counts = imgmatch_df.count_left_out(path.name, exclude="previews").rows()
    assert sorted(counts) == [("excluded_file", ".jpg", 1), ("hidden_file", ".jpg", 2), ("hidden_file", ".png", 1)]
