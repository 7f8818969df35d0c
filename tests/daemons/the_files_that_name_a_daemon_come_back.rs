//! Cleaners of temporary files remove what commands find a daemon by.

use crate::daemon::{STARTING, until};
use crate::world::World;

#[test]
fn the_files_that_name_a_daemon_come_back() {
    let world = World::new();
    let mut daemon = world.daemon("cleaned", 0);
    daemon.start(&[]);
    for file in ["endpoints", "cookie"] {
        std::fs::remove_file(daemon.dir.join(file)).unwrap();
        // At once it is either there again, or said to be missing, and never that none runs.
        if let (3, _, said) = daemon.cli(&["status"]) {
            assert!(said.contains("daemon.unlisted"), "{said}");
            assert!(said.contains(&format!("process {}", daemon.pid())), "{said}");
        }
        until(file, STARTING, || daemon.status());
    }
    let (status, _) = daemon.terminate(STARTING);
    assert!(status.success());
    assert!(!daemon.dir.join("endpoints").exists() && !daemon.dir.join("cookie").exists());
    let (code, _, said) = daemon.cli(&["status"]);
    assert!(code == 3 && said.contains("daemon.unreachable"), "{code} {said}");
}
