#!/usr/bin/env python3
"""Verifies certificate files offline, and says what `capex cert verify` says.

It shares no line with the program: its own ed25519, its own reader of payloads, its own rules,
written from docs/certificates.md. Python 3.11 or newer, and nothing else.

    scripts/verify_certificate.py cert.txt
    scripts/verify_certificate.py --json cert.txt other.txt     # one line of JSON for each

It ends with 0 if every file proves what it says, 6 if one does not, 2 if one cannot be read.
"""
import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256, sha512
from itertools import pairwise
from pathlib import Path

DEFINITIONS = Path(__file__).resolve().parent.parent / "network" / "definitions"
HEADER = "capex-certificate 1 "
FILE_MAX_BYTES = 2_280_096
OBJECT_MAX_BYTES = 4096
HOPS_MAX, BASES_MAX, ROOTS_MAX, RANGES_MAX = 64, 16, 16, 16
SPLIT_MAX, MERGE_MAX = 16, 8
UNITS_MAX = 1_000_000
NOBODY = bytes(32)
HEX = set("0123456789abcdef")


class Refused(Exception):
    """The file proves nothing; its first argument is the reason code."""

    def __init__(self, code, where=""):
        super().__init__(f"certificate.{code}", where)


def ensure(holds, code):
    if not holds:
        raise Refused(code)


