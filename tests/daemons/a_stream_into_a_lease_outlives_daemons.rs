//! A stream into a running lease: through both daemons to the process of the lease, on over a
//! restart of the provider's, for who holds the lease or was let in. The end at the lease is
//! played here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener as Door;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use capex::api::types::{AccessGrant, GrantAccess, OpenStream, Redeemed, StreamFor, TimeInForce};
use capex::executor::access::session::{Carried, Session};
use capex::executor::access::words::{Knock, hear_knock, say};
use capex::executor::samples::CHATTY;
use capex_core::lease::access::{Access, AccessCall, Admission, Answer};
use tokio::io::{AsyncWriteExt, duplex, split};
use tokio::net::UnixListener;

use crate::a_certificate_is_given_and_redeemed::lease;
use crate::daemon::{Daemon, until};
use crate::market::{SETTLING, bought, buy, meet, provider_and_buyer, sell, soon};
use crate::world::World;

/// Opens a stream as a client of the API does: the status of the answer, and what follows it.
fn open(daemon: &Daemon, lease: &str, grant: Option<String>) -> (u16, TcpStream) {
    let api = daemon.endpoints().api;
    let host = api.trim_start_matches("http://");
    let cookie = std::fs::read_to_string(daemon.dir.join("cookie")).unwrap();
    let body = OpenStream { open: StreamFor::Forward { port: 8080 }, grant };
    let body = serde_json::to_string(&body).unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(SETTLING)).unwrap();
    write!(
        stream,
        "POST /api/v1/leases/{lease}/streams HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\
         Connection: upgrade\r\nUpgrade: capex-stream\r\nContent-Length: {}\r\n\r\n{body}",
        cookie.trim(),
        body.len(),
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), stream)
}

/// The code of a refusal.
fn code(mut stream: TcpStream) -> String {
    let mut bytes = [0; 1024];
    let count = stream.read(&mut bytes).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&bytes[..count]).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// The door of a lease, in the place of that of its process, before anybody knocks.
fn door(dir: &Path) -> Door {
    std::fs::remove_file(dir.join("access.sock")).unwrap();
    let short = PathBuf::from("/proc/self/fd");
    let folder = std::fs::File::open(dir).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&folder);
    let door = Door::bind(short.join(fd.to_string()).join("access.sock")).unwrap();
    door.set_nonblocking(true).unwrap();
    door
}

/// Plays the process of a lease: what arrives goes back, until each end has all.
async fn echo(door: Door) -> (Vec<AccessCall>, u64) {
    let door = UnixListener::from_std(door).unwrap();
    let (session, mut calls) = (Arc::new(Session::default()), Vec::new());
    let (mut local, user) = duplex(16 << 10);
    tokio::spawn(async move {
        let (mut read, mut write) = split(user);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    let (mut read, mut write) = split(&mut local);
    loop {
        let (mut stream, _) = door.accept().await.unwrap();
        let knock = hear_knock(&mut stream).await.unwrap();
        let Some(Knock::Stream(Admission { call, until_s })) = knock else { panic!("{knock:?}") };
        assert_eq!(until_s, None, "the holder stays as long as the lease");
        let received = session.received();
        say(&mut stream, &Answer::Open { received }).await.unwrap();
        assert!(session.resume(call.received));
        calls.push(call);
        if session.carry((&mut read, &mut write), split(stream)).await == Carried::Whole {
            return (calls, session.received());
        }
    }
}

#[test]
fn a_stream_into_a_lease_outlives_daemons() {
    let world = World::new();
    let (mut provider, buyer) = provider_and_buyer(&world, 2);
    let mut friend = world.daemon("friend", 0);
    friend.start(&[&provider.p2p()]);
    meet(&[&provider, &buyer, &friend]);
    sell(&provider, 2);
    let window = {
        let [start, _] = soon(&buyer);
        [start, start + 5]
    };
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    let wasm = world.path().join("chatty.wasm");
    std::fs::write(&wasm, CHATTY).unwrap();
    let redeemed: Redeemed =
        buyer.cli_json(&["cert", "redeem", &cert, "--wasm", wasm.to_str().unwrap()]);
    let id = redeemed.lease_id;
    let (status, refused) = open(&buyer, &id, None);
    assert_eq!((status, code(refused).as_str()), (409, "lease.not_running"));
    until("a running lease", SETTLING, || {
        lease(&provider, &id).filter(|lease| lease.phase == "running")
    });
    let (status, refused) = open(&buyer, &id, None);
    assert_ne!(status, 101);
    assert_eq!(code(refused), "runtime.unsupported", "a component has no ports");

    let verbs = vec!["forward".to_owned()];
    let body = GrantAccess { to: friend.key(), verbs, for_s: 60 };
    let path = format!("/leases/{id}/grants");
    let granted: AccessGrant = buyer.client().unwrap().post(&path, &body).unwrap();
    let (_, refused) = open(&friend, &id, Some(granted.grant.clone()));
    assert_eq!(code(refused), "access.not_granted", "the workload names no port");
    let (_, refused) = open(&friend, &id, None);
    assert_eq!(code(refused), "lease.not_found");
    let (_, refused) = open(&provider, &id, Some(granted.grant));
    assert_eq!(code(refused), "access.bad_grant", "given to another");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let door = door(&provider.dir.join("leases").join(&id));
    let _entered = runtime.enter();
    let played = runtime.spawn(echo(door));
    let (status, mut stream) = open(&buyer, &id, None);
    assert_eq!(status, 101);
    stream.write_all(b"before").unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"before");
    provider.kill();
    stream.write_all(b", and after").unwrap();
    provider.start(&[&buyer.p2p()]);
    let mut back = [0; 11];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b", and after");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    let ended = runtime.block_on(tokio::time::timeout(Duration::from_secs(10), played));
    let (calls, received) = ended.unwrap().unwrap();
    assert!(calls.len() >= 2 && received == 17, "{calls:?}");
    for call in &calls {
        assert_eq!(call.what, Access::Dial { port: 8080 });
        assert_eq!((call.session16, call.peer.to_string()), (calls[0].session16, buyer.key()));
    }
}
