//! Orders, epochs, and what is heard of them.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "order", "CLI, API and every node: an order";
        "order.alternatives": Usage, Peer, "a bid names 1 to 4 distinct classes, an ask one",
            "name each class once";
        "order.ambiguous": Rejected, Local, "more than one order has an id that begins so",
            "give more digits";
        "order.capacity_exceeded": Rejected, Local,
            "this host has fewer free units of the class in that window",
            "sell fewer, cancel another ask, or raise [capacity] in the configuration";
        "order.counterparties": Usage, Peer,
            "allow and deny must ascend and hold at most 16 keys together",
            "name fewer keys";
        "order.counterparties_denied": Rejected, Local,
            "all counterparties that the order allows let trades lapse and are left out for a while",
            "see `capex peer list`, or forgive one with `capex peer forgive KEY`";
        "order.duplicate": Rejected, Nobody, "the order is known already";
        "order.fees_too_high": Unpayable, Local,
            "the fees of a trade come to more than the owner of the order accepts",
            "wait for lower fees, bid for more, or accept more with --max-fee and `max_fee_share`";
        "order.future_epoch": Rejected, Nobody, "the epoch of the order has not begun";
        "order.incomplete": Usage, Local, "the order lacks something that it needs",
            "give it as a flag or in --file";
        "order.insufficient_funds": Unpayable, Local,
            "the bid can cost more than the coins that are free",
            "fund the wallet (`capex wallet address`), or bid less";
        "order.limit_out_of_range": Usage, Peer,
            "the limit is 0 or above 10^12 msat per block", "choose a limit in between";
        "order.nobody_known": Rejected, Local,
            "no provider has delivered to this node as the order asks",
            "see `capex peer list`, or leave --only-known and --min-record out";
        "order.not_found": NotFound, Local, "no such order",
            "`capex order list` shows the known ones";
        "order.not_in_book": Rejected, Nobody,
            "the order did not enter the book: the lowest ids of a key count, of one nonce or \
             resold certificate the lowest",
            "keep fewer orders in the market: `capex order list`";
        "order.not_in_epoch": NotFound, Nobody, "the order was not signed for that epoch",
            "see `capex order list`";
        "order.oversize": TooLarge, Peer, "an order has at most 2,048 bytes";
        "order.proof_of_work": Rejected, Peer, "the proof of work is too small";
        "order.quantity": Usage, Peer, "needs 1 <= min_qty <= qty <= 10,000",
            "correct --qty or --min-qty";
        "order.quota": Rejected, Nobody, "the key has orders with lower ids in the epoch, up to \
             the number that is kept";
        "order.recall": Usage, Local,
            "who pays alone can recall what it buys for another key; not a pool",
            "give --recall with --for-key";
        "order.resale": Rejected, Peer,
            "the activation that the ask carries does not support the resale";
        "order.run": Usage, Peer,
            "a bid has 1 to 168 slots inside its window and no min_run; an ask has min_run >= 1, \
             no slots, is no gang and has no beneficiary",
            "correct --slots or the window";
        "order.stale_epoch": Rejected, Nobody, "the epoch of the order is over";
        "order.time_in_force": Usage, Local, "expires_at belongs to gtt, and gtt needs it",
            "give both or neither";
        "order.too_many": Rejected, Local, "this node keeps as many orders as it may",
            "cancel one: `capex order list`";
        "order.too_many_in_epoch": Rejected, Local,
            "this node signed as many orders for the epoch as one key may have",
            "it waits for the next epoch";
        "order.unknown_class": Usage, Peer, "the network has no such resource class",
            "see `capex config show` for the classes";
        "order.unknown_feature": Usage, Local, "the network has no such feature";
        "order.use_by": Usage, Local,
            "a purchase for another key is to be used by a slot that lies behind the first of \
             every run that can be matched",
            "choose a later --use-by, and give it with --for-key";
        "order.window": Usage, Peer,
            "the window is empty, past, beyond the horizon, or too short for the run",
            "choose another with --from and --for, or --window";
    },
    family! {
        "resale", "holder: a certificate on offer, and what became of its ask";
        "resale.consumed": Rejected, Local, "the certificate was redeemed, split, merged or sold",
            "`capex cert list` shows what is held";
        "resale.not_holder": Rejected, Local, "another key holds the certificate now",
            "`capex cert list` shows what is held";
        "resale.not_split": Rejected, Peer,
            "the provider did not split off what was sold in time, so the row is void",
            "what is left goes on being offered";
        "resale.on_offer": Rejected, Local, "the certificate is on offer already",
            "cancel that order first: `capex cert show ID`";
        "resale.other_kind": Usage, Local,
            "the certificate has another class, or lacks a feature of the ask",
            "see `capex cert show ID`";
        "resale.outside": Usage, Local,
            "the certificate has not so many units, or not these slots",
            "see `capex cert show ID` for its units and slots";
        "resale.pending": Rejected, Local,
            "a gift, a split or a merge of the certificate waits for the provider",
            "wait for it";
        "resale.recallable": Rejected, Local,
            "who paid for the certificate may recall it, so its holder cannot sell it",
            "redeem it, or ask who paid: `capex cert show ID`";
        "resale.unknown_certificate": NotFound, Local, "this node holds no such certificate",
            "`capex cert list` shows what is held";
        "resale.window_too_near": Rejected, Nobody,
            "the delivery window begins before a sale could be settled",
            "redeem it, or give it away: `capex cert show ID`";
    },
    family! {
        "orders", "network: a gossip message of orders";
        "orders.count": Rejected, Peer, "a message carries 1 to 16 orders";
        "orders.mixed": Rejected, Peer,
            "the orders of a message have one owner, one epoch and one version";
        "orders.unsorted": Rejected, Peer, "the orders of a message ascend by id";
    },
    family! {
        "epoch",
        "CLI and node: a result, its proof or its absence; where an epoch differs from its \
         orders; a file of one";
        "epoch.bad_algorithm": Failed, Peer, "the matching rules are of another version";
        "epoch.bad_beacon": Failed, Peer, "the beacon is not that of the epoch";
        "epoch.bad_count": Failed, Peer, "the root covers another number of orders";
        "epoch.bad_order": Failed, Peer, "an order is not valid";
        "epoch.bad_price": Failed, Peer, "a price differs";
        "epoch.bad_result_root": Failed, Peer, "the root of the result differs";
        "epoch.bad_root": Failed, Peer, "the root of the orders differs";
        "epoch.bad_row": Failed, Peer, "a row differs";
        "epoch.bad_welfare": Failed, Peer, "the welfare differs";
        "epoch.behind": Failed, Local,
            "earlier epochs are still being computed, so this one is left out",
            "this computer is too slow for its market";
        "epoch.evicted_order": Failed, Peer, "an order stands there that the set would evict";
        "epoch.extra_price": Failed, Peer, "a price too many";
        "epoch.extra_row": Failed, Peer, "a row too many";
        "epoch.file_header": Rejected, Peer, "the file does not begin like an epoch";
        "epoch.file_json": Rejected, Local, "the file is JSON, not the signed orders of an epoch",
            "export it with its signatures: `capex epoch export EPOCH --signed --out FILE`";
        "epoch.file_line": Rejected, Peer, "a line does not have the form that stands there";
        "epoch.file_order": Rejected, Peer, "a line does not come after the one before";
        "epoch.file_too_long": TooLarge, Peer, "the text of an epoch is longer than it may be",
            "this node can still check it: `capex epoch verify EPOCH`";
        "epoch.file_trailing": Rejected, Peer, "there is text after the end";
        "epoch.lost": Failed, Local, "the computation of an epoch ended without an answer",
            "report it with the log";
        "epoch.missing_price": Failed, Peer, "a price is missing";
        "epoch.missing_row": Failed, Peer, "a row is missing";
        "epoch.no_result": Failed, Peer, "the orders have no result, the epoch states one";
        "epoch.not_computed": Rejected, Nobody, "the epoch has no result yet",
            "ask again after it has ended";
        "epoch.not_found": NotFound, Nobody, "this node has nothing of that epoch",
            "epochs without orders have none; old ones are forgotten";
        "epoch.other_epoch": Failed, Local, "this belongs to another epoch";
        "epoch.other_network": Rejected, Local, "this is an epoch of another network";
        "epoch.repeated_order": Failed, Peer, "an order stands there twice";
        "epoch.unknown_network": Rejected, Local, "the file names an unknown network";
    },
    family! {
        "root", "node: a root heard";
        "root.duplicate": Rejected, Nobody, "the key has sent a root for the epoch";
        "root.not_a_trader": Rejected, Nobody, "the key has no order in the epoch";
        "root.stale_epoch": Rejected, Nobody, "the epoch of the root is over";
        "root.too_many": Rejected, Nobody, "as many roots are kept as may be";
    },
    family! {
        "contact", "node: a Contact heard";
        "contact.duplicate": Rejected, Nobody, "the contact is known already";
        "contact.full": Rejected, Nobody, "as many contacts are kept as may be";
        "contact.stale": Rejected, Nobody, "the time in the contact is more than ten minutes off";
        "contact.too_many": Rejected, Nobody, "its key, or keys without an order, publish too often";
    },
    family! {
        "quote", "node: what a quote rests on";
        "quote.closed_book": Note, Nobody,
            "the book of this epoch is closed: an order placed now joins the next";
        "quote.last_book": Note, Nobody,
            "this epoch has no orders yet: the quote rests on the last book";
        "quote.open_book": Note, Nobody, "the book is open: others may still come";
    },
    family! {
        "clock", "node: its own clock";
        "clock.off": Note, Local, "the clock differs from that of the peers or of the chain",
            "set it by NTP";
        "clock.was_ahead": Note, Local,
            "the clock was ahead once: orders were signed for epochs that are still to come";
    },
    family! {
        "sync", "node: an epoch that it does not keep";
        "sync.unknown_epoch": NotFound, Nobody, "the node keeps nothing of that epoch";
    },
];
