//! `up` on a directory that is in use, or that belongs to another network.

use crate::daemon::{capex, error_of};
use crate::world::World;

#[test]
fn a_data_directory_has_one_user_and_one_network() {
    let world = World::new();
    let mut daemon = world.daemon("only", 0);
    daemon.start(&[]);
    let dir = daemon.dir.to_str().unwrap().to_owned();
    let url = world.chain.url();
    let cookie = world.chain.cookie();
    let env = [
        ("CAPEX_CHAIN_URL", url.as_str()),
        ("CAPEX_CHAIN_COOKIE", cookie.to_str().unwrap()),
        ("CAPEX_LOG", "off"),
    ];
    let up = |network: &str, json: bool| {
        let mut args = vec!["--network", network, "--datadir", &dir, "up"];
        if json {
            args.push("--json");
        }
        capex(world.path(), &args, &env)
    };
    let (code, out, err) = up("devnet", false);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(&format!("process {}", daemon.pid())), "{err}");
    assert_eq!(error_of(up("devnet", true)), (1, "store.locked".to_owned()));
    assert!(daemon.status().is_some(), "the first one is not disturbed");
    assert!(daemon.dir.join("endpoints").exists() && daemon.dir.join("cookie").exists());

    daemon.kill();
    assert_eq!(error_of(up("regtest", true)), (1, "store.wrong_network".to_owned()));
    daemon.start(&[]);
}

#[test]
fn others_of_the_machine_read_no_lease_in_a_directory_that_was_there() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mut daemon = world.daemon("open", 0);
    let dirs = ["leases", "held"].map(|name| daemon.dir.join(name));
    for dir in &dirs {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    daemon.start(&[]);
    for dir in &dirs {
        let mode = std::fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", dir.display());
    }
}
