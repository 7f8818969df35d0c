//! An image for tests: busybox, if there is one and the test may use it.

use std::fs;
use std::io::Write;
use std::process::Command;

/// The program that is the image, if this machine can run the test.
pub(crate) fn busybox(test: &str) -> Option<Vec<u8>> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let found = places.iter().find_map(|path| fs::read(path).ok());
    let is_root = rustix::process::geteuid().is_root();
    let lacks = match &found {
        _ if !is_root => "it needs the superuser",
        None => "busybox is missing: install busybox-static",
        Some(_) => return found,
    };
    // Not by a macro, whose output is kept back when a test passes.
    std::io::stderr().write_all(format!("skipped: {test}: {lacks}\n").as_bytes()).unwrap();
    assert!(std::env::var_os("CI").is_none(), "CI runs this test: {lacks}");
    None
}

/// A root file system with busybox, and a few files.
pub(crate) fn rootfs(busybox: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, mode, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        if link.is_empty() {
            archive.append_data(&mut header, path, content).unwrap();
        } else {
            archive.append_link(&mut header, path, link).unwrap();
        }
    };
    for dir in ["bin", "etc", "tmp", "proc", "dev", "sys", "root"] {
        add(dir, tar::EntryType::Directory, 0o755, "", b"");
    }
    add("bin/busybox", tar::EntryType::Regular, 0o4755, "", busybox);
    add("bin/sh", tar::EntryType::Symlink, 0o777, "/bin/busybox", b"");
    add("etc/passwd", tar::EntryType::Regular, 0o644, "", b"root:x:0:0::/root:/bin/sh\n");
    archive.into_inner().unwrap()
}

/// Whether these programs are here; in CI they have to be.
pub(crate) fn has_programs(test: &str, names: &[&str]) -> bool {
    let lacks = names.iter().find(|name| Command::new(name).arg("-V").output().is_err());
    let Some(name) = lacks else { return true };
    std::io::stderr()
        .write_all(format!("skipped: {test}: {name} is missing\n").as_bytes())
        .unwrap();
    assert!(std::env::var_os("CI").is_none(), "CI runs this test: {name} is missing");
    false
}

/// Adds a program of this machine and what it is linked with to an image.
pub(crate) fn with_program(image: &[u8], program: &str) -> Vec<u8> {
    let linked = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(linked.stdout).unwrap();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    let mut archive = tar::Builder::new(Vec::new());
    let mut old = tar::Archive::new(image);
    for entry in old.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        archive.append(entry.header(), content.as_slice()).unwrap();
    }
    for path in words.chain([program]) {
        let content = fs::read(path).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, path.trim_start_matches('/'), content.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}
