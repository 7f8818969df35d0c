//! Another key in a lease: what its holder granted, for as long as it did, through three nodes.

use std::fs;

use capex::api::types::AccessGrant;

use crate::a_holder_comes_into_its_lease::{await_start, exec, redeem_server, stop};
use crate::daemon::{Daemon, until};
use crate::image::{busybox, rootfs};
use crate::market::{SETTLING, meet, provider_and_buyer};
use crate::world::World;

/// Lets a node in: the file of its grant, and when that expires, unix ms.
fn grant(world: &World, holder: &Daemon, id: &str, to: &str, terms: [&str; 3]) -> (String, u64) {
    let [name, verbs, time] = terms;
    let path = world.path().join(name);
    let out = path.to_str().unwrap().to_owned();
    let words = ["lease", "grant", id, "--to", to, "--verbs", verbs, "--for", time, "--out", &out];
    let granted: AccessGrant = holder.cli_json(&words);
    assert_eq!(fs::read_to_string(path).unwrap().trim(), granted.grant);
    (out, granted.expires_at)
}

#[test]
fn a_guest_does_what_its_holder_allows() {
    let Some(busybox) = busybox("a_guest_does_what_its_holder_allows") else { return };
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    let mut friend = world.daemon("friend", 0);
    friend.start(&[&provider.p2p()]);
    meet(&[&provider, &buyer, &friend]);
    let id = redeem_server(&world, &provider, &buyer, &rootfs(&busybox));
    await_start(&provider, &id);
    let (given, _) =
        grant(&world, &buyer, &id, &friend.key(), ["given", "exec,get,logs,forward", "10m"]);
    let by = |grant| ["--grant", grant];
    let code = |(_, code): (i32, String)| code;

    // What was granted.
    let said = friend.cli(&exec(&id, &by(&given), "echo hi; exit 4"));
    assert_eq!(said, (4, "hi\n".to_owned(), String::new()));
    let (exit, passwd, err) =
        friend.cli(&["lease", "get", &id, "--grant", &given, "/etc/passwd", "-"]);
    assert_eq!((exit, passwd.as_str()), (0, "root:x:0:0::/root:/bin/sh\n"), "{err}");
    let mut log = friend.spawn(&["lease", "attach", &id, "--grant", &given, "--all"]);
    log.says("up\n");

    // What was not: nothing begins, and the way to it has its code.
    let here = world.path().join("here");
    fs::write(&here, "x").unwrap();
    let put = ["lease", "put", &id, "--grant", &given, here.to_str().unwrap(), "/tmp/here"];
    assert_eq!(code(friend.cli_error(&put)), "access.not_granted");
    let ssh = ["lease", "ssh", &id, "--grant", &given, "--stdio"];
    assert_eq!(code(friend.cli_error(&ssh)), "access.not_granted");
    assert_eq!(code(friend.cli_error(&exec(&id, &[], "touch /tmp/here"))), "lease.not_found");
    // Neither is it another's, nor for another lease, nor whoever has it a holder.
    for daemon in [&provider, &buyer] {
        let other = daemon.cli_error(&exec(&id, &by(&given), "touch /tmp/here"));
        assert_eq!(code(other), "access.bad_grant", "{}", daemon.name);
    }
    let other = "0123456789abcdef";
    assert_eq!(code(friend.cli_error(&exec(other, &by(&given), "true"))), "access.bad_grant");
    let again = ["lease", "grant", &id, "--to", &provider.key(), "--verbs", "exec", "--for", "1h"];
    assert_eq!(code(friend.cli_error(&again)), "lease.not_found");
    for verb in ["stop", "restart"] {
        assert_eq!(code(friend.cli_error(&["lease", verb, &id])), "lease.not_found");
    }

    // Its end cuts what is under way, which says why; from then on it opens nothing.
    let terms = ["short", "exec,put", "6s"];
    let (short, expires_at_ms) = grant(&world, &buyer, &id, &friend.key(), terms);
    let script = "echo began; exec /bin/busybox sleep 98703";
    let mut cut = friend.spawn(&exec(&id, &by(&short), script));
    until("the end of the grant", SETTLING, || {
        (capex::clock::now_ms() > expires_at_ms + 1_000).then_some(())
    });
    assert_eq!(cut.code(), Some(6), "{}", cut.errors());
    assert!(cut.errors().contains("access.grant_expired"), "{}", cut.errors());
    let late = friend.cli_error(&exec(&id, &by(&short), "touch /tmp/here"));
    assert_eq!(code(late), "access.grant_expired");
    until("the end of its program", SETTLING, || {
        let count = "/bin/busybox ps | /bin/busybox grep -c '[s]leep 98703'";
        (buyer.cli(&exec(&id, &[], count)).1 == "0\n").then_some(())
    });
    assert_eq!(buyer.cli(&exec(&id, &[], "/bin/busybox ls /tmp")).1, "");
    // The longer one is as good as before.
    assert_eq!(friend.cli(&exec(&id, &by(&given), "exit 5")).0, 5);
    stop(&provider, &buyer, &id);
}
