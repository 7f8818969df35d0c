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


def check_epoch(doc, epoch, orders):
    check(epoch["agreed"] is True, "epoch agreed")
    check([root["node"] for root in epoch["roots"]] == [node["name"] for node in doc["nodes"]], "a root of every node")
    for field in ("root", "count", "result_root"):
        check(len({root[field] for root in epoch["roots"]}) == 1, f"equal {field}")
    check(epoch["roots"][0]["count"] >= orders, "orders under the root")


def check_trades(doc, keys):
    check(len(doc["trades"]) == 4, "two sales, a resale and a pool")
    for trade in doc["trades"]:
        is_hex(trade["trade_id"], "trade_id")
        check({trade[party] for party in ("buyer", "holder", "seller", "provider")} <= keys, "parties are nodes")
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
        # Contracts of one claim share its fee to the sat; each is shown with its share.
        contracts, share = len(trade.get("funders", [None])), settlement["claim"]["fee_sat"]
        odd = trade["seller_fees_sat"] - contracts * share
        check(abs(odd) < contracts, f"a share for each contract: {trade['seller_fees_sat']} sat")
    first, second, resale, pooled = doc["trades"]
    check(all(trade["holder"] == trade["buyer"] for trade in (first, second, resale)), "who pays holds")
    check(not any("funders" in trade for trade in (first, second, resale)), "each pays alone")
    check_pool(pooled)
    check(first["seller"] == first["provider"] and second["seller"] == second["provider"], "providers sell first")
    check(first["epoch"] == second["epoch"] == doc["epoch"]["epoch"], "sold in the same epoch")
    check(resale["epoch"] == doc["resale_epoch"]["epoch"] > first["epoch"], "sold on in a later epoch")
    check(resale["seller"] == first["buyer"] != resale["buyer"] != resale["provider"], "sold on to a third node")
    check(resale["provider"] == first["provider"], "by the same provider")
    check(2 * resale["qty"] == first["qty"] and resale["window"] == first["window"], "half of it")
    check(resale["price_msat"] * first["qty"] != first["price_msat"] * resale["qty"], "at another price")


def check_pool(trade):
    """Three pay, each into a contract of its own, and a fourth holds."""
    funders = trade["funders"]
    check(len({funder["key"] for funder in funders}) == len(funders) == 3, "three pay")
    check(funders[0]["key"] == trade["buyer"], "the creator pays and bids")
    check(not {trade["holder"], trade["seller"]} & {funder["key"] for funder in funders}, "for a fourth")
    check(trade["price_sat"] <= sum(funder["pledged_sat"] for funder in funders), "within the pledges")
    for funder in funders:
        check_tx(funder["fund"], "fund of a pool")
    check(funders[0]["fund"] == trade["settlement"]["fund"], "the creator's own")
    check(len({funder["fund"]["txid"] for funder in funders}) == 1, "all by one transaction")
    check(trade["seller"] == trade["provider"], "sold by its provider")


def cells(held):
    """Unit-slots of a certificate, or of a hop of its history."""
    start, end = held["window"]
    units = [unit for first, last in held["units"] for unit in range(first, last)]
    return {(unit, slot) for unit in units for slot in range(start, end)}


def check_paid(hop, before, cert, trades, what):
    """A sale is one of the trades: nothing else was paid for."""
    trade = trades.get((hop["cert_id"], hop["from"], hop["to"]))
    check(trade is not None, f"{what} is one of the trades")
    if trade is not None:
        area = trade["qty"] * (trade["window"][1] - trade["window"][0])
        check(len(cells(hop)) == area and hop["window"] == trade["window"], f"{what} is what was paid")
        check(trade["class"] == cert["class"] and trade["provider"] == cert["provider"], f"{what} is of its provider")
    check(hop["consumed"] == [hop["cert_id"]], f"{what} moves it")
    check((hop["kind"] == "sale") == (hop["from"] == cert["provider"]), f"{what} is by the provider or a holder")
    check((hop["kind"] == "sale") == (before is None), f"{what} comes first or later")


