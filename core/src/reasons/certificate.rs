//! Certificates: birth, verification, gifts, and the provider's ledger of units.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "certificate", "verifier: a certificate or its file";
        "certificate.ambiguous": Rejected, Local,
            "more than one certificate has an id that begins so", "give more digits";
        "certificate.bad_area": Rejected, Peer, "units or delivery window have no valid form";
        "certificate.bad_signature": Rejected, Peer, "a signature does not verify";
        "certificate.cause_mismatch": Rejected, Peer, "an activation does not match its hop";
        "certificate.changed": Rejected, Peer,
            "class, features, units or window changed on the way";
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
        "certificate.gift_before_sale": Rejected, Peer, "it was given away before it was sold";
        "certificate.lock_mismatch": Rejected, Peer, "a lock does not match its terms";
        "certificate.malformed": Rejected, Peer, "a signed object is malformed";
        "certificate.no_answer": TimedOut, Peer, "the provider does not answer",
            "try again when it is up: `capex peer list`";
        "certificate.not_a_party": Rejected, Nobody,
            "only parties of a certificate may fetch it";
        "certificate.not_found": NotFound, Local, "no such certificate",
            "`capex cert list` shows the known ones";
        "certificate.not_holder": Rejected, Peer, "a hop is signed by another than the holder";
        "certificate.other_network": Rejected, Local, "it is a certificate of another network",
            "name it with --network";
        "certificate.preimage": Rejected, Peer, "a preimage does not match its payment hash";
        "certificate.prev_hash": Rejected, Peer, "a hop does not name the last activation";
        "certificate.seq_gap": Rejected, Peer, "a sequence number is not the next one";
        "certificate.too_many_hops": Rejected, Peer, "it has more than 64 hops";
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
            "the gift is repeated until the window starts";
        "gift.not_holder": Rejected, Nobody, "another key holds this certificate now",
            "ask its holder";
        "gift.pending": Rejected, Nobody, "a gift to another key waits for the provider",
            "wait for it";
        "gift.prev_hash": Rejected, Nobody, "the gift does not name the last activation",
            "fetch the certificate again from its provider";
        "gift.stale_seq": Rejected, Nobody, "the certificate has moved on",
            "fetch it again from its provider";
        "gift.to_self": Rejected, Local, "the certificate is yours already", "name another key";
        "gift.too_many_hops": Rejected, Nobody, "the certificate has changed hands too often",
            "redeem it instead";
        "gift.unknown_certificate": NotFound, Nobody, "no such certificate",
            "list yours with `capex cert list`";
        "gift.window_started": Rejected, Nobody, "the delivery window has begun",
            "redeem it instead";
    },
    family! {
        "ledger", "provider: units already claimed";
        "ledger.beyond_capacity": Rejected, Nobody,
            "a unit number is beyond the capacity of the class";
        "ledger.claimed": Rejected, Nobody, "the units are claimed already";
        "ledger.empty": Rejected, Nobody, "a claim holds no unit or no slot";
        "ledger.full": Rejected, Local, "as many claims are kept as may be";
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
