"""Tests of the benchmark itself: `python3 -m unittest` in this folder."""

import contextlib
import io
import itertools
import random
import tempfile
import unittest
from pathlib import Path

import generated
import known
import measure
import real
import report
from orders import Unsound, accept_each_other, live, welfare_msat
from score import score, unfilled_in_the_money

try:
    from bound import bound
except ImportError:  # The solver is installed by `run`; all else does without it.
    bound = None


def bid(name, limit, **more):
    order = {"id": name, "owner": f"o{name}", "side": "buy", "qty": 1, "window": [0, 1]}
    return order | {"class": 0, "limit": limit} | more


def ask(name, limit, **more):
    return bid(name, limit, side="sell", **more)


def book(*orders):
    return {"beacon": "00" * 32, "orders": list(orders)}


def tiny(rng):
    """A book small enough to try every allocation."""
    orders = []
    for i in range(3):
        hours = rng.randint(1, 2)
        start = rng.randint(0, 2)
        qty = rng.randint(1, 2)
        made = bid(
            f"b{i}",
            0,
            qty=qty,
            min_qty=rng.randint(1, qty),
            window=[start, min(4, start + hours + rng.randint(0, 1))],
            hours=hours,
            mode=rng.choice(("sticky", "gang")),
            features=rng.choice((0, 0, 1)),
        )
        del made["class"], made["limit"]
        classes = rng.sample((0, 1), rng.randint(1, 2))
        made["alts"] = [[cls, rng.randint(50, 150)] for cls in classes]
        orders.append(made)
    for i in range(3):
        start = rng.randint(0, 1)
        made = ask(
            f"s{i}",
            rng.randint(30, 120),
            qty=rng.randint(1, 2),
            window=[start, rng.randint(start + 1, 4)],
            features=rng.choice((0, 1)),
            min_run=rng.choice((1, 1, 2)),
            deny=rng.choice(([], ["ob0"])),
        )
        made["class"] = rng.randint(0, 1)
        orders.append(made)
    return book(*orders)


def options(one, asks):
    """Every way to serve a bid, as trades, nothing included."""
    yield []
    for cls, _limit in one.alternatives:
        for start in one.starts():
            serving = [
                a
                for a in asks
                if a.cls == cls and a.covers(start, one.hours) and accept_each_other(one, a)
            ]
            for parts in itertools.product(range(one.qty + 1), repeat=len(serving)):
                legs = [(a, n) for a, n in zip(serving, parts, strict=True) if n]
                if one.min_qty <= sum(parts) <= one.qty and (len(legs) == 1 or not one.gang):
                    yield [
                        {
                            "class": cls,
                            "start": start,
                            "hours": one.hours,
                            "buy": one.id,
                            "sell": a.id,
                            "qty": n,
                        }
                        for a, n in legs
                    ]


def brute_force_msat(made):
    bids, asks = live(made)
    best = 0
    for choice in itertools.product(*(list(options(one, asks)) for one in bids)):
        with contextlib.suppress(Unsound):
            best = max(best, welfare_msat(made, [t for trades in choice for t in trades]))
    return best


class Books(unittest.TestCase):
    def test_a_seed_names_one_book(self):
        for kind in generated.KINDS:
            self.assertEqual(generated.book(kind, 7), generated.book(kind, 7))
            self.assertNotEqual(generated.book(kind, 7), generated.book(kind, 8))

    def test_books_are_those_with_committed_bounds(self):
        committed = known.committed()
        for kind in generated.KINDS:
            self.assertIn(known.digest(generated.book(kind, 0)), committed, kind)
        for kind in real.KINDS:
            self.assertIn(known.digest(real.book(kind, 0)), committed, kind)

    def test_prices_spread_around_their_base(self):
        rng = random.Random(1)
        prices = sorted(generated.price_msat(rng, 100_000) for _ in range(2_000))
        self.assertTrue(108_000 < prices[1_000] < 120_000, prices[1_000])
        self.assertTrue(1.9 < prices[1_900] / prices[100] < 5.0)

    def test_layers_add_up_to_the_profile(self):
        profile = [3, 5, 5, 0, 2, 7]
        layers = real.layers(profile)
        for slot, units in enumerate(profile):
            self.assertEqual(units, sum(n for first, end, n in layers if first <= slot < end))
        self.assertIn((0, 3, 3), layers)


