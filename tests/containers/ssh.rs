//! The system's own ssh, scp, sftp and rsync into a container, and an ssh that has more to say than a
//! program takes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use capex::executor::Manager;
use capex_core::ids::LeaseId;
use capex_core::lease::access::Access;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::access::{End, Heard, exec, machine, open};
use crate::image::{busybox, has_programs, rootfs, with_program};
use crate::{Host, PATIENCE, digest};

/// Most memory that a process has had, KiB.
fn memory_peak_kib(pid: i64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that are not all alike.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    for (n, word) in (0_u64..).zip(noise.chunks_exact_mut(8)) {
        word.copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    }
    noise
}

/// What comes faster than a program takes it waits at the other end, however much it is; also where
/// the program says as much as it hears, to one who does not listen yet.
#[tokio::test(flavor = "multi_thread")]
async fn ssh_waits_for_a_program_that_is_slow() {
    const BYTES: usize = 200 << 20;
    const MEMORY_KIB: u64 = 64 << 10;
    let Some(busybox) = busybox("ssh_waits_for_a_program") else { return };
    if !has_programs("ssh_waits_for_a_program", &["ssh"]) {
        return;
    }
    let mut host = Host::new();
    let lease = machine(&host, &busybox, &rootfs(&busybox)).await;
    let manager = Arc::new(host.second().await);
    let port = ssh_port(manager, lease).await;
    let dir = host.dir.path().to_owned();
    let content = Arc::new(noise(BYTES));
    let sum = digest(&content).to_string();
    // Looks away after each part, so that it is far slower than a network within this machine.
    let slow =
        "n=0; while [ $n -lt 50 ]; do /bin/busybox dd bs=64k count=64 iflag=fullblock 2>/dev/null
        /bin/busybox usleep 100000; n=$((n+1)); done | /bin/busybox sha256sum";
    let shim = host.shim(&lease).await;
    let before = memory_peak_kib(shim);
    let settings = settings(&dir, port);
    let mut child = Command::new("ssh")
        .args(words(&settings, &["lease", slow]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let sent = Arc::clone(&content);
    let writer = tokio::task::spawn_blocking(move || input.write_all(&sent));
    let done = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = timeout(PATIENCE, done).await.unwrap().unwrap();
    writer.await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).split(' ').next(), Some(sum.as_str()));
    let grown = memory_peak_kib(shim).saturating_sub(before);
    assert!(grown < MEMORY_KIB, "{grown} KiB");

    // An echo: what it is sent stays here until somebody reads what it says.
    let echo = ["lease", "exec /bin/busybox cat"];
    let mut child = Command::new("ssh")
        .args(words(&settings, &echo))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let sent = Arc::clone(&content);
    let writer = tokio::task::spawn_blocking(move || input.write_all(&sent));
    let back = tokio::task::spawn_blocking(move || {
        let (mut back, mut buffer) = (Vec::<u8>::with_capacity(BYTES), vec![0; 1 << 20]);
        loop {
            let count = std::io::Read::read(&mut output, &mut buffer).unwrap();
            if count == 0 {
                return back;
            }
            back.extend(&buffer[..count]);
        }
    });
    let back = timeout(PATIENCE, back).await.unwrap().unwrap();
    writer.await.unwrap().unwrap();
    assert!(back == *content, "{} bytes of {BYTES} came back", back.len());
    assert!(child.wait().unwrap().success());
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

/// Makes a port of this machine lead to the ssh of a lease.
async fn ssh_port(manager: Arc<Manager>, lease: LeaseId) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut end, mut user) = End::new(lease, Access::Ssh);
            let door = end.knock(&manager).await.unwrap();
            end.carry(door);
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut user).await;
            });
        }
    });
    port
}

/// What those of OpenSSH's programs are told that a test runs.
fn settings(dir: &Path, port: u16) -> Vec<String> {
    let known = dir.join("known_hosts");
    let settings = [
        "StrictHostKeyChecking=accept-new".to_owned(),
        format!("UserKnownHostsFile={}", known.display()),
        "HostKeyAlias=lease".to_owned(),
        "HostName=127.0.0.1".to_owned(),
        format!("Port={port}"),
        "User=root".to_owned(),
        "LogLevel=ERROR".to_owned(),
        "BatchMode=yes".to_owned(),
    ];
    let mut words = vec!["-F".to_owned(), "/dev/null".to_owned()];
    words.extend(settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]));
    words
}

