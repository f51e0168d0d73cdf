"""A radius, or a cluster, that joins unrelated images is warned of with numbers, at the line that made the call."""

import subprocess
import sys
from inspect import currentframe

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg

import imgmatch_df
from imgmatch_df import ImgMatchWarning
from imgmatch_df.errors import without_warnings
from imgmatch_df.hashes.kinds import KINDS

ENGINES = ["in-memory", "streaming"]


def frame_of(hashes):
    return pl.DataFrame({"phash": pl.Series(hashes, dtype=pl.UInt64)})


def apart(n, seed=0):
    """Hashes of which no two are within 8 bits."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < n:
        value = int(rng.integers(0, 2**64, dtype=np.uint64))
        if all((value ^ other).bit_count() > 8 for other in found):
            found.append(value)
    return found


RADIUS_VERBS = {
    "near_duplicates": lambda data, n, kind, other: data.imgmatch.near_duplicates(n, kind),
    "explain": lambda data, n, kind, other: data.imgmatch.explain_near_duplicates(n, kind),
    "match": lambda data, n, kind, other: data.imgmatch.match(other, n, kind),
    "cluster": lambda data, n, kind, other: data.imgmatch.cluster(n, kind),
    "remove_duplicates": lambda data, n, kind, other: data.imgmatch.remove_duplicates(n, kind),
    "function": lambda data, n, kind, other: imgmatch_df.cluster(data, n, kind, reference=other),
}


@pytest.mark.parametrize("verb", RADIUS_VERBS)
@pytest.mark.parametrize("hash_type", ["bmh1", "phash", "pdq", "imagehash_ahash"])
def test_a_radius_beyond_the_honest_range_warns_when_the_call_is_built(hash_type, verb):
    kind, call = KINDS[hash_type], RADIUS_VERBS[verb]
    values = [1, 2] if kind.is_number else [bytes(kind.n_bytes), b"\1" * kind.n_bytes]
    frame = pl.DataFrame({hash_type: pl.Series(values, dtype=kind.dtype)})
    for data in (frame, frame.lazy()):
        call(data, kind.max_honest_radius, hash_type, frame)  # -W error: no warning
        with pytest.warns(ImgMatchWarning) as caught:
            call(data, kind.max_honest_radius + 1, hash_type, frame)
        (one,) = caught
        message = str(one.message)
        assert f"a radius of {kind.max_honest_radius + 1} of {kind.n_bits} bits" in message
        assert f"up to {kind.max_honest_radius} bits" in message
        assert f"\nHint: radius={kind.near_radius} " in message
        assert one.filename == __file__


def test_the_warning_points_at_the_line_of_the_call():
    frame = frame_of([1, 2])
    calls = (
        lambda: (currentframe().f_lineno, frame.imgmatch.cluster(17, "phash")),
        lambda: (currentframe().f_lineno, imgmatch_df.match(frame.lazy(), frame, 17, "phash")),
        lambda: (currentframe().f_lineno, frame.lazy().imgmatch.remove_duplicates(17, "phash").collect()),
    )
    for call in calls:
        with pytest.warns(ImgMatchWarning) as caught:
            line, _ = call()
        assert {(one.filename, one.lineno) for one in caught} == {(__file__, line)}


def verbs(data, radius):
    yield lambda: data.imgmatch.cluster(radius, "phash")
    yield lambda: data.imgmatch.remove_duplicates(radius, "phash")


@pytest.mark.parametrize("n_rows", [50, 51, 112])
def test_a_cluster_of_more_than_a_tenth_of_more_than_fifty_rows_warns(n_rows):
    for n_large in (n_rows // 10, n_rows // 10 + 1, n_rows):
        chain = [(1 << step) - 1 for step in range(1, 1 + min(n_large, 60))]
        chain += [chain[-1] ^ (1 << 63 - step % 3) for step in range(n_large - len(chain))]
        hashes = chain + apart(n_rows - n_large)
        frame = frame_of([*hashes, None, None])
        for call in verbs(frame, 1):
            if n_rows <= 50 or n_large * 10 <= n_rows:
                call()
                continue
            with pytest.warns(ImgMatchWarning) as caught:
                call()
            farthest = max((value ^ hashes[0]).bit_count() for value in chain)
            (message,) = [str(one.message) for one in caught]
            assert (
                f"{n_large} of {n_rows} rows are one cluster, farthest {farthest} bits: a radius of 1 of 64 bits"
                in message
            )
            assert "\nHint: " in message


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lazy_verb_warns_when_it_runs(engine):
    frame = frame_of([*range(16, 32), *apart(60)])
    for make in (
        lambda: frame.lazy().imgmatch.cluster(8, "phash"),
        lambda: frame.lazy().imgmatch.remove_duplicates(8, "phash", keep="last"),
    ):
        lazy = make()  # -W error
        lazy.collect_schema()
        with pytest.warns(ImgMatchWarning, match="16 of 76 rows are one cluster, farthest 4 bits.*\nHint: radius=4 "):
            lazy.collect(engine=engine)
        # As an error, which `-W error` makes of it here.
        with pytest.raises((ImgMatchWarning, pl.exceptions.ComputeError), match="16 of 76 rows are one cluster"):
            lazy.collect(engine=engine)


def test_equal_hashes_are_said_to_be_equal():
    others = apart(60)
    for hashes, radius, text in (
        ([8] * 40, 0, "40 of 100 rows have equal hashes: images with little to see, such as blank ones, or one image"),
        ([8] * 40, 4, "40 of 100 rows have equal hashes"),
        ([8] * 40 + [9, 10], 4, "42 of 102 rows are one cluster, 40 with equal hashes"),
    ):
        for call in verbs(frame_of(hashes + others), radius):
            with pytest.warns(ImgMatchWarning, match=text) as caught:
                call()
            assert "unrelated" not in str(caught[0].message)
            assert "\nHint: look at some of them" in str(caught[0].message)


def test_the_hint_can_be_followed():
    frame = frame_of([*range(16, 32), *apart(60)])
    with pytest.warns(ImgMatchWarning, match="Hint: radius=4 finds edited copies"):
        frame.imgmatch.cluster(5, "phash")
    with pytest.warns(ImgMatchWarning, match="Hint: linkage='star' does not chain"):
        frame.imgmatch.cluster(4, "phash")
    with pytest.warns(ImgMatchWarning, match="Hint: near_duplicates gives the distance"):
        frame.imgmatch.cluster(4, "phash", linkage="star")


def test_rows_that_match_known_ones_are_no_cluster():
    frame = frame_of([*[8] * 30, *apart(60, seed=3)])
    found = frame.imgmatch.cluster(0, "phash", reference=frame_of([8]))  # -W error
    assert found["reference_id"].count() == 30


def test_silence():
    frame = frame_of([8] * 60)
    with without_warnings():
        frame.imgmatch.remove_duplicates(20, "phash")
    with pytest.warns(ImgMatchWarning):
        frame.imgmatch.remove_duplicates(20, "phash")


def test_a_program_sees_the_line_of_its_own(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import polars as pl, imgmatch_df\n"
        'frame = pl.DataFrame({"phash": [1, 2]}, schema={"phash": pl.UInt64})\n'
        'frame.imgmatch.cluster(20, "phash")\n'
    )
    done = subprocess.run([sys.executable, program], check=True, capture_output=True, text=True)
    assert done.stderr.startswith(f"{program}:3: ImgMatchWarning: a radius of 20 of 64 bits")
    assert done.stderr.count("ImgMatchWarning") == 1


def test_the_command_says_it_once_and_without_a_line_of_the_program(tmp_path):
    frame_of([0, 1]).write_parquet(tmp_path / "in.parquet")
    words = ["remove-duplicates", "in.parquet", "--radius", "20", "-o", "o.csv"]
    command = "from imgmatch_df.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", command, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: a radius of 20 of 64 bits")
    assert done.stderr.count("a radius of") == 1
    assert ".py" not in done.stderr


def test_the_documented_service_is_silent():
    from imgmatch_df.server import handlers

    data = jpeg(draw(1, 60, 60))
    row = pl.DataFrame({"url": [data]}).imgmatch.visual_hash().row(0, named=True)
    request = imgmatch_df.documented.Request(rows=[], hash_types=("phash",), radius=64, query=None)
    kept = handlers._remove_duplicates([{**row, "_record": {}}] * 60, request)  # -W error
    assert len(kept) == 1
