//! Archives as they should be, and as they should not.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::*;

const ROOM: Bounds = Bounds { bytes: 1 << 20, files: 64 };

/// One entry, as hostile as it is wanted.
#[derive(Clone)]
pub(in super::super) struct Entry {
    name: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    content: Vec<u8>,
    size: u64,
    mode: u32,
    uid: u64,
}

pub(in super::super) fn entry(name: impl AsRef<[u8]>, kind: EntryType) -> Entry {
    let name = name.as_ref().to_vec();
    Entry { name, kind, link: Vec::new(), content: Vec::new(), size: 0, mode: 0o644, uid: 0 }
}

pub(in super::super) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Entry {
    let content = content.as_ref().to_vec();
    Entry { size: content.len() as u64, content, ..entry(name, EntryType::Regular) }
}

fn dir(name: &str) -> Entry {
    Entry { mode: 0o755, ..entry(name, EntryType::Directory) }
}

pub(in super::super) fn link(name: &str, kind: EntryType, to: impl AsRef<[u8]>) -> Entry {
    Entry { link: to.as_ref().to_vec(), ..entry(name, kind) }
}

fn symlink(name: &str, to: &str) -> Entry {
    link(name, EntryType::Symlink, to)
}

/// The extended header before an entry.
fn pax(records: &[(&str, &str)]) -> Entry {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length += 1;
        }
        writeln!(content, "{length} {key}={value}").unwrap();
    }
    Entry { kind: EntryType::XHeader, ..file("pax", content) }
}

pub(in super::super) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_size(entry.size);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.uid);
        header.set_mtime(1_000_000);
        let raw = header.as_mut_bytes();
        raw[..entry.name.len()].copy_from_slice(&entry.name);
        raw[157..157 + entry.link.len()].copy_from_slice(&entry.link);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(&entry.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

/// Unpacks layers below a directory of their own; answers the code, or `fine`.
fn unpacked(home: &Path, layers: &[Vec<u8>], bounds: Bounds) -> &'static str {
    let files = layers.iter().enumerate().map(|(number, bytes)| {
        let file = home.join(format!("layer{number}"));
        fs::write(&file, bytes).unwrap();
        Layer { file, diff_id: None }
    });
    let layers: Vec<Layer> = files.collect();
    let result = unpack(&layers, &home.join("root"), bounds, None, &|| false);
    result.map_or_else(|error| error.reason().code(), |_| "fine")
}

/// Every path of a tree, with what it is.
fn listed(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                open.push(path);
                all.push(format!("{name}/"));
            } else if meta.is_symlink() {
                all.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else {
                let text = fs::read(&path).unwrap();
                all.push(format!("{name}: {}", String::from_utf8_lossy(&text)));
            }
        }
    }
    all.sort();
    all
}

