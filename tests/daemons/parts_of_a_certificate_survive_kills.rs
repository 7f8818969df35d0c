//! A certificate is cut, joined and given in part by three processes, and holder and provider are
//! killed in between: nothing is lost, and nothing is there twice.

use std::collections::BTreeMap;
use std::time::Duration;

use capex::api::types::{Certificate, SlotRange, TimeInForce};
use serde_json::{Value, json};

use crate::daemon::{Daemon, until, until_or};
use crate::market::{
    SETTLING, all_settled, bought, buy, certificates, meet, provider_and_buyer, sell,
};
use crate::world::World;

/// Slots between what can be bought first and what is bought: time for everything, and kills.
const LATER: u32 = 4;

fn held(daemon: &Daemon) -> Vec<Certificate> {
    certificates(daemon).into_iter().filter(|found| found.state == "held").collect()
}

/// Units and slots, and how often each shape is held.
fn shapes(certificates: &[Certificate]) -> BTreeMap<(u32, SlotRange), usize> {
    let mut found = BTreeMap::new();
    for one in certificates {
        let units = one.units.iter().map(|[first, end]| end - first).sum();
        *found.entry((units, one.window)).or_default() += 1;
    }
    found
}

/// Sends a command that nobody may live to answer. Whether it was done, the certificates tell.
fn ask(daemon: &Daemon, path: &str, body: &Value) -> impl FnOnce() + use<> {
    let (client, path, body) = (daemon.client().unwrap(), path.to_owned(), body.clone());
    move || drop(client.post::<_, Value>(&path, &body))
}

/// Waits until a daemon holds these shapes, and no others.
fn until_held(daemon: &Daemon, what: &str, expected: &[(u32, SlotRange)]) -> Vec<Certificate> {
    let expected: BTreeMap<_, usize> = expected.iter().map(|shape| (*shape, 1)).collect();
    let look = || {
        let held = held(daemon);
        (shapes(&held) == expected).then_some(held)
    };
    until_or(what, SETTLING, look, || format!("{:#?}", held(daemon)))
}

#[test]
fn parts_of_a_certificate_survive_kills() {
    let world = World::new();
    let (mut provider, mut buyer) = provider_and_buyer(&world, 2);
    let mut third = world.daemon("third", 0);
    third.start(&[&provider.p2p(), &buyer.p2p()]);
    meet(&[&provider, &buyer, &third]);
    let ask_id = sell(&provider, 2);
    let first = buyer.status().unwrap().first_slot + LATER;
    let (early, late) = ([first, first + 1], [first + 1, first + 2]);
    let whole = [first, first + 2];
    buy(&buyer, 2, whole, TimeInForce::Ioc);
    let cert = bought(&buyer, whole).cert_id;
    all_settled(&[&provider, &buyer]);
    crate::market::cancel(&provider, &ask_id);

    // The provider dies while it is asked, and comes back: the holder asks it again.
    let command = ask(&buyer, &format!("/certificates/{cert}/split"), &json!({ "window": early }));
    let asked = std::thread::spawn(command);
    provider.kill();
    provider.start(&[&buyer.p2p()]);
    let parts = until_held(&buyer, "both parts", &[(2, early), (2, late)]);
    asked.join().unwrap();

    // The holder dies, and then both.
    let ids: Vec<&str> = parts.iter().map(|part| part.cert_id.as_str()).collect();
    let merged = repeat(&mut buyer, None, "/certificates/merge", &json!({ "certs": ids }), |one| {
        held(one).iter().any(|found| found.window == whole)
    });
    let gift = json!({ "to": third.key(), "qty": 1 });
    let path = format!("/certificates/{merged}/gift");
    repeat(&mut buyer, Some(&mut provider), &path, &gift, |one| {
        held(one).iter().all(|found| found.cert_id != merged)
    });
    let kept = until_held(&buyer, "the part that is kept", &[(1, whole)]);
    let given = until_held(&third, "the part that is given", &[(1, whole)]);
    assert_ne!(kept[0].units, given[0].units);

    // The provider counts the same, and each of them can show it to anybody.
    let holders: BTreeMap<String, String> = certificates(&provider)
        .into_iter()
        .filter(|one| one.state == "issued")
        .map(|one| (one.cert_id, one.holder))
        .collect();
    let expected = [(&kept[0], &buyer), (&given[0], &third)];
    assert_eq!(
        holders,
        expected.map(|(one, daemon)| (one.cert_id.clone(), daemon.key())).into_iter().collect()
    );
    for (certificate, daemon) in expected {
        let file = world.path().join("cert.txt");
        let file = file.to_str().unwrap();
        let args = ["cert", "export", &certificate.cert_id, "--out", file, "--force"];
        let _: Value = daemon.cli_json(&args);
        let said: Value = daemon.cli_json(&["cert", "verify", file]);
        assert_eq!(said["holder"], json!(daemon.key()), "{said}");
        assert_eq!(said["units"], json!(certificate.units), "{said}");
    }
}

/// Asks, kills whoever is asked and perhaps the provider too, starts them again, and asks once more
/// if nothing of it was written down. Returns a certificate that is held then.
fn repeat(
    holder: &mut Daemon,
    mut provider: Option<&mut Daemon>,
    path: &str,
    body: &Value,
    is_done: impl Fn(&Daemon) -> bool,
) -> String {
    for _ in 0..2 {
        let asked = std::thread::spawn(ask(holder, path, body));
        holder.kill();
        asked.join().unwrap();
        if let Some(provider) = provider.as_deref_mut() {
            provider.kill();
            provider.start(&[]);
        }
        let peers: Vec<String> = provider.iter().map(|provider| provider.p2p()).collect();
        holder.start(&peers.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // Repeating what waits asks for the same once more.
    let command = ask(holder, path, body);
    let asked = std::thread::spawn(command);
    until("its end", Duration::from_secs(20), || is_done(holder).then_some(()));
    asked.join().unwrap();
    held(holder)[0].cert_id.clone()
}