# --- ed25519, in plain integers -------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def add(a, b):
    """Sum of two points (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    minus, plus = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    t, z = 2 * D * t1 * t2 % P, 2 * z1 * z2 % P
    e, f, g, h = plus - minus, z - t, z + t, plus + minus
    return e * f % P, g * h % P, f * g % P, e * h % P


def double(a):
    x, y, z, _ = a
    xx, yy, zz = x * x % P, y * y % P, 2 * z * z
    h, g = xx + yy, xx - yy
    e, f = h - (x + y) ** 2 % P, zz + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def point(encoded):
    """The point of 32 bytes, or None. As with the verifiers that Capex must agree with, a y that is
    not reduced and a sign of x = 0 are read; where that matters, the rules below refuse it."""
    number = int.from_bytes(encoded, "little")
    y, sign = number % 2**255 % P, number >> 255
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * SQRT_M1 % P
    if v * x * x % P != u:
        return None
    if x % 2 != sign:
        x = -x % P
    return x, y, 1, x * y % P


def encode(a):
    x, y, z, _ = a
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def is_weak(a):
    """Whether eight times the point is nothing: under such a key one signature fits many messages."""
    x, y, z, _ = double(double(double(a)))
    return x % P == 0 and (y - z) % P == 0


def multiples(a):
    """0 to 15 times a point."""
    found = [IDENTITY]
    for _ in range(15):
        found.append(add(found[-1], a))
    return found


def sum_of(scalars):
    """The sum of scalar × point, four bits at a time."""
    tables = [(scalar, multiples(a)) for scalar, a in scalars]
    total = IDENTITY
    for at in range(252, -1, -4):
        total = double(double(double(double(total))))
        for scalar, table in tables:
            total = add(total, table[scalar >> at & 15])
    return total


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


@lru_cache(maxsize=65536)
def is_signed(key, message, signature):
    """Strict verification: no weak key or R, S below the order, the encoding of R compared as it
    stands, and no multiplication by the cofactor. All nodes agree on this, byte for byte."""
    a, r = point(key), point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or is_weak(a) or is_weak(r) or s >= ORDER:
        return False
    challenge = sha512(signature[:32] + key + message).digest()
    h = int.from_bytes(challenge, "little") % ORDER
    x, y, z, t = a
    return encode(sum_of([(s, BASE), (h, (-x % P, y, z, -t % P))])) == signature[:32]


# --- Payloads ---------------------------------------------------------------------------------


class Reader:
    """Numbers of fixed width, most significant byte first; a list after its length in 8 bytes."""

    def __init__(self, payload):
        self.payload, self.at = payload, 0

    def take(self, length):
        taken = self.payload[self.at : self.at + length]
        ensure(len(taken) == length, "file_payload")
        self.at += length
        return taken

    def number(self, width):
        return int.from_bytes(self.take(width), "big")

    def u8(self):
        return self.number(1)

    def u16(self):
        return self.number(2)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def bytes16(self):
        return self.take(16)

    def bytes32(self):
        return self.take(32)

    def bytes64(self):
        return self.take(64)

    def many(self, one):
        return tuple(one() for _ in range(self.u64_length()))

    def u64_length(self):
        length = self.u64()
        ensure(length <= len(self.payload) - self.at, "file_payload")
        return length

    def maybe(self, one):
        tag = self.u8()
        ensure(tag <= 1, "file_payload")
        return one() if tag else None

    def variant(self, count):
        tag = self.u32()
        ensure(tag < count, "file_payload")
        return tag

    def binding(self):
        """Who may recall a certificate; nobody, if only its holder decides."""
        return self.bytes32() if self.variant(2) else None

    def pair(self):
        return self.u32(), self.u32()

    def units(self):
        return self.many(self.pair)

    def area(self):
        return self.units(), self.pair()

    def parent(self):
        return self.bytes32(), self.u32(), self.bytes32()

    def consumed(self):
        return self.bytes32(), self.u32(), self.u32(), self.bytes32()

    def funder(self):
        return self.bytes32(), self.bytes32(), self.u64()


FORMS = {
    "issue": "v:u8 provider:bytes32 class_id:u16 class_hash:bytes32 features:u64 units:units"
    " window:pair pay:variant/2 recall:binding nonce:bytes32 not_after:u32",
    "activation": "v:u8 provider:bytes32 cert:bytes32 seq:u32 consumes:many/consumed"
    " roots:many/bytes32 holder_hash:bytes32 class_id:u16 features:u64 units:units window:pair"
    " cause:bytes32 height:u32",
    "gift": "v:u8 cert:bytes32 seq:u32 prev:bytes32 to:bytes32 salt:bytes16",
    "split": "v:u8 cert:bytes32 seq:u32 prev:bytes32 parts:many/area salt:bytes16",
    "merge": "v:u8 parts:many/parent salt:bytes16",
    "checkpoint": "v:u8 provider:bytes32 last:bytes32 holder:bytes32 salt:bytes16"
    " class_hash:bytes32 pay:variant/2 not_after:u32 hops:u32 height:u32",
    "terms": "v:u8 trade:bytes32 cert:bytes32 seq:u32 prev:bytes32 class_id:u16 units:units"
    " window:pair seller:bytes32 to:bytes32 funders:many/funder price:u64 payment_hash:bytes32"
    " s_xonly:bytes32 payout:many/u8 t0:u32 fund_by:u32 refund_at:u32 confirmations:u32"
    " template:u8 salt:bytes16",
    "lock": "v:u8 provider:bytes32 cert:bytes32 seq:u32 attempt:u32 prev_release:bytes32"
    " terms_hash:bytes32 fund_by:u32 refund_at:u32 height:u32",
    "transfer": "v:u8 terms_hash:bytes32 x:bytes32 txid:bytes32 vin:u32 quittance:maybe/bytes64",
}


def decode(kind, payload):
    """The fields of a payload: all of its bytes, and in no other way than its one encoding."""
    ensure(0 < len(payload) <= OBJECT_MAX_BYTES, "file_payload")
    # A transfer of another version is refused by what it must show, as it is signed by nobody.
    ensure(payload[0] == 1 or kind == "transfer", "file_payload")
    reader, fields = Reader(payload), {}
    for part in FORMS[kind].split():
        name, _, form = part.partition(":")
        form, _, inner = form.partition("/")
        argument = [] if not inner else [int(inner) if inner.isdigit() else getattr(reader, inner)]
        fields[name] = getattr(reader, form)(*argument)
    ensure(reader.at == len(payload), "file_payload")
    return fields


def message(kind, magic, payload):
    """What a signature covers, and of which an id is the SHA-256."""
    return f"capex/{kind}/v{payload[0]}\0".encode() + magic + payload


class Signed:
    """One line: an object, its id, and who must have signed it."""

    def __init__(self, kind, payload, signature, magic):
        self.__dict__.update(decode(kind, payload))
        self.message = message(kind, magic, payload)
        self.id = sha256(self.message).digest()
        self.signature, self.key = signature, NOBODY

    def verify(self):
        ensure(is_signed(self.key, self.message, self.signature), "bad_signature")


# --- The file ---------------------------------------------------------------------------------


class File:
    """Lines in their order. Who signed a gift, a split or a merge does not stand in the file: it is
    whoever holds the certificate after the lines so far, or may still recall it."""

    def __init__(self, text, definitions):
        lines = unwrapped(text)
        ensure(sum(len(line.encode()) + 1 for line in lines) - 1 <= FILE_MAX_BYTES, "file_too_long")
        ensure(lines[0].startswith(HEADER), "file_header")
        self.network = definitions(lines[0][len(HEADER) :])
        self.lines, self.at, self.holders, self.recalls = lines, 1, {}, {}
        self.bases = [self.base()]
        while self.next_is("issue", "checkpoint"):
            ensure(len(self.bases) < BASES_MAX, "file_too_long")
            self.bases.append(self.base())
        self.hops = []
        while self.at < len(lines):
            ensure(len(self.hops) < HOPS_MAX, "file_too_long")
            self.hops.append(self.hop())

    def next_is(self, *kinds):
        return self.at < len(self.lines) and self.lines[self.at].startswith(
            tuple(f"{kind} " for kind in kinds)
        )

    def fields(self, kind):
        ensure(self.at < len(self.lines), "file_truncated")
        found, *fields = self.lines[self.at].split(" ")
        ensure(found == kind, "file_kind")
        ensure(len(fields) == 2, "file_syntax")
        self.at += 1
        return unhex(fields[0]), fields[1]

    def signed(self, kind, key):
        """A line of this kind; `key` says who must have signed what it holds."""
        payload, signature = self.fields(kind)
        signature = unhex(signature)
        ensure(len(signature) == 64, "file_hex")
        one = Signed(kind, payload, signature, self.network.magic)
        one.key = key(one)
        return one

    def by_provider(self, kind):
        return self.signed(kind, lambda one: one.provider)

    def activation(self, holder):
        one = self.by_provider("activation")
        self.holders[one.cert] = holder
        return one

    def base(self):
        if self.next_is("checkpoint"):
            checkpoint = self.by_provider("checkpoint")
            return checkpoint, self.activation(checkpoint.holder)
        issue = self.by_provider("issue")
        self.holders[issue.id] = issue.provider
        if issue.recall is not None:
            self.recalls[issue.id] = issue.recall
        return issue, None

    def hop(self):
        if self.next_is("gift"):
            holder = lambda one: self.holders.get(one.cert, NOBODY)  # noqa: E731
            gift = self.signed("gift", lambda one: self.recalls.pop(one.cert, holder(one)))
            return "gift", gift, [self.activation(gift.to)]
        if self.next_is("merge"):
            first = lambda one: one.parts[0][0] if one.parts else None  # noqa: E731
            merge = self.signed("merge", lambda one: self.holders.get(first(one), NOBODY))
            return "merge", merge, [self.activation(merge.key)]
        if self.next_is("split"):
            split = self.signed("split", lambda one: self.holders.get(one.cert, NOBODY))
            parts = [self.activation(split.key)]
            while self.next_is("activation") and len(parts) < SPLIT_MAX:
                parts.append(self.activation(split.key))
            return "split", split, parts
        terms = self.signed("terms", lambda one: one.seller)
        sale = terms, self.by_provider("lock"), self.transfer()
        return "sale", sale, [self.activation(terms.to)]

    def transfer(self):
        payload, signature = self.fields("transfer")
        ensure(signature == "-", "file_syntax")
        return decode("transfer", payload)


def unwrapped(text):
    """The lines of a file, those put together again that a mail program has wrapped: each begins
    with a word that is no hex, and what follows it there is."""
    lines = []
    for line in text.removeprefix("\ufeff").rstrip().split("\n"):
        line = line.removesuffix("\r")
        if not set(line.rstrip().partition(" ")[0]) <= HEX:
            lines.append(line)
        elif lines:
            lines[-1] += line
    return [line.rstrip() for line in lines] or [""]


def unhex(text):
    ensure(len(text) % 2 == 0 and set(text) <= HEX, "file_hex")
    return bytes.fromhex(text)


# --- What stands in a certificate -------------------------------------------------------------


@dataclass
class Held:
    """One certificate between two hops."""

    cert: bytes
    provider: bytes
    class_id: int
    class_hash: bytes
    features: int
    units: tuple
    window: tuple
    pay: int
    not_after: int
    holder: bytes
    salt: bytes
    seq: int
    last: bytes
    roots: tuple
    height: int | None = None
    transfers: list = field(default_factory=list)
    checkpointed: int | None = None
    recall: bytes | None = None

    def head(self):
        """What the next hop consumes."""
        return self.cert, self.seq, self.last


def are_units(units):
    """Ranges that ascend and neither touch nor overlap."""
    filled = all(first < end <= UNITS_MAX for first, end in units)
    return 0 < len(units) <= RANGES_MAX and filled and all(a[1] < b[0] for a, b in pairwise(units))


def start(base, network):
    one, activation = base
    one.verify()
    if activation is None:
        held = Held(
            cert=one.id, provider=one.provider, class_id=one.class_id, class_hash=one.class_hash,
            features=one.features, units=one.units, window=one.window, pay=one.pay,
            not_after=one.not_after, holder=one.provider, salt=bytes(16), seq=0, last=one.id,
            roots=(one.id,), recall=one.recall,
        )
    else:
        held = checkpointed(one, activation, network.magic)
    inside = held.window[0] <= held.not_after < held.window[1]
    ensure(are_units(held.units) and inside, "bad_area")
    ensure(network.class_hash(held.class_id) == held.class_hash, "unknown_class")
    return held


def checkpointed(one, activation, magic):
    """The provider's word for the history up to an Activation."""
    activation.verify()
    ensure(one.provider == activation.provider, "foreign_part")
    ensure(one.last == activation.id, "prev_hash")
    ensure(activation.holder_hash == blinded(one.holder, one.salt, magic), "cause_mismatch")
    ensure(is_well_formed(activation), "seq_gap")
    return Held(
        cert=activation.cert, provider=one.provider, class_id=activation.class_id,
        class_hash=one.class_hash, features=activation.features, units=activation.units,
        window=activation.window, pay=one.pay, not_after=one.not_after, holder=one.holder,
        salt=one.salt, seq=activation.seq, last=activation.id, roots=activation.roots,
        height=activation.height, checkpointed=activation.height,
    )


