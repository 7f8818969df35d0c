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
            "the workload is not the one that the redemption names";
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
        "redeem.no_egress": Rejected, Peer, "the provider lets no workload open connections to the outside",
            "redeem without `--egress`, or a certificate of another provider: nothing was used up";
        "redeem.no_runtime": Rejected, Peer, "the provider has nothing that runs such a workload",
            "redeem with another kind of workload: nothing was used up";
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
        "attach", "holder: a workload that comes with a purchase";
        "attach.class": Usage, Local, "no class of the order runs such a workload",
            "buy a class of containers for an image, one of components for a component: `capex host show`";
        "attach.for_key": Usage, Local, "the certificate will be another key's, who decides what runs on it",
            "leave the workload out: its holder redeems it";
        "attach.none": NotFound, Local, "no workload waits for this certificate",
            "`capex cert show ID` says what runs on it";
        "attach.not_a_bid": Usage, Local, "only a purchase brings a workload",
            "redeem what you hold: `capex cert list`";
        "attach.sealed": Usage, Local, "a sealed value is for one certificate, and this one is not bought yet",
            "redeem the certificate by hand, with --env-sealed";
        "attach.waits": Note, Nobody, "the certificate is on offer, or its provider has still to move it",
            "what runs by itself begins once it is free: `capex cert show ID`";
    },
    family! {
        "extend", "provider and holder: another certificate for a lease";
        "extend.gap": Rejected, Nobody,
            "the window of the certificate does not begin where that of the lease ends",
            "`capex cert list` shows windows; redeem it by itself";
        "extend.other_class": Rejected, Nobody, "the certificate is of another class",
            "redeem it by itself";
        "extend.other_provider": Rejected, Nobody, "the certificate is of another provider",
            "redeem it by itself";
        "extend.other_units": Rejected, Nobody,
            "the certificate has not as many units as the lease",
            "cut or join certificates first: `capex cert list` shows them";
        "extend.too_late": Rejected, Nobody, "the lease has ended, or is not granted",
            "redeem the certificate by itself";
        "extend.too_long": Rejected, Nobody,
            "the lease would be longer than the horizon, or have too many certificates",
            "redeem the certificate by itself";
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
        "lease.failed": Failed, Local, "the host could not run the workload",
            "the receipt counts what was not delivered: redeem another certificate";
        "lease.host_full": Rejected, Local, "the host has as many leases as it can",
            "try again later";
        "lease.host_restarted": Note, Local, "the host was started anew, and runs the lease again";
        "lease.interrupted": Failed, Local, "the host lost the lease and did not get it back",
            "the receipt counts the rest of the window as not delivered";
        "lease.maintenance": Note, Local,
            "the provider has announced a maintenance, and runs the lease again after it";
        "lease.memory": Failed, Nobody, "the workload needed more memory than it has";
        "lease.no_answer": TimedOut, Peer, "the provider does not answer",
            "try again later";
        "lease.not_found": NotFound, Nobody, "no such lease",
            "`capex lease list` shows the known ones";
        "lease.not_holder": Rejected, Nobody, "another key holds this lease";
        "lease.not_running": Rejected, Nobody, "the lease does not run now",
            "before its window wait, after an exit run it again: `capex lease restart ID`";
        "lease.other_kind": Rejected, Nobody,
            "a component cannot take the place of an image, nor an image that of a component",
            "redeem another certificate for it";
        "lease.output_quota": Failed, Nobody, "the workload wrote more than it may";
        "lease.process_lost": Note, Local,
            "the host lost the process of the lease, and starts it again";
        "lease.replayed": Rejected, Peer, "the call was made before";
        "lease.still_in_use": Failed, Local,
            "the host has not let go of what an earlier process of the lease had",
            "it is tried again";
        "lease.stopped": Note, Nobody, "the holder stopped the workload";
        "lease.trapped": Failed, Nobody, "the workload trapped";
        "lease.wait_timeout": TimedOut, Nobody, "the lease has not ended yet",
            "it goes on without you: see `capex lease show ID`";
        "lease.window_over": Rejected, Nobody, "the delivery window is over";
        "lease.withdrawn": Failed, Local, "the provider has ended the lease before its window",
            "the receipt counts the rest of the window as not delivered";
        "lease.wrong_verb": Rejected, Peer, "the call is signed for another request";
    },
    family! {
        "access", "provider: a stream into a lease";
        "access.bad_grant": Rejected, Peer, "the grant is not one of the holder for this key",
            "ask the holder for another";
        "access.bad_request": Usage, Peer, "what the stream is for is out of bounds";
        "access.file": Rejected, Nobody, "the file of the lease cannot be read or written";
        "access.full": Unavailable, Nobody, "the lease has as many streams as it takes",
            "close one, or try again in a moment";
        "access.grant_expired": Rejected, Nobody, "the grant has expired",
            "ask the holder for another";
        "access.lost_session": Failed, Peer, "the lease has lost the session",
            "begin again; what ran in it may still run";
        "access.measured": Unavailable, Nobody, "the lease was measured less than a minute ago",
            "try again in a minute";
        "access.no_answer": TimedOut, Peer, "the provider cannot be reached",
            "try again later";
        "access.no_file": NotFound, Nobody, "the lease has no such file",
            "a path is absolute, or begins where the workload works";
        "access.no_listener": Rejected, Nobody, "nobody listens at that port of the lease",
            "it has to listen on 127.0.0.1 or on all addresses, inside the lease";
        "access.no_room": Rejected, Nobody, "the disk of the lease is full",
            "delete something in it: `capex lease exec ID -- rm …`";
        "access.not_granted": Rejected, Nobody, "the grant does not cover that",
            "ask the holder for another";
        "access.other_lease": Rejected, Peer, "the call is for another lease";
        "access.other_peer": Rejected, Peer, "the call is signed for another node";
        "access.other_release": Unavailable, Local,
            "the process of the lease is of another release than the daemon of its provider",
            "it runs on until its window ends; its provider has it started anew by ending that process";
        "access.refused": Rejected, Peer, "the provider refuses, for a reason unknown here";
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
        "pull", "holder and provider: an image that the provider fetches from a registry";
        "pull.address": Rejected, Nobody,
            "the registry leads to an address to which the provider does not go",
            "send the image yourself: `--image FILE`, as `docker save` writes it";
        "pull.bad_answer": Rejected, Peer,
            "what the provider has is not what the digest names",
            "send the image yourself: `--image FILE`, as `docker save` writes it";
        "pull.denied": Rejected, Nobody, "the registry gives the image only to those it knows",
            "send the image yourself: `--image FILE`, as `docker save` writes it";
        "pull.digest": Rejected, Nobody,
            "what the registry gives has another digest or length than was said",
            "compare the digest, or send the image yourself: `--image FILE`";
        "pull.disk_full": Failed, Local, "the disk of the provider is full",
            "redeem one of another provider: nothing was used up";
        "pull.document": Rejected, Nobody,
            "an index, manifest or configuration of the image cannot be read, or is out of bounds",
            "send the image yourself: `--image FILE`, as `docker save` writes it";
        "pull.name": Usage, Local, "it does not name an image in a registry",
            "write all of it, as docker.io/library/alpine@sha256:DIGEST; `docker pull` prints the digest";
        "pull.needs_certificate": Usage, Local,
            "nobody can say before the purchase who will fetch the image",
            "buy without it and redeem with it, or bring a file: `--image FILE`";
        "pull.no_answer": TimedOut, Peer, "the provider does not answer",
            "try again later; one of an earlier release takes images only as files: `--image FILE`";
        "pull.not_allowed": Rejected, Peer, "the provider fetches nothing from this registry",
            "send the image yourself: `--image FILE`, as `docker save` writes it";
        "pull.not_found": NotFound, Nobody, "the registry has no such image",
            "compare name and digest, or send the image yourself: `--image FILE`";
        "pull.platform": Rejected, Nobody,
            "the image has no variant for the provider's kind of machine",
            "name another image, or redeem a certificate of another provider: nothing was used up";
        "pull.timeout": TimedOut, Nobody, "the registry takes too long",
            "the same command goes on from what has come; or send the image yourself: `--image FILE`";
        "pull.too_large": Rejected, Nobody, "the image is larger than the disk that was bought",
            "redeem a certificate of more units, or take a smaller image: nothing was used up";
        "pull.unreachable": Unavailable, Nobody, "the provider cannot reach the registry",
            "the same command goes on from what has come; or send the image yourself: `--image FILE`";
        "pull.waits": Unavailable, Nobody, "the provider has not all of the image yet",
            "`POST /certificates/{id}/pull` says how far it is";
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
        "spec.window": Rejected, Peer, "the window is empty or too long";
    },
    family! {
        "workload", "CLI, API and provider: a workload";
        "workload.blobs": Usage, Local, "the image has more layers than may be",
            "at most 127: build it with fewer";
        "workload.core_module": Usage, Local,
            "the file is a core module, and a lease runs components",
            "build for wasm32-wasip2, or wrap it with wasm-tools component new";
        "workload.digest_sizes": Usage, Local, "one digest has two sizes";
        "workload.disk": Usage, Local,
            "the image, or the inputs, are larger than the disk that was bought",
            "redeem a certificate of more units";
        "workload.env_name": Usage, Local,
            "a variable of the environment has no name, or one of them twice";
        "workload.files": Usage, Local, "there are too many inputs or results",
            "at most 16 of each: pack them into one";
        "workload.grace": Usage, Local, "the time between stop signal and kill is too long",
            "at most 30s";
        "workload.import": Usage, Local, "the component imports what a lease does not offer",
            "only WASI 0.2 without the network is offered";
        "workload.invalid": Usage, Local, "the content of a workload cannot be read";
        "workload.memory": Usage, Local,
            "the component begins with more memory than its blocks have",
            "redeem a certificate of more units";
        "workload.name": Usage, Local, "the name of an input or result is not allowed",
            "a unique file name without separators, of at most 128 bytes";
        "workload.no_command": Usage, Local,
            "the component is not a command: nothing in it can be run",
            "export wasi:cli/run, as programs with a main function do";
        "workload.not_in_wasm": Usage, Local,
            "a component has no ports, no network, no signals and no directory but its own",
            "leave them out, or run an image";
        "workload.not_wasm": Usage, Local, "the file is no valid WebAssembly component";
        "workload.nothing_to_run": Usage, Local, "a root file system does not say what to run",
            "name the program behind --";
        "workload.ports": Usage, Local, "there are too many ports, or one twice",
            "at most 16";
        "workload.sealed": Rejected, Nobody,
            "a sealed value is damaged, or for another certificate than that of the lease",
            "hand it over again, by --env-sealed";
        "workload.signal": Usage, Local, "there is no such signal";
        "workload.size": Usage, Local, "the workload is empty, or larger than may be",
            "64 MiB for a component with its inputs, 32 GiB for an image";
        "workload.strings": Usage, Local, "arguments or environment are too long or malformed",
            "at most 64 of each and 16 KiB together: use an input file";
        "workload.unfit": Failed, Local, "what was uploaded cannot be run";
        "workload.workdir": Usage, Local, "the working directory is no absolute path";
    },
    family! {
        "runtime", "provider: what runs a workload";
        "runtime.gone": Failed, Local, "the host has no longer what this kind of workload needs",
            "redeem one of another provider: the receipt counts what was not delivered; `capex host show` tells the provider what is missing";
        "runtime.unsupported": Rejected, Local, "the runtime of this lease cannot do that",
            "a component takes inputs and leaves results; an image that is redeemed has the rest";
    },
    family! {
        "image", "CLI and provider: an image of a container";
        "image.archive": Usage, Peer, "an archive of the image is damaged, or of a form that is not read",
            "save the image again";
        "image.cancelled": Note, Nobody, "the lease ended while its image was unpacked";
        "image.compressed": Usage, Local, "the saved image is compressed as a whole",
            "decompress it first: its layers may stay compressed";
        "image.content": Rejected, Peer, "content of the image is not what its digest and length say",
            "save the image again";
        "image.document": Usage, Peer, "the index, manifest or configuration cannot be read, or is out of bounds";
        "image.format": Usage, Local,
            "it is no OCI layout, no saved image and no archive of a root file system",
            "write one with `docker save`, `podman save` or `skopeo copy … oci:DIR`";
        "image.header": Rejected, Peer, "a header in the image is longer than any honest one";
        "image.io": Failed, Local, "files of the image cannot be read or written";
        "image.link": Rejected, Peer, "a hard link in the image leads nowhere, or out of it";
        "image.missing": Usage, Peer, "content that the manifest names is missing",
            "save the image again, with all of its layers";
        "image.no_command": Usage, Peer, "there is no command to run",
            "name one after `--`: the image has none of its own";
        "image.no_program": Usage, Peer, "the image has no such program",
            "name one that is in it, with its whole path if it is not in PATH";
        "image.owner": Rejected, Peer, "a file of the image belongs to an id that a lease does not have",
            "give its files to ids below 65536";
        "image.path": Rejected, Peer, "a path in the image leaves it, or is no name";
        "image.platform": Usage, Peer, "the image has no variant for this kind of machine",
            "save the variant for the provider's machine";
        "image.several": Usage, Local, "there is more than one image in it", "save one image alone";
        "image.special": Rejected, Peer, "the image has a device or another special file",
            "leave it out: a lease has its own /dev";
        "image.too_large": Rejected, Peer, "the image unpacks to more than the disk that was bought",
            "redeem a certificate of more units, or make the image smaller";
        "image.too_many": Rejected, Peer, "the image unpacks to more files than the disk has room for",
            "redeem a certificate of more units, or make the image smaller";
        "image.undeclared": Rejected, Peer,
            "the manifest does not name exactly the content that was declared with it";
        "image.user": Usage, Peer, "the user of the image is not in its passwd file";
        "image.whiteout": Rejected, Peer, "a whiteout in the image hides what it stands in";
    },
    family! {
        "executor", "provider: the host and its back end";
        "executor.disk_full": Failed, Local, "the disk of the host is full",
            "redeem one of another provider: the receipt counts what was not delivered; the provider has to free some of its disk";
        "executor.io": Failed, Local, "files of a lease cannot be read or written";
        "executor.self_test_failed": Failed, Local, "the back end failed its self-test";
    },
];
