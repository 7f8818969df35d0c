"""Seeded books of five kinds. Integers only: the same seed gives the same book anywhere.

Every kind has 80 bids and 25 asks. Prices are products of eight uniform factors, which is
close to log-normal (standard deviation of the logarithm about 0.36), with a median of about
115 sat for bids and 87 sat for asks. Supply is about as large as demand in unit-slots, but a
third of it is too dear or at the wrong time: a third to a half of the demand loses.

- `one_slot`: one slot, one class, divisible bids for one slot.
- `fixed`: 24 slots, runs of 1 to 6 slots at a fixed start, divisible.
- `flexible`: as `fixed`, with 0 to 4 slots of room for the start.
- `gang`: as `flexible`; six in ten bids want all units from one ask, most all or none.
- `mixed`: three classes with one to three alternatives, minimum quantities, minimum runs,
  required features, denied counterparties, resale, owners with several orders.
"""

import hashlib
import random

KINDS = ("one_slot", "fixed", "flexible", "gang", "mixed")

BIDS = 80
ASKS = 25
SLOTS = 24
FIRST_SLOT = 1000
"""Any number does; not zero, so that a mix-up of slots and offsets shows."""

HOURS = (1, 1, 1, 2, 2, 3, 4, 6)
"""Lengths of runs, one as likely as the other: short ones prevail."""
ROOM = (0, 0, 1, 2, 3, 4)
"""Slots of room for the start. With more, no solver closes the gap within a minute."""

BID_BASE_MSAT = 100_000
ASK_BASE_MSAT = 75_000


def beacon(label):
    """A beacon for a book that no chain block seeds."""
    return hashlib.sha256(f"welfare/{label}".encode()).hexdigest()


def price_msat(rng, base_msat):
    """A price near log-normal, its median 1.15 times `base_msat`, with integer steps only."""
    msat = base_msat
    for _ in range(8):
        msat = msat * rng.randint(800, 1250) // 1000
    return msat


def book(kind, seed):
    """The book of one kind and seed."""
    rng = random.Random(f"{kind}/{seed}")
    orders = [_bid(kind, rng, i) for i in range(BIDS)]
    orders += [_ask(kind, rng, i) for i in range(ASKS)]
    if kind == "mixed":
        for order in orders:
            _mix(rng, order)
    return {"beacon": beacon(f"{kind}/{seed}"), "orders": orders}


def _bid(kind, rng, i):
    hours = 1 if kind == "one_slot" else rng.choice(HOURS)
    room = 0 if kind in ("one_slot", "fixed") else rng.choice(ROOM)
    span = 1 if kind == "one_slot" else SLOTS
    width = min(span, hours + room)
    start = FIRST_SLOT + rng.randint(0, span - width)
    order = {
        "id": f"b{i:02}",
        "owner": f"buyer{i:02}",
        "side": "buy",
        "qty": rng.randint(1, 8),
        "window": [start, start + width],
        "hours": hours,
        "class": 0,
        "limit": price_msat(rng, BID_BASE_MSAT),
    }
    gang = kind == "gang" and rng.randint(1, 10) <= 6
    if gang or (kind == "mixed" and rng.randint(1, 10) <= 2):
        order["mode"] = "gang"
        order["min_qty"] = order["qty"] if rng.randint(1, 4) <= 3 else (order["qty"] + 1) // 2
    return order


def _ask(kind, rng, i):
    if kind == "one_slot":
        start, width, qty = 0, 1, rng.randint(2, 12)
    else:
        width = rng.randint(6, SLOTS)
        start, qty = rng.randint(0, SLOTS - width), rng.randint(1, 4)
    return {
        "id": f"s{i:02}",
        "owner": f"seller{i:02}",
        "side": "sell",
        "qty": qty,
        "window": [FIRST_SLOT + start, FIRST_SLOT + start + width],
        "class": 0,
        "limit": price_msat(rng, ASK_BASE_MSAT),
    }


def _mix(rng, order):
    """Gives an order what only the mixed kind has."""
    if order["side"] == "sell":
        order["class"] = rng.randint(0, 2)
        order["features"] = rng.randint(0, 7) | rng.randint(0, 7)
        order["qty"] += 1
        if rng.randint(1, 5) == 1:
            order["min_run"] = rng.randint(2, 4)
        if rng.randint(1, 5) == 1:
            order["provider"] = f"seller{rng.randint(0, ASKS - 1):02}"
        if rng.randint(1, 5) == 1:
            order["deny"] = [f"buyer{rng.randint(0, BIDS - 1):02}" for _ in range(3)]
        return
    limit = order.pop("limit")
    del order["class"]
    classes = rng.sample(range(3), rng.choice((1, 1, 2, 3)))
    order["alts"] = [[cls, limit * rng.randint(85, 100) // 100] for cls in classes]
    if rng.randint(1, 4) == 1:
        order["features"] = 1 << rng.randint(0, 2)
    if "mode" not in order and rng.randint(1, 3) == 1:
        order["min_qty"] = rng.randint(1, order["qty"])
    if rng.randint(1, 6) == 1:
        order["deny"] = [f"seller{rng.randint(0, ASKS - 1):02}" for _ in range(2)]
    if rng.randint(1, 8) == 1:
        order["owner"] = f"seller{rng.randint(0, ASKS - 1):02}"
