//! The body of a JSON-RPC call to the devchain: there is always an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use capex::chain::devchain::server::{ServeOptions, serve};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server for the life of the process, and its credentials.
struct Server {
    addr: SocketAddr,
    cookie: String,
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = ServeOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            block_every: None,
            state_dir: dir.path().to_owned(),
            guest: None,
            shutdown: Box::pin(std::future::pending()),
        };
        let running = runtime.block_on(serve(options)).expect("a server");
        let cookie = std::fs::read_to_string(&running.cookie_path).expect("its cookie");
        let cookie = base64::engine::general_purpose::STANDARD.encode(cookie);
        Server { addr: running.addr, cookie, _runtime: runtime, _dir: dir }
    })
}

pub fn run(bytes: &[u8]) {
    // The one call that is meant to end the server.
    if bytes.windows(4).any(|part| part == b"stop") {
        return;
    }
    let server = server();
    let mut stream = TcpStream::connect(server.addr).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: devchain\r\nAuthorization: Basic {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        server.cookie,
        bytes.len()
    );
    stream.write_all(head.as_bytes()).expect("the server reads");
    stream.write_all(bytes).expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer in time");
    assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer));
}
