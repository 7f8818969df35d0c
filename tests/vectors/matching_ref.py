#!/usr/bin/env python3
"""Reference for the price-feasible greedy batch matcher, versions 1 and 2: the exact rules where the prose is short.
Pure Python integers, no dependencies. `python3 matching_ref.py matching-golden.json` re-checks the vectors of version 1,
`python3 matching_ref.py matching-golden-2.json 2` those of version 2."""
import hashlib, json, sys

PMAX = 10**12                      # msat per unit-hour, also the largest legal limit
GANG, STICKY = "gang", "sticky"


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


class Order:
    def __init__(self, d):
        self.id, self.owner, self.side = d["id"], d["owner"], d["side"]
        self.q = d["qty"] - d.get("filled", 0)
        self.m = min(d.get("min_qty", 1), max(self.q, 0))
        self.w0, self.w1 = d["window"]                     # [first hour, end hour)
        self.expiry = d.get("expiry_epoch", 1 << 62)
        self.features = d.get("features", 0)               # buyer: required bits, seller: offered bits
        self.allow, self.deny = set(d.get("allow", [])), set(d.get("deny", []))
        if self.side == "buy":
            self.k, self.mode = d.get("hours", 1), d.get("mode", STICKY)
            self.alts = [tuple(a) for a in d["alts"]] if "alts" in d else [(d["class"], d["limit"])]
            self.limit = max(l for _, l in self.alts)
        else:
            self.cls, self.limit = d["class"], d["limit"]
            self.min_run, self.provider = d.get("min_run", 1), d.get("provider", d["owner"])


def compat(b, s):
    return (b.owner != s.owner                              # self-trade prevention
            and not (b.features & ~s.features)
            and s.provider not in b.deny and b.owner not in s.deny
            and (not b.allow or s.provider in b.allow) and (not s.allow or b.owner in s.allow)
            and b.k >= s.min_run)


class Closure:
    """All-pairs closure of integer difference constraints X[v]-X[u] <= w on prefix sums X of slot prices."""

    def __init__(self, t0, t1):
        self.t0, n = t0, t1 - t0 + 1
        self.d = [[(j - i) * PMAX if j > i else 0 for j in range(n)] for i in range(n)]

    def hi(self, a, b): return self.d[a - self.t0][b - self.t0]        # max of sum p[a..b)
    def lo(self, a, b): return -self.d[b - self.t0][a - self.t0]       # min of sum p[a..b)

    def _add(self, u, v, w):
        d = self.d
        if w >= d[u][v]: return
        assert w + d[v][u] >= 0, "infeasible"
        row = d[v]
        for i in range(len(d)):
            base = d[i][u] + w
            for j in range(len(d)):
                if base + row[j] < d[i][j]: d[i][j] = base + row[j]

    def at_most(self, a, b, x): self._add(a - self.t0, b - self.t0, x)
    def at_least(self, a, b, x): self._add(b - self.t0, a - self.t0, -x)


