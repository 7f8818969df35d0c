//! One process of the program: started, asked, killed.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use capex::api::endpoints;
use capex::api::types::{Endpoints, Status, Trade};
use capex::cli::client::Client;
use capex::cli::failure::Failure;
use serde::de::DeserializeOwned;

const PROGRAM: &str = env!("CARGO_BIN_EXE_capex");
/// Longer than an unoptimised build needs to start on a busy machine.
pub(crate) const STARTING: Duration = Duration::from_secs(30);
/// What a command may take that goes on.
const LASTING: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a log that are shown when a test fails.
const TAIL_LINES: usize = 60;

/// Looks until there is something, at most for `bound`.
pub(crate) fn until<T>(what: &str, bound: Duration, look: impl FnMut() -> Option<T>) -> T {
    until_or(what, bound, look, String::new)
}

/// The same, with something to say about why there is nothing.
pub(crate) fn until_or<T>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Option<T>,
    why: impl Fn() -> String,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < bound, "no {what} within {bound:?}; {}", why());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Exit code, standard output, standard error.
pub(crate) type Said = (i32, String, String);

/// Runs the program to its end, away from the real home and environment.
pub(crate) fn capex(home: &Path, args: &[&str], env: &[(&str, &str)]) -> Said {
    let output = command(home).args(args).envs(env.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn command(home: &Path) -> Command {
    away(Command::new(PROGRAM), home)
}

/// The same with mounts of its own, and of all that it starts.
fn with_own_mounts(home: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", PROGRAM]);
    away(command, home)
}

fn away(mut command: Command, home: &Path) -> Command {
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    // Trades of a test are small.
    command.env("CAPEX_MAX_FEE_SHARE", "100%");
    command
}

/// A child that does not outlive its owner, with its log in a file.
pub(crate) struct Process {
    pub child: Child,
}

impl Process {
    pub(crate) fn start(home: &Path, args: &[&str], env: &[(String, String)], log: &Path) -> Self {
        Self::log_to(log, command(home), args, env)
    }

    fn log_to(log: &Path, command: Command, args: &[&str], env: &[(String, String)]) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        Self::spawn(command, args, env, log.try_clone().unwrap().into(), log.into())
    }

    pub(crate) fn start_with(
        home: &Path,
        args: &[&str],
        env: &[(String, String)],
        out: Stdio,
        err: Stdio,
    ) -> Self {
        Self::spawn(command(home), args, env, out, err)
    }

    fn spawn(
        mut command: Command,
        args: &[&str],
        env: &[(String, String)],
        out: Stdio,
        err: Stdio,
    ) -> Self {
        command.args(args).envs(env.iter().cloned()).stdout(out).stderr(err);
        Self { child: command.spawn().unwrap() }
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon on its own data directory, in one life or another.
pub(crate) struct Daemon {
    pub name: &'static str,
    pub dir: PathBuf,
    pub log: PathBuf,
    env: Vec<(String, String)>,
    has_own_mounts: bool,
    process: Option<Process>,
}

impl Daemon {
    /// Not started yet. `env` configures it.
    pub(crate) fn new(name: &'static str, home: &Path, env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            name,
            dir: home.join(name),
            log: home.join(format!("{name}.log")),
            env: env.collect(),
            has_own_mounts: false,
            process: None,
        }
    }

    /// Configures its next life.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Nobody else sees what is mounted for it in its next lives. Needs the superuser.
    pub(crate) fn take_own_mounts(&mut self) {
        self.has_own_mounts = true;
    }

    /// Starts it and waits until it can be asked and dialled.
    pub(crate) fn start(&mut self, peers: &[&str]) {
        self.begin(peers);
        self.await_start();
    }

    /// Starts it.
    pub(crate) fn begin(&mut self, peers: &[&str]) {
        let dir = self.dir.to_str().unwrap().to_owned();
        let mut args = vec!["--network", "devnet", "--datadir", &dir, "up"];
        for peer in peers {
            args.extend(["--peer", peer]);
        }
        let home = self.dir.parent().unwrap();
        let command = if self.has_own_mounts { with_own_mounts(home) } else { command(home) };
        self.process = Some(Process::log_to(&self.log, command, &args, &self.env));
    }

    /// How it has ended by itself, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// The same with other places for what it prints.
    pub(crate) fn start_with(&mut self, out: Stdio, err: Stdio) {
        let dir = self.dir.to_str().unwrap().to_owned();
        let args = ["--network", "devnet", "--datadir", &dir, "up"];
        let home = self.dir.parent().unwrap();
        self.process = Some(Process::start_with(home, &args, &self.env, out, err));
        self.await_start();
    }

    fn await_start(&mut self) {
        let pid = self.pid();
        until(&format!("start of {}", self.name), STARTING, || {
            let ended = self.ended();
            assert!(ended.is_none(), "{} ended with {ended:?}", self.name);
            let found = endpoints::read(&self.dir).ok()?;
            (found.pid == pid && !found.p2p.is_empty()).then_some(())
        });
        // What is signed before the chain is known could not be paid.
        until("chain facts", STARTING, || {
            let status = self.status()?;
            (!status.chain.up || status.chain.height > 0).then_some(())
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().child.id()
    }

    /// SIGKILL: no word of farewell.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// SIGTERM, and waits at most `bound`; how it ended and after how long.
    pub(crate) fn terminate(&mut self, bound: Duration) -> (ExitStatus, Duration) {
        self.end_by("TERM", bound)
    }

    /// The same by another signal.
    pub(crate) fn end_by(&mut self, name: &str, bound: Duration) -> (ExitStatus, Duration) {
        let mut process = self.process.take().unwrap();
        let begun = Instant::now();
        signal(process.child.id(), name);
        let status = until(&format!("end of {}", self.name), bound, || process.ended());
        (status, begun.elapsed())
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        endpoints::read(&self.dir).unwrap()
    }

    /// Where others dial it.
    pub(crate) fn p2p(&self) -> String {
        self.endpoints().p2p.into_iter().find(|addr| addr.contains("/tcp/")).unwrap()
    }

    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::open(&self.dir)
    }

    /// `GET` of the API.
    pub(crate) fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.client()?.get(path)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path).unwrap_or_else(|failure| panic!("{} {path}: {failure}", self.name))
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.try_get("/status").ok()
    }

    pub(crate) fn key(&self) -> String {
        self.endpoints().key
    }

    /// A trade as this side sees it, if it knows of it and can be asked.
    pub(crate) fn trade(&self, id: &str) -> Option<Trade> {
        self.try_get(&format!("/trades/{id}")).ok()
    }

    /// The command line against this daemon.
    pub(crate) fn cli(&self, args: &[&str]) -> Said {
        let mut all = vec!["--network", "devnet", "--datadir", self.dir.to_str().unwrap(), "--yes"];
        all.extend(args);
        capex(self.dir.parent().unwrap(), &all, &[])
    }

    /// The command line against this daemon, for what goes on: its streams are files.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let home = self.dir.parent().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [out, err] =
            ["out", "err"].map(|name| home.join(format!("{}.{number}.{name}", self.name)));
        let file = |path| Stdio::from(File::create(path).unwrap());
        let mut all = vec!["--network", "devnet", "--datadir", self.dir.to_str().unwrap(), "--yes"];
        all.extend(args);
        let process = Process::start_with(home, &all, &[], file(&out), file(&err));
        Running { process, out, err }
    }

    /// The command line, which has to succeed; its JSON.
    pub(crate) fn cli_json<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let mut all = vec!["--json"];
        all.extend(args);
        let (code, out, err) = self.cli(&all);
        assert_eq!(code, 0, "{args:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// The command line, which has to fail; exit code and reason code.
    pub(crate) fn cli_error(&self, args: &[&str]) -> (i32, String) {
        let mut all = vec!["--json"];
        all.extend(args);
        error_of(self.cli(&all))
    }
}

/// A command that goes on.
pub(crate) struct Running {
    process: Process,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Waits for a text in its output; all of it so far.
    pub(crate) fn says(&mut self, text: &str) -> String {
        until_or(
            &format!("{text:?}"),
            LASTING,
            || Some(self.output()).filter(|out| out.contains(text)),
            || format!("{} {}", self.output(), self.errors()),
        )
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// Waits for its end; its exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        until("end of a command", LASTING, || self.process.ended()).code()
    }
}

/// Exit code and reason code under `--json`.
pub(crate) fn error_of((code, out, err): Said) -> (i32, String) {
    assert_eq!(out, "", "an error prints nothing to standard output; {err}");
    let value: serde_json::Value =
        serde_json::from_str(&err).unwrap_or_else(|error| panic!("{error}: {err}"));
    (code, value["error"]["code"].as_str().unwrap().to_owned())
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Ids of processes that were started with `text` in their arguments, such as a directory.
pub(crate) fn processes_of(text: &Path) -> Vec<u32> {
    let text = text.to_str().unwrap().as_bytes();
    let named = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(text.len()).any(|part| part == text)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(named).collect()
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let Ok(mut file) = File::open(log) else { return String::new() };
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut file, &mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