/// What is not allowed has its code, leaves nothing, and touches nothing outside.
#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let hard = |name, to: &str| link(name, EntryType::Link, to);
    let big = "x".repeat(70_000);
    let deep = "d/".repeat(49);
    let long = |size: u64| Entry { size, ..entry("long", EntryType::GNULongName) };
    let escape = symlink("out", "/");
    let up = symlink("up", "../..");
    let table: Vec<(&str, &str, Vec<Entry>)> = vec![
        ("climbs", "image.path", vec![file("../outside", "x")]),
        ("climbs inside", "image.path", vec![file("a/../../outside", "x")]),
        ("absolute", "image.path", vec![file("/outside", "x")]),
        (
            "climbs by an extended header",
            "image.path",
            vec![pax(&[("path", "../outside")]), file("a", "x")],
        ),
        ("no text", "image.path", vec![file(b"caf\xe9", "x")]),
        (
            "through a link to the root",
            "image.path",
            vec![escape.clone(), file("out/outside", "x")],
        ),
        ("through a link upwards", "image.path", vec![up.clone(), file("up/outside", "x")]),
        ("a directory through a link", "image.path", vec![up, dir("up/made")]),
        (
            "a directory swapped for a link",
            "image.path",
            vec![dir("a"), file("a/b", "x"), symlink("a", "../.."), file("a/outside", "x")],
        ),
        ("through a file", "image.path", vec![file("a", "x"), file("a/b", "x")]),
        ("a link to itself", "image.path", vec![symlink("a", "a"), file("a/b", "x")]),
        ("the root as a file", "image.path", vec![file("./", "x"), symlink(".", "/")]),
        ("hard link out", "image.link", vec![hard("a", "../outside")]),
        ("hard link absolute", "image.link", vec![hard("a", "/etc/passwd")]),
        ("hard link to nothing", "image.link", vec![hard("a", "b")]),
        ("hard link to itself", "image.link", vec![file("a", "x"), hard("a", "a")]),
        ("hard link to a directory", "image.link", vec![dir("d"), hard("a", "d")]),
        ("hard link through a link", "image.path", vec![escape, hard("a", "out/etc/passwd")]),
        ("empty symlink", "image.link", vec![symlink("a", "")]),
        ("character device", "image.special", vec![entry("null", EntryType::Char)]),
        ("block device", "image.special", vec![entry("sda", EntryType::Block)]),
        ("an unknown type", "image.special", vec![entry("odd", EntryType::new(b'Z'))]),
        ("a sparse file", "image.special", vec![entry("holes", EntryType::GNUSparse)]),
        (
            "sparse by header",
            "image.archive",
            vec![pax(&[("GNU.sparse.major", "1")]), file("a", "x")],
        ),
        (
            "an owner that no lease has",
            "image.owner",
            vec![Entry { uid: 65_536, ..file("a", "x") }],
        ),
        ("an owner by header", "image.owner", vec![pax(&[("uid", "4294967295")]), file("a", "x")]),
        ("two sizes", "image.archive", vec![pax(&[("size", "9")]), file("a", "x")]),
        ("a huge extended header", "image.header", vec![pax(&[("path", &big)]), file("a", "x")]),
        ("a name of gigabytes", "image.header", vec![long(1 << 40)]),
        ("cut off", "image.archive", vec![Entry { size: 9_000, ..file("a", "x") }]),
        (
            "larger than the disk",
            "image.too_large",
            vec![Entry { size: 2 << 20, ..file("a", "x") }],
        ),
        (
            "sizes that overflow",
            "image.too_large",
            vec![file("a", "x"), Entry { size: u64::MAX >> 1, ..file("b", "") }],
        ),
        ("many files", "image.too_many", (0..65).map(|n| file(format!("f{n}"), "")).collect()),
        (
            "many directories",
            "image.too_many",
            vec![file(format!("{deep}a"), ""), file(format!("e/{deep}"), "")],
        ),
        ("whiteout of nothing", "image.whiteout", vec![file("a/.wh.", "")]),
        ("whiteout of its directory", "image.whiteout", vec![file("a/.wh..", "")]),
        ("whiteout of the one above", "image.whiteout", vec![file("a/.wh...", "")]),
        ("below a whiteout", "image.whiteout", vec![file("a/.wh.b/c", "")]),
    ];
    for (what, expected, entries) in table {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("inner")).unwrap();
        let code = unpacked(&home.path().join("inner"), &[archive(&entries)], ROOM);
        assert_eq!(code, expected, "{what}");
        let left = listed(home.path());
        assert!(
            left.iter().all(|name| name == "inner/" || name.starts_with("inner/layer")),
            "{what}: {left:?}"
        );
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let mut damaged = archive(&[file("a", "x")]);
    damaged[0] ^= 1;
    let cut = gzip(&archive(&[file("a", "x".repeat(9_000))]));
    let table: [(&str, Vec<u8>, &str); 5] = [
        ("a checksum that is wrong", damaged, "image.archive"),
        ("gzip cut off", cut[..cut.len() / 2].to_vec(), "image.archive"),
        ("gzip of noise", b"\x1f\x8bnoise".to_vec(), "image.archive"),
        ("zstd of noise", b"\x28\xb5\x2f\xfdnoise".to_vec(), "image.io"),
        ("noise", vec![7; 1_000], "image.archive"),
    ];
    for (what, bytes, expected) in table {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(unpacked(home.path(), &[bytes], ROOM), expected, "{what}");
        assert!(!home.path().join("root").exists(), "{what}");
    }
}

/// Two hundred kilobytes that unpack to two hundred megabytes end when the room does.
#[test]
fn a_compressed_bomb_is_not_unpacked() {
    let home = tempfile::tempdir().unwrap();
    let zeros = gzip(&vec![0; 200 << 20]);
    // Zeros are the end of an archive, and what comes after it is read only for its digest.
    assert_eq!(unpacked(home.path(), &[zeros], ROOM), "image.too_large");
    let bomb = gzip(&archive(&[file("a", vec![0; 2 << 20])]));
    assert!(bomb.len() < 20_000);
    assert_eq!(unpacked(home.path(), &[bomb], ROOM), "image.too_large");
}

#[test]
fn a_layer_is_what_its_configuration_says() {
    let home = tempfile::tempdir().unwrap();
    let bytes = archive(&[file("a", "x")]);
    let path = home.path().join("layer");
    fs::write(&path, gzip(&bytes)).unwrap();
    let right = Digest(Sha256::digest(&bytes).into());
    for (diff_id, expected) in [(right, "fine"), (Digest([7; 32]), "image.content")] {
        let layer = Layer { file: path.clone(), diff_id: Some(diff_id) };
        let root = home.path().join("root");
        let result = unpack(&[layer], &root, ROOM, None, &|| false);
        assert_eq!(result.map_or_else(|error| error.reason().code(), |_| "fine"), expected);
        let _ = fs::remove_dir_all(root);
    }
}

