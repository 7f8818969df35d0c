//! Redemption, leases, workloads and receipts.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "redeem", "provider: a redemption";
        "redeem.bad_challenge": Rejected, Nobody, "the provider's challenge is no longer good",
            "redeem again";
        "redeem.bad_grant": Rejected, Peer, "the provider's grant is not that of the redemption";
        "redeem.bad_signature": Rejected, Peer, "the signature of the redemption does not verify";
        "redeem.bad_workload": Usage, Peer,
            "a name, count or size of the workload is not allowed", "correct the workload";
        "redeem.busy": Unavailable, Nobody, "too many redemptions are open",
            "try again later";
        "redeem.consumed": Rejected, Nobody, "the certificate was redeemed already",
            "see `capex lease list`";
        "redeem.expired": Rejected, Nobody, "the provider's challenge is no longer good",
            "redeem again; if it goes on, compare the clocks: `capex status`";
        "redeem.locked": Rejected, Nobody, "a sale of the certificate is open",
            "wait until it settles or its lock is released";
        "redeem.no_answer": TimedOut, Peer, "the provider does not answer",
            "what was sent already is repeated until the window ends: see `capex lease list`; else redeem again later";
        "redeem.not_holder": Rejected, Nobody, "another key holds this certificate now",
            "ask its holder";
        "redeem.on_offer": Rejected, Local, "the certificate is on offer, or was sold just now",
            "cancel the order that sells it: `capex cert show ID`";
        "redeem.stale_seq": Rejected, Nobody, "the certificate has moved on",
            "fetch it again from its provider";
        "redeem.unknown_certificate": NotFound, Nobody, "no such certificate",
            "list yours with `capex cert list`";
        "redeem.window_past": Rejected, Nobody, "the delivery window is over",
            "buy a later one";
    },
    family! {
        "lease", "provider: a call on a lease; also how one ended";
        "lease.ambiguous": Rejected, Local, "more than one lease has an id that begins so",
            "give more digits";
        "lease.bad_call": Rejected, Peer, "the call is malformed";
        "lease.bad_signature": Rejected, Peer, "the signature does not verify";
        "lease.blobs_missing": Rejected, Nobody, "content of the workload is missing",
            "upload it first";
        "lease.busy": Unavailable, Nobody, "another call on the lease waits for its answer",
            "try again in a moment";
        "lease.call_expired": Rejected, Nobody, "the call has expired",
            "it is tried again; if it goes on, compare the clocks: `capex status`";
        "lease.call_too_long": Rejected, Peer, "the call would be good for too long";
        "lease.conflict": Rejected, Peer, "the lease exists with another workload";
        "lease.deadline": Note, Nobody, "the delivery window ended and the workload with it";
        "lease.ended": Rejected, Nobody, "the lease has ended";
        "lease.exited": Note, Nobody, "the workload ended by itself";
        "lease.failed": Failed, Local, "the workload could not be run";
        "lease.host_full": Rejected, Local, "the host has as many leases as it can",
            "try again later";
        "lease.interrupted": Failed, Local, "the host lost the workload";
        "lease.memory": Failed, Nobody, "the workload needed more memory than it has";
        "lease.no_answer": TimedOut, Peer, "the provider does not answer",
            "try again later";
        "lease.not_found": NotFound, Nobody, "no such lease",
            "`capex lease list` shows the known ones";
        "lease.not_holder": Rejected, Nobody, "another key holds this lease";
        "lease.output_quota": Failed, Nobody, "the workload wrote more than it may";
        "lease.replayed": Rejected, Peer, "the call was made before";
        "lease.stopped": Note, Nobody, "the holder stopped the workload";
        "lease.trapped": Failed, Nobody, "the workload trapped";
        "lease.wait_timeout": TimedOut, Nobody, "the lease has not ended yet",
            "it goes on without you: see `capex lease show ID`";
        "lease.window_over": Rejected, Nobody, "the delivery window is over";
        "lease.wrong_verb": Rejected, Peer, "the call is signed for another request";
    },
    family! {
        "put", "provider: content that is uploaded";
        "put.chunk_too_large": TooLarge, Peer, "a chunk is too large";
        "put.out_of_order": Rejected, Nobody, "another byte is expected next";
        "put.oversize": TooLarge, Peer, "there are more bytes than announced";
        "put.unknown_digest": Rejected, Peer, "the lease needs no such content";
        "put.wrong_digest": Rejected, Peer, "the bytes do not have the digest";
    },
    family! {
        "receipt", "holder: a receipt";
        "receipt.after_final": Rejected, Peer, "a receipt follows the final one";
        "receipt.bad_signature": Rejected, Peer, "a receipt is not signed by the provider",
            "keep it, and do not countersign";
        "receipt.changed": Rejected, Peer, "another receipt has the same number";
        "receipt.foreign": Rejected, Peer, "the receipt belongs to another provider or lease";
        "receipt.gap": Rejected, Peer, "receipt numbers have a gap";
        "receipt.not_as_seen": Rejected, Peer,
            "the receipts say more than this node saw of the lease",
            "keep them: they are the provider's own word, and not countersigned";
        "receipt.prev_hash": Rejected, Peer, "a receipt does not name the one before";
        "receipt.times": Rejected, Peer,
            "periods overlap, or hold less time than was delivered";
        "receipt.too_many": Rejected, Peer, "there are too many receipts";
        "receipt.unknown": NotFound, Nobody, "the provider signed no such receipt";
        "receipt.unseen": Rejected, Nobody,
            "this node saw nothing of the lease, so it agrees to no receipts";
    },
    family! {
        "spec", "provider: a workload";
        "spec.bounds": Rejected, Peer, "a size or time is out of its bounds";
        "spec.digest_sizes": Rejected, Peer, "one digest has two sizes";
        "spec.duplicate_name": Rejected, Peer, "two files have one name";
        "spec.name": Rejected, Peer, "a file name is not allowed";
        "spec.strings": Rejected, Peer, "arguments or environment are too long or malformed";
        "spec.too_many": Rejected, Peer, "there are too many inputs, results or arguments";
        "spec.window": Rejected, Peer, "the window is empty or too long";
    },
    family! {
        "workload", "CLI and API: a workload";
        "workload.core_module": Usage, Local,
            "the file is a core module, and a lease runs components",
            "build for wasm32-wasip2, or wrap it with wasm-tools component new";
        "workload.import": Usage, Local, "the component imports what a lease does not offer",
            "only WASI 0.2 without the network is offered";
        "workload.invalid": Usage, Local,
            "the workload is not allowed: a name, a count, a size or the content";
        "workload.memory": Usage, Local,
            "the component begins with more memory than its blocks have",
            "redeem a certificate of more units";
        "workload.no_command": Usage, Local,
            "the component is not a command: nothing in it can be run",
            "export wasi:cli/run, as programs with a main function do";
        "workload.not_wasm": Usage, Local, "the file is no valid WebAssembly component";
    },
    family! {
        "executor", "provider: the host and its back end";
        "executor.io": Failed, Local, "files of a lease cannot be read or written";
        "executor.self_test_failed": Failed, Local, "the back end failed its self-test";
    },
];
