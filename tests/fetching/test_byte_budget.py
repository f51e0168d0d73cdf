"""Memory of a streaming run is bounded by the row group, whatever the number of rows."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from drawing import draw, jpeg

_RUN = """
import sys
import polars as pl
import imgmatch_df
pl.scan_parquet(sys.argv[1]).with_columns(
    pl.col("data").imgmatch.phash(), pl.col("data").imgmatch.bmh1()
).drop("data").sink_parquet(sys.argv[2])
assert pl.scan_parquet(sys.argv[2]).select(pl.col("phash").null_count()).collect().item() == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_kib(path: Path, out: Path) -> int:
    # VmHWM starts anew with the program; ru_maxrss would carry this test's own memory along.
    command = [sys.executable, "-c", _RUN, str(path), str(out)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_peak_memory_does_not_grow_with_rows(tmp_path):
    pictures = [jpeg(draw(seed, 320, 240), quality=95) for seed in range(20)]
    peaks, sizes = [], []
    # Polars reads some forty row groups ahead; from there on the number of rows must not matter.
    for n_rows in (8_000, 16_000):
        rows = [pictures[row % 20] for row in range(n_rows)]
        sizes.append(sum(map(len, rows)) // 1024)
        path = tmp_path / f"{n_rows}.parquet"
        # Plain pages, so that file and memory hold as many bytes as the pictures have.
        table = pl.DataFrame({"data": rows}).to_arrow()
        pq.write_table(table, path, row_group_size=200, compression="none", use_dictionary=False)
        peaks.append(peak_kib(path, tmp_path / "out.parquet"))
    assert peaks[1] - peaks[0] < 0.2 * (sizes[1] - sizes[0]), (peaks, sizes)