class Recount(unittest.TestCase):
    def test_refuses_what_breaks_a_rule(self):
        made = book(bid("b", 100, qty=2, min_qty=2), ask("s", 60, qty=1), ask("t", 70, qty=2))
        trade = {"class": 0, "start": 0, "hours": 1, "buy": "b", "sell": "t", "qty": 2}
        self.assertEqual(60, welfare_msat(made, [trade]))
        for fault in (
            {"sell": "s"},
            {"qty": 1},
            {"qty": 3},
            {"start": 1},
            {"class": 1},
            {"hours": 2},
            {"buy": "x"},
        ):
            with self.assertRaises(Unsound, msg=str(fault)):
                welfare_msat(made, [trade | fault])

    def test_drops_what_the_matcher_drops(self):
        made = book(
            bid("cancelled", 100),
            bid("kept", 100),
            bid("expired", 100, expiry_epoch=6),
            bid("filled", 100, qty=2, filled=2),
            bid("late", 100, window=[0, 2], hours=2),
            ask("s", 60, window=[0, 3]),
        )
        made |= {"epoch": 7, "now": 1}
        for order in made["orders"]:
            if order["id"] in ("kept", "cancelled"):
                order["window"] = [0, 2]
        made["cancels"] = [
            {"order": "cancelled", "signer": "ocancelled"},
            {"order": "kept", "signer": "a stranger"},
        ]
        bids, asks = live(made)
        self.assertEqual(["kept"], [one.id for one in bids])
        self.assertEqual([(1, 3)], [one.window for one in asks])


class Rejections(unittest.TestCase):
    """Slots 0 and 1 cost 100 and 50, slot 2 has no price; one ask of 2 units covers all."""

    CASES = (
        ("in the money", {"hours": 2, "window": [0, 2], "limit": 76}, "in"),
        ("at the money", {"hours": 2, "window": [0, 2], "limit": 75}, "at"),
        ("too cheap", {"hours": 2, "window": [0, 2], "limit": 74}, None),
        ("the later start", {"window": [0, 2], "limit": 51}, "in"),
        ("no price", {"window": [2, 3], "limit": 200}, None),
        ("more than is offered", {"window": [1, 2], "limit": 60, "qty": 3, "min_qty": 3}, None),
        ("owner of the only ask", {"window": [1, 2], "limit": 60, "owner": "os"}, None),
        ("asks would not sell", {"window": [1, 2], "limit": 60, "features": 1}, None),
        ("filled", {"id": "filled", "window": [1, 2], "limit": 60}, None),
    )

    def test_cases(self):
        prices = {(0, 0): 100, (0, 1): 50}
        trades = [{"buy": "filled"}]
        for name, order, wanted in self.CASES:
            order = bid("b", 0) | order
            # The dear ask offers the feature, but not at these prices.
            made = book(
                order,
                ask("s", 40, qty=2, window=[0, 3]),
                ask("dear", 90, qty=9, window=[0, 3], features=1),
            )
            in_it, at_it = unfilled_in_the_money(*live(made), trades, prices)
            found = "in" if in_it else "at" if at_it else None
            self.assertEqual(wanted, found, name)

    def test_a_gang_needs_one_ask_with_all_units(self):
        gang = bid("g", 90, qty=2, min_qty=2, mode="gang")
        asks = [ask("s", 50), ask("t", 50)]
        for mode, wanted in (("gang", []), ("sticky", ["g"])):
            made = book(gang | {"mode": mode}, *asks)
            self.assertEqual((wanted, []), unfilled_in_the_money(*live(made), [], {(0, 0): 60}))

    def test_score_splits_the_surplus(self):
        made = book(bid("b", 100, qty=3), bid("c", 90), ask("s", 60, qty=2))
        trade = {"class": 0, "start": 0, "hours": 1, "buy": "b", "sell": "s", "qty": 2}
        outcome = {"welfare_msat": 80, "prices": {"0/0": 85}, "trades": [trade | {"msat": 170}]}
        made_score = score(made, outcome)
        self.assertEqual(80, made_score.welfare_msat)
        self.assertEqual(30, made_score.buyers_msat)
        self.assertEqual((200, 390), (made_score.filled_msat, made_score.wanted_msat))
        self.assertEqual((1, 0), (made_score.rejected, made_score.at_the_money))
        for fault in (
            {"welfare_msat": 81},
            {"prices": {"0/0": 101}},
            {"prices": {"0/0": 59}},
            {"prices": {}},
            {"prices": {"0/0": 84}},
        ):
            with self.assertRaises(Unsound, msg=str(fault)):
                score(made, outcome | fault)


