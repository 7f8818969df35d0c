//! Through two nodes into a container, by the commands that people type: programs and files.

use std::fs;

use capex::api::types::{Redeemed, TimeInForce};

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{Daemon, signal, until};
use crate::image::{busybox, rootfs};
use crate::market::{SETTLING, bought, buy, provider_and_buyer, sell, soon};
use crate::world::World;

/// Words of a program that busybox is.
const SHELL: [&str; 3] = ["/bin/busybox", "sh", "-c"];

pub(crate) fn exec<'a>(id: &'a str, more: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut words = vec!["lease", "exec", id];
    words.extend(more);
    words.push("--");
    words.extend(SHELL);
    words.push(script);
    words
}

/// Slots of the leases of these tests, far more than they take: whoever ends them stops them.
const SLOTS: u32 = 60;

/// A container that answers in capitals on port 8080, redeemed and not waited for; its lease.
pub(crate) fn redeem_server(
    world: &World,
    provider: &Daemon,
    buyer: &Daemon,
    image: &[u8],
) -> String {
    sell(provider, 2);
    let window = {
        let [start, _] = soon(buyer);
        [start, start + SLOTS]
    };
    buy(buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(buyer, window).cert_id;
    let image = file(world, "image.tar", image);
    let script = "echo up; exec /bin/busybox nc -ll -p 8080 -e /bin/busybox tr a-z A-Z";
    let mut words = vec!["cert", "redeem", &cert, "--image", image.to_str().unwrap()];
    words.extend(["--workdir", "/tmp", "--port", "8080", "--"]);
    words.extend(SHELL);
    words.push(script);
    let redeemed: Redeemed = buyer.cli_json(&words);
    redeemed.lease_id
}

pub(crate) fn await_start(provider: &Daemon, id: &str) {
    until("a running lease", SETTLING, || {
        lease(provider, id).filter(|lease| lease.phase == "running")
    });
}

/// Ends a lease early, as its holder.
pub(crate) fn stop(provider: &Daemon, buyer: &Daemon, id: &str) {
    let (code, _, err) = buyer.cli(&["lease", "stop", id]);
    assert_eq!(code, 0, "{err}");
    until("the end", SETTLING, || lease(provider, id).filter(|lease| lease.is_over()));
}

#[test]
fn a_holder_comes_into_its_lease() {
    let Some(busybox) = busybox("a_holder_comes_into_its_lease") else { return };
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    let id = redeem_server(&world, &provider, &buyer, &rootfs(&busybox));
    let early = buyer.cli_error(&exec(&id, &[], "true"));
    assert_eq!(early, (6, "lease.not_running".to_owned()));
    await_start(&provider, &id);

    let said = buyer.cli(&exec(&id, &["--env", "A=b"], "echo out $A; echo err >&2; exit 7"));
    assert_eq!(said, (7, "out b\n".to_owned(), "err\n".to_owned()));
    let missing = buyer.cli_error(&["lease", "exec", &id, "--", "/bin/none"]);
    assert_eq!(missing.1, "image.no_program");

    let content: Vec<u8> = (0..700_000_u32).map(|n| (n % 250) as u8).collect();
    let from = file(&world, "from.bin", &content);
    let back = world.path().join("back.bin");
    let (code, _, err) = buyer.cli(&["lease", "put", &id, from.to_str().unwrap(), "/tmp/"]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = buyer.cli(&["lease", "get", &id, "from.bin", back.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    assert!(fs::read(&back).unwrap() == content);
    let again = buyer.cli_error(&["lease", "get", &id, "from.bin", back.to_str().unwrap()]);
    assert_eq!(again.1, "file.exists");
    let none = buyer.cli_error(&["lease", "get", &id, "/none", "-"]);
    assert_eq!(none, (5, "access.no_file".to_owned()));

    // A signal reaches the program, and its code comes back.
    let script = "trap 'exit 9' INT; echo ready; while :; do /bin/busybox usleep 50000; done";
    let mut program = buyer.spawn(&exec(&id, &[], script));
    program.says("ready\n");
    signal(program.id(), "INT");
    assert_eq!(program.code(), Some(9));
    stop(&provider, &buyer, &id);
}