def is_well_formed(activation):
    certs = [consumed[0] for consumed in activation.consumes]
    if certs == [activation.cert]:
        seq = activation.consumes[0][1] + 1
    else:
        seq = 1 if activation.cert not in certs else None
    ascends = all(a < b for pairs in (certs, activation.roots) for a, b in pairwise(pairs))
    counted = 1 <= len(certs) <= MERGE_MAX and 1 <= len(activation.roots) <= ROOTS_MAX
    return activation.seq == seq and ascends and counted


def blinded(holder, salt, magic):
    return sha256(b"capex/holder/v1\0" + magic + holder + salt).digest()


# --- Unit-slots --------------------------------------------------------------------------------


def cells(areas):
    """How often each unit-slot stands in some areas: the plane cut along all their edges, and the
    count of areas over each piece."""
    slots = sorted({edge for _, window in areas for edge in window})
    ranges = [pair for units, _ in areas for pair in units]
    edges = sorted({edge for pair in ranges for edge in pair})
    counts = {}
    for units, window in areas:
        over = [low for low in edges if any(first <= low < end for first, end in units)]
        for slot in (slot for slot in slots if window[0] <= slot < window[1]):
            for low in over:
                counts[low, slot] = counts.get((low, slot), 0) + 1
    return counts


def check_parts(whole, parts):
    """Each unit-slot of the whole is in exactly one part, and nothing else is."""
    formed = all(are_units(units) and window[0] < window[1] for units, window in parts)
    ensure(2 <= len(parts) <= SPLIT_MAX and formed, "bad_parts")
    both = cells([whole, *parts])
    # Cut along the same edges: how often the whole has a piece, and how often the parts have it.
    of_whole = cells_like(both, whole)
    ensure(all(piece in of_whole for piece in both), "part_outside")
    ensure(all(count == 2 for count in both.values()), "parts_sum")


