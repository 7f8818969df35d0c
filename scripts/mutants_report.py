#!/usr/bin/env python3
"""Judge a run of `cargo mutants`: mutants_report.py MUTANTS_OUT TESTING_MD

A survivor is accepted if docs/testing.md has a table row whose first cell holds its name without
line and column, in backquotes. Fails if survivors are more than 3 % of the mutants that compile.
"""
import pathlib
import re
import sys

BAR_PERCENT = 3.0


def names(path):
    """Mutants listed in a file of `mutants.out`, without line and column, which move."""
    if not path.exists():
        sys.exit(f"{path} is missing: the run did not start")
    return [re.sub(r":\d+:\d+: ", ": ", line) for line in path.read_text().splitlines() if line]


def main():
    out, page = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    accepted = set(re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE))
    caught, missed, slow = (names(out / f"{kind}.txt") for kind in ("caught", "missed", "timeout"))
    viable = len(caught) + len(missed) + len(slow)
    if viable == 0:
        sys.exit("no mutant was tried")
    share = 100 * len(missed) / viable
    print(f"{viable} viable mutants: {len(caught)} caught, {len(slow)} ran out of time, {len(missed)} survived ({share:.1f} %)")
    for name in missed:
        print(f"  {'accepted' if name in accepted else 'SURVIVED'}  {name}")
    return 1 if share > BAR_PERCENT else 0


if __name__ == "__main__":
    sys.exit(main())
