"""Bounds found before, by the hash of the book.

`bounds.json` is committed and covers the books of the published table, so that a check
needs no solver. `.cache/` holds what was solved on this machine, a file for each book.
"""

import hashlib
import json
import os
from pathlib import Path

HERE = Path(__file__).parent
COMMITTED = HERE / "bounds.json"
CACHE = HERE / ".cache"

CLOSED_GAP = 2e-4
"""A bound this close to an allocation that was found is not worth more time."""


def is_closed(entry):
    return entry["found_msat"] >= entry["bound_msat"] * (1 - CLOSED_GAP)


def digest(book):
    """The name of a book: 16 bytes of the SHA-256 of its canonical JSON, in hex."""
    text = json.dumps(book, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def committed():
    """All committed entries, by the name of the book."""
    return json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}


def commit(bounds):
    """Writes the committed entries, sorted, one a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(bounds[name])}" for name in sorted(bounds)]
    _replace(COMMITTED, "{\n" + ",\n".join(lines) + "\n}\n")


def cached(name):
    """The entry of a book solved on this machine, or none."""
    path = CACHE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def cache(name, entry):
    CACHE.mkdir(exist_ok=True)
    _replace(CACHE / f"{name}.json", json.dumps(entry))


def _replace(path, text):
    """In one step: an interrupted run leaves no half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def merge(old, new):
    """The better of two entries in each respect, either of which may be none."""
    if old is None or new is None:
        return old or new
    return {
        "bound_msat": min(old["bound_msat"], new["bound_msat"]),
        "found_msat": max(old["found_msat"], new["found_msat"]),
        "seconds": max(old["seconds"], new["seconds"]),
    }