def cells_like(pieces, area):
    units, window = area
    inside = lambda low: any(first <= low < end for first, end in units)  # noqa: E731
    return {(low, slot) for low, slot in pieces if window[0] <= slot < window[1] and inside(low)}


def union(areas):
    """The rectangle that areas are together: distinct units in one window, or the same units in
    windows that follow each other."""
    windows = sorted(window for _, window in areas)
    if len(set(windows)) == 1:
        ranges = sorted(pair for units, _ in areas for pair in units)
        ensure(all(a[1] <= b[0] for a, b in pairwise(ranges)), "parts_sum")
        joined = [list(ranges[0])]
        for first, end in ranges[1:]:
            if first == joined[-1][1]:
                joined[-1][1] = end
            else:
                joined.append([first, end])
        ensure(len(joined) <= RANGES_MAX, "parts_apart")
        return tuple(map(tuple, joined)), windows[0]
    ensure(len({units for units, _ in areas}) == 1, "parts_apart")
    for before, after in pairwise(windows):
        ensure(before[1] >= after[0], "parts_apart")
        ensure(before[1] <= after[0], "parts_sum")
    return areas[0][0], (windows[0][0], windows[-1][1])


# --- Hops --------------------------------------------------------------------------------------


class History:
    """What the hops so far leave."""

    def __init__(self, file):
        self.magic, self.live = file.network.magic, {}
        for base in file.bases:
            held = start(base, file.network)
            ensure(held.cert not in self.live, "bad_bases")
            self.live[held.cert] = held
        steps = {"sale": self.sale, "gift": self.gift, "split": self.split, "merge": self.merge}
        for number, (kind, cause, activations) in enumerate(file.hops):
            try:
                steps[kind](cause, activations)
            except Refused as refused:
                raise Refused(refused.args[0].partition(".")[2], f"hop {number}") from None

    def take(self, cert):
        ensure(cert in self.live, "foreign_part")
        return self.live.pop(cert)

    def sale(self, sale, activations):
        terms, lock, transfer = sale
        before = self.take(terms.cert)
        terms.verify()
        ensure(terms.seller == before.holder, "not_holder")
        ensure(terms.seq == before.seq, "seq_gap")
        ensure(terms.prev == before.last, "prev_hash")
        ensure(before.seq == 0 or before.recall is None, "recallable")
        sold = terms.class_id, terms.units, terms.window
        ensure(sold == (before.class_id, before.units, before.window), "changed")
        lock.verify()
        ensure((lock.provider, lock.cert) == (before.provider, before.cert), "foreign_part")
        granted = lock.seq, lock.terms_hash, lock.fund_by, lock.refund_at
        ensure(granted == (before.seq, terms.id, terms.fund_by, terms.refund_at), "lock_mismatch")
        self.paid(terms, transfer)
        kind = "sale" if before.holder == before.provider else "resale"
        after = self.moved(before, kind, terms.to, terms.salt)
        [activation] = activations
        self.end(after, [before], terms.id, activation)
        ensure(all(one[2] == lock.attempt for one in activation.consumes), "cause_mismatch")

    def paid(self, terms, transfer):
        named = transfer["v"], transfer["terms_hash"], sha256(transfer["x"]).digest()
        ensure(named == (1, terms.id, terms.payment_hash), "preimage")
        if transfer["quittance"] is not None:
            payload = bytes([1]) + terms.id + transfer["x"]
            said = message("quittance", self.magic, payload)
            ensure(is_signed(terms.seller, said, transfer["quittance"]), "bad_signature")
            ensure((transfer["txid"], transfer["vin"]) == (NOBODY, 0), "malformed")

    def gift(self, gift, activations):
        gift.verify()
        before = self.take(gift.cert)
        if before.recall is None:
            check_head(before, gift.key, (gift.cert, gift.seq, gift.prev))
            after = self.moved(before, "gift", gift.to, gift.salt)
        else:
            owner = replace(before, holder=before.recall)
            check_head(owner, gift.key, (gift.cert, gift.seq, gift.prev))
            after = self.moved(before, "recall", gift.to, gift.salt)
            after.recall = None
        self.end(after, [before], gift.id, *activations)

    def split(self, split, activations):
        split.verify()
        before = self.take(split.cert)
        check_head(before, split.key, (split.cert, split.seq, split.prev))
        ensure(before.recall is None, "recallable")
        check_parts((before.units, before.window), split.parts)
        # A part whose window begins after the last slot for a redemption could never be used.
        ensure(all(window[0] <= before.not_after for _, window in split.parts), "bad_parts")
        parts = {}
        for index, (units, window) in enumerate(split.parts):
            cert = sha256(split.id + index.to_bytes(4, "big")).digest()
            not_after = min(before.not_after, window[1] - 1)
            parts[cert] = made(before, "split", cert, units, window, not_after, split.salt)
        for activation in activations:
            ensure(activation.cert in parts, "foreign_part")
            self.end(parts.pop(activation.cert), [before], split.id, activation)

    def merge(self, merge, activations):
        merge.verify()
        parents = [self.take(cert) for cert, _, _ in merge.parts]
        ascends = all(a[0] < b[0] for a, b in pairwise(merge.parts))
        ensure(ascends and 2 <= len(parents) <= MERGE_MAX, "bad_parts")
        for parent, named in zip(parents, merge.parts):
            check_head(parent, merge.key, named)
            ensure(parent.recall is None, "recallable")
        kinds = {
            (one.provider, one.class_id, one.class_hash, one.features, one.pay, one.holder)
            for one in parents
        }
        ensure(len(kinds) == 1, "other_kind")
        units, window = union([(parent.units, parent.window) for parent in parents])
        roots = tuple(sorted({root for parent in parents for root in parent.roots}))
        ensure(len(roots) <= ROOTS_MAX, "too_many_roots")
        last = min(parent.not_after for parent in parents if parent.window[1] == window[1])
        transfers = list(parents[0].transfers)
        for parent in parents[1:]:
            transfers += [step for step in parent.transfers if step not in transfers]
        heights = [one.checkpointed for one in parents if one.checkpointed is not None]
        whole = replace(
            parents[0], roots=roots, transfers=transfers, checkpointed=max(heights, default=None)
        )
        after = made(whole, "merge", merge.id, units, window, last, merge.salt)
        self.end(after, parents, merge.id, *activations)

    def moved(self, before, kind, to, salt):
        ensure(before.seq < 2**32 - 1, "seq_gap")
        step = {"kind": kind, "from": before.holder, "to": to, "cert": before.cert}
        step |= {"seq": before.seq + 1}
        return replace(
            before, holder=to, salt=salt, seq=before.seq + 1, transfers=[*before.transfers, step]
        )

    def end(self, after, before, cause, activation):
        """The provider's signature under what a hop leaves."""
        activation.verify()
        names = activation.provider, activation.cert
        ensure(names == (after.provider, after.cert), "foreign_part")
        ensure(activation.seq == after.seq, "seq_gap")
        ensure(len(activation.consumes) == len(before), "seq_gap")
        for (cert, seq, _, prev), parent in zip(activation.consumes, before):
            ensure((cert, seq) == parent.head()[:2], "seq_gap")
            ensure(prev == parent.last, "prev_hash")
        said = (
            activation.class_id, activation.features, activation.units,
            activation.window, activation.roots,
        )
        left = after.class_id, after.features, after.units, after.window, after.roots
        ensure(said == left, "changed")
        holder_hash = blinded(after.holder, after.salt, self.magic)
        caused = (activation.cause, activation.holder_hash) == (cause, holder_hash)
        ensure(caused, "cause_mismatch")
        ensure(after.cert not in self.live, "bad_bases")
        after.last, after.height = activation.id, activation.height
        after.transfers[-1] |= {
            "consumed": [one[0] for one in activation.consumes],
            "units": activation.units,
            "window": activation.window,
        }
        self.live[after.cert] = after


