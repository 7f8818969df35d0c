//! Streams into leases: programs, ports and files beside a container, over streams that break.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use capex::executor::access::frames::{frame, kind, read_frame};
use capex::executor::access::session::{Carried, Session};
use capex::executor::access::words::{Knock, hear, knock};
use capex::executor::access::{pack, unpack};
use capex::executor::samples::CHATTY;
use capex::executor::score::of_printed;
use capex::executor::{EVENT_QUEUE, Manager, State};
use capex_core::ids::{Key, LeaseId};
use capex_core::lease::access::{Access, AccessCall, Admission, Answer, Terminal};
use capex_core::lease::objects::{Content, Payload, Stream, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc::channel;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::image::{busybox, rootfs};
use crate::{Host, INPUT, LONG_MS, PATIENCE, digest, spec};

/// The holder's end of a session, as its node has it.
pub(crate) struct End {
    session: Arc<Session>,
    call: AccessCall,
    until_s: Option<u64>,
    local: Option<DuplexStream>,
}

impl End {
    pub(crate) fn new(lease: LeaseId, what: Access) -> (Self, DuplexStream) {
        let mut session16 = [0; 16];
        getrandom::fill(&mut session16).unwrap();
        let (peer, not_after_s) = (Key([7; 32]), u64::MAX);
        let call = AccessCall { v: 1, lease, peer, session16, received: 0, what, not_after_s };
        let (local, user) = duplex(64 << 10);
        (Self { session: Arc::default(), call, until_s: None, local: Some(local) }, user)
    }

    /// Knocks, and says what for.
    pub(crate) async fn knock(&mut self, manager: &Manager) -> Result<UnixStream, String> {
        self.call.received = self.session.received();
        let mut stream = manager.knock(&self.call.lease).await.unwrap();
        let (call, until_s) = (self.call.clone(), self.until_s);
        knock(&mut stream, &Knock::Stream(Admission { call, until_s })).await.unwrap();
        match timeout(PATIENCE, hear::<Answer>(&mut stream)).await.unwrap().unwrap() {
            Answer::Open { received } => {
                assert!(self.session.resume(received));
                Ok(stream)
            }
            Answer::Refused { code } => Err(code),
        }
    }

    /// Carries the session over one stream.
    pub(crate) fn carry(mut self, stream: UnixStream) -> JoinHandle<(Self, Carried)> {
        tokio::spawn(async move {
            let mut local = self.local.take().unwrap();
            let (mut read, mut write) = split(&mut local);
            let ended = self.session.carry((&mut read, &mut write), stream.into_split()).await;
            drop((read, write));
            self.local = Some(local);
            (self, ended)
        })
    }
}

/// What a client has of a stream: it speaks frames.
pub(crate) struct Client {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
}

/// All that came until the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) out: String,
    err: String,
    code: Option<i32>,
    failed: Option<String>,
}

impl Client {
    fn of(user: DuplexStream) -> Self {
        let (read, write) = split(user);
        Self { read, write }
    }

    async fn send(&mut self, kind: u8, bytes: &[u8]) {
        self.write.write_all(&frame(kind, bytes)).await.unwrap();
    }

