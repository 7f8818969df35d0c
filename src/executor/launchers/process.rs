//! Processes by an identity that outlives the reuse of their number.

use std::fs;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

/// A process: its number, the clock tick it began at, and the boot of the host.
/// Two processes never share all three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::executor) struct ProcessId {
    pub(in crate::executor) pid: u32,
    pub(in crate::executor) start_ticks: u64,
    pub(in crate::executor) boot_id: String,
}

impl ProcessId {
    /// The process of this number, if one runs.
    pub(in crate::executor) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_ticks) = parse_stat(&stat)?;
        let runs = !matches!(state, 'Z' | 'X');
        runs.then(|| Self { pid, start_ticks, boot_id: boot_id() })
    }

    /// Whether this very process still runs; one that waits to be reaped does not.
    pub(in crate::executor) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether the host was not started anew since.
    pub(in crate::executor) fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }

    /// Kills it and whatever else is in its process group.
    pub(in crate::executor) fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Some(pid), true) = (pid, self.is_alive()) {
            // It may end between the check and the call, which is what was wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// State letter and start time (fields 3 and 22 of proc_pid_stat(5)). The name of the
/// program, field 2, may itself contain spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some((state, start_ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_program_name_does_not_shift_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["capex", "a b", "x) R 1 (y", "))))"] {
            assert_eq!(parse_stat(&format!("42 ({name}) {tail}")), Some(('S', 4711)), "{name}");
        }
        for broken in ["", "42", "42 (x)", "42 (x) S 1 2 3"] {
            assert_eq!(parse_stat(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_same_number_with_another_start_is_another_process() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_ticks: own.start_ticks + 1, ..own.clone() }.is_alive());
        assert!(!ProcessId { boot_id: "another".into(), ..own }.is_alive());
    }
}
