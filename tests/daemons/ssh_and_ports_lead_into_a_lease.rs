//! Through two nodes into a container: ports with real connections, and the system's own ssh, scp and
//! rsync by what `capex lease ssh-config` prints.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Output};

use crate::a_holder_comes_into_its_lease::{await_start, redeem_server, stop};
use crate::daemon::signal;
use crate::image::{busybox, has_programs, rootfs, with_program};
use crate::market::{SETTLING, provider_and_buyer};
use crate::world::World;

/// Bytes of each connection: more than all buffers on the way have room for.
const BYTES: usize = 3 << 20;

fn content(number: usize) -> Vec<u8> {
    (0..BYTES).map(|n| b'a' + (n * 7 + number) as u8 % 26).collect()
}

/// Several at once, each of which ends its own way first and then hears the rest.
fn talk_over(address: &str) {
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SETTLING)).unwrap();
        stream.set_write_timeout(Some(SETTLING)).unwrap();
        stream
    };
    let streams: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    std::thread::scope(|scope| {
        // The last first: none waits for another.
        for (number, mut stream) in streams.iter().enumerate().rev() {
            scope.spawn(move || {
                let mut half = stream.try_clone().unwrap();
                let sent = content(number);
                let writer = std::thread::spawn(move || {
                    half.write_all(&sent).unwrap();
                    half.shutdown(Shutdown::Write).unwrap();
                    sent
                });
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                let sent = writer.join().unwrap();
                assert!(back == sent.to_ascii_uppercase(), "{number}: {} bytes", back.len());
            });
        }
    });
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn ssh_and_ports_lead_into_a_lease() {
    let Some(busybox) = busybox("ssh_and_ports_lead_into_a_lease") else { return };
    if !has_programs("ssh_and_ports_lead_into_a_lease", &["ssh", "scp", "rsync"]) {
        return;
    }
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    let image = with_program(&rootfs(&busybox), "/usr/bin/rsync");
    let id = redeem_server(&world, &provider, &buyer, &image);
    await_start(&provider, &id);

    let mut forward = buyer.spawn(&["--json", "lease", "forward", &id, "0:8080", "0:9"]);
    let ports = forward.says("\n");
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    let here = |number: usize| ports["forwards"][number]["listens"].as_str().unwrap().to_owned();
    talk_over(&here(0));
    // Where nobody listens nothing comes back, and the command says so and goes on.
    let mut nobody = TcpStream::connect(here(1)).unwrap();
    nobody.set_read_timeout(Some(SETTLING)).unwrap();
    assert!(matches!(nobody.read(&mut [0]), Ok(0) | Err(_)));
    crate::daemon::until("a word about it", SETTLING, || {
        forward.errors().contains("access.no_listener").then_some(())
    });
    talk_over(&here(0));
    signal(forward.id(), "TERM");
    assert_eq!(forward.code(), Some(0), "{}", forward.errors());

    // ssh by itself, with options and a command.
    let script = "echo out; echo err >&2; exit 6";
    let ssh = buyer.cli(&["lease", "ssh", &id, "--", "-o", "LogLevel=ERROR", script]);
    assert_eq!(ssh, (6, "out\n".to_owned(), "err\n".to_owned()));

    // And by its configuration, as every program that is built on it.
    let (code, text, err) = buyer.cli(&["lease", "ssh-config", &id]);
    assert_eq!(code, 0, "{err}");
    let host = text.lines().next().and_then(|line| line.strip_prefix("Host ")).unwrap().to_owned();
    let config = world.path().join("ssh_config");
    fs::write(&config, text + "    LogLevel ERROR\n    BatchMode yes\n").unwrap();
    let config = config.to_str().unwrap();
    let run = |name: &str, args: &[&str]| {
        // One that hangs is ended, and says so by its code.
        let mut command = Command::new("timeout");
        let output = command.args(["60", name]).args(args).env("HOME", world.path()).output();
        said(&output.unwrap())
    };
    let command = "pwd; echo $USER; exit 3";
    let output = run("ssh", &["-F", config, &host, command]);
    assert_eq!(output, (Some(3), "/tmp\nroot\n".to_owned(), String::new()));
    let (from, back) = (world.path().join("from.bin"), world.path().join("back.bin"));
    fs::write(&from, content(9)).unwrap();
    let (from, back) = (from.to_str().unwrap(), back.to_str().unwrap());
    let there = format!("{host}:/tmp/there.bin");
    for (a, b) in [(from, there.as_str()), (there.as_str(), back)] {
        let output = run("scp", &["-F", config, a, b]);
        assert_eq!(output.0, Some(0), "{output:?}");
    }
    assert!(fs::read(back).unwrap() == content(9));
    let tree = world.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "synced").unwrap();
    let (tree, way) = (format!("{}/", tree.display()), format!("ssh -F {config}"));
    let to = format!("{host}:/tmp/tree");
    let output = run("rsync", &["-a", "--rsync-path=/usr/bin/rsync", "-e", &way, &tree, &to]);
    assert_eq!(output.0, Some(0), "{output:?}");
    let output = run("ssh", &["-F", config, &host, "/bin/busybox cat /tmp/tree/sub/file"]);
    assert_eq!(output, (Some(0), "synced".to_owned(), String::new()));
    stop(&provider, &buyer, &id);
}