def check_hop(hop, before, cert, trades):
    """One hop, with what there was before it; `before` is None at the birth of a certificate."""
    what = f"{hop['kind']} of {hop['cert_id'][:8]}"
    if hop["kind"] in ("sale", "resale"):
        check_paid(hop, before, cert, trades, what)
    if before is None:
        check(hop["kind"] == "sale" and hop["seq"] == 1, f"{what} is its birth")
        return
    check(hop["from"] == before["to"], f"{what} is by the holder")
    check(hop["consumed"] == [before["cert_id"]], f"{what} consumes what came before")
    if hop["kind"] == "split":
        check(hop["to"] == hop["from"] and hop["cert_id"] != before["cert_id"], f"{what} stays with its holder")
        check(hop["seq"] == 1 and cells(hop) < cells(before), f"{what} is a part")
    else:
        check(hop["kind"] in ("gift", "resale"), f"{what} is known")
        check(hop["to"] != hop["from"] and hop["cert_id"] == before["cert_id"], f"{what} moves it to another")
        check(hop["seq"] == before["seq"] + 1 and cells(hop) == cells(before), f"{what} moves all of it")


def check_certificates(doc, keys):
    trades = {(trade["cert_id"], trade["seller"], trade["holder"]): trade for trade in doc["trades"]}
    born, histories = {}, []
    for cert in doc["certificates"]:
        is_hex(cert["cert_id"], "cert_id")
        check({cert["holder"], cert["provider"]} <= keys, "holder and provider are nodes")
        before = None
        for hop in cert["transfers"]:
            check_hop(hop, before, cert, trades)
            before = hop
        for field in ("cert_id", "seq", "units", "window"):
            check(cert[field] == before[field], f"{field} is that of the last transfer")
        check(before["to"] == cert["holder"], "last transfer made the holder")
        others = [node["name"] for node in doc["nodes"] if node["key"] != cert["holder"]]
        check(cert["verified_by"] == others, "verified by all others")
        first = cert["transfers"][0]
        born.setdefault(first["cert_id"], (cells(first), []))[1].append(cells(cert))
        histories.append([hop["kind"] for hop in cert["transfers"]])
    for cert_id, (sold, parts) in born.items():
        whole = set().union(*parts) == sold and sum(map(len, parts)) == len(sold)
        check(whole, f"unit-slots of {cert_id[:8]} are conserved")
    expected = [["sale"], ["sale", "gift"], ["sale", "split", "gift"], ["sale", "split", "resale"]]
    check(sorted(histories) == expected, f"histories: {histories}")
    check(len({cert["holder"] for cert in doc["certificates"]}) == 3, "three holders")
    sold = {trade["cert_id"] for trade in doc["trades"] if trade["seller"] == trade["provider"]}
    check(set(born) == sold, "all that providers sold")


def check_refusals(doc):
    """Who gave one away and tried to redeem it all the same."""
    for refusal in doc["refusals"]:
        certs = [cert for cert in doc["certificates"] if cert["cert_id"] == refusal["cert_id"]]
        gave = {hop["from"] for cert in certs for hop in cert["transfers"] if hop["kind"] == "gift"}
        check(refusal["by"] in gave, "a former holder was refused")
    refusals = [(refusal["what"], refusal["code"]) for refusal in doc["refusals"]]
    check(refusals == [("redeem", "redeem.not_holder")], f"refusals: {refusals}")


