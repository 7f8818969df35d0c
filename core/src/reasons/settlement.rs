//! From a row to a payment.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "trade", "both sides: what became of a row";
        "trade.already_agreed": Rejected, Peer, "other terms were agreed for the row";
        "trade.ambiguous": Rejected, Local, "more than one trade has an id that begins so",
            "give more digits";
        "trade.below_minimum": Rejected, Nobody, "a trade of so few sats is void",
            "ask for more blocks in one trade";
        "trade.broadcast_failed": Note, Nobody,
            "the chain source refused a transaction of the trade",
            "it is tried again at each block: `capex trade show ID` says why it failed";
        "trade.buyer_silent": Rejected, Peer, "the buyer did not go on in time";
        "trade.cancelled_by_buyer": Rejected, Peer, "the buyer withdrew before paying";
        "trade.default_risk": Note, Nobody,
            "payment proves the sale, not delivery: a provider that sells can still fail";
        "trade.fragmented": Rejected, Nobody, "units are scattered over more than 16 ranges";
        "trade.no_agreement": Rejected, Nobody, "the other side does not have the row";
        "trade.no_proof": NotFound, Local,
            "there is nothing to prove: no provider has defaulted in the trade",
            "`capex trade list --stuck` shows the trades that do not go on";
        "trade.not_found": NotFound, Local, "no such trade",
            "`capex trade list` shows the known ones";
        "trade.not_inside": Rejected, Nobody, "the rectangle has fewer free units than the row";
        "trade.not_the_buyer": Rejected, Peer, "the request does not come from the buyer";
        "trade.not_the_seller": Rejected, Peer, "the request does not come from the seller";
        "trade.overdue": Note, Nobody, "what was due in the trade has not happened",
            "`capex trade show ID` says what it waits for and what can be done";
        "trade.own_capacity": Rejected, Local,
            "the certificate is one of this provider's own, and nobody keeps its own register",
            "the next bids leave it out";
        "trade.prepaid_cap": Rejected, Local,
            "more would be paid ahead to this provider than the configuration allows",
            "wait for deliveries, or raise the cap in the configuration";
        "trade.too_many_open": Rejected, Local, "as many settlements are open as may be",
            "wait until some have ended: `capex trade list`";
        "trade.void": Rejected, Nobody, "the row is void or its settlement has ended";
        "trade.window_too_near": Rejected, Nobody,
            "the window starts before the trade could be settled", "choose a later window";
    },
    family! {
        "terms", "buyer, seller and provider: terms of a sale";
        "terms.funder": Rejected, Peer, "there is no such funder";
        "terms.height": Rejected, Peer, "a refund height is not a block height";
        "terms.key": Rejected, Peer, "a settlement key is invalid";
        "terms.late": Rejected, Peer, "the seller sent no terms in time";
        "terms.not_the_row": Rejected, Peer, "the terms differ from the matched row";
        "terms.payout": Rejected, Peer, "the payout script cannot be paid";
        "terms.recall": Rejected, Peer,
            "what is resold, or paid for by several or for oneself, cannot be recalled",
            "buy without --recall, or from a provider";
        "terms.template": Rejected, Peer, "the script template is unknown";
        "terms.tips_differ": Rejected, Nobody, "the chain tips of the parties differ too much";
        "terms.use_by": Rejected, Peer,
            "the holder could never use it: it is to be used by a slot before its window, or is \
             resold, and its last slot is the provider's word",
            "choose a later --use-by, or buy from a provider";
        "terms.window_too_near": Rejected, Nobody,
            "the window starts before a refund would be possible", "choose a later window";
        "terms.wrong_amount": Rejected, Peer, "the amounts do not add up to the price";
        "terms.wrong_issue": Rejected, Peer, "the certificate does not fit the row";
        "terms.wrong_party": Rejected, Peer, "the terms name other parties";
        "terms.wrong_timelock": Rejected, Peer, "the timelocks are not the network's";
    },
    family! {
        "pool", "CLI and members: several who pay for one certificate together";
        "pool.ambiguous": Rejected, Local, "more than one pool has an id that begins so",
            "give more digits";
        "pool.bad_key": Rejected, Peer, "a member's refund key is invalid, or another's";
        "pool.denied": Rejected, Local,
            "a key that let trades lapse is left out for a while",
            "see `capex peer list`, or forgive it with `capex peer forgive KEY`";
        "pool.dissolved": Rejected, Peer, "its creator has ended the pool";
        "pool.ended": Rejected, Nobody, "the pool is over";
        "pool.expired": Rejected, Nobody, "the time to pledge and to bid is over",
            "ask for a new invitation";
        "pool.full": Rejected, Nobody,
            "the pledges make up the price already, or 8 have pledged";
        "pool.invitation_syntax": Usage, Local, "the text is no invitation to a pool",
            "copy the whole line, as it was printed where the pool was founded";
        "pool.invitation_too_long": TooLarge, Local, "an invitation has at most 1,024 bytes";
        "pool.joined_twice": Rejected, Peer,
            "a key pledges once; its creator has done so already",
            "leave the pool first: `capex pool leave ID`";
        "pool.left": Rejected, Local, "this node has withdrawn its pledge";
        "pool.malformed": Usage, Peer,
            "a pool needs a class, blocks and slots inside its window, a limit, an end before that \
             of the window, and a price that two can share",
            "correct --qty, --slots, --max-price, --expires or the window";
        "pool.no_answer": Rejected, Nobody, "the creator of the pool did not answer",
            "try again when its node runs";
        "pool.not_agreed": Rejected, Peer, "not every member signed the terms in time";
        "pool.not_found": NotFound, Local, "no such pool",
            "`capex pool status` shows the known ones";
        "pool.not_invited": Rejected, Peer, "the creator of the pool has named others",
            "ask the creator for a pool that names your key";
        "pool.other_network": Usage, Local, "the invitation is for another network",
            "join with a node of that network";
        "pool.settling": Rejected, Nobody,
            "the members have been asked to pay: the trade decides now",
            "see `capex trade list`";
        "pool.share": Usage, Peer,
            "a share is at least the network's smallest trade and no more than what is missing, \
             and leaves nothing that nobody could pledge",
            "`capex pool status` shows what is missing";
        "pool.too_many": Rejected, Local, "this node is a member of as many pools as it may be",
            "leave one: `capex pool status`";
        "pool.unfair": Rejected, Peer, "the terms ask for more than the pledge makes of the price";
        "pool.unknown": Rejected, Peer, "there is no such pool, or not for this key";
    },
    family! {
        "joint", "members of a pool: the one transaction that all of them pay";
        "joint.changed": Rejected, Peer,
            "a member puts in something else than what others may have signed for";
        "joint.coin_twice": Rejected, Peer, "a coin is put in twice";
        "joint.feerate": Rejected, Nobody,
            "the transaction would pay less than half of what this node takes for enough",
            "compare the fee estimates of the members' chain sources";
        "joint.malformed": Rejected, Peer,
            "a member puts in no coin, too many, or change that cannot be paid";
        "joint.missing": Rejected, Nobody, "not every member has put something in";
        "joint.not_whole": Rejected, Peer,
            "not every member put in its coins and signed in time; no coin has moved",
            "found another pool; what this node signed is void as soon as its coins pay for \
             something else";
        "joint.resale": Rejected, Nobody,
            "the match is a resale, which members pay for each by itself alone",
            "found the pool with --separately to buy of resellers too";
        "joint.signature": Rejected, Peer, "a member's signature does not hold for all outputs";
        "joint.too_little": Rejected, Peer,
            "the coins of a member do not make up its share, its change and its fee";
        "joint.unknown": Rejected, Peer, "no such transaction of several, or not for this key";
    },
    family! {
        "accept", "provider: the buyer's consent to terms";
        "accept.does_not_fit": Rejected, Peer, "the consent does not fit the terms";
        "accept.elapsed": Rejected, Nobody, "the time to consent is over";
    },
    family! {
        "lock", "provider: a lock, and why there is none; node: a grant heard";
        "lock.accept_missing": Rejected, Peer, "a funder has not consented";
        "lock.conflict": Rejected, Peer, "the provider granted the certificate to somebody else";
        "lock.consumed": Rejected, Nobody, "the certificate was redeemed";
        "lock.does_not_fit": Rejected, Peer, "the lock does not fit the terms";
        "lock.known": Rejected, Nobody, "the grant is known already";
        "lock.late": Rejected, Peer, "the provider granted no lock in time";
        "lock.live": Rejected, Nobody, "another sale of the certificate is open";
        "lock.mismatch": Rejected, Peer, "the terms do not fit the certificate";
        "lock.not_a_trader": Rejected, Nobody,
            "the provider has no order in recent epochs, and nothing here is of it";
        "lock.not_granted": Rejected, Nobody, "no lock was granted for these terms";
        "lock.not_holder": Rejected, Peer, "the seller does not hold the certificate";
        "lock.prev_hash": Rejected, Peer, "the terms do not name the last activation";
        "lock.quota": Rejected, Nobody,
            "the provider has said as much in the epoch as is taken";
        "lock.recallable": Rejected, Nobody,
            "who paid for the certificate may recall it, so its holder cannot sell it";
        "lock.released": Rejected, Nobody, "the lock was released";
        "lock.stale_seq": Rejected, Nobody, "the certificate has moved on";
        "lock.too_many": Rejected, Local, "as many locks are kept as may be";
        "lock.too_many_hops": Rejected, Nobody, "the certificate has changed hands too often";
        "lock.unknown_certificate": NotFound, Nobody, "the provider knows no such certificate";
        "lock.void": Rejected, Nobody, "the certificate is void";
        "lock.window_started": Rejected, Nobody, "the delivery window has begun";
    },
    family! {
        "fund", "seller or provider: the funding transaction";
        "fund.already_acknowledged": Rejected, Peer,
            "another funding transaction was acknowledged";
        "fund.cancelled": Rejected, Nobody, "the payment was cancelled before it confirmed";
        "fund.coin_denied": Rejected, Peer,
            "the payment spends a coin that let an earlier lock lapse",
            "pay from another coin, or wait";
        "fund.fee_above_cap": Rejected, Nobody, "the network fee would exceed the cap";
        "fund.late": Rejected, Nobody, "it is too late for the payment to confirm in time";
        "fund.malformed": Rejected, Peer, "the bytes are not a transaction";
        "fund.not_accepted": Rejected, Peer,
            "the provider's own chain source did not accept the payment";
        "fund.not_confirmed": Rejected, Peer, "the payment did not confirm in time";
        "fund.not_sent": Rejected, Peer, "the buyer sent no payment in time";
        "fund.pays_not_the_contract": Rejected, Peer,
            "the transaction does not pay the contract of the terms";
        "fund.undecided": Rejected, Nobody,
            "the provider does not know yet whether the payment it was shown has been sent",
            "wait until the chain shows it, or the provider has given it up";
        "fund.uneconomical": Rejected, Local,
            "all fees of the trade come to more than the owner of the bid accepts to lose",
            "wait for lower fees, or accept more with --max-fee and `max_fee_share`";
    },
    family! {
        "settle", "both sides: a settlement";
        "settle.claim_lost": Rejected, Peer, "another transaction spent the contract";
        "settle.defaulted": Rejected, Peer,
            "paid, and the provider did not hand over the certificate while its window lasted",
            "`capex trade proof ID` writes what shows it to anyone: terms, lock and preimage";
        "settle.key": Failed, Nobody, "no settlement key could be derived";
        "settle.refunded": Rejected, Peer, "the payment went back to the buyer";
        "settle.too_late_to_reveal": Rejected, Nobody,
            "too little time is left to reveal the preimage safely";
        "settle.window_over": Rejected, Nobody, "the delivery window has ended";
    },
    family! {
        "transfer", "provider: a completed sale";
        "transfer.no_lock": Rejected, Nobody, "the certificate has no such lock";
        "transfer.not_paid": Rejected, Nobody, "the payment has not confirmed yet";
        "transfer.not_the_claim": Rejected, Peer, "the transaction is not the claim of the sale";
        "transfer.preimage": Rejected, Peer, "the preimage does not match the payment hash";
        "transfer.unknown_certificate": NotFound, Nobody,
            "the provider knows no such certificate";
    },
    family! {
        "quittance", "buyer and provider: the seller calls the sale paid";
        "quittance.does_not_fit": Rejected, Peer,
            "the quittance is not the seller's for these terms";
        "quittance.resale": Rejected, Peer,
            "only a provider that sells by itself can call a sale paid before the chain does";
        "quittance.too_late": Rejected, Nobody,
            "a quittance moves nothing so near the refund: the payment is claimed on the chain";
    },
    family! {
        "activation", "holder: an Activation that does not fit its sale or gift";
        "activation.does_not_fit": Rejected, Peer, "the activation does not follow from the sale";
    },
    family! {
        "keyagg", "both sides: a single-use key";
        "keyagg.empty": Rejected, Peer, "there is no key to aggregate";
        "keyagg.infinity": Rejected, Peer, "the keys cancel each other out";
        "keyagg.scalar": Rejected, Peer, "a scalar is not in the range of the group";
    },
];
