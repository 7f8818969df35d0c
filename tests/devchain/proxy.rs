//! A server between a client and a chain server: counts, may fall silent, and may keep a transaction
//! from who asks for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::Txid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a call for a whole block begins.
const BLOCK_CALL: &[u8] = b"\"getblock\"";

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    blocks: AtomicUsize,
    is_silent: AtomicBool,
    hidden: Mutex<Option<Txid>>,
}

impl Seen {
    fn keep_back(&self, call: &mut [u8]) {
        let Some(hidden) = *self.hidden.lock().unwrap() else { return };
        let hidden = hidden.to_string();
        let found = call.windows(hidden.len()).position(|part| part == hidden.as_bytes());
        if let Some(at) = found {
            call[at..at + hidden.len()].fill(b'f');
        }
    }
}

pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// In front of a server.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let noting = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                noting.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(pass(client, server, Arc::clone(&noting)));
            }
        });
        Self { addr, seen, task }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Whole blocks asked for since the last call.
    pub(crate) fn take_blocks(&self) -> usize {
        self.seen.blocks.swap(0, Ordering::SeqCst)
    }

    /// Who asks for a transaction asks for one that nobody knows, as if it had left the mempool since
    /// it was listed.
    pub(crate) fn hide(&self, txid: Option<Txid>) {
        *self.seen.hidden.lock().unwrap() = txid;
    }

    /// Whether later connections are accepted and never answered.
    pub(crate) fn fall_silent(&self, is_silent: bool) {
        self.seen.is_silent.store(is_silent, Ordering::SeqCst);
    }
}

/// Ends when either side hangs up.
async fn pass(client: TcpStream, server: SocketAddr, seen: Arc<Seen>) {
    if seen.is_silent.load(Ordering::SeqCst) {
        let _held = client;
        return std::future::pending().await;
    }
    let Ok(upstream) = TcpStream::connect(server).await else { return };
    let (mut asks, mut hears) = client.into_split();
    let (mut answers, mut takes) = upstream.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut hears).await });
    let mut part = vec![0; 1 << 16];
    while let Ok(length @ 1..) = asks.read(&mut part).await {
        let calls = part[..length].windows(BLOCK_CALL.len()).filter(|at| *at == BLOCK_CALL);
        seen.blocks.fetch_add(calls.count(), Ordering::SeqCst);
        seen.keep_back(&mut part[..length]);
        if takes.write_all(&part[..length]).await.is_err() {
            break;
        }
    }
    back.abort();
}
