"""A slow, obvious reader of report pages: it does with the data of a page what the script of the page does."""

import base64
import gzip
import io
import json
import re
from html.parser import HTMLParser

from PIL import Image


class _Elements(HTMLParser):
    """Collects the elements of a page by their tags, with their attributes and texts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag, attrs):
        texts: list[str] = []
        self.found.append((tag, dict(attrs), texts))
        self.open.append((tag, texts))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self.open:
            self.open[-1][1].append(data)


class Page:
    """The data of a report page, and the clusters at any value of its slider."""

    def __init__(self, html: bytes) -> None:
        parser = _Elements()
        parser.feed(html.decode("utf-8"))
        self.elements = [(tag, attributes, "".join(texts)) for tag, attributes, texts in parser.found]
        texts = {
            attributes["id"]: text for tag, attributes, text in self.elements if tag == "script" and "id" in attributes
        }
        self.about = json.loads(texts["about"])
        self.rows = _unpack(texts["rows"])
        self.pairs = _unpack(texts["pairs"])
        self.n = len(self.rows["row"])
        hashes = base64.b64decode(texts["hashes"], validate=True)
        width = len(hashes) // self.n if self.n else 0
        self.hashes = [hashes[width * node : width * (node + 1)] for node in range(self.n)] if width else []
        pages = [name for name in texts if re.fullmatch(r"thumbnails-\d+", name)]
        assert pages == [f"thumbnails-{number}" for number in range(len(pages))]
        self.pages = [json.loads(texts[name]) for name in pages]
        self.thumbnails = [base64.b64decode(text, validate=True) for page in self.pages for text in page]
        self.votes = self.about["measure"] == "votes"

    def texts_of(self, tag: str) -> list[str]:
        return [text for name, _, text in self.elements if name == tag]

    def image(self, node: int) -> Image.Image | None:
        """Return the thumbnail of a node."""
        place = self.rows["place"][node]
        data = self.thumbnails[place] if place >= 0 else b""
        return Image.open(io.BytesIO(data)) if data else None

    def within(self, measure: int, value: int) -> bool:
        return measure >= value if self.votes else measure <= value

    def known(self, value: int) -> set[int]:
        """Return the nodes that match a reference row."""
        found = enumerate(self.rows["reference"] or ())
        return {node for node, one in found if one is not None and self.within(one["measure"], value)}

    def representatives(self, value: int) -> list[int]:
        """Return the representative of each node, itself where it is in no cluster."""
        known, rank = self.known(value), self.rows["rank"]
        near = [set() for _ in range(self.n)]
        for a, b, measure in zip(self.pairs["a"], self.pairs["b"], self.pairs["measure"], strict=True):
            if self.within(measure, value) and not {a, b} & known:
                near[a].add(b)
                near[b].add(a)
        found = list(range(self.n))
        is_free = [True] * self.n
        for node in sorted(range(self.n), key=rank.__getitem__):
            if not is_free[node]:
                continue
            is_free[node], waiting = False, [node]
            while waiting:
                joining = {other for other in near[waiting.pop()] if is_free[other]}
                for other in joining:
                    found[other], is_free[other] = node, False
                if self.about["linkage"] == "connected":
                    waiting += joining
        return found

    def clusters(self, value: int) -> set[frozenset[str]]:
        """Return the clusters of two rows or more, as sets of ids."""
        members: dict[int, set[str]] = {}
        for node, representative in enumerate(self.representatives(value)):
            members.setdefault(representative, set()).add(self.rows["id"][node])
        return {frozenset(ids) for ids in members.values() if len(ids) > 1}

    def removed(self, value: int) -> set[str]:
        """Return the ids of the rows of clusters that are not kept."""
        group, known = self.rows["group"], self.known(value)
        apart = {pair for a, b in self.rows.get("apart", ()) for pair in ((a, b), (b, a))}
        return {
            self.rows["id"][node]
            for node, representative in enumerate(self.representatives(value))
            if node != representative
            and node not in known
            and (node, representative) not in apart
            and not self.rows["protected"][node]
            and (group is None or group[node] != group[representative])
        }


def _unpack(text: str):
    return json.loads(gzip.decompress(base64.b64decode(text, validate=True)))
