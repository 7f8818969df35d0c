//! How fast one stream between two nodes is, with nothing above it: what an upload is compared with.
//!
//! `stream <tcp|quic> <MiB>`: two nodes in this process, on loopback; prints MiB a second.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a bench fails by panicking"
)]

use std::time::{Duration, Instant};

use capex_network::{Config, Event, Handle, StreamConfig, limits, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Written and read at once, as an upload does.
const PART_BYTES: usize = 256 << 10;

fn config(seed: u8, transport: &str, bootstrap: Vec<String>) -> Config {
    let listen = match transport {
        "quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    Config {
        network: "bench".into(),
        secret: [seed; 32].into(),
        listen: vec![listen.into()],
        bootstrap,
        loopback: true,
        topics: Vec::new(),
        protocols: Vec::new(),
        streams: None,
        epoch_ms: 30_000,
    }
}

async fn wait<T>(events: &mut mpsc::Receiver<Event>, pick: impl Fn(Event) -> Option<T>) -> T {
    loop {
        if let Some(found) = pick(events.recv().await.unwrap()) {
            return found;
        }
    }
}

/// A node, its events go on being read.
fn drain(mut events: mpsc::Receiver<Event>) {
    tokio::spawn(async move { while events.recv().await.is_some() {} });
}

async fn measure(transport: &str, bytes: usize) -> (usize, Duration) {
    let (inbound, mut streams) = mpsc::channel(limits::STREAM_QUEUE);
    let mut serving = config(1, transport, Vec::new());
    serving.streams = Some(StreamConfig { name: "access/1".into(), inbound: inbound.clone() });
    let (a, mut of_a) = start(serving).unwrap();
    let addr = wait(&mut of_a, |event| match event {
        Event::Listening { addr } => Some(addr),
        _ => None,
    });
    let addr = addr.await;
    drain(of_a);
    let mut opening = config(2, transport, vec![addr]);
    opening.streams = Some(StreamConfig { name: "access/1".into(), inbound });
    let (b, mut of_b): (Handle, _) = start(opening).unwrap();
    wait(&mut of_b, |event| matches!(event, Event::PeerUp { .. }).then_some(())).await;
    drain(of_b);
    let mut stream = b.open(a.local_peer()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let mut other = streams.recv().await.unwrap().stream;
    other.read_u8().await.unwrap();
    let reader = tokio::spawn(async move {
        let (mut part, mut read, begun) = (vec![0; PART_BYTES], 0, Instant::now());
        while read < bytes {
            match other.read(&mut part).await.unwrap() {
                0 => break,
                count => read += count,
            }
        }
        (read, begun.elapsed())
    });
    let part = vec![7; PART_BYTES];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(PART_BYTES);
        stream.write_all(&part[..count]).await.unwrap();
        left -= count;
    }
    stream.flush().await.unwrap();
    reader.await.unwrap()
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, transport, mib] = words.as_slice() else { panic!("stream <tcp|quic> <MiB>") };
    let bytes = mib.parse::<usize>().unwrap() << 20;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (read, took) = runtime.block_on(measure(transport, bytes));
    let mib_per_s = read as f64 / f64::from(1 << 20) / took.as_secs_f64();
    println!("{mib_per_s:.0}");
    // What the nodes still have to say to each other nobody waits for.
    std::process::exit(0);
}
