"""The most welfare any allocation of a book could have, from a mixed-integer programme.

The programme knows capacity, windows, minimum fill, alternatives, gangs and compatibility,
but not that one uniform price has to support the trades: its optimum can be out of reach
of any matcher of this market, so a ratio to it understates the matcher.

Variables, for every bid and every run (alternative, start) that some ask can serve:

- `y`: the run is used (0 or 1). A bid uses at most one run; a gang has one `y` per ask.
- `x`: units of the run from one ask, an integer.
- One-slot sticky bids that every ask of the class accepts send `x` to the class's pool of
  that slot instead of single asks; each ask sends its units of a slot into the pool. Both
  sides balance, so nothing is lost and the number of columns becomes a sum instead of a
  product.

The solver is a floating-point programme, so what it says is never believed: its solution
is counted again with integers, and the bound it proves is widened by its own tolerance.
"""

import math
import time
from collections import defaultdict
from dataclasses import dataclass

import highspy
import numpy as np

from known import CLOSED_GAP
from orders import accept_each_other, live, welfare_msat

TOLERANCE = 1e-6
"""Relative widening of the proven bound: the feasibility tolerance of the solver."""


REL_GAP = 1e-4
"""The solver stops here: a bound that is at most this much too high."""


WALL_FACTOR = 10


@dataclass(frozen=True)
class Bound:
    """What is known about the optimum of one book, in msat."""

    bound_msat: int
    found_msat: int
    """Welfare of the best allocation that the solver found, counted with integers."""
    seconds: float
    """Processor time of the solver."""

    @property
    def gap(self):
        return (self.bound_msat - self.found_msat) / max(self.bound_msat, 1)


class Programme:
    """Columns and rows, collected row by row and handed over at once."""

    def __init__(self):
        self.cost, self.upper, self.meaning = [], [], []
        self.rows = []

    def column(self, cost, upper, meaning=None):
        self.cost.append(cost)
        self.upper.append(upper)
        self.meaning.append(meaning)
        return len(self.cost) - 1

    def row(self, lower, upper, terms):
        self.rows.append((lower, upper, terms))

    def solve(self, seconds, relaxed=False, begin=None):
        """The proven upper bound, the solution found (or none) and the time it took.

        Time is this process's processor time, so that a busy machine bounds as well as an
        idle one; the clock stops the solver only where that is WALL_FACTOR times as much.

        `relaxed` lets all columns but the 0-1 ones be fractions: still a bound, and sooner.
        `begin` is a solution to start from.
        """
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(self.rows)
        lp.sense_ = highspy.ObjSense.kMaximize
        lp.col_cost_ = np.array(self.cost, dtype=np.float64)
        lp.col_lower_ = np.zeros(len(self.cost))
        lp.col_upper_ = np.array(self.upper, dtype=np.float64)
        lp.row_lower_ = np.array([row[0] for row in self.rows], dtype=np.float64)
        lp.row_upper_ = np.array([row[1] for row in self.rows], dtype=np.float64)
        kinds = highspy.HighsVarType
        units = kinds.kContinuous if relaxed else kinds.kInteger
        lp.integrality_ = [kinds.kInteger if m is None else units for m in self.meaning]
        matrix = lp.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        sizes = np.cumsum([0] + [len(row[2]) for row in self.rows])
        matrix.start_ = sizes.astype(np.int32)
        matrix.index_ = np.array([c for row in self.rows for c, _ in row[2]], dtype=np.int32)
        matrix.value_ = np.array([v for row in self.rows for _, v in row[2]], dtype=np.float64)
        # The seed stays at its default: others are known to give wrong bounds.
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("time_limit", float(seconds * WALL_FACTOR))
        highs.setOptionValue("mip_rel_gap", REL_GAP)
        highs.passModel(lp)
        if begin is not None:
            highs.setSolution(len(begin), np.arange(len(begin), dtype=np.int32), begin)
        begun = time.process_time()

        def interrupt_late(event):
            if time.process_time() - begun > seconds:
                event.interrupt()

        highs.cbMipInterrupt += interrupt_late
        highs.run()
        statuses = highspy.HighsModelStatus
        status = highs.getModelStatus()
        if status not in (statuses.kOptimal, statuses.kTimeLimit, statuses.kInterrupt):
            raise ArithmeticError(f"the solver ended with {status}")
        info = highs.getInfo()
        found = None
        if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
            found = highs.getSolution().col_value
        return info.mip_dual_bound, found, time.process_time() - begun


