//! Certificates: birth, verification, gifts, and the provider's ledger of units.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "certificate", "verifier: a certificate or its file";
        "certificate.ambiguous": Rejected, Local,
            "more than one certificate has an id that begins so", "give more digits";
        "certificate.bad_area": Rejected, Peer, "units or delivery window have no valid form";
        "certificate.bad_bases": Rejected, Peer,
            "it does not begin with 1 to 16 distinct certificates";
        "certificate.bad_parts": Rejected, Peer,
            "parts of a split or a merge have no valid form";
        "certificate.bad_signature": Rejected, Peer, "a signature does not verify";
        "certificate.cause_mismatch": Rejected, Peer, "an activation does not match its hop";
        "certificate.changed": Rejected, Peer,
            "class, features, units, window or roots changed on the way";
        "certificate.file_header": Rejected, Local,
            "the file does not begin with `capex-certificate 1 <network>`";
        "certificate.file_hex": Rejected, Local, "a field is not lower-case hex";
        "certificate.file_kind": Rejected, Local, "a line of another kind must stand there";
        "certificate.file_payload": Rejected, Local, "a line does not hold a signed object";
        "certificate.file_syntax": Rejected, Local,
            "a line is not of the form <kind> <hex payload> <hex signature>";
        "certificate.file_too_long": TooLarge, Local, "the file is longer than a certificate";
        "certificate.file_truncated": Rejected, Local, "the file ends too early";
        "certificate.foreign_part": Rejected, Peer,
            "a part belongs to another certificate or provider";
        "certificate.gift_before_sale": Rejected, Peer,
            "it was given away, split or merged before it was sold";
        "certificate.lock_mismatch": Rejected, Peer, "a lock does not match its terms";
        "certificate.loose_part": Rejected, Peer, "a part of it leads nowhere";
        "certificate.malformed": Rejected, Peer, "a signed object is malformed";
        "certificate.no_answer": TimedOut, Peer, "the provider does not answer",
            "try again when it is up: `capex peer list`";
        "certificate.not_a_party": Rejected, Nobody,
            "only parties of a certificate may fetch it";
        "certificate.not_found": NotFound, Local, "no such certificate",
            "`capex cert list` shows the known ones";
        "certificate.not_holder": Rejected, Peer, "a hop is signed by another than the holder";
        "certificate.other_kind": Rejected, Peer,
            "certificates of different providers, classes or features were merged";
        "certificate.other_network": Rejected, Local, "it is a certificate of another network",
            "name it with --network";
        "certificate.part_outside": Rejected, Peer, "a part lies outside its certificate";
        "certificate.parts_apart": Rejected, Peer, "merged certificates are not adjacent";
        "certificate.parts_sum": Rejected, Peer,
            "a unit is in two parts in one slot, or in none";
        "certificate.preimage": Rejected, Peer, "a preimage does not match its payment hash";
        "certificate.prev_hash": Rejected, Peer, "a hop does not name the last activation";
        "certificate.recallable": Rejected, Peer,
            "who paid for it may recall it, so its holder cannot hand it on";
        "certificate.seq_gap": Rejected, Peer, "a sequence number is not the next one";
        "certificate.too_many_hops": Rejected, Peer, "it has more than 64 hops";
        "certificate.too_many_roots": Rejected, Peer, "it goes back to more than 16 issues";
        "certificate.unknown_class": Rejected, Peer, "the resource class is not the network's";
        "certificate.unknown_version": Rejected, Nobody,
            "a signed object has a version that this release does not know",
            "use a newer release";
    },
    family! {
        "issue", "provider: the birth of a certificate";
        "issue.bad_area": Rejected, Nobody, "units or window of the sale have no valid form";
        "issue.full": Rejected, Local, "as many certificates are kept as may be";
        "issue.not_claimed": Rejected, Nobody, "the units of the sale are not reserved";
        "issue.unknown_class": Rejected, Nobody, "the network has no such resource class";
        "issue.void": Rejected, Nobody, "the sale of these units has ended";
    },
    family! {
        "acquire", "node: taking over a certificate that was pushed to it, or imported from a file";
        "acquire.beyond_horizon": Rejected, Nobody,
            "the delivery window lies further ahead than any order may";
        "acquire.contradicted": Rejected, Peer,
            "another history of this certificate is here: its provider has signed both",
            "keep both files: they prove that the provider sold it twice";
        "acquire.full": Rejected, Nobody, "as many certificates are held as may be";
        "acquire.not_holder": Rejected, Peer, "the certificate belongs to another key";
        "acquire.other_provider": Rejected, Local, "the certificate was issued by another provider",
            "see `capex cert verify FILE`";
        "acquire.stale": Rejected, Local, "the certificate has moved on since this file was written",
            "see `capex cert list`";
        "acquire.unknown_provider": Rejected, Local,
            "nothing is known here of the provider that issued the certificate",
            "if you know it, name its key: --provider KEY";
        "acquire.window_past": Rejected, Nobody, "the delivery window is over";
    },
    family! {
        "register", "provider: whether its register is whole";
        "register.behind": Unavailable, Local,
            "this node has signed what its register does not know, so it issues nothing",
            "its store is an old copy: restore a newer one (`capex backup restore FILE --words-file WORDS`), or sell with a new identity";
        "register.busy": Unavailable, Nobody,
            "the provider has signed as much for nothing in this epoch as it may",
            "try again in the next epoch";
        "register.restored": Unavailable, Local,
            "the store was restored, and peers have not yet told what this node has signed",
            "wait until three peers have answered, or six blocks";
    },
    family! {
        "gift", "provider or giver: a gift";
        "gift.bad_activation": Rejected, Peer, "the provider's activation is not that of the gift";
        "gift.consumed": Rejected, Nobody, "the certificate was redeemed already",
            "see `capex lease list`";
        "gift.locked": Rejected, Nobody, "a sale of the certificate is open",
            "wait until it settles or its lock is released";
        "gift.no_answer": TimedOut, Peer, "the provider does not answer",
            "the gift is repeated until it does";
        "gift.not_holder": Rejected, Nobody,
            "another key holds this certificate now, and this one has no right to recall it",
            "ask its holder";
        "gift.on_offer": Rejected, Local, "the certificate is on offer, or was sold just now",
            "cancel the order that sells it: `capex cert show ID`";
        "gift.pending": Rejected, Nobody, "a gift to another key waits for the provider",
            "wait for it";
        "gift.prev_hash": Rejected, Nobody, "the gift does not name the last activation",
            "fetch the certificate again from its provider";
        "gift.recallable": Rejected, Nobody,
            "who paid for the certificate may recall it, so its holder cannot give it away",
            "redeem it, or ask who paid: `capex cert show ID`";
        "gift.stale_seq": Rejected, Nobody, "the certificate has moved on",
            "fetch it again from its provider";
        "gift.to_self": Rejected, Local, "that key holds the certificate already", "name another key";
        "gift.too_many_hops": Rejected, Nobody, "the certificate has changed hands too often",
            "redeem it instead";
        "gift.unknown_certificate": NotFound, Nobody, "no such certificate",
            "list yours with `capex cert list`";
        "gift.window_started": Rejected, Nobody, "the delivery window has begun",
            "redeem it instead";
    },
    family! {
        "checkpoint", "provider: its word in place of a long history";
        "checkpoint.not_holder": Rejected, Nobody, "another key holds this certificate";
    },
    family! {
        "split", "provider or holder: a certificate cut into parts";
        "split.bad_activation": Rejected, Peer,
            "the provider's activations are not those of the split";
        "split.bad_parts": Rejected, Local,
            "a part has no unit, no slot or no slot to redeem in, or they are not 2 to 16",
            "see `capex cert show ID` for its units and slots";
        "split.consumed": Rejected, Nobody, "the certificate was redeemed, split or merged already",
            "see `capex cert list`";
        "split.full": Rejected, Nobody, "as many certificates are kept as may be";
        "split.locked": Rejected, Nobody, "a sale of the certificate is open",
            "wait until it settles or its lock is released";
        "split.no_answer": TimedOut, Peer, "the provider does not answer",
            "the split is repeated until it does";
        "split.not_holder": Rejected, Nobody, "another key holds this certificate now",
            "ask its holder";
        "split.on_offer": Rejected, Local, "the certificate is on offer, or was sold just now",
            "cancel the order that sells it: `capex cert show ID`";
        "split.outside": Rejected, Local, "a part lies outside the certificate",
            "see `capex cert show ID` for its units and slots";
        "split.pending": Rejected, Nobody, "something else waits for the provider", "wait for it";
        "split.prev_hash": Rejected, Nobody, "the split does not name the last activation",
            "fetch the certificate again from its provider";
        "split.recallable": Rejected, Nobody,
            "who paid for the certificate may recall it, so its holder cannot cut it",
            "redeem it, or ask who paid: `capex cert show ID`";
        "split.stale_seq": Rejected, Nobody, "the certificate has moved on",
            "fetch it again from its provider";
        "split.sum": Rejected, Local, "the parts do not add up to the certificate";
        "split.too_many_hops": Rejected, Nobody, "the certificate has changed too often",
            "redeem it instead";
        "split.too_many_parts": Rejected, Nobody,
            "as many certificates were made of one purchase as may be", "sell or redeem what there is";
        "split.unknown_certificate": NotFound, Nobody, "no such certificate",
            "list yours with `capex cert list`";
        "split.window_started": Rejected, Nobody, "the delivery window has begun",
            "redeem it instead";
    },
    family! {
        "merge", "provider or holder: certificates joined into one";
        "merge.apart": Rejected, Local,
            "the certificates are neither one after the other with equal units, nor of one window";
        "merge.bad_activation": Rejected, Peer,
            "the provider's activation is not that of the merge";
        "merge.bad_parts": Rejected, Local, "a merge joins 2 to 8 distinct certificates";
        "merge.consumed": Rejected, Nobody, "a certificate was redeemed, split or merged already",
            "see `capex cert list`";
        "merge.full": Rejected, Nobody, "as many certificates are kept as may be";
        "merge.histories": Rejected, Nobody,
            "the certificates tell their common history in two ways";
        "merge.locked": Rejected, Nobody, "a sale of a certificate is open",
            "wait until it settles or its lock is released";
        "merge.no_answer": TimedOut, Peer, "the provider does not answer",
            "the merge is repeated until it does";
        "merge.not_holder": Rejected, Nobody, "another key holds one of the certificates now",
            "ask its holder";
        "merge.on_offer": Rejected, Local,
            "one of the certificates is on offer, or was sold just now",
            "cancel the order that sells it: `capex cert show ID`";
        "merge.other_kind": Rejected, Local,
            "certificates of different providers, classes or features cannot be merged";
        "merge.overlap": Rejected, Peer, "two of the certificates share a unit in one slot",
            "keep both files: they prove that the provider sold it twice";
        "merge.pending": Rejected, Nobody, "something else waits for the provider", "wait for it";
        "merge.prev_hash": Rejected, Nobody, "the merge does not name the last activations",
            "fetch the certificates again from their provider";
        "merge.recallable": Rejected, Nobody,
            "who paid for the certificate may recall it, so its holder cannot join it",
            "redeem it, or ask who paid: `capex cert show ID`";
        "merge.stale_seq": Rejected, Nobody, "a certificate has moved on",
            "fetch it again from its provider";
        "merge.too_many_hops": Rejected, Nobody, "the certificates have changed too often",
            "redeem them instead";
        "merge.too_many_parts": Rejected, Nobody,
            "as many certificates were made of one purchase as may be", "sell or redeem what there is";
        "merge.too_many_roots": Rejected, Local, "the certificates go back to more than 16 issues";
        "merge.unknown_certificate": NotFound, Nobody, "no such certificate",
            "list yours with `capex cert list`";
        "merge.window_started": Rejected, Nobody, "the delivery window of one of them has begun",
            "redeem them instead";
    },
    family! {
        "ledger", "provider: units already claimed";
        "ledger.beyond_capacity": Rejected, Nobody,
            "a unit number is beyond the capacity of the class";
        "ledger.claimed": Rejected, Nobody, "the units are claimed already";
        "ledger.empty": Rejected, Nobody, "a claim holds no unit or no slot";
        "ledger.full": Rejected, Local, "as many claims are kept as may be";
        "ledger.not_conserved": Rejected, Nobody,
            "a split or a merge would make a unit-slot or lose one";
    },
    family! {
        "capacity", "node: units for sale in the configuration";
        "capacity.below_claims": Rejected, Local,
            "capacity would shrink below what is offered or sold", "cancel offers or wait";
        "capacity.exceeds_host": Usage, Local, "more units are for sale than this machine has",
            "lower [capacity] in the configuration, or set allow_overcommit";
        "capacity.too_large": Rejected, Local, "a class cannot number so many units",
            "lower it in [capacity] of the configuration";
        "capacity.unknown_class": Rejected, Local, "the network has no such resource class",
            "see `capex config show` for the classes";
    },
    family! {
        "proof", "node: a proof of equivocation, and one heard";
        "proof.compatible": Rejected, Peer, "the statements do not contradict each other";
        "proof.full": Rejected, Nobody, "as many proofs are kept as may be";
        "proof.known": Rejected, Nobody, "the provider was convicted already";
        "proof.not_a_trader": Rejected, Nobody,
            "the provider has no order in recent epochs, and nothing here is of it";
        "proof.order": Rejected, Peer, "the statements are not in canonical order";
    },
    family! {
        "wire", "every node: bytes of a signed object";
        "wire.bad_signature": Rejected, Peer, "the signature does not verify";
        "wire.malformed": Rejected, Peer, "the bytes are no object of this kind";
        "wire.not_canonical": Rejected, Peer, "the bytes are not the only encoding of the object";
        "wire.oversize": TooLarge, Peer, "the object is larger than it may be";
        "wire.unknown_version": Rejected, Nobody,
            "the object has a version that this release does not know", "use a newer release";
        "wire.weak_key": Rejected, Peer, "the signing key is weak";
        "wire.wrong_signer": Rejected, Peer, "another key must sign the object";
    },
];
