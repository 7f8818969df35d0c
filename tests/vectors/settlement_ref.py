"""Writes settlement_contract.txt and settlement_secrets.txt: what open contracts rest on.

An own curve, key aggregation (BIP-327), taproot (BIP-341) and address (BIP-350), so that the
tables do not depend on the libraries that they test. Never write them anew: a change of any
line means that contracts which stand on the chain today could not be found or spent.

    python3 tests/vectors/settlement_ref.py tests/vectors
"""
import hmac
import sys
from hashlib import sha256

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a, b):
    if a is None:
        return b
    if b is None:
        return a
    (x1, y1), (x2, y2) = a, b
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        m = 3 * x1 * x1 * pow(2 * y1, P - 2, P) % P
    else:
        m = (y2 - y1) * pow(x2 - x1, P - 2, P) % P
    x = (m * m - x1 - x2) % P
    return x, (m * (x1 - x) - y1) % P


def mul(k, a):
    r = None
    while k:
        if k & 1:
            r = add(r, a)
        a = add(a, a)
        k >>= 1
    return r


def even(point):
    return point if point[1] % 2 == 0 else (point[0], P - point[1])


def xbytes(point):
    return point[0].to_bytes(32, "big")


def compressed(point):
    return bytes([2 + point[1] % 2]) + xbytes(point)


def tagged(tag, data):
    t = sha256(tag.encode()).digest()
    return sha256(t + t + data).digest()


def aggregate(keys):
    encoded = [compressed(key) for key in keys]
    listed = tagged("KeyAgg list", b"".join(encoded))
    second = next((key for key in keys if key != keys[0]), None)
    total = None
    for key, code in zip(keys, encoded):
        a = 1 if key == second else int.from_bytes(tagged("KeyAgg coefficient", listed + code), "big")
        total = add(total, mul(a % N, key))
    return total


def number(value):
    out = b""
    while value:
        out += bytes([value & 0xFF])
        value >>= 8
    if out[-1] & 0x80:
        out += b"\0"
    return out


def leaf(script):
    return tagged("TapLeaf", b"\xc0" + bytes([len(script)]) + script)


def contract(terms_hash, s, b, payment_hash, refund_at):
    internal = even(add(aggregate([even(s), even(b)]), mul(int.from_bytes(terms_hash, "big"), G)))
    claim = b"\x20" + xbytes(s) + bytes.fromhex("ad82012088a820") + payment_hash + b"\x87"
    height = number(refund_at)
    refund = b"\x20" + xbytes(b) + b"\xad" + bytes([len(height)]) + height + b"\xb1"
    leaves = [leaf(claim), leaf(refund)]
    root = tagged("TapBranch", b"".join(sorted(leaves)))
    tweak = int.from_bytes(tagged("TapTweak", xbytes(internal) + root), "big")
    output = add(internal, mul(tweak, G))
    head = bytes([0xC0 | output[1] % 2]) + xbytes(internal)
    return internal, output, head + leaves[1], head + leaves[0]


def address(program):
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits = int.from_bytes(program, "big") << 4
    data = [1] + [bits >> 5 * (51 - i) & 31 for i in range(52)]
    values = [ord(c) >> 5 for c in "bc"] + [0] + [ord(c) & 31 for c in "bc"] + data

    def polymod(values):
        check = 1
        for value in values:
            top = check >> 25
            check = (check & 0x1FFFFFF) << 5 ^ value
            for i, g in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
                check ^= g if top >> i & 1 else 0
        return check

    check = polymod(values + [0] * 6) ^ 0x2BC830A3
    data += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return "bc1" + "".join(letters[d] for d in data)


def contracts():
    yield "# terms hash | seller's key | buyer's key | payment hash | T_R | internal key | script"
    yield "# | address on mainnet | control block of the claim | control block of the refund"
    for case in range(8):
        secret = lambda name: int.from_bytes(sha256(f"{name} {case}".encode()).digest(), "big") % N
        s, b = mul(secret("seller"), G), mul(secret("buyer"), G)
        terms = sha256(f"terms {case}".encode()).digest()
        h = sha256(sha256(f"preimage {case}".encode()).digest()).digest()
        refund_at = [840_150, 32_768, 8_388_607, 332, 500_000, 1_000_000, 65_535, 328][case]
        internal, output, claim, refund = contract(terms, s, b, h, refund_at)
        fields = [terms, xbytes(s), xbytes(b), h]
        line = [field.hex() for field in fields] + [str(refund_at), xbytes(internal).hex()]
        line += ["5120" + xbytes(output).hex(), address(xbytes(output)), claim.hex(), refund.hex()]
        yield " | ".join(line)


def secrets():
    yield "# settlement key | label | salt of the life | index | secret"
    labels = ["settlement/refund", "settlement/claim", "settlement/preimage", "settlement/nonce"]
    for case, label in enumerate(labels * 2):
        key, salt = (sha256(f"{name} {case}".encode()).digest() for name in ("key", "salt"))
        index = [1, 2, 1 << 40 | 7, (1 << 64) - 1][case % 4] + case // 4 * 3 & (1 << 64) - 1
        made = hmac.new(key, label.encode() + salt + index.to_bytes(8, "big"), sha256).hexdigest()
        yield f"{key.hex()} | {label} | {salt.hex()} | {index:x} | {made}"


folder = sys.argv[1]
for name, lines in (("contract", contracts()), ("secrets", secrets())):
    with open(f"{folder}/settlement_{name}.txt", "w") as file:
        file.write("\n".join(lines) + "\n")
