"""The functions of the page's script equal slow obvious ones, on drawn numbers."""

import csv
import io
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import imgmatch_df

pytestmark = pytest.mark.browser
N_CASES = 150
ALPHABET = ["a", "B", '"', ",", "\n", "\r\n", "'", "=", " ", "é", "\u202e", "\U0001f600", "</script>", "", "0"]


@pytest.fixture
def call(show):
    """A function that calls a function of the script with each of some lists of arguments."""
    frame = pl.DataFrame({"name": ["a", "b"], "phash": pl.Series([1, 3], dtype=pl.UInt64)})
    page = show(imgmatch_df.report(frame, 4, "phash", id="name")).page

    def call_each(name, arguments):
        run = """([name, each]) => each.map((values) => {
            const found = globalThis.imgmatchReport[name](...values);
            const plain = (value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
            return Array.isArray(found) || typeof found !== 'object' ? found
              : Object.fromEntries(Object.entries(found).map(([key, value]) => [key, plain(value)]));
        })"""
        return page.evaluate(run, [name, arguments])

    call_each.page = page
    return call_each


def graphs(seed):
    """Yield (n, pairs, skipped): pairs are (left, right, distance), nearest first."""
    rng = np.random.default_rng(seed)
    for _ in range(N_CASES):
        n = int(rng.integers(1, 14))
        every = [(left, right) for left in range(n) for right in range(left + 1, n)]
        chosen = rng.permutation(len(every))[: int(rng.integers(0, len(every) + 1))] if every else []
        pairs = sorted(
            ((*every[at][:: int(rng.choice([1, -1]))], int(rng.integers(0, 7))) for at in chosen),
            key=lambda pair: pair[2],
        )
        yield n, pairs, [bool(skip) for skip in rng.random(n) < rng.choice([0, 0.2])]


def component(start, pairs):
    """Return the nodes that pairs connect with a node."""
    found = {start}
    while more := {node for pair in pairs if found & {*pair[:2]} for node in pair[:2]} - found:
        found |= more
    return found


def test_count_pairs(call):
    rng = np.random.default_rng(1)
    cases = [
        (sorted(rng.integers(0, 9, rng.integers(0, 12)).tolist()), int(rng.integers(-1, 10))) for _ in range(N_CASES)
    ]
    distances = [[values, value, False] for values, value in cases]
    votes = [[values[::-1], value, True] for values, value in cases]
    assert call("countPairs", distances) == [sum(x <= value for x in values) for values, value in cases]
    assert call("countPairs", votes) == [sum(x >= value for x in values) for values, value in cases]


def test_connected_clusters_at_every_radius(call):
    cases = [
        (n, [pair for pair in pairs if pair[2] <= radius], skipped)
        for n, pairs, skipped in graphs(2)
        for radius in range(-1, 7)
    ]
    arguments = [[n, [p[0] for p in pairs], [p[1] for p in pairs], len(pairs), skip] for n, pairs, skip in cases]
    for (n, pairs, skipped), found in zip(cases, call("connectedClusters", arguments), strict=True):
        held = [pair for pair in pairs if not (skipped[pair[0]] or skipped[pair[1]])]
        root = [min(component(node, held)) for node in range(n)]
        assert found["root"] == root
        joined = [
            min(
                (r for r in range(7) if root[node] in component(node, [pair for pair in held if pair[2] <= r])),
                default=None,
            )
            for node in range(n)
        ]
        for node in range(n):
            via = found["via"][node]
            assert (via < 0) == (root[node] == node)
            if via >= 0:
                assert pairs[via][2] == joined[node]
        links = [pairs[link] for link in found["links"] if link >= 0]
        assert len(links) == n - len(set(root))
        assert [min(component(node, links)) for node in range(n)] == root


def test_star_clusters_at_every_radius(call):
    cases = [
        (n, [pair for pair in pairs if pair[2] <= radius], skipped)
        for n, pairs, skipped in graphs(3)
        for radius in range(-1, 7)
    ]
    arguments = [[n, [p[0] for p in pairs], [p[1] for p in pairs], len(pairs), skip] for n, pairs, skip in cases]
    for (n, pairs, skipped), found in zip(cases, call("starClusters", arguments), strict=True):
        root = list(range(n))
        free = {node for node in range(n) if not skipped[node]}
        for node in range(n):
            if node in free:
                partners = {other for pair in pairs if node in pair[:2] for other in pair[:2]} & free
                for other in partners - {node}:
                    root[other] = node
                free -= partners | {node}
        assert found["root"] == root
        for node in range(n):
            via = found["via"][node]
            assert (via < 0) == (root[node] == node)
            assert via < 0 or set(pairs[via][:2]) == {node, root[node]}


