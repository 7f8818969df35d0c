"""What a result is worth: its welfare, who gets it, and which bids it wrongs."""

from collections import defaultdict
from dataclasses import dataclass

from orders import Unsound, accept_each_other, live, welfare_msat


@dataclass(frozen=True)
class Score:
    """Figures of one result, money in msat."""

    welfare_msat: int
    buyers_msat: int
    """What buyers keep: limits minus payments."""
    filled_msat: int
    """Limits of what is traded, at the alternative used."""
    wanted_msat: int
    """Limits of all live bids in full, at the dearest alternative."""
    rejected: int
    """Bids paradoxically rejected."""
    at_the_money: int
    """Bids unfilled whose best run costs exactly their limit."""


def score(book, outcome):
    """Scores `outcome`, the answer of `capex match` to `book`.

    Raises `Unsound` if a trade breaks a rule, a run costs more than the bid's limit or less
    than the ask's, or the reported welfare is not the recounted one.
    """
    trades, prices = outcome["trades"], _prices(outcome)
    total = welfare_msat(book, trades)
    if total != outcome["welfare_msat"]:
        raise Unsound(f"welfare is {total}, reported {outcome['welfare_msat']}")
    bids, asks = live(book)
    by_id = {order.id: order for order in [*bids, *asks]}
    filled = 0
    for trade in trades:
        bid, ask = by_id[trade["buy"]], by_id[trade["sell"]]
        limit = dict(bid.alternatives)[trade["class"]] * bid.hours
        run = _run_msat(prices, trade["class"], trade["start"], bid.hours)
        if run is None or not ask.limit_msat * bid.hours <= run <= limit:
            raise Unsound(f"the prices do not support {trade}")
        if trade["msat"] != run * trade["qty"]:
            raise Unsound(f"not the published price: {trade}")
        filled += limit * trade["qty"]
    in_the_money, at_the_money = unfilled_in_the_money(bids, asks, trades, prices)
    return Score(
        welfare_msat=total,
        buyers_msat=filled - sum(trade["msat"] for trade in trades),
        filled_msat=filled,
        wanted_msat=sum(max(m for _, m in b.alternatives) * b.qty * b.hours for b in bids),
        rejected=len(in_the_money),
        at_the_money=len(at_the_money),
    )


def _prices(outcome):
    keys = ((key.split("/"), msat) for key, msat in outcome["prices"].items())
    return {(int(cls), int(slot)): msat for (cls, slot), msat in keys}


def _run_msat(prices, cls, start, hours):
    """What a run costs at the published prices; none if a slot of it has no price."""
    slots = [prices.get((cls, slot)) for slot in range(start, start + hours)]
    return None if None in slots else sum(slots)


def unfilled_in_the_money(bids, asks, trades, prices):
    """Ids of the bids paradoxically rejected, and of those rejected exactly at the money.

    A bid is paradoxically rejected when it gets no unit although one of its runs (an
    alternative and a start) has a published price in every slot, costs less than the bid's
    limit, and is offered: asks that accept the bid, cover the run and ask no more than it
    costs bring the bid's minimum quantity together (a gang's: one of them alone), counted
    before anything is sold. At the money: the same, but the cheapest such run costs exactly
    the limit.
    """
    filled = {trade["buy"] for trade in trades}
    by_class = defaultdict(list)
    for ask in asks:
        by_class[ask.cls].append(ask)
    in_the_money, at_the_money = [], []
    for bid in bids:
        if bid.id in filled:
            continue
        gain = _best_gain(bid, by_class, prices)
        if gain is not None:
            (in_the_money if gain > 0 else at_the_money).append(bid.id)
    return in_the_money, at_the_money


def _best_gain(bid, by_class, prices):
    """The most a bid could gain per unit at the published prices; none below zero."""
    best = None
    for cls, limit in bid.alternatives:
        for start in bid.starts():
            run = _run_msat(prices, cls, start, bid.hours)
            if run is None or run > limit * bid.hours:
                continue
            gain = limit * bid.hours - run
            if (best is None or gain > best) and _is_offered(bid, by_class[cls], start, run):
                best = gain
    return best


def _is_offered(bid, asks, start, run_msat):
    units = 0
    for ask in asks:
        if (
            ask.limit_msat * bid.hours <= run_msat
            and ask.covers(start, bid.hours)
            and accept_each_other(bid, ask)
        ):
            units = max(units, ask.qty) if bid.gang else units + ask.qty
            if units >= bid.min_qty:
                return True
    return False