async fn program(name: &str, args: Vec<String>, input: &str) -> Output {
    let (name, input) = (name.to_owned(), input.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(&name)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    timeout(PATIENCE, run).await.unwrap().unwrap()
}

fn words(settings: &[String], more: &[&str]) -> Vec<String> {
    settings.iter().cloned().chain(more.iter().map(|&word| word.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_openssh_come_in() {
    let Some(busybox) = busybox("the_programs_of_openssh") else { return };
    if !has_programs("the_programs_of_openssh", &["ssh", "scp", "sftp", "rsync"]) {
        return;
    }
    let mut host = Host::new();
    let image = with_program(&rootfs(&busybox), "/usr/bin/rsync");
    let lease = machine(&host, &busybox, &image).await;
    let manager = Arc::new(host.second().await);
    let port = ssh_port(manager, lease).await;
    let dir = host.dir.path().to_owned();
    let ssh = settings(&dir, port);
    let said = |output: &Output| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };

    let command = "echo out; echo err >&2; pwd; echo $HOME $USER; /bin/busybox cat; exit 6";
    let output = program("ssh", words(&ssh, &["lease", command]), "typed").await;
    let expected = (Some(6), "out\n/home\n/root root\ntyped".to_owned(), "err\n".to_owned());
    assert_eq!(said(&output), expected);
    let output =
        program("ssh", words(&ssh, &["-tt", "lease"]), "[ -t 0 ] && echo t$((2+2))y; exit 2\n")
            .await;
    let (code, out, _) = said(&output);
    assert!(code == Some(2) && out.contains("t4y"), "{output:?}");
    // It is the same machine each time, and another key would be noticed.
    let known = fs::read_to_string(dir.join("known_hosts")).unwrap();
    assert_eq!(known.lines().count(), 1, "{known}");

    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n % 253) as u8).collect();
    let (from, back) = (dir.join("from.bin"), dir.join("back.bin"));
    fs::write(&from, &content).unwrap();
    let (from, back) = (from.to_str().unwrap(), back.to_str().unwrap());
    let output = program("scp", words(&ssh, &["-p", from, "lease:/tmp/scp.bin"]), "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = program("scp", words(&ssh, &["lease:/tmp/scp.bin", back]), "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(fs::read(back).unwrap() == content);
    let batch = format!(
        "mkdir /tmp/d\nput {from} /tmp/d/one\nrename /tmp/d/one /tmp/d/two\nchmod 600 /tmp/d/two\n\
         symlink two /tmp/d/link\nls -l /tmp/d\nget /tmp/d/link {back}.2\nrm /tmp/d/link\n\
         -get /../../../../../{from} {back}.3\nrm /tmp/d/two\nrmdir /tmp/d\n"
    );
    let output = program("sftp", words(&ssh, &["-b", "-", "lease"]), &batch).await;
    let (code, out, err) = said(&output);
    assert!(code == Some(0) && out.contains("-rw-------"), "{out} {err}");
    assert!(fs::read(format!("{back}.2")).unwrap() == content);
    assert!(!Path::new(&format!("{back}.3")).exists(), "the host's own file");

    let way = format!("ssh {}", ssh.join(" "));
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "synced").unwrap();
    let tree = format!("{}/", tree.display());
    let args = ["-a", "--rsync-path=/usr/bin/rsync", "-e", &way, &tree, "lease:/tmp/tree"];
    let output = program("rsync", words(&[], &args), "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output =
        program("ssh", words(&ssh, &["lease", "/bin/busybox cat /tmp/tree/sub/file"]), "").await;
    assert_eq!(said(&output).1, "synced");

    // A port, by ssh -W; and no other host.
    let serve = "/bin/busybox nc -l -p 8081 -e /bin/busybox tr a-z A-Z & echo up; wait";
    let mut server = open(&host, lease, exec(serve)).await.unwrap();
    server.until(&mut Heard::default(), "up").await;
    let begun = std::time::Instant::now();
    loop {
        let output = program("ssh", words(&ssh, &["-W", "localhost:8081", "lease"]), "port").await;
        if said(&output).1 == "PORT" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{output:?}");
    }
    let output = program("ssh", words(&ssh, &["-W", "192.0.2.1:80", "lease"]), "").await;
    assert!(!output.status.success(), "{output:?}");
    tokio::time::timeout(Duration::from_secs(30), host.manager.stop(&lease, "done"))
        .await
        .unwrap()
        .unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}
