"""Rule 1 of Plain English: the field's nouns, in every identifier, comment, string and document."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "imgmatch_df"

# Banned words, and the words to use.
BANNED = {
    r"pictures?": "image",
    r"answer(s|ed|ing)?": "response, result, return",
    r"addresses": "URLs",
    r"address": "URL",
    r"heads?": "header",
    r"lands?|landed|landing": "complete, arrive",
    r"told|tells?|telling": "say, report, pass",
    r"ask(s|ed|ing)?": "request, call",
    r"leans?|leaned|leaning": "depend, reference",
    r"gone": "missing, deleted",
    r"strangers?": "untrusted client, other program",
    r"nobody": "no caller, no user",
    r"under way": "in flight, running",
}
# What is fine, by room or file: patterns that are taken out before the search, each with its reason.
ALLOWED = {
    "": {
        r"(?i)max[_-]?pictures": "an option of the report",
        r"answer_(records|distances)": "fields of the documented API",
        r"\.head\(|`head`": "the Polars method",
        r"imgmatch_pictures(_total)?": "a metric of the service, which dashboards name",
        r"\bHEAD\b": "the HTTP method",
        r"(IP|IPv4|IPv6|e-mail|memory) address(es)?": "the field's noun",
        r"_addresses?\b": "of buffers in memory, and of networks",
        r"\b(IPv4|IPv6)Address\b": "the classes of the standard library",
    },
    "archives/contents.py": {r"\btell\(": "the method of files"},
    "_kernels": {r"\b_?address\b|\bAddresses\b": "of values in memory"},
    "batch/sharing.py": {r"\bbuffer\.address\b": "the attribute of Arrow's buffers"},
    "server": {
        r"\b(ip_)?address(es)?\b": "IP addresses and hosts to listen at",
        r"_answer\b": "the end of component names in the OpenAPI document, which generated clients use",
    },
    "hashes/codec.py": {r"\bbuffer\.address\b": "the attribute of Arrow's buffers"},
    "cli/tables.py": {'"picture"': "a name that users give a column of images"},
    "fetching/private_networks.py": {r"\b(ip_)?address(es)?\b": "IP addresses of the private-network check"},
}
_BANNED = re.compile("|".join(rf"(?<![A-Za-z])(?:{word})(?![a-z])" for word in BANNED), re.IGNORECASE)


def texts() -> dict[str, str]:
    """Return what is searched: modules of the package by path, documents by name."""
    found = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "sql").rglob("*.sql")]
    for path in sorted([*documents, *(path for path in (ROOT / "benchmarks").iterdir() if path.is_file())]):
        found[str(path.relative_to(ROOT))] = path.read_text()
    for path in sorted((ROOT / "notebooks").glob("*")):
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text())["cells"]
            found[str(path.relative_to(ROOT))] = "\n".join("".join(cell["source"]) for cell in cells)
        elif path.suffix == ".py":
            found[str(path.relative_to(ROOT))] = path.read_text()
    return found


def unit_of(name: str) -> str:
    """Return the room of a module; a module or document outside of rooms is its own."""
    return name.split("/")[0] if name.endswith(".py") and not name.startswith("notebooks/") else name


def banned_words(name: str, text: str) -> list[str]:
    """Return the banned words of a text, each with its line number."""
    for place, patterns in ALLOWED.items():
        if place in ("", name, unit_of(name)):
            for pattern in patterns:
                text = re.sub(pattern, lambda found: "\n" * found[0].count("\n"), text)
    return [
        f"{name}:{number}: {found[0]!r}"
        for number, line in enumerate(text.splitlines(), 1)
        for found in _BANNED.finditer(line)
    ]


TEXTS = texts()
UNITS = {unit: [name for name in TEXTS if unit_of(name) == unit] for unit in sorted(map(unit_of, TEXTS))}


@pytest.mark.parametrize("unit", UNITS)
def test_plain_words(unit):
    found = [word for name in UNITS[unit] for word in banned_words(name, TEXTS[name])]
    assert found == [], "BANNED names the words to use"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# The PICTURE of a row", ["PICTURE"]),
        ("_PICTURE = read_picture()", ["PICTURE", "picture"]),
        ("n_addresses_asked", ["addresses", "asked"]),
        ("a header, ahead, headers, island, multitask, foretold", []),
        ("frame.head(3); '/answer_records'", []),
        ("the IP address of a host", []),
        ("the address of an image", ["address"]),
        ("what is under way", ["under way"]),
    ],
)
def test_a_banned_word_is_seen(text, words):
    assert [found.rsplit(": ", 1)[1].strip("'") for found in banned_words("frames/x.py", text)] == words
