//! The directory of one test, and the daemons that live in it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Daemon, processes_of, tail};

pub(crate) struct Home {
    dir: TempDir,
    logs: RefCell<Vec<PathBuf>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), logs: RefCell::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Shows this log too if the test fails.
    pub(crate) fn watch(&self, log: &Path) {
        self.logs.borrow_mut().push(log.to_owned());
    }

    /// A daemon on a chain source that sells `units` of `cpu.standard`; not started.
    pub(crate) fn daemon(
        &self,
        name: &'static str,
        units: u32,
        url: &str,
        cookie: &Path,
    ) -> Daemon {
        let capacity = format!("cpu.standard={units}");
        let mut env = vec![
            ("CAPEX_CHAIN_URL", url),
            ("CAPEX_CHAIN_COOKIE", cookie.to_str().unwrap()),
            ("CAPEX_LOG", "info,capex=debug"),
        ];
        if units > 0 {
            env.push(("CAPEX_CAPACITY", &capacity));
        }
        let daemon = Daemon::new(name, self.path(), &env);
        self.watch(&daemon.log);
        daemon
    }

    /// Ends what is left, and shows the logs if the test failed. For the `Drop` of whatever has
    /// this home, so that the directory outlives its processes.
    pub(crate) fn end(&self) {
        // Lease processes outlive a daemon on purpose.
        for pid in processes_of(self.path()) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        if std::thread::panicking() {
            for log in self.logs.borrow().iter() {
                eprintln!("--- {}\n{}", log.display(), tail(log));
            }
        }
    }
}