def check_head(held, signer, named):
    """A gift, a split or a merge by the holder, of what was sold, at its last seq."""
    ensure(held.seq > 0, "gift_before_sale")
    ensure(signer == held.holder, "not_holder")
    ensure(named[1] == held.seq, "seq_gap")
    ensure(named[2] == held.last, "prev_hash")


def made(of, kind, cert, units, window, not_after, salt):
    """A certificate of the same holder that begins at seq 1."""
    step = {"kind": kind, "from": of.holder, "to": of.holder, "cert": cert, "seq": 1}
    return replace(
        of, cert=cert, units=units, window=window, not_after=not_after, salt=salt, seq=1,
        transfers=[*of.transfers, step],
    )


# --- Networks, reports, the command ------------------------------------------------------------


class Network:
    """What a definition says of certificates: magic and classes."""

    def __init__(self, definition):
        self.name, self.magic = definition["name"], bytes(definition["magic"])
        self.classes = {one["floors"]["id"]: one for one in definition["classes"]}

    def class_hash(self, number):
        if number not in self.classes:
            return None
        floors = self.classes[number]["floors"]
        widths = {"v": 1, "id": 2, "cpu_milli": 4, "memory_mib": 4, "disk_mib": 4, "gpus": 2}
        widths |= {"gpu_memory_mib": 4, "features": 8}
        payload = b"".join(
            floors.get(name, 1).to_bytes(width, "big") for name, width in widths.items()
        )
        isolations = ["wasm", "container"]
        payload += isolations.index(floors.get("isolation", "wasm")).to_bytes(4, "big")
        return sha256(message("class", self.magic, payload)).digest()


