"""A book as the matcher reads it, and an independent recount of a result.

A book is the JSON object that `capex match --input` takes. Prices are integer msat per
unit and slot, windows are half-open slot intervals.
"""

from dataclasses import dataclass

PMAX_MSAT = 10**12
"""Highest legal limit: an order above it is dropped."""

NO_EXPIRY = 1 << 62


@dataclass(frozen=True)
class Bid:
    """A live bid: `hours` consecutive slots, `min_qty` to `qty` units, one alternative."""

    id: str
    owner: str
    qty: int
    min_qty: int
    window: tuple
    features: int
    allow: frozenset
    deny: frozenset
    hours: int
    gang: bool
    alternatives: tuple

    def starts(self):
        return range(self.window[0], self.window[1] - self.hours + 1)


@dataclass(frozen=True)
class Ask:
    """A live ask: up to `qty` units of one class in every slot of its window."""

    id: str
    owner: str
    provider: str
    qty: int
    window: tuple
    features: int
    allow: frozenset
    deny: frozenset
    cls: int
    limit_msat: int
    min_run: int

    def covers(self, start, hours):
        return self.window[0] <= start and start + hours <= self.window[1]


def accept_each_other(bid, ask):
    """Whether the two may trade at all, price and time aside."""
    return (
        bid.owner != ask.owner
        and not bid.features & ~ask.features
        and ask.provider not in bid.deny
        and bid.owner not in ask.deny
        and (not bid.allow or ask.provider in bid.allow)
        and (not ask.allow or bid.owner in ask.allow)
        and bid.hours >= ask.min_run
    )


def _bid(order, qty, window):
    alternatives = order.get("alts") or [(order["class"], order["limit"])]
    return Bid(
        id=order["id"],
        owner=order["owner"],
        qty=qty,
        min_qty=min(order.get("min_qty", 1), qty),
        window=window,
        features=order.get("features", 0),
        allow=frozenset(order.get("allow", ())),
        deny=frozenset(order.get("deny", ())),
        hours=order.get("hours", 1),
        gang=order.get("mode", "sticky") == "gang",
        alternatives=tuple((cls, limit) for cls, limit in alternatives),
    )


def _ask(order, qty, window):
    return Ask(
        id=order["id"],
        owner=order["owner"],
        provider=order.get("provider", order["owner"]),
        qty=qty,
        window=window,
        features=order.get("features", 0),
        allow=frozenset(order.get("allow", ())),
        deny=frozenset(order.get("deny", ())),
        cls=order["class"],
        limit_msat=order["limit"],
        min_run=order.get("min_run", 1),
    )


def live(book):
    """The bids and asks that take part, each ascending by id."""
    now, epoch = book.get("now", 0), book.get("epoch", 0)
    owners = {order["id"]: order["owner"] for order in book["orders"]}
    cancels = book.get("cancels", ())
    cancelled = {c["order"] for c in cancels if owners.get(c["order"]) == c["signer"]}
    bids, asks = [], []
    for order in sorted(book["orders"], key=lambda order: order["id"]):
        qty = order["qty"] - order.get("filled", 0)
        window = (max(order["window"][0], now), order["window"][1])
        is_bid = order["side"] == "buy"
        made = (_bid if is_bid else _ask)(order, qty, window) if qty > 0 else None
        if made is None or order["id"] in cancelled:
            continue
        limit = max(msat for _, msat in made.alternatives) if is_bid else made.limit_msat
        needed = made.hours if is_bid else 1
        if (
            order.get("expiry_epoch", NO_EXPIRY) >= epoch
            and 0 < limit <= PMAX_MSAT
            and window[1] - window[0] >= needed
        ):
            (bids if is_bid else asks).append(made)
    return bids, asks


class Unsound(Exception):
    """A result that breaks a rule of the book it claims to answer."""


def welfare_msat(book, trades):
    """The exact welfare of `trades`, after checking every rule but prices.

    `trades` are mappings with `class`, `start`, `hours`, `buy`, `sell` and `qty`.
    Raises `Unsound` at the first rule that is broken.
    """
    bids, asks = live(book)
    bids, asks = {bid.id: bid for bid in bids}, {ask.id: ask for ask in asks}
    sold, runs, got, legs = {}, {}, {}, {}
    total = 0
    for trade in trades:
        bid, ask = bids.get(trade["buy"]), asks.get(trade["sell"])
        if bid is None or ask is None:
            raise Unsound(f"no such orders: {trade}")
        run = (trade["class"], trade["start"])
        limit = dict(bid.alternatives).get(ask.cls)
        if (
            limit is None
            or run[0] != ask.cls
            or trade["hours"] != bid.hours
            or trade["qty"] < 1
            or run[1] not in bid.starts()
            or not ask.covers(run[1], bid.hours)
            or not accept_each_other(bid, ask)
            or limit < ask.limit_msat
        ):
            raise Unsound(f"not what was asked for and offered: {trade}")
        if runs.setdefault(bid.id, run) != run:
            raise Unsound(f"more than one run: {trade}")
        got[bid.id] = got.get(bid.id, 0) + trade["qty"]
        legs.setdefault(bid.id, set()).add(ask.id)
        for slot in range(run[1], run[1] + bid.hours):
            sold[ask.id, slot] = sold.get((ask.id, slot), 0) + trade["qty"]
            if sold[ask.id, slot] > ask.qty:
                raise Unsound(f"oversold in slot {slot}: {trade}")
        total += trade["qty"] * bid.hours * (limit - ask.limit_msat)
    for bid_id, qty in got.items():
        bid = bids[bid_id]
        if not bid.min_qty <= qty <= bid.qty or (bid.gang and len(legs[bid_id]) > 1):
            raise Unsound(f"bid {bid_id} gets {qty} units from {len(legs[bid_id])} asks")
    return total
