"""Books made from real logs. What a log does not say (mostly limits) is drawn from a seed.

The logs and their origins are in `data/SOURCES.md`.

- `unilu`: jobs of an HPC cluster, one book per day. A job is an all-or-none bid for
  ceil(run time / 1 h) slots of ceil(processors / 12) units by its user. Interactive jobs
  have no room and high limits, normal ones 2 to 6 slots of room, best-effort ones 24 and
  low limits. Three to six asks offer 0.8 times the demand. Limits are synthetic.
- `italy_zone`, `italy_pooled`: the Italian day-ahead power book, one book per day and zone
  (those with block orders) or per day. The market is mirrored at the price cap, so that
  supply becomes bids and its blocks become all-or-none bids for several slots. Prices and
  quantities are the real ones.
- `azure_llm`: requests to language models, one book per two minutes. A request bids for a
  slot of one of two or three classes of GPU, its units follow its tokens; limits and asks
  spread around prices of GPU clouds.
"""

import csv
import gzip
import random
from collections import defaultdict
from decimal import Decimal
from functools import cache
from pathlib import Path

from generated import beacon, price_msat

KINDS = ("unilu", "italy_zone", "italy_pooled", "azure_llm")

DATA = Path(__file__).parent / "data"
MAX_HOURS = 168
MAX_QTY = 10_000


def count(kind):
    """How many books of a kind there are."""
    return len(_index(kind))


def book(kind, number):
    """One book of a kind, `number` from 0."""
    make = {
        "unilu": _unilu,
        "italy_zone": _italy,
        "italy_pooled": _italy,
        "azure_llm": _azure,
    }[kind]
    made = make(_index(kind)[number])
    made["beacon"] = beacon(f"{kind}/{number}")
    return made


@cache
def _index(kind):
    if kind == "unilu":
        return sorted(_jobs_by_day())
    if kind == "italy_pooled":
        return sorted({(day, None) for day, _zone in _steps()})
    if kind == "italy_zone":
        return sorted({(day, zone) for day, zone, supply, _leg in _blocks() if supply})
    return list(range(30))


def _rows(name):
    with gzip.open(DATA / name, "rt", newline="") as file:
        yield from csv.DictReader(file)


# The HPC log.

DAY_S = 86_400
HOUR_S = 3_600
CORES_PER_UNIT = 12
QUEUES = {"0": (250_000, (0, 0)), "1": (100_000, (2, 6)), "2": (60_000, (24, 24))}
"""Per queue: the base of the limit in msat, and the slots of room, least and most."""