def definitions(folder):
    import tomllib

    known = {}
    for path in sorted(folder.glob("*.toml")):
        network = Network(tomllib.loads(path.read_text()))
        known[network.name] = network

    def named(name):
        ensure(name in known, "other_network")
        return known[name]

    return named


def verify(text, named):
    """What a certificate file proves, as `capex cert verify --json` says it."""
    file = File(text, named)
    left = list(History(file).live.values())
    ensure(len(left) == 1, "loose_part")
    [held] = left
    # A quittance is the seller's signature that it was paid; a spend is for the chain to show.
    paid_by = [
        (None if kind != "sale" else "spend" if cause[2]["quittance"] is None else "quittance")
        for kind, cause, _ in file.hops
    ]
    return {
        "network": file.network.name,
        "cert_id": held.cert.hex(),
        "provider": held.provider.hex(),
        "class": file.network.classes[held.class_id]["name"],
        "window": held.window,
        "units": held.units,
        "holder": held.holder.hex(),
        "seq": held.seq,
        "transfers": [lineage(step) for step in held.transfers],
        "signatures": "ok",
        "payment": "unchecked",
        "paid_by": paid_by,
        "current_as_of_height": held.height,
        "checkpointed_at_height": held.checkpointed,
    }


def lineage(step):
    return {
        "kind": step["kind"],
        "from": step["from"].hex(),
        "to": step["to"].hex(),
        "cert_id": step["cert"].hex(),
        "seq": step["seq"],
        "consumed": [cert.hex() for cert in step["consumed"]],
        "units": step["units"],
        "window": step["window"],
    }


