"""How close the matcher comes to the most welfare possible. Start it with `run`."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import generated
import known
import real
import report
from orders import Unsound, live
from score import score

ROOT = Path(__file__).resolve().parents[3]
KINDS = generated.KINDS + real.KINDS
ALGORITHMS = (1, 2)
DOC = ROOT / "docs" / "matching.md"
GATE = Path(__file__).parent / "gate.json"


@dataclass(frozen=True)
class Case:
    """One book with its name and the bound on its welfare."""

    kind: str
    number: int
    book: dict
    entry: dict


def say(text):
    print(text, file=sys.stderr, flush=True)


def cases(kind, most, seconds, solve):
    """The first `most` books of a kind, each with a bound, solved where none is known."""
    committed = known.committed()
    make = generated if kind in generated.KINDS else real
    total = most if make is generated else min(most, real.count(kind))
    for number in range(total):
        book = make.book(kind, number)
        name = known.digest(book)
        entry = known.merge(known.cached(name), committed.get(name))
        if entry is None or (solve and not known.is_closed(entry) and entry["seconds"] < seconds):
            entry = known.merge(entry, solved(book, seconds))
            known.cache(name, entry)
            say(f"{kind} {number}: bound {entry['bound_msat']}, {entry['seconds']:.1f} s")
        yield Case(kind, number, book, entry)


def solved(book, seconds):
    try:  # Here, so that a check against known bounds does without the solver.
        from bound import bound
    except ImportError as fault:
        raise SystemExit("a book without a known bound: run without --gate first") from fault
    made = bound(book, seconds)
    return {
        "bound_msat": made.bound_msat,
        "found_msat": made.found_msat,
        "seconds": round(made.seconds, 2),
    }


class Matcher:
    """The `capex` program."""

    def __init__(self, program, max_legs=None):
        self.program = program
        self.max_legs = max_legs

    def outcome(self, book, algorithm):
        """The result of a book and the seconds it took, the start of the program included."""
        args = ["match", "--input", "-", "--json", "--algorithm", str(algorithm)]
        if self.max_legs is not None:
            book = {**book, "max_legs": self.max_legs}
        begin = time.monotonic()
        done = subprocess.run(
            [self.program, *args], input=json.dumps(book), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{self.program} {' '.join(args)}: {done.stderr or done.stdout}")
        return json.loads(done.stdout), time.monotonic() - begin


def default_program():
    """`$CAPEX`, or the release build of this tree, made anew if the tree has changed."""
    if os.environ.get("CAPEX"):
        return os.environ["CAPEX"]
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return str(ROOT / "target" / "release" / "capex")


def measured(case, matcher, algorithm):
    """The row of one book and algorithm. A result above the bound is an error of the bound."""
    outcome, seconds = matcher.outcome(case.book, algorithm)
    try:
        points = score(case.book, outcome)
    except Unsound as fault:
        raise SystemExit(f"{case.kind} {case.number}, algorithm {algorithm}: {fault}") from fault
    bound = case.entry["bound_msat"]
    if points.welfare_msat > bound:
        raise SystemExit(
            f"{case.kind} {case.number}: welfare {points.welfare_msat} > bound {bound}"
        )
    bids, asks = live(case.book)
    return {
        "kind": case.kind,
        "number": case.number,
        "algorithm": algorithm,
        "bids": len(bids),
        "asks": len(asks),
        "match_s": seconds,
        "solver_s": case.entry["seconds"],
        "bound_msat": bound,
        "found_msat": case.entry["found_msat"],
        **vars(points),
        "ratio": points.welfare_msat / bound if bound else 1.0,
    }


def gate(rows):
    """Faults of `rows` against the committed least ratios; none is good."""
    least = json.loads(GATE.read_text())
    faults = []
    for kind, algorithm, group in report.groups(rows):
        ratios = [row["ratio"] for row in group]
        wanted = least[str(algorithm)][kind]
        mean, worst = statistics.mean(ratios), min(ratios)
        say(f"{kind}, algorithm {algorithm}: mean {mean:.4f}, worst {worst:.4f}, wanted {wanted}")
        if mean < wanted["mean"] or worst < wanted["worst"]:
            faults.append(f"{kind}, algorithm {algorithm}: mean {mean:.4f}, worst {worst:.4f}")
    return faults


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/bench/welfare/run",
        description="How close the matcher comes to the most welfare possible.",
        epilog="The matcher is $CAPEX, or target/release/capex of this tree, which it builds.",
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="KIND", default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=30, help="books of a generated kind")
    parser.add_argument("--books", type=int, default=1000, help="most books of a kind of log")
    parser.add_argument("--algorithm", nargs="+", type=int, choices=ALGORITHMS, default=[1, 2])
    parser.add_argument("--max-legs", type=int, help="most asks of one bid, as networks define it")
    parser.add_argument("--seconds", type=float, default=60, help="processor time for one bound")
    parser.add_argument("--solve", action="store_true", help="spend it on open bounds again")
    parser.add_argument("--keep-bounds", action="store_true", help="write them to bounds.json")
    parser.add_argument("--rows", type=Path, help="write every book's figures to this JSON file")
    parser.add_argument("--write", action="store_true", help="write the table to docs/matching.md")
    parser.add_argument("--gate", action="store_true", help="fail below the ratios of gate.json")
    made = parser.parse_args(argv)
    if made.gate:
        made.kinds = [kind for kind in made.kinds if kind in generated.KINDS]
    return made


def main(argv):
    args = arguments(argv)
    matcher = Matcher(default_program(), args.max_legs)
    rows, kept = [], known.committed()
    for kind in args.kinds:
        most = args.seeds if kind in generated.KINDS else args.books
        for case in cases(kind, most, args.seconds, args.solve):
            kept[known.digest(case.book)] = case.entry
            rows += [measured(case, matcher, algorithm) for algorithm in args.algorithm]
        say(report.summary(kind, rows))
    if args.rows:
        args.rows.write_text(json.dumps(rows, indent=1))
    if args.keep_bounds:
        known.commit(kept)
    if args.gate:
        faults = gate(rows)
        for fault in faults:
            say(f"below the gate: {fault}")
        return 1 if faults else 0
    table = report.table(rows)
    print(table)
    if args.write:
        report.write(DOC, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