#[test]
fn layers_hide_and_replace_what_lies_below() {
    let home = tempfile::tempdir().unwrap();
    let lower = archive(&[
        dir("etc"),
        file("etc/kept", "1"),
        file("etc/hidden", "1"),
        file("etc/replaced", "1"),
        dir("opaque"),
        file("opaque/old", "1"),
        dir("opaque/olddir"),
        file("opaque/olddir/x", "1"),
        dir("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("sh", "/bin/busybox"),
        dir("tree/a/b"),
        file("tree/a/b/c", "1"),
    ]);
    let upper = archive(&[
        // A whiteout that comes after what its own layer lays down does not hide it.
        file("opaque/new", "2"),
        file("opaque/.wh..wh..opq", ""),
        file("etc/.wh.hidden", ""),
        file("etc/.wh.never-there", ""),
        file("nowhere/.wh.never-there", ""),
        file("etc/replaced", "2"),
        file("lib/so", "2"),
        link("hard", EntryType::Link, "etc/kept"),
        file("tree", "2"),
        file(".wh..wh.plnk/1.2", "aufs"),
        entry("pipe", EntryType::Fifo),
        file(".wh.pipe", ""),
    ]);
    // The pipe of the upper layer stands; it cannot be read by `listed`.
    assert_eq!(unpacked(home.path(), &[lower, gzip(&upper)], ROOM), "fine");
    let root = home.path().join("root");
    fs::remove_file(root.join("pipe")).unwrap();
    let expected = [
        "etc/",
        "etc/kept: 1",
        "etc/replaced: 2",
        "hard: 1",
        "lib -> usr/lib",
        "opaque/",
        "opaque/new: 2",
        "sh -> /bin/busybox",
        "tree: 2",
        "usr/",
        "usr/lib/",
        "usr/lib/so: 2",
    ];
    assert_eq!(listed(&root), expected);
}

#[test]
fn a_program_does_not_take_on_its_owners_rights() {
    let home = tempfile::tempdir().unwrap();
    let su = Entry { mode: 0o6755, ..file("su", "x") };
    let shared = Entry { mode: 0o3777, ..dir("shared") };
    assert_eq!(unpacked(home.path(), &[archive(&[su, shared])], ROOM), "fine");
    let meta = |name| fs::metadata(home.path().join("root").join(name)).unwrap();
    assert_eq!(meta("su").permissions().mode() & 0o7777, 0o755);
    assert_eq!(meta("su").mtime(), 1_000_000);
    assert_eq!(meta("shared").permissions().mode() & 0o7777, 0o3777);
}

/// The one who unpacks has no right to give files away: then this says nothing.
#[test]
fn files_belong_to_the_ids_of_their_lease() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("layer");
    fs::write(&path, archive(&[Entry { uid: 7, ..file("d/a", "x") }, symlink("l", "/")])).unwrap();
    let layer = Layer { file: path, diff_id: None };
    let root = home.path().join("root");
    unpack(&[layer], &root, ROOM, Some(0x7000_0000), &|| false).unwrap();
    for (name, uid) in [("", 0), ("d", 0), ("d/a", 7), ("l", 0)] {
        let meta = fs::symlink_metadata(root.join(name)).unwrap();
        let expected = 0x7000_0000 + uid;
        assert_eq!((meta.uid(), meta.gid()), (expected, expected), "{name}");
    }
}

#[test]
fn a_lease_that_ends_does_not_wait_for_its_image() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("layer");
    fs::write(&path, archive(&[file("a", "x"), file("b", "x")])).unwrap();
    let layer = Layer { file: path, diff_id: None };
    let root = home.path().join("root");
    let error = unpack(&[layer], &root, ROOM, None, &|| true).unwrap_err();
    assert_eq!(error.reason().code(), "image.cancelled");
    assert!(!root.exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever names and links come in whatever order: nothing beside the tree changes.
    #[test]
    fn no_order_of_entries_leads_out(
        entries in proptest::collection::vec(
            (0_u8..5, "[ab./]{1,6}", "[ab./]{1,6}"), 1..12)
    ) {
        let entries: Vec<Entry> = entries.into_iter().map(|(kind, name, to)| match kind {
            0 => dir(&name),
            1 => symlink(&name, &to),
            2 => link(&name, EntryType::Link, &to),
            _ => file(&name, &to),
        }).collect();
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("a"), "before").unwrap();
        unpacked(home.path(), &[archive(&entries), archive(&entries)], ROOM);
        let _ = fs::remove_dir_all(home.path().join("root"));
        let left = listed(home.path());
        let untouched = ["a: before", "layer0", "layer1"];
        prop_assert!(left.len() == 3 && left.iter().zip(untouched).all(|(l, u)| l.starts_with(u)), "{:?}", left);
    }
}
