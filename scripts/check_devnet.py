#!/usr/bin/env python3
"""Checks a `capex devnet --json` document field by field. No dependencies."""
import hashlib
import json
import re
import sys

HEX32 = re.compile(r"^[0-9a-f]{64}$")
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)


def is_hex(value, what):
    check(isinstance(value, str) and HEX32.match(value), f"{what} is 64 hex digits: {value!r}")


def is_count(value, what):
    check(isinstance(value, int) and not isinstance(value, bool) and value >= 0, f"{what} is an integer: {value!r}")


def check_tx(tx, what):
    check(isinstance(tx, dict), f"{what} exists")
    if isinstance(tx, dict):
        is_hex(tx["txid"], f"{what}.txid")
        for field in ("height", "vsize", "fee_sat"):
            is_count(tx[field], f"{what}.{field}")
            check(tx[field] > 0, f"{what}.{field} is positive")


def check_nodes(doc):
    roles = [node["role"] for node in doc["nodes"]]
    check(roles.count("provider") >= 2, "two providers")
    check(roles.count("buyer") >= 2, "two buyers")
    check(roles.count("bystander") >= 1, "a bystander")
    keys = [node["key"] for node in doc["nodes"]]
    check(len(set(keys)) == len(keys) >= 5, "five distinct keys")
    for node in doc["nodes"]:
        is_hex(node["key"], "node key")
        check(node["api"].startswith("http://127.0.0.1:"), "api on loopback")
        is_count(node["peers"], "peers")
        check(node["peers"] >= 1, f"{node['name']} has peers")
        check(node["orders_seen"] >= 2, f"{node['name']} holds the offers")
    check(len({node["datadir"] for node in doc["nodes"]}) == len(keys), "own data directories")


def check_epoch(doc):
    epoch = doc["epoch"]
    check(epoch["agreed"] is True, "epoch agreed")
    check(len(epoch["roots"]) == len(doc["nodes"]), "a root of every node")
    for field in ("root", "count", "result_root"):
        check(len({root[field] for root in epoch["roots"]}) == 1, f"equal {field}")
    check(epoch["roots"][0]["count"] >= 2, "orders under the root")


