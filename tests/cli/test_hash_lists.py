"""Lists of hashes are read as other programs write them, and no line of them is lost without a word."""

import gzip
import json
import random
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df.cli import list_text
from imgmatch_df.cli.hash_lists import open_hash_list
from imgmatch_df.errors import ArgumentError, ColumnError, SourceError
from imgmatch_df.hashes.kinds import KINDS

PDQ, PHASH, SHA256 = KINDS["pdq"], KINDS["phash"], KINDS["sha256"]
RNG = random.Random(17)
HASHES = [RNG.randbytes(32) for _ in range(6)]
HEX = [one.hex() for one in HASHES]
NAMES = ["a.jpg", "b, c.jpg", 'd "e".jpg', "ü f.jpg", "=g.jpg", "h.jpg"]
QUALITY = [100, 0, 49, 50, 77, 3]
MD5 = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def read(tmp_path, capsys):
    """Return a function that writes a list and reads it: the list, and what is printed about it."""

    def write_and_read(text, name="list.csv", kind=PDQ, *, column=None, id_column=None, on_error="null"):
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        found = open_hash_list(str(path), kind, column=column, id_column=id_column, on_error=on_error)
        return found, capsys.readouterr().err

    return write_and_read


def lines(*rows, end="\n"):
    return "".join(f"{row}{end}" for row in rows)


def hashes_of(found, kind=PDQ):
    return found.rows[kind.name].to_list()