def check_money(doc):
    """Every wallet, to the sat, by what its node bought and sold; what a pool cost each of its
    members follows from its wallet, and has to be the price in all."""
    keys = {node["name"]: node["key"] for node in doc["nodes"]}
    check(sorted(keys) == sorted(balance["node"] for balance in doc["balances"]), "every wallet")
    fees, shares = 0, 0
    pooled = {funder["key"]: funder for trade in doc["trades"] for funder in trade.get("funders", [])}
    container = (doc.get("container") or {}).get("trade")
    trades = doc["trades"] + ([container] if container else [])
    for balance in doc["balances"]:
        key, expected = keys[balance["node"]], balance["before_sat"]
        for trade in trades:
            settlement, price = trade["settlement"], trade["price_sat"]
            if trade["buyer"] == key and "funders" not in trade:
                expected -= price + settlement["fund"]["fee_sat"]
                fees += settlement["fund"]["fee_sat"]
            if trade["seller"] == key:
                expected += price - trade["seller_fees_sat"]
                fees += trade["seller_fees_sat"]
        if key in pooled:
            expected -= pooled[key]["fund"]["fee_sat"]
            fees += pooled[key]["fund"]["fee_sat"]
            share = expected - balance["after_sat"]
            check(0 < share <= pooled[key]["pledged_sat"], f"{balance['node']} paid {share} sat of what it pledged")
            shares += share
            continue
        check(balance["after_sat"] == expected, f"{balance['node']} has {balance['after_sat']} sat, not {expected}")
    check(shares == sum(trade["price_sat"] for trade in doc["trades"] if "funders" in trade), f"shares of {shares} sat")
    check(doc["fees_paid_sat"] == fees > 0, f"fees were paid: {fees}")


def check_leases(doc, keys):
    certs = {cert["cert_id"]: cert for cert in doc["certificates"]}
    check(sorted(lease["cert_id"] for lease in doc["leases"]) == sorted(certs), "each certificate is redeemed once")
    for lease in doc["leases"]:
        is_hex(lease["lease_id"], "lease_id")
        check(lease["backend"] == "wasm" and lease["exit_code"] == 0, "exit code 0")
        cert = certs[lease["cert_id"]]
        parties = all(lease[field] == cert[field] for field in ("holder", "provider"))
        check(parties, "the holder redeemed at the provider")
        check(lease["result"]["matches_expected"] is True, "result matches")
        digest = hashlib.sha256(lease["stdout"].encode()).hexdigest()
        check(lease["result"]["sha256"] == digest, "stdout and result are the same line")
        check(lease["countersigned"] is True and lease["receipts"] >= 1, "receipts signed by both")
        check(lease["left_behind"] == [], "nothing left behind")
        check(lease["started_at"] < lease["ended_at"], "started before it ended")
        check(float(lease["delivered_s"]) > 0, "time was delivered")
        check(lease["cpu_us"] > 0 and lease["memory_peak_bytes"] > 0, "metered")


def check_container(doc, keys, wanted):
    """A container that began by itself, was entered and gave a file; or why there was none."""
    part = doc.get("container")
    if not wanted:
        return check(part is None, "no container was asked for")
    if part is None or not part["ran"]:
        why = part and part["why_not"]
        check(bool(why) and wanted == "if-can", f"a container ran, or it is said why not: {why!r}")
        return print(f"devnet: no container: {why}")
    trade, lease, entry, file = (part[field] for field in ("trade", "lease", "entry", "file"))
    check(trade["class"].startswith("box.") and trade["settlement"]["state"] == "settled", "room for it was bought")
    check(lease["cert_id"] == trade["cert_id"] and lease["holder"] == trade["buyer"], "its buyer runs it")
    check({lease["holder"], lease["provider"]} <= keys and lease["provider"] == trade["seller"], "at its provider")
    check(lease["backend"] == "rootfs" and lease["window"] == trade["window"], "in what was bought")
    check(lease["started_at"] is not None and lease["started_at"] < lease["ended_at"], "it ran")
    check(entry["stdout"].strip().isdigit() and len(entry["command"]) > 1, "a program ran in it")
    check(file["matches_expected"] is True and file["bytes"] > 0, "a file came out of it")
    check(lease["countersigned"] is True and lease["left_behind"] == [], "countersigned, and nothing is left")
    check(float(lease["delivered_s"]) > 0, "time was delivered to it")


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
    check_epoch(doc, doc["epoch"], 4)
    check_epoch(doc, doc["resale_epoch"], 2)
    check_trades(doc, keys)
    check_certificates(doc, keys)
    check_leases(doc, keys)
    check_refusals(doc)
    check_money(doc)
    check_container(doc, keys, sys.argv[3] if len(sys.argv) > 3 else "")
    for failure in failures:
        print(f"devnet: FAILED {failure}", file=sys.stderr)
    print(f"devnet document: {'failed' if failures else 'ok'}, {doc['elapsed_s']} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
