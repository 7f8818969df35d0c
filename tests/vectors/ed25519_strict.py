"""Writes wire/ed25519-strict.hex: signatures that some verifiers accept and Capex must not.

An own ed25519, so that the table does not depend on the library that it tests. The cases
follow "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020). The message is that
of a countersignature on the devnet.

    python3 tests/vectors/ed25519_strict.py > tests/vectors/wire/ed25519-strict.hex
"""
from hashlib import sha256, sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1)


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + t, P - 2, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - t, P - 2, P) % P
    return x, y


def mul(k, a):
    r = IDENTITY
    while k:
        if k & 1:
            r = add(r, a)
        a = add(a, a)
        k >>= 1
    return r


def x_of(y, sign):
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if x * x % P != xx:
        x = x * SQRT_M1 % P
    if x * x % P != xx:
        return None
    return P - x if x % 2 != sign else x


def encode(a):
    x, y = a
    return (y | (x & 1) << 255).to_bytes(32, "little")


def number(*parts):
    return int.from_bytes(sha512(b"".join(parts)).digest(), "little") % L


BASE = (x_of(4 * pow(5, P - 2, P) % P, 0), 4 * pow(5, P - 2, P) % P)
PAYLOAD = bytes([1]) + sha256(b"a receipt").digest()
MESSAGE = b"capex/countersign/v1\0" + bytes([0xCA, 0xFE, 0, 5]) + PAYLOAD
SECRET = number(b"capex vectors, strict")
PUBLIC = mul(SECRET, BASE)


def torsion():
    """A point of order 8: a point of the curve times L."""
    y = 2
    while True:
        x = x_of(y, 0)
        if x is not None:
            t = mul(L, (x, y))
            if mul(4, t) != IDENTITY:
                return t
        y += 1


T8 = torsion()
SMALL = [mul(k, T8) for k in range(8)]


def challenge(r, key):
    return number(r, key, MESSAGE)


def signature(nonce, key, r_extra=IDENTITY):
    big_r = encode(add(mul(nonce, BASE), r_extra))
    s = (nonce + challenge(big_r, key) * SECRET) % L
    return big_r + s.to_bytes(32, "little")


def cases():
    key = encode(PUBLIC)
    good = signature(number(b"nonce"), key)
    yield "good", key, good, "accepted"

    s = int.from_bytes(good[32:], "little")
    yield "s plus the group order", key, good[:32] + (s + L).to_bytes(32, "little"), "wire.bad_signature"
    yield "s with its highest bit set", key, good[:63] + bytes([good[63] | 0x80]), "wire.bad_signature"

    # R = identity, S = h·a satisfies S·B = R + h·A.
    for name, r in [
        ("r is the identity", encode(IDENTITY)),
        ("r is the identity, not canonical", (P + 1).to_bytes(32, "little")),
    ]:
        s = challenge(r, key) * SECRET % L
        yield name, key, r + s.to_bytes(32, "little"), "wire.bad_signature"

    # Only verifiers that multiply by the cofactor accept these.
    yield "r of mixed order", key, signature(number(b"nonce"), key, T8), "wire.bad_signature"
    mixed = encode(add(PUBLIC, T8))
    n = 0
    while True:
        sig = signature(number(b"mixed", bytes([n])), mixed)
        if mul(challenge(sig[:32], mixed), T8) != IDENTITY:
            break
        n += 1
    yield "key of mixed order", mixed, sig, "wire.bad_signature"

    # Under a key of small order one signature is good for many messages.
    for k, point in enumerate(SMALL):
        yield f"key of small order {k}", encode(point), encode(IDENTITY) + bytes(32), "wire.weak_key"
    for name, y in [("0, not canonical", P), ("1, not canonical", P + 1)]:
        weak = y.to_bytes(32, "little")
        yield f"key of small order, y = {name}", weak, encode(IDENTITY) + bytes(32), "wire.weak_key"
    y = next(y for y in range(2, 100) if x_of(y, 0) is None)
    yield "key that is no point", y.to_bytes(32, "little"), good, "wire.weak_key"


print("# Written by tests/vectors/ed25519_strict.py")
for name, key, sig, answer in cases():
    print()
    print(f"case {name}")
    print(f"payload {PAYLOAD.hex()}")
    print(f"key {key.hex()}")
    print(f"signature {sig.hex()}")
    print(f"answer {answer}")