def test_gather_clusters(call):
    rng = np.random.default_rng(4)
    cases = []
    for _ in range(N_CASES):
        labels = rng.integers(0, 6, rng.integers(0, 12)).tolist()
        cases.append([labels.index(label) for label in labels])
    expected = [
        [[node for node, of in enumerate(root) if of == first] for first in sorted(set(root)) if root.count(first) > 1]
        for root in cases
    ]
    assert [sorted(found) for found in call("gatherClusters", [[root] for root in cases])] == expected


def test_numbers_of_clusters(call):
    """Clusters are numbered by their first row, rows in no cluster of two and rows that are no nodes too."""
    rng = np.random.default_rng(8)
    cases, expected = [], []
    for _ in range(N_CASES):
        n_rows, n = int(rng.integers(1, 15)), int(rng.integers(0, 9))
        rows = sorted(rng.permutation(n_rows)[:n].tolist())
        rank = rng.permutation(len(rows)).tolist()
        labels = rng.integers(0, 4, len(rows)).tolist()
        root = [labels.index(label) for label in labels]
        skipped = [
            root.count(node) == 1 and root[node] == node and bool(rng.random() < 0.4) for node in range(len(rows))
        ]
        row_of = [rows[rank.index(node)] for node in range(len(rows))]
        numbers, n_clusters = {}, 0
        for row in range(n_rows):
            node = rank[rows.index(row)] if row in rows else None
            if node is None:
                n_clusters += 1
            elif not skipped[node] and root[node] not in numbers:
                numbers[root[node]] = n_clusters
                n_clusters += 1
        cases.append([root, skipped, rank, row_of])
        expected.append(numbers)
    run = "(each) => each.map((values) => [...globalThis.imgmatchReport.numberClusters(...values)])"
    assert [dict(found) for found in call.page.evaluate(run, cases)] == expected


def test_times_are_those_of_python(call):
    rng = np.random.default_rng(9)
    microseconds = rng.integers(-(10**15), 4 * 10**15, N_CASES).tolist()
    texts = call("timeText", [[value / 1e6] for value in microseconds])
    assert [datetime.fromisoformat(text) for text in texts] == [
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) for value in microseconds
    ]


def test_differing_part(call):
    rng = np.random.default_rng(5)
    texts = ["".join(rng.choice(["a", "b", "/", "é", "\U0001f600"], rng.integers(0, 6))) for _ in range(2 * N_CASES)]
    cases = [[left, right] for left, right in zip(texts[::2], texts[1::2], strict=True)]
    for (left, right), (before, differing, after) in zip(cases, call("differingPart", cases), strict=True):
        assert before + differing + after == left
        assert right.startswith(before)
        assert right.endswith(after)
        assert len(before) + len(after) <= len(right)
        if left == right:
            assert not differing


def table(rng):
    names = [f"{rng.choice(ALPHABET)}{at}" for at in range(rng.integers(1, 4))]
    rows = [
        {name: "".join(rng.choice(ALPHABET, rng.integers(0, 5))) for name in names} for _ in range(rng.integers(0, 5))
    ]
    if len(names) == 1:  # a row of one empty field is an empty line, which is no row
        rows = [row for row in rows if row[names[0]]]
    return names, rows


def test_csv_is_what_python_reads_and_writes(call):
    rng = np.random.default_rng(6)
    tables = [table(rng) for _ in range(N_CASES)]
    texts = call("toCsv", [[names, rows] for names, rows in tables])
    for (names, rows), text in zip(tables, texts, strict=True):
        read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        assert read == [names, *([row[name] for name in names] for row in rows)]
    assert call("parseCsv", [[text] for text in texts]) == [rows for _, rows in tables]
    for terminator in ("\n", "\r\n"):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            written = []
            for names, rows in tables:
                stream = io.StringIO(newline="")
                writer = csv.DictWriter(stream, names, lineterminator=terminator, quoting=quoting)
                writer.writeheader()
                writer.writerows(rows)
                written.append([stream.getvalue()])
            assert call("parseCsv", written) == [rows for _, rows in tables]


def test_csv_of_other_values(call):
    rows = [{"a": None, "b": 0, "c": True}, {"a": "", "b": 1.5, "c": False}]
    assert call("toCsv", [[["a", "b", "c"], rows]]) == ["a,b,c\n,0,true\n,1.5,false\n"]


def test_csv_with_an_open_quote_is_an_error(call):
    with pytest.raises(Exception, match="quote"):
        call("parseCsv", [['a\n"b']])
