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
        r"answer_(records|distances)": "fields of the documented API",
        r"\.head\(|`head`": "the Polars method",
        r"imgmatch_pictures(_total)?": "a metric of the service, which dashboards name",
        r"\bHEAD\b": "the HTTP method",
        r"(IP|IPv4|IPv6|e-mail|memory) address(es)?": "the field's noun",
        r"_addresses?\b": "of buffers in memory, and of networks",
    },
    "server": {r"\baddress(es)?\b": "IP addresses and hosts to listen at"},
    "fetching/urls.py": {r"\baddress(es)?\b": "IP addresses of the private-network check"},
    "fetching/curl.py": {r"\baddress(es)?\b": "IP addresses of the private-network check"},
    "fetching/private_networks.py": {r"\baddress(es)?\b": "IP addresses of the private-network check"},
}
# Rooms, files and documents that are still to be rewritten. The set can only shrink: what is clean must leave it.
NOT_YET = {
    "_kernels",
    "batch",
    "cli",
    "documented",
    "fetching",
    "hashes",
    "images",
    "matching",
    "server",
}
_BANNED = re.compile("|".join(rf"(?<![A-Za-z])(?:{word})(?![a-z])" for word in BANNED), re.IGNORECASE)


def texts() -> dict[str, str]:
    """Return what is searched: modules of the package by path, documents by name."""
    found = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "sql").glob("*.sql")]
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
    if unit in NOT_YET:
        assert found, f"{unit} is clean: take it out of NOT_YET"
    else:
        assert found == [], "house-style.md, Plain English, rule 1"


def test_what_is_not_yet_clean_exists():
    assert NOT_YET - UNITS.keys() == set()


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