def bound(book, seconds):
    """Bounds the welfare of `book`, spending about `seconds` of the processor.

    First with fractional units, whose optimum is nearly always whole, for half of the time;
    then, unless that closed the gap, with whole units from what was found.
    """
    bids, asks = live(book)
    programme = build(bids, asks)
    if not programme.cost:
        return Bound(0, 0, 0.0)
    gains = zip(programme.cost, programme.upper, strict=True)
    best = Bound(sum(cost * units for cost, units in gains if cost > 0), 0, 0.0)
    scale = 1000.0 / max(programme.cost)
    programme.cost = [cost * scale for cost in programme.cost]
    begin = None
    # Without a 0-1 column the relaxed one would be a linear programme, which proves otherwise.
    has_choices = None in programme.meaning
    for relaxed in (True, False) if has_choices else (False,):
        proven, values, took = programme.solve(seconds / 2, relaxed, begin)
        found = 0
        if values is not None:
            found, begin = _counted(book, programme, values, bids, asks)
        best = _tightened(best, proven / scale, found, took)
        if best.gap <= CLOSED_GAP:
            break
    return best


def _tightened(best, proven_msat, found_msat, seconds):
    """`best` after one more run of the solver; refuses a bound that is proven wrong."""
    if max(best.found_msat, found_msat) > proven_msat * (1 + TOLERANCE) + 1:
        raise ArithmeticError(f"the solver's bound {proven_msat} is below what it found")
    bound_msat = best.bound_msat
    if math.isfinite(proven_msat):
        bound_msat = min(bound_msat, math.ceil(proven_msat * (1 + TOLERANCE)) + 1)
    return Bound(bound_msat, max(best.found_msat, found_msat), best.seconds + seconds)


def _counted(book, programme, values, bids, asks):
    """The welfare of a solution and a start for the next run; fractions count for nothing."""
    if any(abs(value - round(value)) > 1e-5 for value in values):
        return 0, None
    whole = np.array([round(value) for value in values], dtype=np.float64)
    return welfare_msat(book, trades(programme, whole, bids, asks)), whole


class Class:
    """The asks of one class, and what bids they turn away."""

    def __init__(self):
        self.asks = []
        self.owners = set()
        self.choosy = False

    def add(self, ask):
        self.asks.append(ask)
        self.owners.add(ask.owner)
        self.choosy = self.choosy or bool(ask.allow or ask.deny or ask.min_run > 1)

    def accepting(self, bid):
        return [ask for ask in self.asks if accept_each_other(bid, ask)]

    def pools(self, bid):
        """Whether the bid may trade with the pools: any unit of a slot is as good as another."""
        if bid.hours > 1 or bid.min_qty > 1 or bid.gang:
            return False
        plain = not (bid.features or bid.allow or bid.deny or bid.owner in self.owners)
        if plain and not self.choosy:
            return True
        return len(self.accepting(bid)) == len(self.asks)


def build(bids, asks):
    """The programme of a book. Columns mean ("x", bid, class, start, ask) and the like."""
    programme = Programme()
    by_class = defaultdict(Class)
    for ask in asks:
        by_class[ask.cls].add(ask)
    capacity = defaultdict(list)
    pools = defaultdict(lambda: ([], []))
    for bid in bids:
        _add_bid(programme, bid, by_class, capacity, pools)
    for ask in asks:
        _add_to_pools(programme, ask, capacity, pools)
    for into, out in pools.values():
        programme.row(0, 0, [(c, 1) for c in into] + [(c, -1) for c in out])
    units = {ask.id: ask.qty for ask in asks}
    for (ask_id, _slot), columns in capacity.items():
        programme.row(-math.inf, units[ask_id], [(c, 1) for c in columns])
    return programme


