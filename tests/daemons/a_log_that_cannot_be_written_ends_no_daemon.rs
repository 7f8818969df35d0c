//! Whoever reads what a daemon prints may go away, and the disk of its log may be full.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::daemon::{Process, STARTING, until};
use crate::world::World;

/// A place to which nothing can be written, once for each standard stream.
fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_log_that_cannot_be_written_ends_no_daemon() {
    let world = World::without_chain();
    for (name, place) in [("piped", closed_pipe as fn() -> Stdio), ("full", full_disk)] {
        // The cookie is none and nothing listens there: the first look at the chain is a warning.
        let mut daemon = world.daemon_on(name, 0, "http://127.0.0.1:1", world.path());
        daemon.start_with(place(), place());
        until("a warning", STARTING, || {
            let warnings = daemon.status()?.warnings;
            let down = warnings.iter().find(|warning| warning.code == "chain.down")?;
            (!down.message.ends_with("not answered yet")).then_some(())
        });
        let (status, _) = daemon.terminate(STARTING);
        assert!(status.success(), "{name}: {status}");
    }
}

#[test]
fn where_it_is_need_not_be_read_by_anybody() {
    let world = World::without_chain();
    let dir = world.path().join("chain");
    let args = ["devchain", "--listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()];
    let mut process = Process::start_with(world.path(), &args, &[], closed_pipe(), closed_pipe());
    until("its address", STARTING, || dir.join("devchain.addr").exists().then_some(()));
    assert!(process.child.try_wait().unwrap().is_none());
}
