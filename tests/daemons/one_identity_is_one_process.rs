//! A data directory that was copied, and both copies started.

use std::path::Path;
use std::time::Duration;

use crate::daemon::{Daemon, tail, until_or};
use crate::market::picture;
use crate::world::World;

/// Both say once a minute where they are, and are told as often what others heard of them.
const NOTICED: Duration = Duration::from_secs(200);

#[test]
fn one_identity_is_one_process() {
    let world = World::new();
    let mut peer = world.daemon("peer", 0);
    peer.start(&[]);
    let mut first = world.daemon("first", 0);
    first.start(&[&peer.p2p()]);
    let key = first.key();
    first.kill();
    let mut second = world.daemon("second", 0);
    copy(&first.dir, &second.dir);

    first.start(&[&peer.p2p()]);
    second.start(&[&peer.p2p()]);
    assert_eq!([first.key(), second.key()], [key.clone(), key]);
    // A new peer of both has each of them say where it is.
    let mut guest = world.daemon("guest", 0);
    guest.start(&[&first.p2p(), &second.p2p()]);

    let mut ended = Vec::new();
    until_or(
        "end of one of the two",
        NOTICED,
        || {
            ended = [&mut first, &mut second].map(Daemon::ended).into_iter().collect();
            ended.iter().any(Option::is_some).then_some(())
        },
        || picture(&[&peer, &guest]),
    );
    for (daemon, status) in [&first, &second].into_iter().zip(&ended) {
        let Some(status) = status else { continue };
        let log = tail(&daemon.log);
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("identity.in_use"), "{log}");
    }
    for other in [&mut peer, &mut guest] {
        assert!(other.ended().is_none() && other.status().is_some(), "it is not concerned");
    }
}

/// A directory with all that is in it, as a copy of an image would have it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}