def _add_bid(programme, bid, by_class, capacity, pools):
    choices = []
    for cls, limit in bid.alternatives:
        if by_class[cls].pools(bid):
            for start in bid.starts():
                x = programme.column(limit, bid.qty, ("pooled", bid, cls, start, None))
                pools[cls, start][0].append(x)
                choices.append(([x], bid.qty))
            continue
        worth = [ask for ask in by_class[cls].accepting(bid) if ask.limit_msat <= limit]
        for start in bid.starts():
            serving = [ask for ask in worth if ask.covers(start, bid.hours)]
            if sum(ask.qty for ask in serving) < bid.min_qty:
                continue
            if bid.gang:
                choices += _gang_runs(programme, bid, limit, start, serving, capacity)
            else:
                columns = []
                for ask in serving:
                    gain = (limit - ask.limit_msat) * bid.hours
                    meaning = ("x", bid, cls, start, ask)
                    x = programme.column(gain, min(bid.qty, ask.qty), meaning)
                    _occupy(capacity, ask, start, bid.hours, x)
                    columns.append(x)
                choices.append((columns, bid.qty))
    if not bid.gang:
        choices = _tie_units_to_runs(programme, bid, choices)
    if len(choices) > 1:
        programme.row(-math.inf, 1, [(y, 1) for y in choices])


def _occupy(capacity, ask, start, hours, column):
    for slot in range(start, start + hours):
        capacity[ask.id, slot].append(column)


def _gang_runs(programme, bid, limit, start, serving, capacity):
    """One 0-1 column per ask that can hold the gang; units beside it unless all or none."""
    choices = []
    for ask in serving:
        most = min(bid.qty, ask.qty)
        if most < bid.min_qty:
            continue
        gain = (limit - ask.limit_msat) * bid.hours
        meaning = ("x", bid, ask.cls, start, ask)
        y = programme.column(0, 1)
        x = programme.column(gain, most, meaning)
        _occupy(capacity, ask, start, bid.hours, x)
        programme.row(-math.inf, 0, [(x, 1), (y, -most)])
        programme.row(0, math.inf, [(x, 1), (y, -bid.min_qty)])
        choices.append(y)
    return choices


def _tie_units_to_runs(programme, bid, choices):
    """0-1 columns of the runs of a sticky bid; none when one divisible run needs no choice."""
    if len(choices) == 1 and bid.min_qty == 1:
        columns, qty = choices[0]
        if len(columns) > 1:
            programme.row(-math.inf, qty, [(x, 1) for x in columns])
        return []
    ys = []
    for columns, qty in choices:
        y = programme.column(0, 1)
        units = [(x, 1) for x in columns]
        programme.row(-math.inf, 0, units + [(y, -qty)])
        if bid.min_qty > 1:
            programme.row(0, math.inf, units + [(y, -bid.min_qty)])
        for x in columns:
            if programme.upper[x] < qty:
                programme.row(-math.inf, 0, [(x, 1), (y, -programme.upper[x])])
        ys.append(y)
    return ys


def _add_to_pools(programme, ask, capacity, pools):
    for slot in range(*ask.window):
        if pools.get((ask.cls, slot)):
            g = programme.column(-ask.limit_msat, ask.qty, ("pool", None, ask.cls, slot, ask))
            pools[ask.cls, slot][1].append(g)
            capacity[ask.id, slot].append(g)


def trades(programme, values, bids, asks):
    """The trades that a solution stands for, pools dealt out in any order.

    A pair at a loss, which only a solution short of the optimum has, is left out.
    """
    made, wanted, offered = [], defaultdict(list), defaultdict(list)
    for meaning, value in zip(programme.meaning, values, strict=True):
        units = round(value)
        if meaning is None or units == 0:
            continue
        role, bid, cls, start, ask = meaning
        if role == "x":
            made.append(_trade(bid, cls, start, ask, units))
        else:
            (wanted if role == "pooled" else offered)[cls, start].append([bid or ask, units])
    for key, takers in wanted.items():
        givers = offered[key]
        for bid, units in takers:
            while units > 0 and givers:
                ask, left = givers[-1]
                part = min(units, left)
                if ask.limit_msat <= dict(bid.alternatives)[ask.cls]:
                    made.append(_trade(bid, *key, ask, part))
                units -= part
                givers[-1][1] -= part
                if givers[-1][1] == 0:
                    givers.pop()
    return made


def _trade(bid, cls, start, ask, qty):
    return {
        "class": cls,
        "start": start,
        "hours": bid.hours,
        "buy": bid.id,
        "sell": ask.id,
        "qty": qty,
    }