# As pdq-photo-hasher (also with --details), threatexchange (hash, dataset -P, -S and --csv) and vpdq write them.
FORMS = {
    "hash": (lines(*HEX), {"hash": HEX}),
    "hash,quality,filename": (
        lines(*(f"{one},{q},{name}" for one, q, name in zip(HEX, QUALITY, NAMES, strict=True))),
        {"hash": HEX, "quality": list(map(str, QUALITY)), "filename": NAMES},
    ),
    "details": (
        lines(
            *(
                f"hash={one},norm=128,delta=4,quality={q},filename={name}"
                for one, q, name in zip(HEX, QUALITY, NAMES, strict=True)
            )
        ),
        {"hash": HEX, "quality": list(map(str, QUALITY)), "filename": NAMES},
    ),
    "hash,metadata": (lines(*(f"{one},idx={place}" for place, one in enumerate(HEX))), {"hash": HEX}),
    "kind hash": (lines(*(f"pdq {one}" for one in HEX)), {"signal_str": HEX}),
    "kind hash details": (lines(*(f"pdq {one} 'My list' FetchedSignalMetadata()" for one in HEX)), {"signal_str": HEX}),
    "kind,hash": (lines(*(f"pdq,{one}" for one in HEX)), {"signal_str": HEX}),
    "dataset": (
        lines("signal_type,signal_str,collab,category,tags", *(f"pdq,{one},C,POSITIVE_CLASS,a b" for one in HEX)),
        {"signal_str": HEX, "tags": ["a b"] * 6},
    ),
    "hash  name": (
        lines(*(f"{one}  {'*' * (place % 2)}{place}, x.jpg" for place, one in enumerate(HEX))),
        {"hash": HEX, "filename": [f"{place}, x.jpg" for place in range(6)]},
    ),
    "te": (lines(*(f"{one},2036544803097374,1600000000,a b" for one in HEX)), {"hash": HEX, "column_4": ["a b"] * 6}),
    "vpdq": (
        lines(*(f"{place},{q},{one},0.{place}" for place, (one, q) in enumerate(zip(HEX, QUALITY, strict=True)))),
        {"hash": HEX, "quality": list(map(str, QUALITY))},
    ),
    "hash,quality with a header": (
        lines("hash,quality", *(f"{one},{q}" for one, q in zip(HEX, QUALITY, strict=True))),
        {"hash": HEX, "quality": list(map(str, QUALITY))},
    ),
    "FilePath,Hash": (
        lines("FilePath,Hash", *(f"x/{place}.jpg,{one}" for place, one in enumerate(HEX))),
        {"Hash": HEX},
    ),
    "semicolons": (lines("Hash;Quality", *(f"{one};100" for one in HEX)), {"Hash": HEX}),
    "tabs": (lines("pdq_hash\tnote", *(f"{one}\tx, y" for one in HEX)), {"pdq_hash": HEX, "note": ["x, y"] * 6}),
    "any name": (lines("what,bad_image", *(f"x,{one}" for one in HEX)), {"bad_image": HEX}),
    "quoted": (lines('"hash","note"', *(f'"{one}","x\n\n# y"' for one in HEX)), {"note": ["x\n\n# y"] * 6}),
    "bits": (lines("hash", *(f"{int(one, 16):0256b}" for one in HEX)), {}),
    "0x": (lines(*(f"0x{one}" for one in HEX)), {}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "change", ["as it is", "upper case", "CRLF", "CR", "BOM", "comments", "gz", "no last line end"]
)
def test_every_form(read, form, change):
    text, columns = FORMS[form]
    name = "list.txt" if change == "as it is" else "list.csv"
    if change == "upper case":
        for one in HEX:
            text = text.replace(one, one.upper())
    elif change in ("CRLF", "CR"):
        text = text.replace("\n", "\r\n" if change == "CRLF" else "\r")
    elif change == "BOM":
        text = f"\ufeff{text}"
    elif change == "comments":
        first, _, rest = text.partition("\n")
        comment = "" if form == "quoted" else "\n#\n   \n  # more"
        text = f"# a list, of the 3rd\n\n{first}{comment}\n{rest}\n\n"
    elif change == "gz":
        name = "list.txt.gz"
    elif change == "no last line end":
        text = text.rstrip("\n")
    found, said = read(text, name)
    assert hashes_of(found) == HASHES
    assert found.n_failed == 0
    assert said == ("" if form != "any name" else said)
    taken = found.take(pl.Series([4, 0, 4]))
    for column, values in columns.items():
        values = [values[4], values[0], values[4]]
        if change == "upper case":
            values = [value.upper() if value.lower() in HEX else value for value in values]
        if change in ("CRLF", "CR"):
            values = [value.replace("\n", "\r\n" if change == "CRLF" else "\r") for value in values]
        assert taken[column].to_list() == values
    if "quality" in columns:
        assert found.rows["quality"].to_list() == QUALITY
        assert found.rows.schema["quality"] == pl.UInt8
    assert (found.id is None) == (not {"filename", "FilePath"} & set(found.columns))


def test_a_banked_list_of_hma(read):
    rows = [{"content_id": 7 + n, "signal_type": "pdq", "signal_value": one} for n, one in enumerate(HEX)]
    rows.insert(1, {"content_id": 1, "signal_type": "video_md5", "signal_value": MD5})
    for name, text in (("a.ndjson", lines(*map(json.dumps, rows))), ("a.json", json.dumps(rows))):
        found, said = read(text, name)
        assert hashes_of(found) == HASHES
        assert found.rows[found.id].to_list() == list(range(7, 13))
        assert "because they have no pdq: 1 rows (video_md5 1)" in said
        assert found.take(pl.Series([1]))["content_id"].to_list() == [8]


def test_signals_of_hma(read):
    rows = [{"id": n, "signals": {"pdq": one, "video_md5": None}} for n, one in enumerate(HEX)]
    rows.append({"id": 9, "signals": {"pdq": None, "video_md5": MD5}})
    found, said = read(lines(*map(json.dumps, rows)), "a.jsonl")
    assert hashes_of(found) == HASHES
    assert "because they have no pdq: 1 rows (other kinds 1)" in said


@pytest.mark.parametrize("word", ["pdq", "PDQ", "HASH_PDQ", "photo-pdq"])
def test_rows_of_other_kinds_are_counted(read, word):
    text = lines("type,indicator", f"HASH_MD5,{MD5}", *(f"{word},{one}" for one in HEX), f"HASH_MD5,{MD5}")
    found, said = read(text)
    assert hashes_of(found) == HASHES
    assert "2 rows (HASH_MD5 2)" in said
    assert found.take(pl.Series([0]))["indicator"].to_list() == [HEX[0]]


def test_a_list_without_the_kind_is_an_error(read):
    with pytest.raises(
        ColumnError, match=r"no row of .* is a pdq: its column 'type' has 'HASH_MD5'\nHint: --hash-type"
    ):
        read(lines("type,indicator", f"HASH_MD5,{MD5}"))
    with pytest.raises(
        ColumnError, match=r"no value in column 'pdq_hash' of .* is a pdq: line 2: '0123.* \(32 characters"
    ):
        read(lines("pdq_hash", MD5))


def test_broken_lines_are_named_and_kept(read):
    broken = ["", HEX[1][:-1], "zz" * 32, f"{HEX[2]}0"]
    text = lines("# x", "hash,quality", f"{HEX[0]},100", *(f"{one},100" for one in broken), f"{HEX[3]},100")
    found, said = read(text)
    assert hashes_of(found) == [HASHES[0], None, None, None, None, HASHES[3]]
    assert found.n_failed == 4
    assert "4 of 6 rows of the list have no readable pdq, and match nothing" in said
    assert "  line 4: no value\n" in said
    assert f"  line 5: '{HEX[1][:-1]}' (63 characters)\n" in said
    assert "  line 7: " in said
    assert "(65 characters)" in said
    with pytest.raises(SourceError, match="has a row without a pdq: line 4: no value\nHint: --on-error null"):
        read(text, on_error="raise")


def test_the_first_line_may_be_the_broken_one(read):
    found, said = read(lines(HEX[0][:-1], *HEX[1:]), "list.txt")
    assert hashes_of(found) == [None, *HASHES[1:]]
    assert "line 1: " in said
    found, said = read(lines("blocked", *HEX), "list.txt")
    assert (hashes_of(found), found.columns) == (HASHES, ["blocked"])
    assert "the first line of" in said
    assert "is read as names of columns: blocked" in said


def test_broken_lines_of_ndjson_have_their_lines(read):
    good = json.dumps({"hash": HEX[0]})
    found, said = read(lines(good, "", json.dumps({"hash": "bad"})), "a.ndjson")
    assert hashes_of(found) == [HASHES[0], None]
    assert "line 3: 'bad' (3 characters)" in said
    with pytest.raises(ArgumentError, match=r"line 2 of .* is not a JSON object: b'\{\"hash\": \\n'\nHint: "):
        read(lines(good, '{"hash": ', good), "a.ndjson")


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_file_without_rows_is_an_error(read, text):
    with pytest.raises(ArgumentError, match="has no rows\nHint: "):
        read(text)


def test_a_header_without_rows_says_so(read):
    found, said = read("hash,quality\n")
    assert (found.rows.height, found.columns) == (0, ["hash", "quality"])
    assert "has no rows, so that nothing can match" in said


def test_several_columns_of_hashes_need_a_name(read):
    text = lines(*(f"{one},{two},5,x.jpg" for one, two in pairwise(HEX)))
    with pytest.raises(ColumnError, match=r"may have the pdq: 'column_1', 'column_2'\nHint: --reference-column names"):
        read(text)
    found, _ = read(text, column="column_2")
    assert hashes_of(found) == HASHES[1:]
    with pytest.raises(ColumnError, match=r"no column 'x' in .*, it has 'column_1', "):
        read(text, column="x")
    with pytest.raises(ColumnError, match=r"no column 'x' in .*\nHint: --reference-id"):
        read(text, column="column_2", id_column="x")


def test_digests_are_no_pdq(read):
    """A SHA-256 has as many digits."""
    assert read(lines("sha256,category", *(f"{one},x" for one in HEX)))[0] is None
    found, _ = read(lines("sha256,pdq", *(f"{two},{one}" for one, two in zip(HEX, HEX[1:] + HEX[:1], strict=True))))
    assert hashes_of(found) == HASHES
    assert found.rows["sha256"].to_list() == HEX[1:] + HEX[:1]
    found, _ = read(lines("hash,note", *(f"{one},x" for one in HEX)), kind=SHA256)
    assert hashes_of(found, SHA256) == HASHES


def test_other_tables_are_no_lists(read, tmp_path):
    assert read(lines("url,category", "http://a/1.jpg,x"))[0] is None
    assert open_hash_list(str(tmp_path), PDQ, column=None, id_column=None, on_error="null") is None
    base64 = "A" * 300_000  # longer than the csv module reads by default
    assert read(lines("image,category", f"{base64},x"))[0] is None


def test_a_quote_that_is_not_closed_is_an_error(read):
    with pytest.raises(ArgumentError, match=r"line 2 of .* has a quote that is not closed: 'x\\n"):
        read(lines("hash,note", f'{HEX[0]},"x', f"{HEX[1]},y", f"{HEX[2]},z"))
    found, _ = read(lines(f'{HEX[0]},100,"x', f"{HEX[1]},100,y"))
    assert found.take(pl.Series([0, 1]))["filename"].to_list() == ['"x', "y"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfeh\0a\0", "is UTF-16"),
        (f"{HEX[0]},1,".encode() + b"\xff.jpg\n", "is not UTF-8 after line 0"),
        (lines("hash,hash", f"{HEX[0]},{HEX[1]}").encode(), "has more than one column named 'hash'"),
    ],
)
def test_unreadable_files_say_why(read, data, message):
    with pytest.raises((ArgumentError, ColumnError), match=message):
        read(data)


