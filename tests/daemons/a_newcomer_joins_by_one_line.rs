//! A network that one machine founds, and nodes that come into it by its invitation alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use capex::api::types::{Certificate, Status};
use capex::cli::client::Client;
use serde_json::Value;

use crate::daemon::{Process, STARTING, capex, until};
use crate::home::Home;

/// An epoch of two seconds, a chain of half a second, on a busy machine.
const TRADING: Duration = Duration::from_secs(90);

struct Node {
    dir: PathBuf,
    out: PathBuf,
    process: Option<Process>,
}

impl Node {
    fn new(home: &Home, name: &str) -> Self {
        let out = home.path().join(format!("{name}.out"));
        Self { dir: home.path().join(name), out, process: None }
    }

    /// Runs a command that goes on, and takes the JSON that it prints.
    fn run(&mut self, args: &[&str]) -> Value {
        let home = self.dir.parent().unwrap();
        let file = std::fs::File::create(&self.out).unwrap();
        let log = std::fs::File::create(self.dir.with_extension("log")).unwrap();
        let all = [&["--json", "--datadir", self.dir.to_str().unwrap()], args].concat();
        let process = Process::start_with(home, &all, &[], file.into(), log.into());
        self.process = Some(process);
        until(&format!("answer of {args:?}"), STARTING, || {
            let ended = self.process.as_mut().unwrap().child.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.dir.with_extension("log")).unwrap();
            assert!(ended.is_none(), "{args:?} ended: {}", log());
            serde_json::from_str(&std::fs::read_to_string(&self.out).unwrap()).ok()
        })
    }

    fn found(&mut self) -> String {
        let shown = self.run(&[
            "testnet",
            "host",
            "--name",
            "harbour",
            "--address",
            "127.0.0.1",
            "--port",
            "0",
            "--chain-port",
            "0",
        ]);
        shown["invitation"].as_str().unwrap().to_owned()
    }

    fn cli(&self, args: &[&str]) -> (i32, String, String) {
        let all = [&["--json", "--yes", "--datadir", self.dir.to_str().unwrap()], args].concat();
        capex(self.dir.parent().unwrap(), &all, &[])
    }

    fn status(&self) -> Option<Status> {
        Client::open(&self.dir).ok()?.status().ok()
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }
}

fn code(said: &(i32, String, String)) -> String {
    let body: Value = serde_json::from_str(&said.2).unwrap_or_else(|_| panic!("{said:?}"));
    body["error"]["code"].as_str().or(body["code"].as_str()).unwrap().to_owned()
}

#[test]
fn a_newcomer_joins_by_one_line() {
    let home = Home::new();
    let mut host = Node::new(&home, "host");
    let invitation = host.found();
    assert!(!invitation.contains(char::is_whitespace), "{invitation}");

    let mut guest = Node::new(&home, "guest");
    let joined = guest.run(&["join", &invitation]);
    assert_eq!((&joined["network"], &joined["has_faucet"]), (&"harbour".into(), &true.into()));
    let [of_host, of_guest] = [&host, &guest].map(|node| node.status().unwrap());
    assert_eq!(of_host.definition, of_guest.definition);
    assert_eq!(joined["key"], of_guest.key.as_str());

    // The chain of the host is read and submitted to, and nothing else of it.
    let (exit, _, err) = guest.cli(&["wallet", "fund"]);
    assert_eq!(exit, 0, "{err}");
    until("coins", STARTING, || (guest.status()?.wallet.spendable_sat > 0).then_some(()));
    assert_eq!(mined_by_a_guest(&guest.dir), 403);

    // Somebody who was invited invites others, without the chain that is not theirs to share.
    let (exit, out, err) = guest.cli(&["invite", "--good-for", "1h"]);
    assert_eq!(exit, 0, "{err}");
    let again: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(again["chain"], Value::Null);

    // The next life needs no invitation, and another network has another directory.
    guest.kill();
    let (exit, _, err) = guest.cli(&["init", "--network", "devnet"]);
    assert_eq!((exit, code(&(exit, String::new(), err))), (2, "init.exists".into()));
    guest.run(&["up"]);
    until("a peer", STARTING, || guest.status().filter(|status| status.peers > 0));
    guest.kill();
    let mut other = Node::new(&home, "other");
    let elsewhere = other.found();
    assert_eq!(code(&guest.cli(&["join", &elsewhere])), "join.other_network");
}

#[test]
fn what_is_no_invitation_leaves_nothing() {
    let home = Home::new();
    let mut host = Node::new(&home, "host");
    let invitation = host.found();
    let guest = Node::new(&home, "guest");
    let damaged = invitation.replace("capex:A", "capex:B");
    assert_ne!(damaged, invitation);
    assert_eq!(code(&guest.cli(&["join", &damaged])), "invite.damaged");
    assert_eq!(code(&guest.cli(&["join", "capex"])), "invite.syntax");
    assert_eq!(code(&guest.cli(&["join", &invitation.repeat(9)])), "invite.too_long");
    host.kill();
    assert_eq!(code(&guest.cli(&["join", &invitation])), "join.no_peer");
    assert!(!guest.dir.exists(), "it was left as it was");
}

#[test]
fn those_who_were_invited_trade() {
    let home = Home::new();
    let (mut host, mut guest) = (Node::new(&home, "host"), Node::new(&home, "guest"));
    host.found();
    // What is sold is proved first, outside of tests.
    host.kill();
    let path = host.dir.join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("accept_untested = true\n{text}")).unwrap();
    let invitation = host.found();
    guest.run(&["join", &invitation]);
    for node in [&host, &guest] {
        let (exit, _, err) = node.cli(&["wallet", "fund"]);
        assert_eq!(exit, 0, "{err}");
    }
    let offer =
        ["sell", "--class", "cpu.standard", "--qty", "1", "--price", "2000sat", "--for", "40slots"];
    let bid = [
        "buy",
        "--class",
        "cpu.standard",
        "--qty",
        "1",
        "--max-price",
        "2500sat",
        "--for",
        "2slots",
        "--max-fee",
        "100000sat",
    ];
    until("offer", TRADING, || (host.cli(&offer).0 == 0).then_some(()));
    until("bid", TRADING, || (guest.cli(&bid).0 == 0).then_some(()));
    until("certificate", TRADING, || {
        let held: Vec<Certificate> = Client::open(&guest.dir).ok()?.get("/certificates").ok()?;
        held.first().map(drop)
    });
}

/// The status with which the chain answers a node that asks it for a block.
fn mined_by_a_guest(dir: &Path) -> u16 {
    let config = std::fs::read_to_string(dir.join("config.toml")).unwrap();
    let config: toml::Table = toml::from_str(&config).unwrap();
    let chain = config["chain"].as_table().unwrap();
    let token = std::fs::read_to_string(chain["cookie"].as_str().unwrap()).unwrap();
    let body = r#"{"id": 1, "method": "generatetoaddress", "params": [1, "bcrt1q"]}"#;
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, token);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let answer = agent
        .post(chain["url"].as_str().unwrap())
        .header("Authorization", format!("Basic {basic}"))
        .send(body)
        .unwrap();
    answer.status().as_u16()
}