def check_trades(doc, keys):
    check(len(doc["trades"]) >= 2, "two trades")
    for trade in doc["trades"]:
        is_hex(trade["trade_id"], "trade_id")
        check(trade["buyer"] in keys and trade["seller"] in keys, "parties are nodes")
        check(trade["price_sat"] == trade["price_msat"] // 1000, "price rounds down")
        check(trade["window"][0] < trade["window"][1], "window is not empty")
        settlement = trade["settlement"]
        check(settlement["state"] == "settled", f"settled: {settlement['state']}")
        is_hex(settlement["terms_hash"], "terms_hash")
        check(settlement["address"].startswith("bcrt1p"), "taproot address")
        check_tx(settlement["fund"], "fund")
        check_tx(settlement["claim"], "claim")
        check(settlement["by_key"] == (settlement["claim"]["vsize"] == 111), "spent by both keys")
        is_hex(settlement["preimage"], "preimage")
        check(settlement["claim"]["height"] >= settlement["fund"]["height"], "claim after fund")


def cells(held):
    """Unit-slots of a certificate, or of a hop of its history."""
    start, end = held["window"]
    return {(unit, slot) for first, last in held["units"] for unit in range(first, last) for slot in range(start, end)}


def check_hop(hop, before, trades, what):
    """One hop, with what there was before it; `before` is None at the birth of a certificate."""
    trade = trades.get((hop["cert_id"], hop["from"], hop["to"]))
    if hop["kind"] == "sale":
        check(trade is not None, f"{what} is one of the trades")
        if trade is not None:
            check(len(cells(hop)) == trade["qty"] * (trade["window"][1] - trade["window"][0]), f"{what} is all that was paid")
            check(hop["window"] == trade["window"], f"{what} has the window that was paid")
        check(before is None or cells(hop) == cells(before), f"{what} moves all of it")
        return
    check(before is not None, f"{what} has something before it")
    if before is None:
        return
    check(hop["from"] == before["to"], f"{what} is by the holder")
    check(hop["consumed"] == [before["cert_id"]], f"{what} consumes what came before")
    if hop["kind"] == "split":
        check(hop["to"] == hop["from"] and hop["cert_id"] != before["cert_id"], f"{what} makes a new one of the same holder")
        check(cells(hop) < cells(before), f"{what} is a part")
    elif hop["kind"] == "gift":
        check(hop["to"] != hop["from"] and hop["cert_id"] == before["cert_id"], f"{what} moves it to another")
        check(hop["seq"] == before["seq"] + 1, f"{what} counts on")
        check(cells(hop) == cells(before), f"{what} moves all of it")
    else:
        check(False, f"{what} is known")


def check_certificates(doc, keys):
    trades = {(trade["cert_id"], trade["seller"], trade["buyer"]): trade for trade in doc["trades"]}
    born, kinds = {}, []
    for cert in doc["certificates"]:
        is_hex(cert["cert_id"], "cert_id")
        check(cert["holder"] in keys and cert["provider"] in keys, "holder and provider are nodes")
        before = None
        for hop in cert["transfers"]:
            check_hop(hop, before, trades, f"{hop['kind']} of {hop['cert_id'][:8]}")
            before = hop
            kinds.append(hop["kind"])
        for field in ("cert_id", "seq", "units", "window"):
            check(cert[field] == before[field], f"{field} is that of the last transfer")
        check(before["to"] == cert["holder"], "last transfer made the holder")
        check(sorted(cert["verified_by"]) == sorted(node["name"] for node in doc["nodes"] if node["key"] != cert["holder"]), "verified by all others")
        first = cert["transfers"][0]
        check(first["kind"] == "sale" and first["from"] == cert["provider"], "the provider sold it first")
        born.setdefault(first["cert_id"], (cells(first), []))[1].append(cells(cert))
    for cert_id, (sold, parts) in born.items():
        check(sum(map(len, parts)) == len(sold) and set().union(*parts) == sold, f"unit-slots of {cert_id[:8]} are conserved")
    check(sorted(map(len, (parts for _, parts in born.values()))) == [1, 2], "one is whole, one is cut in two")
    check(set(kinds) == {"sale", "split", "gift"}, f"kinds of transfers: {set(kinds)}")
    check(len({cert["holder"] for cert in doc["certificates"]}) >= 2, "different holders")


def check_money(doc):
    """Every wallet, to the sat, by what its node bought and sold."""
    names = {node["name"]: node["key"] for node in doc["nodes"]}
    fees = 0
    for balance in doc["balances"]:
        key, expected = names[balance["node"]], balance["before_sat"]
        for trade in doc["trades"]:
            settlement, price = trade["settlement"], trade["price_sat"]
            if trade["buyer"] == key:
                expected -= price + settlement["fund"]["fee_sat"]
                fees += settlement["fund"]["fee_sat"]
            if trade["seller"] == key:
                expected += price - settlement["claim"]["fee_sat"]
                fees += settlement["claim"]["fee_sat"]
        check(balance["after_sat"] == expected, f"{balance['node']} has {balance['after_sat']} sat, not {expected}")
    check(doc["fees_paid_sat"] == fees > 0, f"fees were paid: {fees}")


def check_leases(doc, keys):
    certs = {cert["cert_id"]: cert for cert in doc["certificates"]}
    check(sorted(lease["cert_id"] for lease in doc["leases"]) == sorted(certs), "each certificate is redeemed once")
    for lease in doc["leases"]:
        is_hex(lease["lease_id"], "lease_id")
        check(lease["backend"] == "wasm" and lease["exit_code"] == 0, "exit code 0")
        cert = certs[lease["cert_id"]]
        check(lease["holder"] == cert["holder"] and lease["provider"] == cert["provider"], "the holder redeemed at the provider")
        check(lease["result"]["matches_expected"] is True, "result matches")
        digest = hashlib.sha256(lease["stdout"].encode()).hexdigest()
        check(lease["result"]["sha256"] == digest, "stdout and result are the same line")
        check(lease["countersigned"] is True and lease["receipts"] >= 1, "receipts signed by both")
        check(lease["left_behind"] == [], "nothing left behind")
        check(lease["started_at"] < lease["ended_at"], "started before it ended")
        check(float(lease["delivered_s"]) > 0, "time was delivered")
        check(lease["cpu_us"] > 0 and lease["memory_peak_bytes"] > 0, "metered")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()
    doc = json.loads(text)
    check(text.count("\n") <= 1 or json.loads(text) == doc, "one JSON value")
    check(doc["schema"] == "capex.devnet/1" and doc["network"] == "devnet", "schema")
    chain = sys.argv[2] if len(sys.argv) > 2 else "devchain"
    check(doc["chain"] == chain and doc["ok"] is True, f"ok on a {chain}")
    check(float(doc["elapsed_s"]) < 60, f"under 60 s: {doc['elapsed_s']}")
    keys = {node["key"] for node in doc["nodes"]}
    check_nodes(doc)
    check_epoch(doc)
    check_trades(doc, keys)
    check_certificates(doc, keys)
    check_leases(doc, keys)
    refusals = [(r["what"], r["code"]) for r in doc["refusals"]]
    check(("redeem", "redeem.not_holder") in refusals, "the former holder was refused")
    check_money(doc)
    for failure in failures:
        print(f"devnet: FAILED {failure}", file=sys.stderr)
    print(f"devnet document: {'failed' if failures else 'ok'}, {doc['elapsed_s']} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
