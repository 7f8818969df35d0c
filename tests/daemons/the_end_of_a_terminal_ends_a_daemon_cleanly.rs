//! A terminal that is closed ends the daemon that runs in it, unless somebody chose otherwise.

use std::process::{Command, Stdio};

use crate::daemon::{Process, STARTING, signal, until};
use crate::world::World;

#[test]
fn the_end_of_a_terminal_ends_a_daemon_cleanly() {
    let world = World::new();
    let mut daemon = world.daemon("only", 0);
    daemon.start(&[]);
    let (status, _) = daemon.end_by("HUP", STARTING);
    assert!(status.success(), "{status}");
    for name in ["endpoints", "cookie"] {
        assert!(!daemon.dir.join(name).exists(), "{name}");
    }
}

#[test]
fn a_daemon_that_is_to_outlive_its_terminal_does() {
    let world = World::without_chain();
    let dir = world.path().join("chain");
    let args = ["devchain", "--listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()];
    // What `nohup` does.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_capex")]);
    command.args(args).env_clear().env("HOME", world.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process { child: command.spawn().unwrap() };
    until("its address", STARTING, || dir.join("devchain.addr").exists().then_some(()));
    let pid = process.child.id();
    signal(pid, "HUP");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & 1
    };
    assert_eq!((mask("SigIgn:"), mask("SigCgt:")), (1, 0), "the choice stands");
}