@cache
def _jobs_by_day():
    days = defaultdict(list)
    for row in _rows("unilu-gaia-2014/jobs.csv.gz"):
        days[int(row["submit_s"]) // DAY_S].append(row)
    return days


def _unilu(day):
    rng = random.Random(f"unilu/{day}")
    orders = [_job_bid(rng, i, row) for i, row in enumerate(_jobs_by_day()[day])]
    demand = sum(order["qty"] * order["hours"] for order in orders)
    end = max(order["window"][1] for order in orders)
    sellers = rng.randint(3, 6)
    for i in range(sellers):
        width = rng.choice((end, end, min(end, 72), min(end, 48)))
        qty = max(1, demand * 8 // 10 // sellers // width)
        orders.append(_seller(f"s{i}", 0, (0, width), qty, price_msat(rng, 60_000)))
    return {"orders": orders}


def _job_bid(rng, i, row):
    hours = min(MAX_HOURS, max(1, -(-int(row["run_s"]) // HOUR_S)))
    base_msat, room = QUEUES[row["queue"]]
    start = int(row["submit_s"]) % DAY_S // HOUR_S
    qty = max(1, -(-int(row["procs"]) // CORES_PER_UNIT))
    return {
        "id": f"b{i:04}",
        "owner": f"user{row['user']}",
        "side": "buy",
        "qty": qty,
        "min_qty": qty,
        "window": [start, start + hours + rng.randint(*room)],
        "hours": hours,
        "class": 0,
        "limit": price_msat(rng, base_msat),
    }


def _seller(name, cls, window, qty, limit_msat):
    return {
        "id": name,
        "owner": f"seller-{name}",
        "side": "sell",
        "qty": qty,
        "window": list(window),
        "class": cls,
        "limit": limit_msat,
    }


# The power market.

PRICE_CAP_EUR = 4_000
CAP_MSAT = (PRICE_CAP_EUR + 1) * 1_000
"""Mirror: a price of p EUR/MWh becomes CAP_MSAT - 1000 p, at least 1000 msat at the cap."""


def _mirrored_msat(text):
    return CAP_MSAT - int(Decimal(text) * 1_000)


def _units(text):
    """Tenths of a MWh; the log carries rounding noise far below that."""
    return round(Decimal(text) * 10)


@cache
def _steps():
    """(day, zone) to a list of (slot, is supply, limit, units)."""
    steps = defaultdict(list)
    for row in _rows("gme-italy-2025-04/simple-bid-curves.csv.gz"):
        step = (
            int(row["period"]) - 1,
            row["side"] == "supply",
            _mirrored_msat(row["price_eur_per_mwh"]),
            _units(row["quantity_mwh"]),
        )
        if step[3] > 0:
            steps[row["delivery_day"], row["zone"]].append(step)
    return steps


@cache
def _blocks():
    """Block orders with one price and quantity over consecutive slots.

    (day, zone, is supply, (first slot, slots, limit, units)); blocks of another shape have
    no counterpart among bids and are left out.
    """
    legs = defaultdict(list)
    for row in _rows("gme-italy-2025-04/block-orders.csv.gz"):
        key = row["delivery_day"], row["zone"], row["side"] == "supply", row["block_id"]
        value = _mirrored_msat(row["price_eur_per_mwh"]), _units(row["quantity_mwh"])
        legs[key].append((int(row["period"]) - 1, *value))
    blocks = []
    for (day, zone, supply, _name), steps in sorted(legs.items()):
        slots = sorted(slot for slot, _, _ in steps)
        values = {(limit_msat, units) for _, limit_msat, units in steps}
        if len(values) == 1 and slots == list(range(slots[0], slots[-1] + 1)):
            blocks.append((day, zone, supply, (slots[0], len(slots), *values.pop())))
    return blocks


def _italy(index):
    day, wanted = index
    zones = [zone for at, zone in _steps() if at == day and wanted in (None, zone)]
    bids, profiles = [], defaultdict(lambda: [0] * 24)
    for zone in sorted(zones):
        for slot, supply, limit_msat, units in _steps()[day, zone]:
            if supply:
                bids.append((slot, 1, limit_msat, units, 1))
            else:
                profiles[zone, limit_msat][slot] += units
    asks = [
        (*layer, msat) for (_, msat), units in sorted(profiles.items()) for layer in layers(units)
    ]
    for at, zone, supply, (slot, hours, limit_msat, units) in _blocks():
        if at != day or zone not in zones:
            continue
        if supply:
            bids.append((slot, hours, limit_msat, units, units))
        else:
            asks.append((slot, slot + hours, units, limit_msat))
    orders = [order for i, bid in enumerate(bids) for order in _power_bids(i, *bid)]
    for i, (first, end, units, limit_msat) in enumerate(asks):
        for part, qty in enumerate(_parts(units)):
            orders.append(_seller(f"s{i:05}-{part}", 0, (first, end), qty, limit_msat))
    return {"orders": orders}


def _parts(units):
    """`units` cut into orders of at most MAX_QTY."""
    return [min(MAX_QTY, units - done) for done in range(0, units, MAX_QTY)]


def _power_bids(i, slot, hours, limit_msat, units, min_units):
    """The bids for one supply step or block; steps are cut where they exceed an order."""
    for part, qty in enumerate(_parts(units)):
        yield {
            "id": f"b{i:05}-{part}",
            "owner": f"buyer-{i:05}",
            "side": "buy",
            "qty": qty,
            "min_qty": min(qty, min_units),
            "window": [slot, slot + hours],
            "hours": hours,
            "class": 0,
            "limit": limit_msat,
        }


def layers(units):
    """Splits a profile of units per slot into (first slot, end slot, units), as long as can be.

    The layers of a slot add up to its units, so a bid for one slot sees the same supply and
    a bid for a run sees all that lasts over the run.
    """
    made, open_layers = [], []
    for slot, level in enumerate([*units, 0]):
        height = sum(qty for _, qty in open_layers)
        while height > level:
            first, qty = open_layers.pop()
            cut = min(qty, height - level)
            made.append((first, slot, cut))
            height -= cut
            if cut < qty:
                open_layers.append((first, qty - cut))
        if level > height:
            open_layers.append((slot, level - height))
    return sorted(made)


# The language-model requests.

BOOK_S = 120
ONE_IN = 4
"""Every fourth request bids, which leaves about 240 bids to a book."""
TOKENS_PER_UNIT = 1_000
MSAT_PER_USD = 1_000_000
"""1 USD = 1,000 sat, a fixed rate for a benchmark."""
GPUS = ("L40S 48GB", "A100 80GB SXM", "H100 80GB SXM", "H200 141GB SXM")
LARGE_TOKENS = 2_000
"""Longer requests do not bid for the smallest class, shorter ones not for the largest."""


@cache
def _requests():
    """Book number to (trace, tokens) in order of arrival."""
    books = defaultdict(list)
    for trace in ("code", "conv"):
        rows = _rows(f"azure-llm-2023/AzureLLMInferenceTrace_{trace}.csv.gz")
        first_s = None
        for i, row in enumerate(rows):
            hours, minutes, seconds = row["TIMESTAMP"].split()[1].split(":")
            at_s = (int(hours) * 60 + int(minutes)) * 60 + int(seconds.split(".")[0])
            first_s = at_s if first_s is None else first_s
            if i % ONE_IN == 0:
                tokens = int(row["ContextTokens"]) + int(row["GeneratedTokens"])
                books[(at_s - first_s) // BOOK_S].append((trace, tokens))
    return books


@cache
def _anchors_msat():
    """Class to the cheapest asks per provider and day, in msat per slot."""
    with open(DATA / "gpu-ask-anchors/cheapest_ask.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    anchors = defaultdict(list)
    for row in rows:
        if row["gpu"] in GPUS:
            msat = int(Decimal(row["usd_per_gpu_hour"]) * MSAT_PER_USD)
            anchors[GPUS.index(row["gpu"])].append(msat)
    return anchors


def _azure(number):
    rng = random.Random(f"azure/{number}")
    bids = [_request_bid(rng, i, *request) for i, request in enumerate(_requests()[number])]
    demand = sum(bid["qty"] for bid in bids)
    asks = []
    for cls, anchors in sorted(_anchors_msat().items()):
        for i, anchor in enumerate(anchors * 2):
            msat = anchor * rng.randint(850, 1_300) // 1_000
            asks.append(_seller(f"s{cls}-{i:02}", cls, (0, 3), 1, msat))
    for ask in asks:
        ask["qty"] = max(1, demand * rng.randint(2, 14) // 8 // len(asks) // 3)
    return {"orders": bids + asks}


def _request_bid(rng, i, trace, tokens):
    classes = range(1, 4) if tokens > LARGE_TOKENS else range(0, 3)
    will = price_msat(rng, 1_000)
    alts = []
    for cls in classes:
        anchors = _anchors_msat()[cls]
        mean = sum(anchors) // len(anchors)
        alts.append([cls, mean * will // 1_000 * rng.randint(90, 110) // 100])
    start = 0 if trace == "code" else rng.randint(0, 1)
    return {
        "id": f"b{i:04}",
        "owner": f"buyer-{i:04}",
        "side": "buy",
        "qty": -(-tokens // TOKENS_PER_UNIT),
        "window": [start, start + (1 if trace == "code" else 2)],
        "hours": 1,
        "alts": alts,
    }
