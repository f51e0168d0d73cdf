"""Lists that the Python package of ThreatExchange writes give the matches that its own index finds."""

import contextlib
import csv
import io
import sys
import warnings
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

from imgmatch_df.cli.app import app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SWIG, which faiss is built with
    from threatexchange.cli.dataset.simple_serialization import CliIndicatorSerialization
    from threatexchange.cli.dataset_cmd import DatasetCommand
    from threatexchange.exchanges.clients.fb_threatexchange.descriptor import SimpleDescriptorRollup
    from threatexchange.exchanges.fetch_state import FetchedSignalMetadata
    from threatexchange.signal_type.md5 import VideoMD5Signal
    from threatexchange.signal_type.pdq.signal import PdqSignal

pytestmark = pytest.mark.packages

N_KNOWN = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An inbox with copies of known images, and other images."""
    root = tmp_path_factory.mktemp("inbox")
    for seed in range(N_KNOWN):
        pixels = draw(seed, 400, 300)
        (root / f"{seed}.jpg").write_bytes(jpeg(pixels[::2, ::2] if seed % 2 else pixels, quality=70))
        (root / f"other {seed}.jpg").write_bytes(jpeg(draw(100 + seed, 300, 200)))
    return root


@pytest.fixture(scope="module")
def known():
    """The hashes that ThreatExchange computes; it has none of images with a quality below 50."""
    hashes = {f"known {seed}": PdqSignal.hash_from_bytes(jpeg(draw(seed, 400, 300))) for seed in range(N_KNOWN)}
    return {name: one for name, one in hashes.items() if one}


def printed(known, *, print_csv=False, only_signals=False):
    """Return what `threatexchange dataset -P` prints, with its own functions."""
    command = DatasetCommand(print_signals=True, print_signals_only=only_signals, csv=print_csv)
    metadata = FetchedSignalMetadata()
    signals = [*((PdqSignal, one) for one in known.values()), (VideoMD5Signal, "0" * 32)]
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        if print_csv:
            writer = csv.DictWriter(sys.stdout, ["signal_type", "signal_str", "collab", "category", "tags"])
            writer.writeheader()
            for kind, one in signals:
                command._print_csv(writer, "My list", kind, one, metadata)
        else:
            for kind, one in signals:
                command._print_stdout("My list", kind, one, metadata)
    return stream.getvalue()


def write_te(known, folder):
    rollup = SimpleDescriptorRollup(2036544803097374, "2024-01-02T03:04:05+0000", {"tag", "other_tag"})
    items = [CliIndicatorSerialization("HASH_PDQ", one, rollup) for one in known.values()]
    (path,) = CliIndicatorSerialization.store(folder, items)
    return path


@pytest.mark.parametrize("form", ["csv", "text", "signals only", "te"])
def test_its_lists_give_the_matches_of_its_index(folder, known, tmp_path, form):
    if form == "te":
        path = write_te(known, tmp_path)
    else:
        path = tmp_path / ("list.csv" if form == "csv" else "list.txt")
        path.write_text(printed(known, print_csv=form == "csv", only_signals=form == "signals only"))
    out = tmp_path / "hits.parquet"
    words = ["match", str(folder), str(path), "--hash-type", "pdq", "--radius", "31", "-o", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3, result.output
    assert ("because they have no pdq: 1 rows (video_md5 1)" in result.output) == (form != "te")

    index = PdqSignal.get_index_cls().build([(one, name) for name, one in known.items()])
    rows = {name: place for place, name in enumerate(known)}
    expected = set()
    for file in folder.iterdir():
        digits = PdqSignal.hash_from_bytes(file.read_bytes())
        for match in index.query(digits) if digits else []:
            expected.add((str(file), rows[match.metadata], match.similarity_info.distance))
    found = pl.read_parquet(out)
    assert set(found.select("query_id", "reference_id", "distance").rows()) == expected
    assert len(expected) >= 6
    column = {"te": "hash"}.get(form, "signal_str")
    digits = list(known.values())
    assert found[column].to_list() == [digits[row] for row in found["reference_id"]]
    if form == "te":
        assert set(map(frozenset, found["column_4"].str.split(" "))) == {frozenset({"tag", "other_tag"})}


def test_our_hashes_are_valid_signals(folder, tmp_path):
    out = tmp_path / "hashed.parquet"
    words = ["visual-hash", str(folder), "--hash-types", "pdq", "-o", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    for row in pl.read_parquet(out).rows(named=True):
        digits = PdqSignal.hash_from_bytes(Path(row["path"]).read_bytes())
        assert (row["pdq_quality"] < PdqSignal.QUALITY_THRESHOLD) == (digits == "")
        if digits:
            assert PdqSignal.validate_signal_str(row["pdq"].hex()) == digits
