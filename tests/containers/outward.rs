//! The way out of a container, in networks of the test's own: a host, and an internet on which an
//! address of every kind answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use capex::executor::egress::Egress;
use capex::executor::{HostProof, LeaseSpec, Outcome, self_test};
use capex_core::ids::LeaseId;
use capex_core::lease::objects::Stream;
use rustix::thread::UnshareFlags;

use crate::access::run;
use crate::crashes::Killed;
use crate::image::{busybox, rootfs};
use crate::{Host, INPUT, LONG_MS, spec};

const PORT: u16 = 8080;
const OUTSIDE: [u8; 4] = [1, 1, 1, 1];
/// The host on the way to it.
const HOST: [u8; 4] = [8, 8, 4, 2];
/// What answers on that internet, and no lease may reach.
const REFUSED: [[u8; 4]; 9] = [
    [10, 1, 1, 1],
    [100, 64, 1, 1],
    [169, 254, 169, 254],
    [172, 16, 1, 1],
    [192, 0, 0, 8],
    [192, 168, 1, 1],
    [198, 19, 1, 1],
    [203, 0, 113, 1],
    [240, 0, 0, 1],
];

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

/// A network of its own for this thread, and for those that it starts from now on.
fn own_network() {
    #[expect(deprecated, reason = "what makes it unsafe is the table of files, which stays")]
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
}

fn serve() {
    let listener = TcpListener::bind("[::]:8080").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever has left by now has heard enough.
            let _ = stream.unwrap().write_all(b"hello\n");
        }
    });
}

/// An internet: tells which thread it is, and goes on once the other has made the cable.
fn internet(told: &Sender<u32>, cable: &std::sync::mpsc::Receiver<()>) {
    own_network();
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    told.send(thread.unsigned_abs()).unwrap();
    cable.recv().unwrap();
    sh("ip link set lo up; ip link set up1 up; ip address add 8.8.4.1/24 dev up1
        ip address add 2001:db8::1/64 dev up1 nodad");
    for address in REFUSED.into_iter().chain([OUTSIDE]).map(Ipv4Addr::from) {
        sh(&format!("ip address add {address}/32 dev lo"));
    }
    serve();
    told.send(0).unwrap();
}

/// Does something on a host that is connected to an internet, with nothing of this machine's
/// network.
fn on_a_host(work: impl FnOnce() + Send + 'static) {
    let host = std::thread::spawn(|| {
        own_network();
        let ((told, tells), (done, cable)) = (channel(), channel());
        std::thread::spawn(move || internet(&told, &cable));
        let thread = tells.recv().unwrap();
        sh(&format!(
            "ip link set lo up; ip link add up0 type veth peer name up1 netns {thread}
             ip address add 8.8.4.2/24 dev up0; ip link set up0 up
             ip address add 2001:db8::2/64 dev up0 nodad
             ip route add default via 8.8.4.1; echo 1 >/proc/sys/net/ipv4/ip_forward"
        ));
        done.send(()).unwrap();
        tells.recv().unwrap();
        serve();
        work();
    });
    host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn in_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(work);
}

fn answers(address: Ipv4Addr) -> bool {
    let address = SocketAddr::from((address, PORT));
    let mut text = String::new();
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10));
    stream.is_ok_and(|mut stream| stream.read_to_string(&mut text).is_ok()) && text == "hello\n"
}

/// What is left on the host of any lease.
fn left() -> Vec<String> {
    let links = sh("ip -o link show");
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned);
    let devices = names.filter(|name| name.starts_with("capex"));
    devices.chain(sh("nft list tables").lines().map(str::to_owned)).collect()
}

fn outward(image: &[u8], script: &str) -> LeaseSpec {
    let mut spec = spec(image, script, LONG_MS);
    spec.workload.egress = true;
    spec.cpu_max_milli = 2_000;
    spec
}

/// What a lease hears at an address.
async fn heard(host: &Host, lease: LeaseId, address: &str) -> String {
    let script = format!("/bin/busybox nc -w 10 {address} {PORT} </dev/null 2>&1");
    run(host, lease, &script).await.out
}

const SCRIPT: &str = "echo begun; while :; do echo other | /bin/busybox nc -l -p 8080; done";

impl Host {
    fn letting_out(mut self) -> Self {
        let egress = Egress { resolvers: vec![OUTSIDE.into()] };
        self.manager = self.manager.letting_out(Some(egress));
        self
    }
}

/// Own address of a lease.
async fn address_of(host: &Host, lease: LeaseId) -> String {
    let script = "/bin/busybox ip -4 -o addr show dev eth0";
    let printed = run(host, lease, script).await.out;
    let address = printed.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    address.unwrap_or_else(|| panic!("{printed}")).split('/').next().unwrap().to_owned()
}

async fn reaches_the_outside_alone(host: &Host, lease: LeaseId, other: &str) {
    assert_eq!(heard(host, lease, "1.1.1.1").await, "hello\n");
    let refused =
        REFUSED.into_iter().chain([HOST]).map(|address| Ipv4Addr::from(address).to_string());
    let gateway = "$(/bin/busybox ip route | /bin/busybox awk '/default/ {print $3}')";
    let others = [gateway, other, "2001:db8::1", "2001:db8::2", "fe80::1%eth0"].map(str::to_owned);
    for address in refused.chain(others) {
        let heard = heard(host, lease, &address).await;
        assert!(!heard.contains("hello") && !heard.contains("other"), "{address}: {heard}");
    }
}