def one_pass(orders, beacon, now, start, sequence=None):
    B = [o for o in orders if o.side == "buy"]
    S = [o for o in orders if o.side == "sell"]
    draw = {o.owner: sha(b"draw", beacon, o.owner.encode()) for o in orders}
    tie = lambda o: (draw[o.owner], o.id.encode())

    def prio(o):
        if start == 1: return o.limit                                      # LIMIT
        if start == 2:                                                     # SUR: best conceivable surplus per unit
            d = 0
            for c, limit in o.alts:
                for s in S:
                    if s.cls == c and s.w0 <= o.w1 - o.k and s.w1 >= max(o.w0, now) + o.k and compat(o, s): d = max(d, limit - s.limit)
            return d * o.k * (o.m if o.mode == GANG else 1)
        z = o.limit * o.limit * o.k * (o.m if o.mode == GANG else 1)          # LOS
        if start >= 3: z *= 500 + int.from_bytes(sha(b"pert", beacon, bytes([start]), o.id.encode())[:4], "big") % 1001
        return z
    B.sort(key=lambda o: (-prio(o), *tie(o)))
    if sequence is None: sequence = [b for b in B if served(b, S, now)]   # the others find no ask
    S.sort(key=lambda o: (o.limit, *tie(o)))
    rank = {s.id: i for i, s in enumerate(S)}
    res = {s.id: {t: s.q for t in range(max(s.w0, now), s.w1)} for s in S}
    D = {}
    for c in sorted({c for b in B for c, _ in b.alts}):
        bs = [b for b in B if any(c == x for x, _ in b.alts)]
        D[c] = Closure(min(max(b.w0, now) for b in bs), max(b.w1 for b in bs))
    got = {}                                               # buyer id -> (buyer, cls, limit, start, legs, units, surplus)

    def slack(s, st, k):
        r, a, z = res[s.id], st, st + k
        while r.get(a - 1, 0) > 0: a -= 1
        while r.get(z, 0) > 0: z += 1
        return z - a - k

    def candidate(b, c, limit, st):
        k, cl = b.k, D[c]
        if limit * k < cl.lo(st, st + k): return None      # would break a price already promised to a seller
        cap, cand = min(limit * k, cl.hi(st, st + k)), []
        for s in S:
            if s.cls != c or s.limit * k > cap or not compat(b, s): continue
            a = min(res[s.id].get(t, 0) for t in range(st, st + k))
            if a > 0: cand.append((s.limit, slack(s, st, k), rank[s.id], s, a))
        cand.sort(key=lambda x: x[:3])
        if b.mode == GANG:
            best = None
            for ask, _, _, s, a in cand:
                u = min(a, b.q)
                if u >= b.m and (best is None or (limit - ask) * u * k > best[0]): best = ((limit - ask) * u * k, u, [(s, u)])
            return best
        g = u = 0
        legs = []
        for ask, _, _, s, a in cand:
            n = min(a, b.q - u)
            if n <= 0: break
            legs.append((s, n)); u += n; g += n * (limit - ask) * k
        return (g, u, legs) if u >= b.m and u > 0 else None

    for b in sequence:
        best = None
        for c, limit in b.alts:
            for st in range(max(b.w0, now), b.w1 - b.k + 1):
                x = candidate(b, c, limit, st)
                if x and (best is None or (x[0], x[1]) > (best[0][0], best[0][1])): best = (x, c, limit, st)
        if best:
            (g, u, legs), c, limit, st = best
            for s, n in legs:
                for t in range(st, st + b.k): res[s.id][t] -= n
            D[c].at_most(st, st + b.k, limit * b.k)
            D[c].at_least(st, st + b.k, max(s.limit for s, _ in legs) * b.k)
            got[b.id] = (b, c, limit, st, legs, u, g)

    price = {}
    for c, cl in D.items():
        a, z, ms, mb = {}, {}, {}, {}
        for b, cc, limit, st, legs, u, g in got.values():
            if cc != c: continue
            for t in range(st, st + b.k):
                mb.setdefault(t, []).append(b); z[t] = min(z.get(t, PMAX), limit)
                for s, _ in legs: ms.setdefault(t, []).append(s); a[t] = max(a.get(t, 0), s.limit)
        lo, hi = {}, {}
        for b in B:                                        # unfilled divisible one-hour demand presses prices up
            x = got.get(b.id); done = x[5] if x else 0
            if b.k != 1 or done >= b.q or (done == 0 and b.m > 1): continue
            for cc, limit in b.alts:
                if cc != c or (x and x[1] != c): continue
                for t in (range(max(b.w0, now), b.w1) if not x else [x[3]]):
                    if t in ms and any(compat(b, s) for s in ms[t]): lo[t] = max(lo.get(t, 0), limit)
        for s in S:                                        # unsold one-hour-divisible supply presses prices down
            if s.cls == c and s.min_run <= 1:
                for t, v in res[s.id].items():
                    if v > 0 and t in mb and any(compat(b, s) for b in mb[t]): hi[t] = min(hi.get(t, PMAX), s.limit)
        for t in sorted(ms):
            if t in lo: v = min(lo[t], cl.hi(t, t + 1)); cl.at_least(t, t + 1, v); a[t] = max(a[t], v)
            if t in hi: v = max(hi[t], cl.lo(t, t + 1)); cl.at_most(t, t + 1, v); z[t] = min(z[t], v)
        for t in sorted(ms):
            p = min(cl.hi(t, t + 1), max(cl.lo(t, t + 1), (a[t] + z[t]) // 2))
            cl.at_most(t, t + 1, p); cl.at_least(t, t + 1, p); price[(c, t)] = p
    return sum(x[6] for x in got.values()), got, price, sequence


def served(b, asks, now):
    """Whether some compatible ask, whose window can hold the run, asks no more than the limit for its class."""
    return any(s.cls == c and s.limit <= limit and s.w0 <= b.w1 - b.k and s.w1 >= max(b.w0, now) + b.k and compat(b, s)
               for c, limit in b.alts for s in asks)


NEIGHBOURS, MAX_ROUNDS, BUDGET = 4, 1024, 1 << 27                  # version 2


def rounds(orders, now, sequence):
    """How many rounds a book is worth: counted from the book alone."""
    if len(sequence) < 2: return 0
    classes = {}                                                    # class -> (first slot, end slot, number of asks)
    for c in {o.cls for o in orders if o.side == "sell"}:
        bids = [o for o in orders if o.side == "buy" and any(c == x for x, _ in o.alts)]
        asks = [o for o in orders if o.side == "sell" and o.cls == c]
        if not bids: continue
        first = max(min(max(o.w0, now) for o in side) for side in (bids, asks))
        end = min(max(o.w1 for o in side) for side in (bids, asks))
        if first < end: classes[c] = first, end, len(asks)
    work = 1 + sum((end - first) * asks for first, end, asks in classes.values()) // 2
    for b in sequence:
        for first, end, asks in (classes[c] for c, _ in b.alts if c in classes):
            starts = max(0, min(b.w1, end) - b.k + 1 - max(b.w0, now, first))
            work += starts * (16 + asks) + (end - first) ** 2 // 32
    return min(BUDGET // (NEIGHBOURS * work), len(sequence) ** 2, MAX_ROUNDS)


class Draws:
    """SplitMix64."""

    def __init__(self, beacon): self.state = int.from_bytes(sha(b"improve", beacon)[:8], "big")

    def below(self, bound):
        mask = (1 << 64) - 1
        z = self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return (z ^ z >> 31) * bound >> 64


def improve(orders, beacon, now, best):
    """Version 2: goes from the sequence of the best start to better ones."""
    draws = Draws(beacon)
    for _ in range(rounds(orders, now, best[3])):
        neighbours = []
        for _ in range(NEIGHBOURS):
            s = list(best[3])
            for _ in range(1 + draws.below(2)):
                source, target = draws.below(len(s)), draws.below(len(s))
                s.insert(target, s.pop(source))
            neighbours.append(s)
        top = max((one_pass(orders, beacon, now, 0, s) for s in neighbours), key=lambda r: r[0])   # the first among equals
        if top[0] >= best[0]: best = top
    return best


def match(inst, algorithm=None):
    beacon, now, epoch = bytes.fromhex(inst["beacon"]), inst.get("now", 0), inst.get("epoch", 0)
    owner = {d["id"]: d["owner"] for d in inst["orders"]}
    dead = {c["order"] for c in inst.get("cancels", []) if owner.get(c["order"]) == c["signer"]}
    orders = []
    for d in sorted(inst["orders"], key=lambda d: d["id"]):
        o = Order(d)
        if d["id"] in dead or o.q <= 0 or o.expiry < epoch or not 0 < o.limit <= PMAX: continue
        if o.w1 - max(o.w0, now) < (o.k if o.side == "buy" else 1): continue
        orders.append(o)
    best = None
    for i in range(inst.get("starts", 3)):
        r = one_pass(orders, beacon, now, i)
        if best is None or r[0] > best[0]: best = r         # strictly better replaces, ties keep the lowest index
    if (algorithm or inst.get("algorithm", 1)) == 2: best = improve(orders, beacon, now, best)
    w, got, price, _ = best if best else (0, {}, {}, [])
    trades = []
    for b, c, limit, st, legs, u, g in got.values():
        tot = sum(price[(c, t)] for t in range(st, st + b.k))
        assert tot <= limit * b.k and all(s.limit * b.k <= tot for s, _ in legs), "individual rationality"
        for s, n in legs:
            trades.append({"class": c, "start": st, "hours": b.k, "buy": b.id, "sell": s.id, "qty": n, "msat": n * tot, "sat": n * tot // 1000})
    trades.sort(key=lambda t: (t["class"], t["start"], t["buy"], t["sell"]))
    return {"welfare_msat": w, "prices": {f"{c}/{t}": p for (c, t), p in sorted(price.items())}, "trades": trades}


if __name__ == "__main__":
    bad, algorithm = 0, int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for v in json.load(open(sys.argv[1])):
        out = match(v["input"], algorithm)
        rev = dict(v["input"], orders=list(reversed(v["input"]["orders"])))
        ok = out == v["expect"] and match(rev, algorithm) == out
        bad += not ok
        print("ok  " if ok else "FAIL", v["name"])
    sys.exit(bool(bad))
