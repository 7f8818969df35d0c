"""The table in docs/matching.md."""

import statistics

BEGIN, END = "<!-- welfare:begin -->", "<!-- welfare:end -->"


def groups(rows):
    """(kind, algorithm, its rows), in the order of the rows."""
    keys = dict.fromkeys((row["kind"], row["algorithm"]) for row in rows)
    for kind, algorithm in keys:
        group = [r for r in rows if (r["kind"], r["algorithm"]) == (kind, algorithm)]
        yield kind, algorithm, group


def open_share(row):
    """How much of the bound neither the solver nor the matcher reaches."""
    return 1 - max(row["found_msat"], row["welfare_msat"]) / max(row["bound_msat"], 1)


def summary(kind, rows):
    """One line per algorithm about a kind."""
    lines = []
    for _, algorithm, group in groups([row for row in rows if row["kind"] == kind]):
        ratios, shares = [row["ratio"] for row in group], [open_share(row) for row in group]
        lines.append(
            f"{kind}, algorithm {algorithm}: {len(group)} books, ratio mean "
            f"{statistics.mean(ratios):.4f}, worst {min(ratios):.4f}, bounds open by "
            f"{statistics.mean(shares):.4f}, worst {max(shares):.4f}"
        )
    return "\n".join(lines)


def table(rows):
    """One row per kind, the figures of every algorithm side by side."""
    algorithms = sorted({row["algorithm"] for row in rows})
    head = ["Kind", "Books", "Bids", "Bound open", "Bound s"]
    for title in ("Ratio", "PRB", "Filled", "Buyers", "Match s"):
        head += [f"{title} {algorithm}" for algorithm in algorithms]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    by_key = {(kind, algorithm): group for kind, algorithm, group in groups(rows)}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        sets = [by_key[kind, algorithm] for algorithm in algorithms]
        lines.append([f"`{kind}`", *_book_cells(sets), *_result_cells(sets)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _book_cells(sets):
    best = [min(map(open_share, rows)) for rows in zip(*sets, strict=True)]
    solver = [row["solver_s"] for row in sets[0]]
    bids = [row["bids"] for row in sets[0]]
    return [
        str(len(bids)),
        f"{statistics.median(bids):.0f}",
        f"{statistics.mean(best):.2%} ({max(best):.2%})",
        f"{statistics.median(solver):.1f} ({max(solver):.0f})",
    ]


def _result_cells(sets):
    cells = []
    for rows in sets:
        ratios = [row["ratio"] for row in rows]
        cells.append(f"{statistics.mean(ratios):.4f} ({min(ratios):.4f})")
    for rows in sets:
        cells.append(f"{_total(rows, 'rejected')} + {_total(rows, 'at_the_money')}")
    for rows in sets:
        cells.append(f"{_total(rows, 'filled_msat') / max(_total(rows, 'wanted_msat'), 1):.1%}")
    for rows in sets:
        cells.append(f"{_total(rows, 'buyers_msat') / max(_total(rows, 'welfare_msat'), 1):.1%}")
    for rows in sets:
        cells.append(f"{statistics.median(row['match_s'] for row in rows):.2f}")
    return cells


def _total(rows, name):
    return sum(row[name] for row in rows)


def write(path, text):
    """Puts `text` between the markers of the document at `path`."""
    document = path.read_text()
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
