"""Bounds found before, by the hash of the book.

`bounds.json` is committed and covers the books of the published table, so that a check
needs no solver. `.cache/bounds.json` is what was solved on this machine.
"""

import hashlib
import json
import os
from pathlib import Path

HERE = Path(__file__).parent
COMMITTED = HERE / "bounds.json"
CACHE = HERE / ".cache" / "bounds.json"

FIELDS = ("bound_msat", "found_msat", "seconds")
"""The proven bound, the solver's own solution, and how long the solver ran."""


def digest(book):
    """The name of a book: 16 bytes of the SHA-256 of its canonical JSON, in hex."""
    text = json.dumps(book, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load(path):
    return json.loads(path.read_text()) if path.exists() else {}


def save(path, bounds):
    """Writes one bound a line, sorted, in one step: an interrupted run loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(bounds[name])}" for name in sorted(bounds)]
    partial = path.with_suffix(".partial")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    os.replace(partial, path)


def merge(old, new):
    """The tighter of two entries in each respect; both are proven."""
    if old is None:
        return new
    return {
        "bound_msat": min(old["bound_msat"], new["bound_msat"]),
        "found_msat": max(old["found_msat"], new["found_msat"]),
        "seconds": max(old["seconds"], new["seconds"]),
    }