#[test]
fn a_lease_that_is_let_out_reaches_the_outside_alone() {
    let Some(busybox) = busybox("a_lease_that_is_let_out") else { return };
    on_a_host(move || {
        for address in REFUSED.into_iter().chain([OUTSIDE, HOST]).map(Ipv4Addr::from) {
            assert!(answers(address), "{address} does not answer the host itself");
        }
        in_runtime(async {
            let image = rootfs(&busybox);
            let host = Host::new().letting_out();
            let lease = host.start(outward(&image, SCRIPT), &[&image, INPUT]).await;
            let other = host.start(outward(&image, SCRIPT), &[&image, INPUT]).await;
            host.prints(&lease, "begun").await;
            host.prints(&other, "begun").await;
            let address = address_of(&host, other).await;
            assert_eq!(heard(&host, other, "127.0.0.1").await, "other\n", "it listens");
            reaches_the_outside_alone(&host, lease, &address).await;
            let resolver = run(&host, lease, "/bin/busybox cat /etc/resolv.conf").await.out;
            assert_eq!(resolver, "nameserver 1.1.1.1\n");
            let rights = "/bin/busybox ip link set eth0 down 2>&1 || echo no right";
            assert!(run(&host, lease, rights).await.out.contains("no right"));

            // An address that the host did not have before.
            sh("ip address add 9.9.9.9/32 dev lo");
            let nobody = heard(&host, lease, "9.9.9.9").await;
            assert!(!nobody.contains("hello"), "{nobody}");

            // A process that is lost takes its way out along, and its next one has another.
            let host = host.killed(&lease, Killed::Process).await;
            host.until("another run", |_| {
                let log = host.log(&lease, Stream::Stdout);
                (log.matches("begun").count() > 1).then_some(())
            })
            .await;
            reaches_the_outside_alone(&host, lease, &address).await;

            // Whatever becomes of the rules of the host, a lease gets no more.
            sh("nft flush ruleset");
            for address in REFUSED.into_iter().chain([HOST, OUTSIDE]).map(Ipv4Addr::from) {
                let heard = heard(&host, lease, &address.to_string()).await;
                assert!(!heard.contains("hello"), "{address}: {heard}");
            }
            for lease in [lease, other] {
                host.manager.stop(&lease, "done").await.unwrap();
                host.end(&lease).await;
                let proof = host.manager.release(&lease).await.unwrap();
                assert_eq!(proof.left_behind, Vec::<String>::new());
            }
            assert_eq!(left(), Vec::<String>::new());
        });
    });
}

#[test]
fn a_lease_is_let_out_only_where_its_host_does_that() {
    let Some(busybox) = busybox("a_lease_is_let_out_only") else { return };
    on_a_host(move || {
        in_runtime(async {
            let image = rootfs(&busybox);
            let host = Host::new();
            let lease = host.start(outward(&image, SCRIPT), &[&image, INPUT]).await;
            let ended = host.end(&lease).await;
            // Its holder asked what it could: the host is what cannot.
            assert!(matches!(ended.outcome, Outcome::Failed { .. }), "{ended:?}");
            assert_eq!(ended.outcome.code(), "runtime.gone", "{ended:?}");
            host.release(&lease).await;

            let host = host.letting_out();
            let lease = host
                .start(spec(&image, "/bin/busybox ls /sys/class/net", LONG_MS), &[&image, INPUT])
                .await;
            let ended = host.end(&lease).await;
            assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
            assert_eq!(host.log(&lease, Stream::Stdout), "lo\n", "it did not ask");
            host.release(&lease).await;
            assert_eq!(left(), Vec::<String>::new());
        });
    });
}

/// The self-test tries what no lease may reach, and nothing is offered where a rule is missing.
#[test]
fn the_self_test_proves_what_is_held_back() {
    if busybox("the_self_test_proves").is_none() {
        return;
    }
    on_a_host(|| {
        in_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let program = std::path::Path::new(env!("CARGO_BIN_EXE_capex"));
            let proved = self_test(dir.path(), program, Some(Egress::default())).await.unwrap();
            let containers = proved.containers.clone().unwrap();
            assert!(containers.egress.unwrap().refused > 10, "{proved:?}");
            let proof = HostProof::of(dir.path());
            proof.keep(&proved).unwrap();
            assert!(proof.has_egress());

            sh("echo 0 >/proc/sys/net/ipv4/ip_forward");
            let proved = self_test(dir.path(), program, Some(Egress::default())).await.unwrap();
            let why = proved.containers.clone().unwrap().no_egress.unwrap();
            assert!(why.contains("net.ipv4.ip_forward"), "{why}");
            proof.keep(&proved).unwrap();
            assert!(!proof.has_egress());
            assert_eq!(left(), Vec::<String>::new());
        });
    });
}

/// `CAPEX_LEASES` says how many.
#[test]
fn many_leases_that_are_let_out_leave_nothing() {
    let Some(busybox) = busybox("many_leases_that_are_let_out") else { return };
    let count = std::env::var("CAPEX_LEASES").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    on_a_host(move || {
        in_runtime(async {
            let image = rootfs(&busybox);
            let host = Host::new().letting_out();
            for _ in 0..count {
                let script = "/bin/busybox nc -w 10 1.1.1.1 8080 </dev/null";
                let lease = host.start(outward(&image, script), &[&image, INPUT]).await;
                let ended = host.end(&lease).await;
                let heard = host.log(&lease, Stream::Stdout);
                assert_eq!(
                    (ended.outcome, heard.as_str()),
                    (Outcome::Exited { code: 0 }, "hello\n")
                );
                host.release(&lease).await;
            }
            assert_eq!(left(), Vec::<String>::new());
        });
    });
}