def page(report):
    height = report["current_as_of_height"]
    yield f"signatures: {report['signatures']}"
    yield f"payment: {report['payment']}"
    yield "current: " + ("never sold" if height is None else f"as of height {height}")
    for name in ("cert_id", "network", "provider", "class", "window", "units", "holder"):
        yield f"{name}: {report[name]}"
    if report["checkpointed_at_height"] is not None:
        yield f"up to height {report['checkpointed_at_height']} it rests on the provider's word"
    for step in report["transfers"]:
        consumed = " ".join(cert[:8] for cert in step["consumed"])
        moved = f"{step['from'][:8]} to {step['to'][:8]}"
        yield f"{step['kind']} {step['cert_id'][:8]} seq {step['seq']}, of {consumed}, {moved}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each file")
    parser.add_argument("--definitions", metavar="FOLDER", type=Path, default=DEFINITIONS)
    flags = parser.parse_args()
    named, worst = definitions(flags.definitions), 0
    for path in flags.files:
        try:
            report = verify(path.read_bytes().decode(), named)
        except Refused as refused:
            code, where = refused.args
            report, worst = {"error": {"code": code}}, max(worst, 6)
            print(f"{path}: {where or 'it'} is refused: {code}", file=sys.stderr)
        except (OSError, UnicodeDecodeError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
        if flags.json:
            print(json.dumps(report))
        elif "error" not in report:
            print("\n".join(page(report)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
