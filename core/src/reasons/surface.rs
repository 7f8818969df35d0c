//! The API and the command line.

use super::{Family, family};

pub(super) const FAMILIES: &[Family] = &[
    family! {
        "api", "API: the request itself";
        "api.body": Usage, Local, "the body is not what the route reads";
        "api.body_timeout": TimedOut, Local, "the body did not come in time";
        "api.body_too_large": TooLarge, Local, "the body is too large";
        "api.busy": Unavailable, Nobody, "the node has too much to do",
            "try again in a moment";
        "api.host": Forbidden, Local, "this Host is not allowed";
        "api.internal": Failed, Local, "the node contradicted itself", "please report it";
        "api.method": WrongMethod, Local, "this route has another method";
        "api.no_route": NotFound, Local, "there is no such route";
        "api.origin": Forbidden, Local, "calls from other pages are refused";
        "api.path": Usage, Local, "the path is not what the route reads";
        "api.query": Usage, Local, "the query is not what the route reads";
        "api.stopping": Unavailable, Nobody, "the node is stopping", "try again in a moment";
        "api.timeout": TimedOut, Nobody, "the node did not answer in time";
        "api.unauthorised": Unauthorised, Local, "the cookie is missing or not this daemon's",
            "send `Authorization: Bearer <content of DATADIR/cookie>`";
        "api.upgrade": Usage, Local, "this route answers with a stream",
            "ask for it with `Connection: upgrade` and `Upgrade: capex-stream`";
    },
    family! {
        "cli", "CLI: output, questions, flags";
        "cli.broken_pipe": Note, Local, "the reader closed the pipe";
        "cli.cookie": Unauthorised, Local, "the cookie of the daemon cannot be read",
            "run as the user who runs the daemon";
        "cli.declined": Usage, Local, "nothing was done";
        "cli.interrupted": Interrupted, Local, "interrupted";
        "cli.json": Failed, Local, "the answer cannot be written as JSON";
        "cli.no_ssh": Failed, Local, "this machine has no ssh", "install openssh-client";
        "cli.no_terminal": Usage, Local, "there is no terminal to ask on",
            "pass --yes, or --dry-run to see the preview alone";
        "cli.output": Failed, Local, "the output cannot be written";
        "cli.port": Failed, Local, "the port of this machine cannot be listened at",
            "name another: `capex lease forward ID 8081:80`";
        "cli.signals": Failed, Local, "the command cannot listen for signals";
        "cli.stdin": Failed, Local, "standard input cannot be read";
        "cli.usage": Usage, Local, "the command does not parse", "see --help";
    },
    family! {
        "daemon", "CLI: the daemon it talks to";
        "daemon.malformed": Failed, Local, "the daemon's answer cannot be read",
            "are command and daemon of one version? see `capex status`";
        "daemon.timeout": TimedOut, Nobody, "the daemon did not answer in time";
        "daemon.unlisted": Unavailable, Local,
            "a process uses the data directory, but its files endpoints and cookie are missing",
            "it may be starting; else see its log: the disk may be full";
        "daemon.unreachable": Unavailable, Local, "no daemon can be reached",
            "start it with `capex up`";
    },
    family! {
        "devnet", "`capex devnet`";
        "devnet.certificate": Failed, Local, "a certificate is not as expected";
        "devnet.child_ended": Failed, Local, "a child process ended";
        "devnet.config": Failed, Local, "a configuration cannot be written";
        "devnet.dir_not_empty": Usage, Local, "the directory is not empty", "name a new one";
        "devnet.epoch_differs": Failed, Local, "two nodes computed different results";
        "devnet.interrupted": Interrupted, Local, "interrupted";
        "devnet.lease": Failed, Local, "a lease is not as expected";
        "devnet.lease_failed": Failed, Local, "a lease failed";
        "devnet.money": Failed, Local, "the money does not add up";
        "devnet.not_refused": Failed, Local, "what must be refused was not";
        "devnet.thread": Failed, Local, "a thread panicked";
        "devnet.timeout": Failed, Local, "a step did not come in time";
    },
    family! {
        "file", "CLI: a file of yours";
        "file.exists": Usage, Local, "there is such a file already",
            "name another, or replace it with `--force`";
        "file.unusable": Usage, Local, "the file cannot be read or written";
    },
    family! {
        "id", "CLI and API: an id that is none";
        "id.syntax": Usage, Local, "an id is 8 to 64 lower-case hex digits";
    },
    family! {
        "init", "`capex init`";
        "init.exists": Usage, Local, "the configuration exists already", "--force replaces it";
    },
    family! {
        "invite", "CLI: invitations into a network";
        "invite.bad": Usage, Peer, "the invitation names what cannot be meant",
            "ask for a new one: `capex invite`";
        "invite.damaged": Usage, Local, "a part of the invitation is missing or was changed",
            "copy the whole line, as it was printed";
        "invite.expired": Rejected, Nobody, "the time of the invitation is over",
            "ask for a new one: `capex invite`";
        "invite.no_address": Failed, Local, "this node has no address at which others reach it",
            "name one: `capex invite --address /ip4/192.0.2.7/tcp/7210`";
        "invite.syntax": Usage, Local, "the text is no invitation",
            "copy the whole line, as it was printed: it begins with capex:";
        "invite.too_long": TooLarge, Local, "an invitation has at most 2,048 bytes";
        "invite.unknown_version": Rejected, Nobody, "the invitation is of a later version",
            "update this program";
    },
    family! {
        "join", "CLI: coming into a network by an invitation";
        "join.definition": Rejected, Peer, "the rules of that network cannot be used here",
            "ask who invited you which version they run: `capex --version`";
        "join.no_definition": Unavailable, Peer,
            "the peers of the invitation do not have the rules that it names",
            "ask for a new invitation: `capex invite`";
        "join.no_peer": Unavailable, Nobody, "no peer of the invitation can be reached",
            "does its node run, and is this machine connected? try again";
        "join.other_network": Usage, Local, "the configuration is of another network",
            "give the new one a directory of its own: --datadir DIR";
    },
    family! {
        "key", "CLI and API: a key that is none";
        "key.syntax": Usage, Local, "a key is 64 lower-case hex digits";
    },
    family! {
        "order_file", "CLI: a file for --file or --workload";
        "order_file.bad_value": Usage, Local, "a value cannot be read";
        "order_file.syntax": Usage, Local, "the file is not TOML";
        "order_file.unknown_key": Usage, Local, "a key is unknown",
            "keys are the names of the flags of `buy`, `sell` and `cert redeem`";
    },
    family! {
        "testnet", "CLI: test networks of one's own";
        "testnet.definition": Usage, Local, "a network of these rules cannot be founded",
            "give it another --name, or other rules with --from";
    },
];
