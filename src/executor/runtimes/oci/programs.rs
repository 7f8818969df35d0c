//! Programs of the system that a container is made with.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is missing of some programs, each with the package that has it on Debian.
pub(super) fn missing(programs: &[(&str, &str)]) -> Option<String> {
    let (program, package) = programs.iter().find(|(program, _)| path_of(program).is_none())?;
    Some(format!("the program {program} is missing: install {package}"))
}

/// Where a program is. The lease process has no PATH of its own.
fn path_of(program: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    places.iter().map(|place| Path::new(place).join(program)).find(|path| path.is_file())
}

/// Runs a program with a text as its input; answers what it printed, or what it complained of.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let path = path_of(program).ok_or_else(|| io::Error::other(format!("{program} is missing")))?;
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{program}: {}", text.trim())))
}
