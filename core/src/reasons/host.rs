//! What stands around the engine: network, chain, wallet, store, configuration.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "host", "provider: what this machine can sell";
        "host.untested": Rejected, Local,
            "that this machine keeps what the class promises is not proved",
            "run `capex host test`, and place the order again";
    },
    family! {
        "maintenance", "provider: a time in which this machine will not deliver";
        "maintenance.bad_why": Usage, Local,
            "what is said of the maintenance is no line of at most 200 bytes";
        "maintenance.empty": Usage, Local, "the maintenance ends before it begins",
            "`--for 2h` says how long it lasts";
        "maintenance.not_found": NotFound, Local, "no maintenance of this number is to come",
            "`capex host maintenance list` shows those that are";
        "maintenance.overlaps": Rejected, Local,
            "another maintenance is announced for some of that time",
            "see `capex host maintenance list`";
        "maintenance.past": Usage, Local, "the maintenance would have begun already",
            "it is announced before: `--from +2h`";
        "maintenance.short_notice": Rejected, Local,
            "the maintenance begins in less than a slot, which is no notice",
            "let it begin later";
        "maintenance.too_far": Usage, Local,
            "the maintenance begins beyond the horizon, where nothing is sold yet",
            "announce it later";
        "maintenance.too_long": Usage, Local, "the maintenance is longer than 168 slots",
            "sell nothing for that time: `capex order list`";
        "maintenance.too_many": Rejected, Local, "16 maintenances are announced already",
            "call one off: `capex host maintenance list`";
    },
    family! {
        "network", "node: listening, dialling, addresses";
        "network.bad_address": Usage, Local, "the address is not one that can be reached",
            "give a multiaddr that ends in /p2p/<id>: see `capex status` of that node";
        "network.bad_config": Failed, Local, "the network definition is out of bounds";
        "network.bad_secret": Failed, Local, "the identity key is no key";
        "network.listen": Failed, Local, "the address cannot be listened on",
            "choose another with `listen` in the configuration";
        "network.no_runtime": Failed, Local, "the network has no runtime to run on";
        "network.queue_full": Unavailable, Nobody, "the network has too much to do",
            "try again in a moment";
        "network.stopped": Unavailable, Nobody, "the network has stopped";
        "network.transport": Failed, Local, "the transports cannot be set up";
    },
    family! {
        "publish", "node: a message that did not go out";
        "publish.failed": Failed, Nobody, "the message could not be published";
        "publish.no_peers": Note, Nobody, "nobody is connected to hear the message";
        "publish.queues_full": Unavailable, Nobody, "the queues of all peers are full";
        "publish.too_large": TooLarge, Local, "the message is larger than its topic allows";
        "publish.unknown_topic": Failed, Local, "the topic is not configured";
    },
    family! {
        "request", "node: a request to a peer";
        "request.busy": Unavailable, Nobody, "too many requests are open";
        "request.disconnected": Unavailable, Nobody, "the connection was lost";
        "request.no_reply": TimedOut, Peer, "the peer gave no answer";
        "request.restarted": Unavailable, Nobody, "the network was restarted";
        "request.stream": Unavailable, Nobody, "the stream failed";
        "request.timeout": TimedOut, Peer, "no answer came in time";
        "request.too_large": TooLarge, Local, "the frame is larger than the protocol allows";
        "request.unknown_protocol": Failed, Local, "the protocol is not configured";
        "request.unreachable": Unavailable, Nobody, "the peer cannot be reached";
        "request.unsupported": Rejected, Peer, "the peer does not serve this protocol";
    },
    family! {
        "peer", "node: an answer of a peer";
        "peer.ambiguous": Rejected, Local, "more than one peer has a key that begins so",
            "give more digits";
        "peer.bad_code": Rejected, Peer, "the peer refused with a code that has no valid form";
        "peer.not_found": NotFound, Local, "no such peer",
            "`capex peer list` shows the known ones";
    },
    family! {
        "peers", "node: nobody is connected";
        "peers.none": Note, Nobody, "no peers are connected",
            "add one with `capex peer add ADDRESS`";
    },
    family! {
        "chain", "node: the chain source";
        "chain.behind": Unavailable, Nobody,
            "the chain source is not up to date, so nothing is signed and nothing is paid";
        "chain.down": Unavailable, Nobody, "no chain source answers, so nothing can be paid",
            "see `capex status`";
        "chain.malformed": Unavailable, Nobody, "the chain source answered nonsense";
        "chain.no_estimate": Unavailable, Nobody,
            "the chain source knows no fee rate, so what a trade costs is unknown",
            "wait until the source has seen some chain blocks, or see `capex status`";
        "chain.pruned": Failed, Local, "the chain source has pruned a block that the wallet needs",
            "let Bitcoin Core keep its blocks (prune=0, then -reindex), or name one in `chain.url` that has them";
        "chain.rpc": Unavailable, Nobody, "the chain source refused a call";
        "chain.unauthorised": Unavailable, Local,
            "the cookie of the chain source is missing, or it refuses it",
            "start the chain source, or set `chain.cookie` in the configuration";
        "chain.unreachable": Unavailable, Nobody, "the chain source cannot be reached",
            "set `chain.url` in the configuration, or start the chain source";
        "chain.warming_up": Unavailable, Nobody, "the chain source is starting";
        "chain.watch_full": Rejected, Local, "the watch list is full";
        "chain.wrong_network": Failed, Local, "the chain source follows another chain",
            "set `chain.url` in the configuration";
    },
    family! {
        "wallet", "node: coins";
        "wallet.bad_address": Usage, Local, "a text is no bitcoin address";
        "wallet.bad_amount": Rejected, Local, "an amount cannot be paid";
        "wallet.bad_coin": Usage, Local, "a text is no coin of the form TXID:VOUT";
        "wallet.bad_feerate": Rejected, Local, "the fee rate is out of bounds";
        "wallet.bad_gap": Usage, Local, "a wallet looks at most 100,000 addresses ahead";
        "wallet.build": Failed, Local, "the transaction cannot be built";
        "wallet.cancelled": Rejected, Local, "the payment of these terms was cancelled";
        "wallet.coin_locked": Rejected, Local, "the coin is kept for a payment that waits",
            "see `capex wallet coins`";
        "wallet.coin_pending": Rejected, Local,
            "the coin is unconfirmed and of others, or an immature coinbase", "wait for its blocks";
        "wallet.confirmed": Rejected, Nobody, "the payment of these terms is confirmed";
        "wallet.damaged": Failed, Local, "a stored row of the wallet cannot be read";
        "wallet.disconnected": Failed, Nobody, "a chain block does not connect to the last one";
        "wallet.fund_dead": Rejected, Nobody, "the payment of these terms can never confirm";
        "wallet.fund_orphaned": Rejected, Nobody,
            "what the payment of these terms spends is being replaced";
        "wallet.fund_superseded": Rejected, Nobody,
            "another payment takes the coins of these terms";
        "wallet.insufficient_funds": Unpayable, Local,
            "fewer coins can be spent than are needed",
            "fund the wallet: `capex wallet address`";
        "wallet.keys_elsewhere": Rejected, Local,
            "an all-or-nothing pool is signed within seconds, by keys on this node",
            "ask for a pool whose members pay separately";
        "wallet.no_address": Unavailable, Local, "the wallet has no fresh address ready";
        "wallet.no_coin": NotFound, Local, "the wallet has no such coin, or it is spent",
            "see `capex wallet coins`";
        "wallet.no_faucet": Rejected, Local, "only devnet and regtest have a faucet",
            "send coins to `capex wallet address`";
        "wallet.no_fund": Rejected, Nobody, "these terms have no payment";
        "wallet.no_payment": NotFound, Local, "no unconfirmed payment of this wallet has this id",
            "see `capex wallet history`";
        "wallet.not_bumped": Rejected, Local,
            "the payment cannot be replaced by a better paying one",
            "name a fee rate that is higher by a quarter";
        "wallet.other_network": Rejected, Local, "the address belongs to another network";
        "wallet.other_outputs": Rejected, Local, "these terms are paid with other outputs";
        "wallet.other_seed": Failed, Local,
            "the stored wallet belongs to another seed, descriptor or network";
        "wallet.psbt_ambiguous": Rejected, Local,
            "more than one transaction that waits for a signature has an id that begins so",
            "give more digits";
        "wallet.psbt_form": Rejected, Local,
            "version, lock time or sequence differ from the transaction that waits",
            "sign what `capex wallet psbt export ID` wrote, unchanged";
        "wallet.psbt_inputs": Rejected, Local,
            "it spends other coins than the transaction that waits",
            "sign what `capex wallet psbt export ID` wrote, unchanged";
        "wallet.psbt_malformed": Rejected, Local, "the bytes are no partially signed transaction";
        "wallet.psbt_of_trade": Rejected, Local, "a trade asked for this signature",
            "sign it, or leave it: its trade ends by itself, see `capex trade show ID`";
        "wallet.psbt_outputs": Rejected, Local,
            "it pays something else than the transaction that waits",
            "sign what `capex wallet psbt export ID` wrote, unchanged";
        "wallet.psbt_sighash": Rejected, Local,
            "a signature does not cover the whole transaction",
            "sign with SIGHASH_ALL, or the default of taproot";
        "wallet.psbt_signature": Rejected, Local, "a signature is not valid";
        "wallet.psbt_unknown": NotFound, Local,
            "no transaction of this wallet waits for this signature",
            "see `capex wallet psbt list`: its trade may have ended";
        "wallet.psbt_unsigned": Rejected, Local, "a signature is missing";
        "wallet.released": Rejected, Nobody, "the coins of these terms were released";
        "wallet.reserved": Unpayable, Local,
            "standing orders and open trades count on these coins",
            "send less, or cancel orders: `capex order list`";
        "wallet.too_many_coins": Rejected, Local,
            "the part of a pool's transaction would take more than 8 coins",
            "join some of them first, by a payment to an own address: `capex wallet address`";
        "wallet.too_many_outputs": Rejected, Local, "there are too many outputs";
        "wallet.unsigned": Rejected, Local, "nobody has signed the payment yet",
            "see `capex wallet psbt list`";
    },
    family! {
        "store", "node: the data directory";
        "store.absent": NotFound, Local, "the data directory has no store",
            "name another with --datadir or --network";
        "store.corrupt": Failed, Local, "a file of the store is damaged",
            "check the disk, then restore an export: what was promised after it is not in it";
        "store.full": Failed, Local, "no space is left on the disk", "free some";
        "store.import": Rejected, Local, "a line of the export is wrong";
        "store.index": Failed, Local, "the index failed", "the next start rebuilds it";
        "store.io": Failed, Local, "a file of the store cannot be read or written";
        "store.locked": Failed, Local, "another process uses the data directory",
            "stop that process";
        "store.lost": Failed, Local, "the disk has lost the end of the journal",
            "see docs/operations.md before anything else";
        "store.newer_schema": Failed, Local, "the store was written by a newer release",
            "use that release";
        "store.not_empty": Rejected, Local, "a store is there already";
        "store.older_schema": Failed, Local, "the store was written by a release that is too old",
            "let that release end its trades and leases, then begin anew with its wallet.seed";
        "store.poisoned": Failed, Local, "the store takes no more writes after a failure",
            "restart the node";
        "store.record_too_large": Failed, Local, "a record is larger than it may be";
        "store.reserved_table": Rejected, Local, "the table is reserved";
        "store.wrong_network": Failed, Local, "the store belongs to another network",
            "name another --datadir";
    },
    family! {
        "record", "node: a record of the journal";
        "record.too_large": Failed, Local, "a record is larger than the journal takes";
        "record.unreadable": Failed, Local, "a record of the journal cannot be read";
    },
    family! {
        "secret", "node: the files of identity and seed";
        "secret.exists": Rejected, Local, "a seed is there already",
            "name another --datadir, or move it away first";
        "secret.foreign": Failed, Local, "the file does not belong to the store beside it",
            "put the store's own file back from its backup; to start anew, name another --datadir";
        "secret.invalid": Failed, Local, "the file does not hold a secret";
        "secret.io": Failed, Local, "the file of a secret cannot be read or written";
        "secret.missing": Failed, Local, "a file is missing without which the store is nobody's",
            "restore it from its backup; to start anew and leave what it holds, name another --datadir";
        "secret.no_password": Usage, Local, "no password is given",
            "--password-file FILE";
        "secret.not_sealed": Rejected, Local, "a secret is not sealed with a password";
        "secret.old_form": Failed, Local, "a seed file has a form that this release does not read",
            "start the release that wrote it, and send its coins to an address of this one";
        "secret.permissions": Failed, Local, "others may read the file of a secret",
            "set its mode to 0600";
        "secret.sealed": Failed, Local, "a secret is sealed with a password",
            "name its file with --password-file, or as `wallet.password_file` in the configuration";
        "secret.words": Usage, Local, "a file does not hold the words of a seed",
            "12 to 24 English words of BIP-39, in their order";
        "secret.wrong_password": Unauthorised, Local, "the password does not open a secret";
    },
    family! {
        "backup", "CLI and node: the sealed file from which a node goes on elsewhere";
        "backup.failed": Note, Local, "the backup that is written by itself could not be written",
            "see that its directory is there and has room: `capex config show` names it";
        "backup.form": Usage, Local, "the file is not a backup that this release reads";
        "backup.not_empty": Rejected, Local, "the data directory belongs to a node already",
            "restore into another: --datadir DIR";
        "backup.password": Rejected, Local, "the backup does not open",
            "try the words of its wallet with --words-file, or its password with --password-file";
        "backup.seal": Failed, Local, "the backup cannot be sealed";
    },
    family! {
        "node", "node: start and stop";
        "node.busy": Unavailable, Nobody,
            "the node has too many signatures to check; a message was dropped";
        "node.fuse": Failed, Local, "one event led to inputs without end",
            "report it with the log; a restart takes up every settlement";
        "node.io": Failed, Local, "a file of the node cannot be read or written";
        "node.panic": Failed, Local, "a part of the node has failed, and it cannot go on without",
            "report it with the log; a restart takes up every settlement";
        "node.runtime": Failed, Local, "the node has no runtime to run on";
        "node.signals": Failed, Local, "the node cannot listen for signals";
    },
    family! {
        "identity", "node: the key that it signs with";
        "identity.in_use": Failed, Local,
            "another process signs with the identity key of this node, so this one has stopped",
            "stop the other, then start the one with the newer data directory; never start both, nor a backup beside what it was made of";
    },
    family! {
        "config", "CLI and node: the configuration";
        "config.invalid": Usage, Local, "a setting is wrong", "see `capex config show`";
        "config.mainnet_refused": Usage, Local, "mainnet needs allow_mainnet = true",
            "set it in the configuration file";
        "config.no_home": Usage, Local, "there is no home directory", "pass --datadir";
        "config.unreadable": Usage, Local, "the configuration cannot be read";
    },
    family! {
        "devchain", "`capex devchain`";
        "devchain.bitcoind": Failed, Local, "the Bitcoin Core does not run";
        "devchain.in_use": Failed, Local, "another devchain uses the state directory";
        "devchain.listen": Failed, Local, "the address cannot be listened on",
            "choose another with --listen";
        "devchain.no_bitcoind": Failed, Local, "there is no Bitcoin Core on this machine",
            "name one in BITCOIND, install bitcoind, or run scripts/bitcoind";
        "devchain.random": Failed, Local, "cannot generate the cookie: no entropy";
        "devchain.state": Failed, Local, "the state directory cannot be read or written";
    },
];