class StubMatcher:
    def __init__(self, outcome):
        self.answer = outcome

    def outcome(self, _book, _algorithm):
        return self.answer, 0.5


class Measuring(unittest.TestCase):
    def setUp(self):
        made = book(bid("b", 100), ask("s", 60))
        trade = {"class": 0, "start": 0, "hours": 1, "buy": "b", "sell": "s", "qty": 1, "msat": 80}
        self.matcher = StubMatcher({"welfare_msat": 40, "prices": {"0/0": 80}, "trades": [trade]})
        entry = {"bound_msat": 50, "found_msat": 40, "seconds": 1.0}
        self.case = measure.Case("fixed", 0, made, entry)

    def test_a_row_has_the_ratio(self):
        row = measure.measured(self.case, self.matcher, 1)
        self.assertEqual((0.8, 20), (row["ratio"], row["buyers_msat"]))
        self.assertEqual((0.5, 1.0), (row["match_s"], row["solver_s"]))

    def test_a_bound_below_the_welfare_is_an_error(self):
        self.case.entry["bound_msat"] = 39
        with self.assertRaises(SystemExit):
            measure.measured(self.case, self.matcher, 1)

    def test_the_gate_finds_a_low_mean_and_a_low_worst(self):
        row = {"kind": "one_slot", "algorithm": 1}
        for ratios, faults in (((1.0, 1.0), 0), ((1.0, 0.9), 1), ((0.5, 0.5), 1)):
            rows = [row | {"ratio": ratio} for ratio in ratios]
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(faults, len(measure.gate(rows)), ratios)


class Documents(unittest.TestCase):
    def test_the_table_replaces_what_is_between_the_markers(self):
        rows = [
            {
                **{"kind": "k", "algorithm": algorithm, "bids": 3, "solver_s": 1.0},
                **{"bound_msat": 100, "found_msat": 99, "welfare_msat": 90, "ratio": 0.9},
                **{"rejected": 2, "at_the_money": 1, "filled_msat": 50, "wanted_msat": 100},
                **{"buyers_msat": 45, "match_s": 0.1},
            }
            for algorithm in (1, 2)
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.md"
            path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
            for _ in range(2):
                report.write(path, report.table(rows))
            lines = path.read_text().splitlines()
        self.assertEqual(["before", report.BEGIN], lines[:2])
        self.assertEqual([report.END, "after"], lines[-2:])
        self.assertEqual(7, len(lines))
        cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
        ratio, rejected = ["0.9000 (0.9000)"] * 2, ["2 + 1"] * 2
        share = ["50.0%"] * 4
        self.assertEqual(["`k`", "1", "3", "1.00% (1.00%)", "1.0 (1)"], cells[:5])
        self.assertEqual([*ratio, *rejected, *share, "0.10", "0.10"], cells[5:])


@unittest.skipIf(bound is None, "the solver is not installed")
class Bounds(unittest.TestCase):
    def test_the_programme_finds_what_brute_force_finds(self):
        traded = 0
        for seed in range(60):
            made = tiny(random.Random(seed))
            best = brute_force_msat(made)
            got = bound(made, 10)
            self.assertEqual(best, got.found_msat, seed)
            self.assertTrue(best <= got.bound_msat <= best * (1 + 3e-4) + 2, seed)
            traded += best > 0
        self.assertGreater(traded, 20)

    def test_pools_equal_pairs(self):
        """One denial takes all bids off the pools and must not change the optimum."""
        for seed in range(5):
            pooled = generated.book("one_slot", seed)
            paired = generated.book("one_slot", seed)
            for order in paired["orders"]:
                if order["side"] == "buy":
                    order["deny"] = ["nobody here"]
            stranger = ask("z", 10**6, deny=["a stranger"], window=[generated.FIRST_SLOT] * 2)
            stranger["window"][1] += 1
            paired["orders"].append(stranger)
            first, second = bound(pooled, 10), bound(paired, 10)
            self.assertAlmostEqual(first.found_msat, second.found_msat, delta=2000)


if __name__ == "__main__":
    unittest.main()
