//! Images that a host fetches from registries, which are strangers: what is not as it was said to be
//! is refused with its code, and leaves nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capex::executor::pulls::{Patience, Pulls, Registries, payload};
use capex_core::ids::CertId;
use capex_core::lease::objects::{Content, Payload};
use capex_core::lease::pull::{ImageRef, Pulled};

use crate::registry::{Asked, Body, Image, REPOSITORY, Reply, Server, digest, here};

const CERT: CertId = CertId([9; 32]);
const LARGE: u64 = 1 << 20;

const IMPATIENT: Patience = Patience {
    answer: Duration::from_millis(1_500),
    stall: Duration::from_millis(1_500),
    rest: Duration::from_millis(700),
    bytes_per_s: 1 << 20,
};

fn pulls(home: &Path, named: &[&str]) -> Arc<Pulls> {
    let mut registries = Registries::default();
    named.iter().for_each(|name| registries.add(name).unwrap());
    fs::create_dir_all(home).unwrap();
    Arc::new(Pulls::open(home, registries, IMPATIENT).unwrap())
}

/// Asks until all of it is there, or it is refused.
fn fetched(pulls: &Arc<Pulls>, image: &str, max_bytes: u64) -> Result<Pulled, &'static str> {
    let image = ImageRef::parse(image).unwrap();
    let begun = Instant::now();
    loop {
        let said = pulls.ask(CERT, image.clone(), max_bytes).map_err(|reason| reason.code())?;
        assert!(said.received_bytes <= said.total_bytes);
        if !said.documents.is_empty() {
            return Ok(said);
        }
        assert!(begun.elapsed() < super::PATIENCE, "neither whole nor refused");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names of all files for the certificate, sorted; `None` if it has no place.
fn left(home: &Path) -> Option<Vec<String>> {
    let dir = home.join("pulled").join(CERT.to_string()).join("blobs");
    let names = fs::read_dir(dir).ok()?;
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    Some(names)
}

fn image() -> Image {
    Image::of(&[&[7; 100_000], b"another layer"], here())
}

fn content(bytes: &[u8]) -> Content {
    Content { digest: digest(bytes), bytes: bytes.len() as u64 }
}

#[test]
fn an_image_is_fetched_by_the_digest_of_its_manifest_or_of_an_index() {
    let image = image();
    let server = Server::honest(&image);
    let Payload::Oci { manifest, blobs } = ({
        let all = [image.manifest.clone(), image.config.clone()];
        let named = ImageRef::parse(&server.image(&image.manifest)).unwrap();
        payload(&named, &all, &[]).unwrap()
    }) else {
        panic!("no image")
    };
    assert_eq!(manifest, content(&image.manifest));
    let mut expected: Vec<Content> = image.layers.iter().map(|layer| content(layer)).collect();
    expected.push(content(&image.config));
    expected.sort_by_key(|content| content.digest);
    assert_eq!(blobs, expected);

    for (named, documents) in [
        (&image.manifest, vec![image.manifest.clone(), image.config.clone()]),
        (&image.index, vec![image.index.clone(), image.manifest.clone(), image.config.clone()]),
    ] {
        let home = tempfile::tempdir().unwrap();
        let pulls = pulls(home.path(), &[&server.name()]);
        let pulled = fetched(&pulls, &server.image(named), LARGE).unwrap();
        assert_eq!(pulled.documents, documents);
        let bytes: usize = image.layers.iter().map(Vec::len).sum();
        let bytes = (bytes + image.manifest.len() + image.config.len()) as u64;
        assert_eq!((pulled.received_bytes, pulled.total_bytes), (bytes, bytes));
        let mut expected: Vec<String> =
            documents.iter().chain(&image.layers).map(|b| digest(b).to_string()).collect();
        expected.sort();
        assert_eq!(left(home.path()), Some(expected));
        // The holder signs for what it has checked, wherever it was found.
        let named = ImageRef::parse(&server.image(named)).unwrap();
        let told = payload(&named, &pulled.documents, &[]).unwrap();
        assert_eq!(told, Payload::Oci { manifest, blobs: blobs.clone() });
        pulls.taken(&CERT);
        assert_eq!(left(home.path()), None);
    }
}

#[test]
fn a_provider_that_lies_about_an_image_is_not_believed() {
    let (image, other) = (image(), Image::of(&[b"other"], here()));
    let named = |bytes: &[u8]| ImageRef::parse(&format!("a.b/c@sha256:{}", digest(bytes))).unwrap();
    let (index, manifest, config) = (&image.index, &image.manifest, &image.config);
    let table: [(&[u8], Vec<&Vec<u8>>); 9] = [
        (manifest, vec![]),
        (manifest, vec![manifest]),
        (manifest, vec![&other.manifest, &other.config]),
        (manifest, vec![manifest, &other.config]),
        (index, vec![index, &other.manifest, &other.config]),
        (index, vec![&other.index, manifest, config]),
        (index, vec![manifest, config]),
        (manifest, vec![index, manifest, config]),
        (index, vec![index, manifest, config, config]),
    ];
    for (number, (asked_for, documents)) in table.into_iter().enumerate() {
        let documents: Vec<Vec<u8>> = documents.into_iter().cloned().collect();
        let refused = payload(&named(asked_for), &documents, &[]).unwrap_err();
        assert_eq!(refused.code(), "pull.bad_answer", "row {number}");
    }
    let none = Image { config: br#"{"rootfs":{"diff_ids":[]}}"#.to_vec(), ..image.clone() };
    let manifest = format!(
        r#"{{"config":{{"digest":"sha256:{}","size":{}}},"layers":[{{"digest":"sha256:{}","size":1}}]}}"#,
        digest(&none.config),
        none.config.len(),
        digest(b"x")
    );
    let documents = [manifest.clone().into_bytes(), none.config.clone()];
    let refused = payload(&named(manifest.as_bytes()), &documents, &[]).unwrap_err();
    assert_eq!(refused.code(), "image.no_command");
    assert!(payload(&named(manifest.as_bytes()), &documents, &["sh".to_owned()]).is_ok());
}

/// Answers for blobs by `blob`, and for all else as an honest one.
fn with_blobs(image: &Image, blob: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
    let image = image.clone();
    Server::start(move |asked| match asked.path.contains("/blobs/") {
        true => blob(asked),
        false => image.answer(&asked.path),
    })
}

/// The same for manifests.
fn with_manifests(bytes: &'static [u8]) -> Server {
    Server::start(move |_| Reply::bytes(bytes))
}

#[test]
fn what_a_registry_does_wrong_has_a_code_and_leaves_nothing() {
    let image = image();
    let elsewhere = Server::honest(&image);
    let sealed = format!("https://{}/", elsewhere.addr);
    let localhost = format!("https://localhost:{}/", elsewhere.addr.port());
    let plain = elsewhere.name();
    let foreign = Image::of(&[b"layer"], "sparc");
    let layer = image.layers[0].clone();
    let longer = [layer.as_slice(), b"x"].concat();
    let named = digest(&layer).to_string();
    let for_layer = |reply: fn(&[u8]) -> Reply, bytes: &[u8]| {
        let (image, named, bytes) = (image.clone(), named.clone(), bytes.to_vec());
        Server::start(move |asked| match asked.path.ends_with(&named) {
            true => reply(&bytes),
            false => image.answer(&asked.path),
        })
    };
    let realm = format!("{plain}/token");
    let both = br#"{"manifests":[],"config":{},"layers":[]}"#;
    // Nobody listens there any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table: Vec<(&str, Server, &[u8], &str)> = vec![
        ("other bytes", for_layer(Reply::bytes, &[8; 100_000]), &image.manifest, "pull.digest"),
        ("more bytes", for_layer(Reply::bytes, &longer), &image.manifest, "pull.digest"),
        ("fewer bytes", for_layer(Reply::bytes, &layer[1..]), &image.manifest, "pull.digest"),
        (
            "no end",
            with_blobs(&image, |_| Reply::of(Body::Endless)),
            &image.manifest,
            "pull.digest",
        ),
        (
            "cut",
            for_layer(|bytes| Reply::of(Body::Cut(bytes.to_vec())), &layer[1..]),
            &image.manifest,
            "pull.unreachable",
        ),
        (
            "a byte at a time",
            for_layer(|_| Reply::of(Body::Dripping(100_000)), b""),
            &image.manifest,
            "pull.timeout",
        ),
        (
            "a manifest without end",
            Server::start(|_| Reply::of(Body::Endless)),
            &image.manifest,
            "pull.document",
        ),
        ("another manifest", with_manifests(b"{}"), &image.manifest, "pull.digest"),
        ("no manifest", with_manifests(b"{"), b"{", "pull.document"),
        ("index and manifest", with_manifests(both), both, "pull.document"),
        ("no index", Server::start(|_| Reply::status(404)), &image.index, "pull.not_found"),
        ("no layer", with_blobs(&image, |_| Reply::status(404)), &image.manifest, "pull.not_found"),
        ("no variant", Server::honest(&foreign), &foreign.index, "pull.platform"),
        ("another machine", Server::honest(&foreign), &foreign.manifest, "pull.platform"),
        (
            "not for everybody",
            Server::start(|_| Reply::status(403)),
            &image.manifest,
            "pull.denied",
        ),
        ("no challenge", Server::start(|_| Reply::status(401)), &image.manifest, "pull.denied"),
        ("broken", Server::start(|_| Reply::status(500)), &image.manifest, "pull.unreachable"),
        (
            "in circles",
            Server::start(|asked| Reply::redirect(asked.path.clone())),
            &image.manifest,
            "pull.address",
        ),
        (
            "in the clear",
            with_blobs(&image, {
                let plain = plain.clone();
                move |_| Reply::redirect(plain.clone())
            }),
            &image.manifest,
            "pull.address",
        ),
        (
            "to its own network",
            with_blobs(&image, move |_| Reply::redirect(sealed.clone())),
            &image.manifest,
            "pull.address",
        ),
        (
            "by a name",
            with_blobs(&image, move |_| Reply::redirect(localhost.clone())),
            &image.manifest,
            "pull.address",
        ),
        (
            "to a file",
            with_blobs(&image, |_| Reply::redirect("file:///etc/passwd")),
            &image.manifest,
            "pull.address",
        ),
        (
            "a token elsewhere",
            Server::start(move |_| Reply::challenge(&realm)),
            &image.manifest,
            "pull.address",
        ),
    ];
    for (what, server, asked_for, code) in &table {
        let home = tempfile::tempdir().unwrap();
        let pulls = pulls(home.path(), &[&server.name()]);
        let refused = fetched(&pulls, &server.image(asked_for), LARGE).unwrap_err();
        assert_eq!(refused, *code, "{what}");
        match ["pull.timeout", "pull.unreachable"].contains(code) {
            true => {
                let names = left(home.path()).unwrap();
                assert!(!names.iter().any(|name| name.ends_with(".part")), "{what}: {names:?}");
            }
            false => assert_eq!(left(home.path()), None, "{what}"),
        }
    }
    assert_eq!(elsewhere.asked(), [], "nobody went where the operator did not say");

    let home = tempfile::tempdir().unwrap();
    let nobody = format!("http://{closed}");
    let pulls = pulls(home.path(), &[&nobody, &plain]);
    let name = format!("{closed}/{REPOSITORY}@sha256:{}", digest(&image.manifest));
    assert_eq!(fetched(&pulls, &name, LARGE), Err("pull.unreachable"));
    assert_eq!(fetched(&pulls, &elsewhere.image(&image.index), 1_000), Err("pull.too_large"));
    assert_eq!(left(home.path()), None);
    let unnamed = format!("docker.io/library/alpine@sha256:{}", digest(b"x"));
    assert_eq!(fetched(&pulls, &unnamed, LARGE), Err("pull.not_allowed"));
}

#[test]
fn a_registry_that_says_nothing_has_its_time() {
    // Connections are taken by the system, and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap();
    let home = tempfile::tempdir().unwrap();
    let pulls = pulls(home.path(), &[&format!("http://{addr}")]);
    let name = format!("{addr}/{REPOSITORY}@sha256:{}", digest(b"x"));
    assert_eq!(fetched(&pulls, &name, LARGE), Err("pull.timeout"));
}

#[test]
fn a_token_is_had_where_the_registry_says_and_shown_to_it_alone() {
    let image = image();
    let storage = {
        let image = image.clone();
        Server::start(move |asked| image.answer(&asked.path))
    };
    let (blobs, at) = (storage.name(), std::sync::OnceLock::new());
    let at = Arc::new(at);
    let server = {
        let (image, at) = (image.clone(), Arc::clone(&at));
        Server::start(move |asked| {
            let realm: &String = at.wait();
            if asked.path.starts_with("/token?scope=repository:team/app:pull&service=a%20registry")
            {
                return Reply::bytes(br#"{"token":"good"}"#);
            }
            match (&asked.token, asked.path.contains("/blobs/")) {
                (Some(token), true) if token == "Bearer good" => {
                    Reply::redirect(format!("{blobs}{}", asked.path))
                }
                (Some(token), false) if token == "Bearer good" => image.answer(&asked.path),
                _ => Reply::challenge(realm),
            }
        })
    };
    at.set(format!("{}/token", server.name())).unwrap();
    let home = tempfile::tempdir().unwrap();
    let pulls = pulls(home.path(), &[&server.name(), &storage.name()]);
    fetched(&pulls, &server.image(&image.index), LARGE).unwrap();
    let tokens = server.asked().iter().filter(|asked| asked.path.starts_with("/token")).count();
    assert_eq!(tokens, 1);
    let asked = storage.asked();
    assert_eq!((asked.len(), asked.iter().any(|asked| asked.token.is_some())), (3, false));
}

#[test]
fn another_image_takes_the_place_of_the_one_before() {
    let (image, other) = (image(), Image::of(&[b"another layer", b"a third"], here()));
    let server = {
        let (image, other) = (image.clone(), other.clone());
        Server::start(move |asked| match image.answer(&asked.path) {
            Reply { status: 404, .. } => other.answer(&asked.path),
            found => found,
        })
    };
    let home = tempfile::tempdir().unwrap();
    let pulls = pulls(home.path(), &[&server.name()]);
    fetched(&pulls, &server.image(&image.manifest), LARGE).unwrap();
    let before = server.asked().len();
    fetched(&pulls, &server.image(&other.manifest), LARGE).unwrap();
    assert_eq!(server.asked().len(), before + 3, "manifest, configuration, the layer that is new");
    let all = other.layers.iter().chain([&other.manifest, &other.config]);
    let mut expected: Vec<String> = all.map(|bytes| digest(bytes).to_string()).collect();
    expected.sort();
    assert_eq!(left(home.path()), Some(expected), "nothing of the one before");
}

#[test]
fn what_has_come_is_not_fetched_again_and_goes_when_nobody_asks() {
    let image = image();
    let late = digest(&image.layers[0]).to_string().max(digest(&image.layers[1]).to_string());
    let is_slow = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let server = {
        let (image, is_slow) = (image.clone(), Arc::clone(&is_slow));
        Server::start(move |asked| {
            let waits = is_slow.load(std::sync::atomic::Ordering::SeqCst);
            match asked.path.ends_with(&late) && waits {
                true => Reply::of(Body::Dripping(100_000)),
                false => image.answer(&asked.path),
            }
        })
    };
    let home = tempfile::tempdir().unwrap();
    let name = server.image(&image.manifest);
    let first = pulls(home.path(), &[&server.name()]);
    assert_eq!(fetched(&first, &name, LARGE), Err("pull.timeout"));
    is_slow.store(false, std::sync::atomic::Ordering::SeqCst);
    let before = server.asked().len();
    // Also by another life.
    let pulls = pulls(home.path(), &[&server.name()]);
    fetched(&pulls, &name, LARGE).unwrap();
    assert_eq!(server.asked().len(), before + 1, "the layer that was late");

    fetched(&pulls, &server.image(&image.index), LARGE).unwrap();
    pulls.sweep(Duration::from_secs(60));
    assert!(left(home.path()).is_some());
    pulls.sweep(Duration::ZERO);
    assert_eq!(left(home.path()), None);
}