    /// Reads until the end, or until `stop` has come.
    pub(crate) async fn until(&mut self, heard: &mut Heard, stop: &str) {
        let mut data = Vec::new();
        while stop.is_empty() || !heard.out.contains(stop) {
            let read = timeout(PATIENCE, read_frame(&mut self.read, &mut data)).await;
            match read.unwrap_or_else(|_| panic!("no {stop:?} in {heard:?}")) {
                Ok(kind::OUTPUT) => heard.out += &String::from_utf8_lossy(&data),
                Ok(kind::ERRORS) => heard.err += &String::from_utf8_lossy(&data),
                Ok(kind::EXIT) => {
                    heard.code = Some(i32::from_be_bytes(data.as_slice().try_into().unwrap()));
                }
                Ok(kind::FAILED) => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    heard.failed = Some(text.split('\n').next().unwrap().to_owned());
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    async fn end(mut self) -> Heard {
        let mut heard = Heard::default();
        self.until(&mut heard, "").await;
        heard
    }
}

pub(crate) async fn open(host: &Host, lease: LeaseId, what: Access) -> Result<Client, String> {
    open_until(host, lease, what, None).await
}

async fn open_until(
    host: &Host,
    lease: LeaseId,
    what: Access,
    until_s: Option<u64>,
) -> Result<Client, String> {
    let (mut end, user) = End::new(lease, what);
    end.until_s = until_s;
    let stream = end.knock(&host.manager).await?;
    end.carry(stream);
    Ok(Client::of(user))
}

pub(crate) fn exec(script: &str) -> Access {
    let command = ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
    Access::Exec { command, env: Vec::new(), workdir: None, terminal: None }
}

fn get(path: &str) -> Access {
    Access::Get { path: path.to_owned(), is_tree: false }
}

fn put(path: &str) -> Access {
    Access::Put { path: path.to_owned(), mode: 0o640, is_tree: false }
}

impl Host {
    /// Another manager of the same leases, beside its own.
    pub(crate) async fn second(&mut self) -> Manager {
        let (sender, _events) = channel(EVENT_QUEUE);
        let shim = env!("CARGO_BIN_EXE_capex").into();
        let again = Manager::new(&self.dir.path().join("leases"), shim, sender).unwrap();
        again.adopt().await.unwrap();
        std::mem::replace(&mut self.manager, again)
    }

    /// The process of a lease.
    pub(crate) async fn shim(&self, lease: &LeaseId) -> i64 {
        self.until("a process", |_| self.record(lease)["shim"]["pid"].as_i64()).await
    }
}

/// Runs a program without input to its end.
pub(crate) async fn run(host: &Host, lease: LeaseId, script: &str) -> Heard {
    let mut client = open(host, lease, exec(script)).await.unwrap();
    client.send(kind::INPUT, &[]).await;
    client.end().await
}

/// Puts content; how it ended.
async fn upload(host: &Host, lease: LeaseId, what: Access, content: &[u8]) -> Heard {
    let Client { read, mut write } = match open(host, lease, what).await {
        Ok(client) => client,
        Err(code) => return Heard { failed: Some(code), ..Heard::default() },
    };
    let content = content.to_vec();
    let sender = tokio::spawn(async move {
        for part in content.chunks(32 << 10) {
            // What is refused is not read to its end.
            if write.write_all(&frame(kind::INPUT, part)).await.is_err() {
                return write;
            }
        }
        let _ = write.write_all(&frame(kind::INPUT, &[])).await;
        write
    });
    let (_sink, unused) = split(duplex(1).0);
    let heard = Client { read, write: unused }.end().await;
    drop(sender.await.unwrap());
    heard
}

/// A lease whose workload stays until it is told to end.
pub(crate) async fn machine(host: &Host, busybox: &[u8], image: &[u8]) -> LeaseId {
    let _ = busybox;
    let script = "echo begun; trap 'exit 0' TERM; while :; do /bin/busybox sleep 1; done";
    let mut spec = spec(image, script, LONG_MS);
    spec.cpu_max_milli = 2_000;
    let lease = host.start(spec, &[image, INPUT]).await;
    host.until("the first line", |_| {
        host.log(&lease, Stream::Stdout).contains("begun").then_some(())
    })
    .await;
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_beside_the_workload() {
    let Some(busybox) = busybox("programs_run_beside") else { return };
    let host = Host::new();
    let lease = machine(&host, &busybox, &rootfs(&busybox)).await;

    let script = "echo out; echo err >&2; pwd; /bin/busybox cat; exit 7";
    let mut client = open(&host, lease, exec(script)).await.unwrap();
    client.send(kind::INPUT, b"typed").await;
    client.send(kind::INPUT, &[]).await;
    let heard = client.end().await;
    assert_eq!((heard.out.as_str(), heard.err.as_str()), ("out\n/home\ntyped", "err\n"));
    assert_eq!(heard.code, Some(7));
    // It is confined as the workload is.
    let confined = "for p in self 1; do /bin/busybox cat /proc/$p/uid_map
        /bin/busybox grep -E '^(Seccomp|NoNewPrivs|Cap...|Uid|Gid|Groups):' /proc/$p/status
        for n in cgroup ipc mnt net pid user uts; do /bin/busybox readlink /proc/$p/ns/$n; done; done";
    let lines = run(&host, lease, confined).await.out;
    let lines: Vec<&str> = lines.lines().collect();
    let (own, first) = lines.split_at(lines.len() / 2);
    assert!(own == first && own.len() >= 18 && own.contains(&"Seccomp:\t2"), "{lines:#?}");

    let with = |command: &[&str], terminal| Access::Exec {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        env: vec![("WHO".to_owned(), "me".to_owned())],
        workdir: Some("/etc".to_owned()),
        terminal,
    };
    let mut client =
        open(&host, lease, with(&["/bin/sh", "-c", "echo $WHO; pwd"], None)).await.unwrap();
    client.send(kind::INPUT, &[]).await;
    assert_eq!(client.end().await.out, "me\n/etc\n");
    let refused = open(&host, lease, with(&["/bin/bash"], None)).await.err();
    assert_eq!(refused.as_deref(), Some("image.no_program"));

    // A terminal: echo, size, a new size, and ^C.
    let size = Some(Terminal { rows: 33, columns: 99 });
    let shell = with(&["/bin/sh"], size);
    let mut client = open(&host, lease, shell).await.unwrap();
    let mut heard = Heard::default();
    client.send(kind::INPUT, b"/bin/busybox stty size\n").await;
    client.until(&mut heard, "33 99").await;
    client.send(kind::SIZE, &[0, 40, 0, 120]).await;
    // In the foreground of the terminal once it speaks: the echo of the line does not say so.
    let line = b"/bin/busybox stty size; /bin/sh -c \"echo g''o; exec /bin/busybox sleep 500\"; echo woke\n";
    client.send(kind::INPUT, line).await;
    client.until(&mut heard, "40 120").await;
    client.until(&mut heard, "go\r\n").await;
    client.send(kind::INPUT, &[3]).await;
    client.until(&mut heard, "^C\r\n/etc # ").await;
    client.send(kind::INPUT, b"echo code=$?; exit 5\n").await;
    client.until(&mut heard, "").await;
    assert!(heard.out.contains("code=130") && !heard.out.contains("\r\nwoke"), "{heard:?}");
    assert_eq!(heard.code, Some(5));

    // A signal, past input that nobody reads.
    let script = "trap 'exit 9' USR1; echo ready; while :; do /bin/busybox sleep 0.05; done";
    let mut client = open(&host, lease, exec(script)).await.unwrap();
    let mut heard = Heard::default();
    client.until(&mut heard, "ready").await;
    for _ in 0..15 {
        client.send(kind::INPUT, &[b'x'; 32 << 10]).await;
    }
    client.send(kind::SIGNAL, &[10]).await;
    client.until(&mut heard, "").await;
    assert_eq!(heard.code, Some(9));

    // Whoever leaves takes its program along.
    let script = "echo $$; exec /bin/busybox sleep 1234";
    let mut client = open(&host, lease, exec(script)).await.unwrap();
    client.until(&mut Heard::default(), "\n").await;
    let count = "/bin/busybox ps | /bin/busybox grep -c '[s]leep 1234'";
    assert_eq!(run(&host, lease, count).await.out, "1\n");
    drop(client);
    let begun = std::time::Instant::now();
    while run(&host, lease, count).await.out != "0\n" {
        assert!(begun.elapsed() < PATIENCE, "it stays");
    }
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

/// A program goes on over a stream that breaks, and over another daemon; nothing is lost or said
/// twice, and nothing begins twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_streams() {
    let Some(busybox) = busybox("a_session_outlives") else { return };
    let host = Host::new();
    let lease = machine(&host, &busybox, &rootfs(&busybox)).await;
    let script = "i=0; while read line; do i=$((i+1)); echo $i $line; done; echo end; exit 3";
    let (mut end, user) = End::new(lease, exec(script));
    let mut client = Client::of(user);
    let mut heard = Heard::default();
    let stream = end.knock(&host.manager).await.unwrap();
    let carried = end.carry(stream);
    client.send(kind::INPUT, b"one\n").await;
    client.until(&mut heard, "1 one").await;
    carried.abort();
    // What the abort dropped with the task: a client that comes back with nothing known.
    let (mut other, _user) = End::new(lease, exec(script));
    other.call.received = 1;
    other.session = Arc::default();
    let mut stream = host.manager.knock(&lease).await.unwrap();
    let call = other.call.clone();
    knock(&mut stream, &Knock::Stream(Admission { call, until_s: None })).await.unwrap();
    let answer: Answer = hear(&mut stream).await.unwrap();
    assert_eq!(answer, Answer::Refused { code: "access.lost_session".to_owned() });

    // As the node of the holder does it: the same session over another stream, another daemon.
    let (mut end, user) = End::new(lease, exec(script));
    let mut client = Client::of(user);
    let mut heard = Heard::default();
    let mut managers = Vec::new();
    client.send(kind::INPUT, b"zero\n").await;
    for (round, word) in ["one", "two", "three"].into_iter().enumerate() {
        let (sender, events) = channel(EVENT_QUEUE);
        let shim = env!("CARGO_BIN_EXE_capex").into();
        let manager = Manager::new(&host.dir.path().join("leases"), shim, sender).unwrap();
        manager.adopt().await.unwrap();
        let stream = end.knock(&manager).await.unwrap();
        managers.push((manager, events));
        let breaks = stream.into_std().unwrap();
        let ours = breaks.try_clone().unwrap();
        ours.set_nonblocking(true).unwrap();
        let carried = end.carry(UnixStream::from_std(ours).unwrap());
        client.send(kind::INPUT, format!("{word}\n").as_bytes()).await;
        client.until(&mut heard, &format!("{} {word}\n", round + 2)).await;
        breaks.shutdown(std::net::Shutdown::Both).unwrap();
        let (back, how) = timeout(PATIENCE, carried).await.unwrap().unwrap();
        assert_eq!(how, Carried::Broken);
        end = back;
    }
    let stream = end.knock(&host.manager).await.unwrap();
    let id = end.call.clone();
    let carried = end.carry(stream);
    client.send(kind::INPUT, &[]).await;
    client.until(&mut heard, "").await;
    assert_eq!(heard.out, "1 zero\n2 one\n3 two\n4 three\nend\n");
    assert_eq!(heard.code, Some(3));
    drop(client);
    timeout(PATIENCE, carried).await.unwrap().unwrap();
    // What has ended is not begun again.
    let begun = std::time::Instant::now();
    loop {
        let mut stream = host.manager.knock(&lease).await.unwrap();
        let call = AccessCall { received: 0, ..id.clone() };
        knock(&mut stream, &Knock::Stream(Admission { call, until_s: None })).await.unwrap();
        match hear::<Answer>(&mut stream).await {
            Ok(Answer::Refused { code }) => {
                assert_eq!(code, "access.lost_session");
                break;
            }
            // It has not quite ended.
            _ => assert!(begun.elapsed() < PATIENCE),
        }
    }
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_those_of_the_lease() {
    let Some(busybox) = busybox("ports_are_those") else { return };
    let host = Host::new();
    let lease = machine(&host, &busybox, &rootfs(&busybox)).await;
    // One of the host leads nowhere.
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = own.local_addr().unwrap().port();
    let refused = open(&host, lease, Access::Dial { port }).await.err();
    assert_eq!(refused.as_deref(), Some("access.no_listener"));
    let serve = "/bin/busybox nc -l -p 8080 -e /bin/busybox tr a-z A-Z & echo up; wait";
    let mut server = open(&host, lease, exec(serve)).await.unwrap();
    server.until(&mut Heard::default(), "up").await;
    let begun = std::time::Instant::now();
    let client = loop {
        match open(&host, lease, Access::Dial { port: 8080 }).await {
            Ok(client) => break client,
            Err(code) => assert_eq!(code, "access.no_listener"),
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    let Client { mut read, mut write } = client;
    write.write_all(b"hello").await.unwrap();
    write.shutdown().await.unwrap();
    let mut back = String::new();
    timeout(PATIENCE, read.read_to_string(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, "HELLO");
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

/// Tar of entries with any names, which the library would refuse to write.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut bytes = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        let is_link = !kind.is_file() && !kind.is_dir();
        header.set_size(if is_link { 0 } else { content.len() as u64 });
        if is_link && !content.is_empty() {
            header.set_link_name(content).unwrap();
        }
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        bytes.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).unwrap();
    }
    bytes.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out_and_nowhere_else() {
    let Some(busybox) = busybox("files_go_in_and_out") else { return };
    let host = Host::new();
    let lease = machine(&host, &busybox, &rootfs(&busybox)).await;
    let fine = |heard: Heard| assert_eq!(heard, Heard { code: Some(0), ..Heard::default() });
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    fine(upload(&host, lease, put("data.bin"), &content).await);
    let look = "/bin/busybox stat -c '%s %a %u' data.bin; /bin/busybox ls -a /home";
    assert_eq!(run(&host, lease, look).await.out, "3000000 640 0\n.\n..\ndata.bin\ninput.txt\n");
    let Client { mut read, .. } = open(&host, lease, get("/home/data.bin")).await.unwrap();
    let (mut back, mut data) = (Vec::<u8>::new(), Vec::new());
    while timeout(PATIENCE, read_frame(&mut read, &mut data)).await.unwrap().unwrap()
        == kind::OUTPUT
    {
        back.extend(&data);
    }
    assert!(back == content, "{}", back.len());

    // Every path is the lease's own, and every link leads to what the lease has there.
    let secret = host.dir.path().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let secret = secret.to_str().unwrap();
    let links = format!(
        "/bin/busybox ln -s {secret} a; /bin/busybox ln -s /proc/1/root b; \
         /bin/busybox ln -s ../../../../../../.. c; /bin/busybox mkfifo pipe; echo in > /etc/own"
    );
    assert_eq!(run(&host, lease, &links).await.code, Some(0));
    let up = format!("../../../../../..{secret}");
    for path in ["a", secret, &up, "b/etc/own", "/proc/self/environ", "/none", "pipe", "/etc"] {
        let heard = match open(&host, lease, get(path)).await {
            Ok(client) => client.end().await,
            Err(code) => Heard { failed: Some(code), ..Heard::default() },
        };
        let code = heard.failed.unwrap_or_else(|| panic!("{path}: {}", heard.out));
        assert!(["access.no_file", "access.file"].contains(&code.as_str()), "{path}: {code}");
    }
    assert_eq!(open(&host, lease, get("c/etc/own")).await.unwrap().end().await.out, "in\n");
    fine(upload(&host, lease, put("../../../../tmp/up"), b"x").await);
    fine(upload(&host, lease, put("c/tmp/down"), b"x").await);
    assert_eq!(run(&host, lease, "/bin/busybox ls /tmp").await.out, "down\nup\n");
    assert!(!Path::new("/tmp/up").exists() && !Path::new("/tmp/down").exists());
    for (path, code) in [
        ("/none/x", "access.no_file"),
        ("/etc", "access.file"),
        (&format!("{secret}/x"), "access.no_file"),
        ("/home/input.txt/x", "access.file"),
    ] {
        let heard = upload(&host, lease, put(path), b"x").await;
        assert_eq!(heard.failed.as_deref(), Some(code), "{path}");
    }
    assert_eq!(fs::read_to_string(secret).unwrap(), "of the host");

    // Who leaves in the middle leaves nothing behind; what has no room neither.
    let mut client = open(&host, lease, put("half")).await.unwrap();
    client.send(kind::INPUT, b"half").await;
    drop(client);
    let heard = upload(&host, lease, put("big"), &vec![1; 80 << 20]).await;
    assert_eq!(heard.failed.as_deref(), Some("access.no_room"));
    let begun = std::time::Instant::now();
    let names = "a\nb\nc\ndata.bin\ninput.txt\npipe\n";
    while run(&host, lease, "/bin/busybox ls -A").await.out.replace(".capex", "") != names {
        assert!(begun.elapsed() < PATIENCE, "a part stays");
    }

    // Directories.
    use tar::EntryType::{Block, Directory, Link, Regular, Symlink};
    let tree = |path: &str| Access::Put { path: path.to_owned(), mode: 0, is_tree: true };
    for (what, entries) in [
        ("climbs", vec![("../x", Regular, "x")]),
        ("absolute", vec![("/tmp/x", Regular, "x")]),
        ("a device", vec![("sda", Block, "")]),
        ("a hard link", vec![("hard", Link, "/etc/passwd")]),
    ] {
        let heard = upload(&host, lease, tree("/home/tree"), &archive(&entries)).await;
        assert_eq!(heard.failed.as_deref(), Some("access.file"), "{what}");
    }
    let heard = upload(&host, lease, tree("/home/tree"), &[7; 4_000]).await;
    assert_eq!(heard.failed.as_deref(), Some("access.file"), "noise");
    let links = [("out", Symlink, host.dir.path().to_str().unwrap()), ("out/x", Regular, "x")];
    let heard = upload(&host, lease, tree("/home/tree"), &archive(&links)).await;
    assert!(heard.failed.is_some(), "the link leads nowhere in the lease");
    assert!(!host.dir.path().join("x").exists());
    let here = host.dir.path().join("here");
    fs::create_dir_all(here.join("deep/er")).unwrap();
    fs::write(here.join("deep/er/file"), "content").unwrap();
    std::os::unix::fs::symlink("deep/er", here.join("link")).unwrap();
    let mut packed = Vec::new();
    pack(&here, &mut packed).unwrap();
    fine(upload(&host, lease, tree("/home/tree"), &packed).await);
    assert_eq!(run(&host, lease, "/bin/busybox cat tree/link/file").await.out, "content");
    let what = Access::Get { path: "/home/tree".to_owned(), is_tree: true };
    let Client { mut read, .. } = open(&host, lease, what).await.unwrap();
    let mut back = Vec::<u8>::new();
    while timeout(PATIENCE, read_frame(&mut read, &mut data)).await.unwrap().unwrap()
        == kind::OUTPUT
    {
        back.extend(&data);
    }
    let there = host.dir.path().join("there");
    fs::create_dir(&there).unwrap();
    unpack(&there, back.as_slice()).unwrap();
    assert_eq!(fs::read_to_string(there.join("link/file")).unwrap(), "content");
    // What a lease sends is as little to be trusted as what it gets.
    for entries in
        [vec![("../x", Regular, "x")], vec![("d", Symlink, "/tmp"), ("d/up", Regular, "x")]]
    {
        assert!(unpack(&there, archive(&entries).as_slice()).is_err());
    }
    let dir = [("d2", Directory, "")];
    unpack(&there, archive(&dir).as_slice()).unwrap();
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

/// Throws content away, however much it is; the code behind it.
async fn failure_behind(mut client: Client) -> Option<String> {
    let mut data = Vec::new();
    loop {
        match timeout(PATIENCE, read_frame(&mut client.read, &mut data)).await.unwrap() {
            Ok(kind::OUTPUT) => {}
            Ok(kind::FAILED) => {
                let text = String::from_utf8_lossy(&data).into_owned();
                return text.split('\n').next().map(str::to_owned);
            }
            _ => return None,
        }
    }
}

/// Whoever was let in for a time is cut off at its end, whatever is under way, and is told why.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_time_it_was_given() {
    let Some(busybox) = busybox("a_session_ends_with_the_time") else { return };
    let host = Host::new();
    let lease = machine(&host, &busybox, &rootfs(&busybox)).await;
    let serve = "/bin/busybox nc -l -p 8082 -e /bin/busybox cat & echo up; wait";
    let mut server = open(&host, lease, exec(serve)).await.unwrap();
    server.until(&mut Heard::default(), "up").await;
    let listens = "until /bin/busybox grep -q :1F92 /proc/net/tcp /proc/net/tcp6; do :; done";
    run(&host, lease, listens).await;
    let script = "echo $$; exec /bin/busybox sleep 4321";
    let mut holder = open(&host, lease, exec(script)).await.unwrap();
    holder.until(&mut Heard::default(), "\n").await;

    // Too large to be had in the time, and takes no room.
    let made = run(&host, lease, "/bin/busybox truncate -s 64G /tmp/large").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    // On a slow machine some of it may be over before it has begun: it ends in the same way.
    let until_s = crate::now_ms() / 1000 + 4;
    let guest = |what| open_until(&host, lease, what, Some(until_s));
    let large = guest(get("/tmp/large")).await.unwrap();
    let large = tokio::spawn(failure_behind(large));
    let program = guest(exec(script)).await.unwrap();
    let follow = guest(Access::Attach { from_start: true }).await.unwrap();
    let mut half = guest(put("half")).await.unwrap();
    half.send(kind::INPUT, b"half").await;
    let port = guest(Access::Dial { port: 8082 }).await;
    for (what, client) in [("exec", program), ("attach", follow), ("put", half)] {
        let heard = client.end().await;
        assert_eq!(heard.failed.as_deref(), Some("access.grant_expired"), "{what}: {heard:?}");
        assert_eq!(heard.code, None, "{what}");
    }
    let failed = timeout(PATIENCE, large).await.unwrap().unwrap();
    assert_eq!(failed.as_deref(), Some("access.grant_expired"), "get");
    let mut rest = Vec::new();
    timeout(PATIENCE, port.unwrap().read.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"", "the port says nothing, and ends");
    assert!(crate::now_ms() / 1000 > until_s, "not before its time");
    // What it had running is gone, what the holder has is not; half a file is none.
    let count = "/bin/busybox ps | /bin/busybox grep -c '[s]leep 4321'";
    let begun = std::time::Instant::now();
    while run(&host, lease, count).await.out != "1\n" {
        assert!(begun.elapsed() < PATIENCE, "the program of the guest stays");
    }
    let files = run(&host, lease, "/bin/busybox ls -A").await.out;
    assert_eq!(files, "input.txt\n");
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

/// After its exit a workload's files are there, its programs are not.
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_leaves_the_files() {
    let Some(busybox) = busybox("an_exit_leaves_the_files") else { return };
    let host = Host::new();
    let image = rootfs(&busybox);
    let spec = spec(&image, "echo hello; echo kept > result.txt; exit 4", LONG_MS);
    let lease = host.start(spec, &[&image, INPUT]).await;
    host.until("the exit", |manager| {
        matches!(manager.state(&lease).unwrap(), State::Exited { .. }).then_some(())
    })
    .await;
    for what in [exec("true"), Access::Dial { port: 80 }] {
        assert_eq!(open(&host, lease, what).await.err().as_deref(), Some("lease.not_running"));
    }
    let kept = open(&host, lease, get("result.txt")).await.unwrap().end().await;
    assert_eq!((kept.out.as_str(), kept.code), ("kept\n", Some(0)));
    let log = open(&host, lease, Access::Attach { from_start: true }).await.unwrap().end().await;
    assert_eq!((log.out.as_str(), log.code), ("hello\n", Some(4)));
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}

/// A component has a log and files to be read, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_lets_look() {
    let host = Host::new();
    let component = Content { digest: digest(CHATTY), bytes: CHATTY.len() as u64 };
    let mut spec = spec(b"", "", LONG_MS);
    spec.workload = Workload::of(Payload::Wasm { component });
    let lease = host.start(spec, &[CHATTY]).await;
    host.until("the start", |manager| {
        let state = manager.state(&lease).unwrap();
        matches!(state, State::Running { .. } | State::Exited { .. }).then_some(())
    })
    .await;
    measured(&host, lease).await;
    for what in [put("x"), Access::Ssh, exec("true"), Access::Dial { port: 80 }] {
        let refused = open(&host, lease, what).await.err();
        assert_eq!(refused.as_deref(), Some("runtime.unsupported"));
    }
    // No more streams than there are places.
    let mut open_ones = Vec::new();
    let refused = loop {
        match open(&host, lease, Access::Attach { from_start: false }).await {
            Ok(client) => open_ones.push(client),
            Err(code) => break code,
        }
    };
    assert_eq!((refused.as_str(), open_ones.len()), ("access.full", 64));
    open_ones.clear();
    let begun = std::time::Instant::now();
    while open(&host, lease, Access::Attach { from_start: true }).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "no place is free again");
    }
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
}

async fn measured(host: &Host, lease: LeaseId) {
    let mut client = open(host, lease, Access::Bench).await.unwrap();
    let (mut printed, mut data) = (Vec::new(), Vec::new());
    let code = loop {
        let read = timeout(PATIENCE, read_frame(&mut client.read, &mut data)).await.unwrap();
        match read.unwrap() {
            kind::OUTPUT => printed.extend_from_slice(&data),
            kind::EXIT => break i32::from_be_bytes(data.as_slice().try_into().unwrap()),
            other => panic!("{other}: {}", String::from_utf8_lossy(&data)),
        }
    };
    let score = of_printed(&printed).unwrap();
    assert!(code == 0 && score.processor > 0 && score.memory > 0, "{code}, {score:?}");
}

/// The measurement needs nothing of an image, and is confined as any program of the lease is.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_does_is_measured_within_the_lease() {
    let Some(busybox) = busybox("what_the_host_does") else { return };
    let host = Host::new();
    let image = rootfs(&busybox);
    let mut spec = spec(&image, "echo begun; exec /bin/busybox sleep 1000", LONG_MS);
    (spec.cpu_max_milli, spec.memory_max_bytes) = (1_000, 192 << 20);
    let lease = host.start(spec, &[&image, INPUT]).await;
    host.prints(&lease, "begun").await;
    measured(&host, lease).await;
    host.manager.stop(&lease, "done").await.unwrap();
    host.end(&lease).await;
    host.release(&lease).await;
}
