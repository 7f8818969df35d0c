//! A provider fetches an image for whoever holds its certificate, and nothing is used up by that.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;
mod lease_fixture;

use capex_core::engine::io::{Done, Effect};
use capex_core::engine::leases::{LeaseCommand, LeaseEffect, LeasePurpose, Offer};
use capex_core::ids::{CertId, Digest};
use capex_core::lease::objects::{LeaseReply, LeaseRequest, PayloadKind};
use capex_core::lease::pull::{ImageRef, Pulled};
use capex_core::limits::IMAGE_MAX_BYTES;
use certificate_fixture::party::*;
use certificate_fixture::*;
use lease_fixture::*;

fn image() -> ImageRef {
    ImageRef { name: "docker.io/library/alpine".to_owned(), digest: Digest([3; 32]) }
}

/// A provider whose host runs images, and a certificate of Alice.
fn sold() -> (Net, CertId) {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let offer = Offer { runtimes: [PayloadKind::Oci].into(), ..Offer::default() };
    let command = LeaseCommand::Offer(offer);
    net.party(PROVIDER).with(|ctx, books, leases| {
        leases.on_command(ctx, &books.holdings, 1, command);
    });
    let cert = net.sell(7, &units(0, 2), ALICE);
    net.pump();
    (net, cert)
}

/// The code with which a request is refused, or what its host is told to do.
fn asked(net: &mut Net, who: u8, cert: CertId, image: ImageRef) -> Result<Effect, String> {
    let provider = net.party(PROVIDER);
    provider.take_effects();
    let request = LeaseRequest::Pull { cert, image };
    let reply = provider.with(|ctx, books, leases| {
        leases.on_request(ctx, &mut books.register, public(who), 77, request)
    });
    match reply {
        Some(LeaseReply::Refused { code }) => Err(code),
        Some(other) => panic!("{other:?}"),
        None => Ok(provider.take_effects().remove(0)),
    }
}

#[test]
fn an_image_is_fetched_for_the_holder_of_a_certificate_alone_and_as_large_as_its_disk() {
    let (mut net, cert) = sold();
    let facts = devnet().class(1).unwrap().floors.clone();
    let disk_bytes = 2 * (u64::from(facts.disk_mib) << 20);
    let expected = LeaseEffect::Pull {
        id: 77,
        cert,
        image: image(),
        max_bytes: disk_bytes.min(IMAGE_MAX_BYTES),
    };
    assert_eq!(asked(&mut net, ALICE, cert, image()), Ok(Effect::Lease(expected)));
    let code = |asked: Result<Effect, String>| asked.unwrap_err();
    assert_eq!(code(asked(&mut net, BOB, cert, image())), "redeem.not_holder");
    let unknown = CertId([9; 32]);
    assert_eq!(code(asked(&mut net, ALICE, unknown, image())), "redeem.unknown_certificate");
    let odd = ImageRef { name: "docker.io/../alpine".to_owned(), ..image() };
    assert_eq!(code(asked(&mut net, ALICE, cert, odd)), "pull.name");
    // Whoever asked, the certificate is as good as before.
    net.pump();
    redeem(&mut net, ALICE, 1, cert);
    assert!(matches!(net.party(ALICE).done()[..], [(1, Ok(Done::Redeemed { .. }))]));
    // For another workload in its place.
    assert!(asked(&mut net, ALICE, cert, image()).is_ok());
    net.until(ENDS_MS);
    assert_eq!(code(asked(&mut net, ALICE, cert, image())), "redeem.window_past");
}

#[test]
fn a_host_that_runs_no_images_fetches_none() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    assert_eq!(asked(&mut net, ALICE, cert, image()), Err("redeem.no_runtime".to_owned()));
}

#[test]
fn the_holder_is_told_what_its_provider_says_or_that_it_says_nothing() {
    let (mut net, cert) = sold();
    let pull = |net: &mut Net, id: u64, cert: CertId, image: ImageRef| {
        let command = LeaseCommand::Pull { cert, image };
        net.party(ALICE).with(|ctx, books, leases| {
            leases.on_command(ctx, &books.holdings, id, command);
        });
        net.pump();
        net.party(ALICE).done().into_iter().find(|(of, _)| *of == id).map(|(_, result)| result)
    };
    let unknown = CertId([9; 32]);
    let refused = |code: &str| Some(Err(code.to_owned()));
    assert_eq!(pull(&mut net, 10, unknown, image()), refused("redeem.unknown_certificate"));
    let odd = ImageRef { name: "alpine".to_owned(), ..image() };
    assert_eq!(pull(&mut net, 11, cert, odd), refused("pull.name"));

    let pulled = Pulled { received_bytes: 5, total_bytes: 9, documents: vec![vec![1]] };
    let table = [
        (Ok(LeaseReply::Pulled(pulled.clone())), Ok(Done::Pulled(Box::new(pulled)))),
        (Ok(LeaseReply::Refused { code: "pull.timeout".to_owned() }), Err("pull.timeout")),
        (Ok(LeaseReply::Refused { code: "\u{1b}[2J".to_owned() }), Err("peer.bad_code")),
        (Ok(LeaseReply::Stored), Err("pull.no_answer")),
        (Err("no route".to_owned()), Err("pull.no_answer")),
    ];
    for (number, (said, told)) in (20..).zip(table) {
        net.party(ALICE).with(|ctx, books, leases| {
            leases.on_reply(ctx, &mut books.holdings, LeasePurpose::Pull(number), said);
        });
        net.pump();
        let done = net.party(ALICE).done();
        let result = done.into_iter().find(|(of, _)| *of == number).unwrap().1;
        assert_eq!(result, told.map_err(str::to_owned));
    }
}