def test_a_cut_gz_is_an_error(tmp_path):
    path = tmp_path / "cut.txt.gz"
    path.write_bytes(gzip.compress(lines(*(RNG.randbytes(32).hex() for _ in range(2000))).encode())[:-2000])
    with pytest.raises(ArgumentError, match="cannot be decompressed"):
        open_hash_list(str(path), PDQ, column=None, id_column=None, on_error="null")


def test_a_quality_that_is_none_is_not_used(read):
    found, said = read(lines("hash,quality", f"{HEX[0]},high", f"{HEX[1]},5"))
    assert found.rows["quality"].to_list() == [None, None]
    assert "the column of qualities is not used" in said
    found, said = read(lines("hash,quality", f"{HEX[0]},", f"{HEX[1]},5"))
    assert (found.rows["quality"].to_list(), said) == ([None, 5], "")


NUMBERS = [1, 1 << 63, (1 << 64) - 1, 1234567890123456]


@pytest.mark.parametrize(
    ("values", "is_hex"),
    [
        ([f"{one:016x}" for one in NUMBERS], True),
        ([str(one) for one in NUMBERS], False),
        ([str(one - (1 << 64) if one >> 63 else one) for one in NUMBERS], False),
        ([f"{one:064b}" for one in NUMBERS], False),
    ],
)
def test_phashes_of_other_programs(read, values, is_hex, tmp_path):
    found, _ = read(lines("hash,note", *(f"{one},x" for one in values)), kind=PHASH)
    assert hashes_of(found, PHASH) == NUMBERS
    found, _ = read(lines("my_phash,note", *(f"{one},x" for one in values)), kind=PHASH, column="my_phash")
    assert hashes_of(found, PHASH) == NUMBERS
    unnamed, _ = read(lines("what,note", *(f"{one},x" for one in values)), kind=PHASH)
    assert (unnamed is None) == (not is_hex and len(values[0]) != 64)  # whole numbers may be ids


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int64])
def test_hashes_of_parquet(tmp_path, dtype):
    numbers = pl.Series(NUMBERS, dtype=pl.UInt64)
    path = str(tmp_path / "list.parquet")
    column = numbers if dtype == pl.UInt64 else numbers.reinterpret(signed=True)
    pl.DataFrame({"hash": column, "tags": [[n] for n in range(4)], "blob": [b"x"] * 4}).write_parquet(path)
    found = open_hash_list(path, PHASH, column=None, id_column=None, on_error="null")
    assert hashes_of(found, PHASH) == NUMBERS
    assert found.columns == ["hash", "tags"]
    pl.DataFrame({"fingerprint": HASHES, "note": ["x"] * 6}).write_parquet(path)
    found = open_hash_list(path, PDQ, column=None, id_column=None, on_error="null")
    assert hashes_of(found) == HASHES


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8), min_size=1, max_size=20),
    st.lists(st.integers(0, 19), max_size=30),
)
def test_values_come_back_for_any_rows(tmp_path_factory, notes, wanted):
    """Also where they are in several batches."""
    import csv

    from imgmatch_df.cli import hash_lists

    path = tmp_path_factory.mktemp("lists") / "list.csv"
    rows = [(RNG.randbytes(32).hex(), note) for note in notes]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("hash", "note"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hash_lists, "_ROWS_PER_BATCH", 3)
        found = open_hash_list(str(path), PDQ, column=None, id_column=None, on_error="null")
        wanted = [place for place in wanted if place < len(rows)]
        assert found.rows["pdq"].to_list() == [bytes.fromhex(one) for one, _ in rows]
        assert found.take(pl.Series(wanted, dtype=pl.Int64)).rows() == [rows[place] for place in wanted]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*HEX, "", "#x", " ", "\t", "zz", "a,b", "ü", "\r", '"', ",", "0,1,2,3,4"]), max_size=12)
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [f"{HEX[0]},100,a.jpg", "hash,quality,name", HEX[0]])
def test_the_fast_and_the_slow_reader_agree(tmp_path_factory, start, end, parts):
    """Of files that Polars may divide, both give the same rows, in whatever chunks the file is looked at."""
    path = tmp_path_factory.mktemp("lists") / "list.csv"
    path.write_bytes("".join(f"{part}{end}" for part in (start, *(f"{part},{part}" for part in parts))).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_text, "_CHUNK_BYTES", 3)
        text = list_text.ListText(str(path), PDQ)
        frames = list(text.batches(4, "line"))
    slow = list(text.rows())
    found = [(row["line"], [row[name] for name in text.columns]) for frame in frames for row in frame.rows(named=True)]
    assert found == slow
