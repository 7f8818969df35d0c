//! What is on a holder's disk, in all its forms.

use std::fs;

use tar::EntryType;

use super::*;
use crate::executor::images::unpack::tests::{archive, file, link};

/// An image of one layer: its parts by name, and the names of manifest, configuration, layer.
struct Sample {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn name(bytes: &[u8]) -> String {
    Digest(Sha256::digest(bytes).into()).to_string()
}

fn sample() -> Sample {
    let layer = archive(&[file("bin/sh", "#!")]);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","rootfs":{{"diff_ids":["sha256:{}"]}}}}"#,
        here(),
        name(&layer)
    );
    let part =
        |bytes: &[u8]| format!(r#"{{"digest":"sha256:{}","size":{}}}"#, name(bytes), bytes.len());
    let manifest =
        format!(r#"{{"config":{},"layers":[{}]}}"#, part(config.as_bytes()), part(&layer));
    Sample { layer, config: config.into_bytes(), manifest: manifest.into_bytes() }
}

fn index(manifests: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = manifests.iter().map(|(architecture, bytes)| {
        format!(
            r#"{{"digest":"sha256:{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            name(bytes),
            bytes.len()
        )
    });
    format!(r#"{{"manifests":[{}]}}"#, entries.collect::<Vec<_>>().join(",")).into_bytes()
}

fn layout(home: &Path, index: &[u8], blobs: &[&[u8]]) {
    fs::create_dir_all(home.join("blobs/sha256")).unwrap();
    fs::write(home.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(home.join("index.json"), index).unwrap();
    for bytes in blobs {
        fs::write(home.join("blobs/sha256").join(name(bytes)), bytes).unwrap();
    }
}

fn code(given: Result<Given, ImageError>) -> &'static str {
    match given {
        Ok(Given::Image { .. }) => "image",
        Ok(Given::Rootfs(_)) => "rootfs",
        Err(error) => error.reason().code(),
    }
}

/// How many parts it has, if all of them are what their digests say.
fn total(given: &Given) -> Result<usize, ImageError> {
    let home = tempfile::tempdir().unwrap();
    given
        .blobs()
        .try_fold(0, |count, blob| blob.copy_to(&home.path().join("in/copy")).map(|()| count + 1))
}

fn opened(path: &Path) -> Result<Given, ImageError> {
    open(path, &["sh".to_owned()])
}

#[test]
fn a_layout_is_read_and_one_that_lies_is_refused() {
    let sample = sample();
    let (layer, config, manifest) = (&sample.layer, &sample.config, &sample.manifest);
    let whole: [&[u8]; 3] = [layer, config, manifest];
    let one = index(&[(here(), manifest)]);
    let other = index(&[("sparc", manifest)]);
    let both = index(&[("sparc", b"another"), (here(), manifest)]);
    let two = index(&[(here(), b"another"), (here(), manifest)]);
    let nested = format!(
        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:{}","size":1}}]}}"#,
        name(&both)
    );
    type Bytes<'a> = &'a [u8];
    let table: [(Bytes, Vec<Bytes>, &str); 8] = [
        (&one, whole.to_vec(), "image"),
        (&both, whole.to_vec(), "image"),
        (nested.as_bytes(), [&whole[..], &[&both]].concat(), "image"),
        (&other, whole.to_vec(), "image.platform"),
        (&two, whole.to_vec(), "image.several"),
        (&one, vec![config, manifest], "image.missing"),
        (&one, vec![layer, manifest], "image.missing"),
        (b"{", whole.to_vec(), "image.document"),
    ];
    for (number, (index, blobs, expected)) in table.into_iter().enumerate() {
        let home = tempfile::tempdir().unwrap();
        layout(home.path(), index, &blobs);
        let given = opened(home.path());
        if let Ok(given) = &given {
            assert_eq!(total(given).unwrap(), 3);
        }
        assert_eq!(code(given), expected, "row {number}");
    }
}

#[test]
fn content_that_changed_is_not_uploaded() {
    let sample = sample();
    let home = tempfile::tempdir().unwrap();
    let one = index(&[(here(), &sample.manifest)]);
    layout(home.path(), &one, &[&sample.layer, &sample.config, &sample.manifest]);
    let path = home.path().join("blobs/sha256").join(name(&sample.layer));
    let mut changed = sample.layer.clone();
    changed[600] ^= 1;
    fs::write(&path, &changed).unwrap();
    let error = total(&opened(home.path()).unwrap()).unwrap_err();
    assert_eq!(error.reason().code(), "image.content");
    fs::write(&path, &changed[..512]).unwrap();
    assert_eq!(code(opened(home.path())), "image.content");
}

/// A command has to come from somewhere.
#[test]
fn an_image_without_a_command_needs_one() {
    let sample = sample();
    let home = tempfile::tempdir().unwrap();
    let one = index(&[(here(), &sample.manifest)]);
    layout(home.path(), &one, &[&sample.layer, &sample.config, &sample.manifest]);
    assert_eq!(code(open(home.path(), &[])), "image.no_command");
}

#[test]
fn archives_are_told_apart_by_what_is_in_them() {
    let sample = sample();
    let (layer, config) = (&sample.layer, &sample.config);
    let one = index(&[(here(), &sample.manifest)]);
    let blob = |bytes: &Vec<u8>| file(format!("blobs/sha256/{}", name(bytes)), bytes);
    let oci = vec![
        file("oci-layout", "{}"),
        file("index.json", &one),
        blob(layer),
        blob(config),
        blob(&sample.manifest),
    ];
    let saved = |layers: &str| format!(r#"[{{"Config":"c.json","Layers":[{layers}]}}]"#);
    let docker = vec![
        file("c.json", config),
        file("1/layer.tar", layer),
        file("manifest.json", saved(r#""1/layer.tar""#)),
    ];
    let mut twice = docker.clone();
    let again = link("2/layer.tar", EntryType::Symlink, "../1/layer.tar");
    twice[2] = file("manifest.json", saved(r#""1/layer.tar","2/layer.tar""#));
    twice.push(again);
    let mut lost = docker.clone();
    lost.remove(1);
    let mut outside = docker.clone();
    outside[1] = link("1/layer.tar", EntryType::Symlink, "../../etc/passwd");
    let rootfs = vec![file("bin/sh", "#!"), file("etc/passwd", "")];
    let table = [
        (oci, "image", 3),
        (docker, "image", 3),
        (twice, "image", 3),
        (lost, "image.format", 0),
        (outside, "image.format", 0),
        (rootfs, "rootfs", 1),
        (Vec::new(), "image.format", 0),
    ];
    for (number, (entries, expected, parts)) in table.into_iter().enumerate() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("image.tar");
        fs::write(&path, archive(&entries)).unwrap();
        let given = opened(&path);
        let found = given.as_ref().map_or(0, |given| total(given).unwrap());
        assert_eq!(found, parts, "row {number}");
        assert_eq!(code(given), expected, "row {number}");
    }
}
