//! A store is lost, the keys and a certificate file are not: the file brings the certificate
//! back, and nobody else's node takes it.

use std::time::Duration;

use capex::api::types::{Certificate, TimeInForce};

use crate::market::{all_settled, bought, buy, certificates, provider_and_buyer, sell, soon};
use crate::world::World;

#[test]
fn what_was_paid_for_comes_back_from_its_file() {
    let world = World::new();
    let (provider, mut buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    all_settled(&[&provider, &buyer]);
    let path = world.path().join("cert.txt");
    let file = path.to_str().unwrap();
    let (code, _, err) = buyer.cli(&["cert", "export", &cert, "--out", file]);
    assert_eq!(code, 0, "{err}");

    buyer.terminate(Duration::from_secs(10));
    std::fs::remove_dir_all(buyer.dir.join("store")).unwrap();
    // Alone, so that nobody tells it what it holds.
    buyer.start(&[]);
    assert!(certificates(&buyer).is_empty());
    let refused = |code: &str| (6, code.to_owned());
    let import = ["cert", "import", file];
    assert_eq!(buyer.cli_error(&import), refused("acquire.unknown_provider"));
    let (here, there) = (buyer.key(), provider.key());
    let named = |key: &'static str| [&import[..], &["--provider", key]].concat();
    assert_eq!(buyer.cli_error(&named(here.leak())), refused("acquire.other_provider"));
    let found: Certificate = buyer.cli_json(&named(there.leak()));
    assert_eq!((found.cert_id.as_str(), found.state.as_str()), (cert.as_str(), "held"));
    let again: Certificate = buyer.cli_json(&import);
    assert_eq!(again, found);
    assert_eq!(certificates(&buyer), [found]);
    assert_eq!(provider.cli_error(&import), refused("acquire.not_holder"));

    let text = std::fs::read_to_string(&path).unwrap();
    let long = "x".repeat(capex_core::certificate::file::TEXT_MAX_BYTES + 1);
    let unsigned = text.trim_end().trim_end_matches(|digit| digit != ' ');
    let forged = format!("{unsigned}{}\n", "01".repeat(64));
    let table = [
        (text.replacen("devnet", "signet", 1), 6, "certificate.other_network"),
        (forged, 6, "certificate.bad_signature"),
        (long, 2, "file.unusable"),
    ];
    for (text, exit, code) in table {
        std::fs::write(&path, text).unwrap();
        let found = buyer.cli_error(&import);

        assert_eq!(found, (exit, code.to_owned()));
    }
    assert_eq!(certificates(&buyer), [again]);
}
