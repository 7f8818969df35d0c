//! A lease between two parties, and what its tests do with it.
#![allow(dead_code, reason = "each test uses a part")]

use capex_core::engine::io::{Done, Effect};
use capex_core::engine::leases::{Asker, LeaseView};
use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::objects::{
    InputFile, LeaseCall, LeaseReply, LeaseRequest, LeaseStatus, Outcome, Verb, Workload,
};
use capex_core::lease::{ExecutorEvent, Usage};
use capex_core::wire::Envelope;

use crate::certificate_fixture::party::*;
use crate::certificate_fixture::*;

pub(crate) const PROVIDER: u8 = 1;
pub(crate) const ALICE: u8 = 2;
pub(crate) const BOB: u8 = 3;
pub(crate) const STARTS_MS: u64 = 1000 * 4000;
pub(crate) const ENDS_MS: u64 = 1004 * 4000;

pub(crate) fn work() -> Workload {
    Workload {
        command: vec!["--fast".to_owned()],
        inputs: vec![InputFile { name: "data".to_owned(), digest: Digest([2; 32]), bytes: 10 }],
        results: vec!["out".to_owned()],
        ..Workload::wasm(Digest([1; 32]), 1000)
    }
}

pub(crate) fn redeem(net: &mut Net, who: u8, command: u64, cert: CertId) {
    net.party(who).with(|ctx, books, leases| {
        leases.redeem(ctx, &books.holdings, Asker::Command(command), cert, work())
    });
    net.pump();
}

/// A net in which Alice has redeemed two units.
pub(crate) fn redeemed() -> (Net, CertId, LeaseId) {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    redeem(&mut net, ALICE, 1, cert);
    let lease = match net.party(ALICE).done().as_slice() {
        [(1, Ok(Done::Redeemed { lease }))] => *lease,
        other => panic!("{other:?}"),
    };
    (net, cert, lease)
}

pub(crate) fn view(net: &mut Net, who: u8, lease: LeaseId) -> LeaseView {
    let views = net.party(who).views();
    views.into_iter().find(|view| view.lease_id == lease).unwrap()
}

pub(crate) fn call(lease: LeaseId, verb: Verb, counter: u64, who: u8) -> Envelope {
    let call = LeaseCall { v: 1, lease, verb, counter, not_after_s: START_MS / 1000 + 100 };
    by(who, call, &devnet()).envelope().clone()
}

pub(crate) fn ended(outcome: Outcome, at_ms: u64) -> ExecutorEvent {
    ExecutorEvent::Ended {
        outcome,
        started_at_ms: Some(STARTS_MS + 100),
        at_ms,
        usage: Usage {
            cpu_us: 5_000,
            memory_peak_bytes: 1 << 20,
            output_bytes: 77,
            ..Usage::default()
        },
    }
}

pub(crate) fn run_to_end(net: &mut Net, lease: LeaseId) {
    net.until(STARTS_MS + 3_000);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Ready);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.executor(lease, ended(Outcome::Exited { code: 0 }, STARTS_MS + 2_100));
    net.pump();
}

pub(crate) fn fetch_receipts(net: &mut Net, lease: LeaseId, counter: u64) -> Vec<Envelope> {
    let request =
        LeaseRequest::Receipts { call: call(lease, Verb::Receipt, counter, ALICE), from_seq: 0 };
    match net.lease(PROVIDER, ALICE, &request) {
        LeaseReply::Receipts(receipts) => receipts,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn take_receipts(
    net: &mut Net,
    lease: LeaseId,
    receipts: &[Envelope],
) -> Result<(), &'static str> {
    let status = net.party(PROVIDER).status(&lease);
    take_with_status(net, lease, receipts, status)
}

pub(crate) fn take_with_status(
    net: &mut Net,
    lease: LeaseId,
    receipts: &[Envelope],
    status: LeaseStatus,
) -> Result<(), &'static str> {
    let taken = net.party(ALICE).with(|ctx, _, leases| {
        leases.note_status(ctx, lease, status);
        leases.store_receipts(ctx, lease, receipts)
    });
    net.pump();
    taken
}

pub(crate) fn effects(net: &mut Net, is: fn(&Effect) -> bool) -> usize {
    net.pump();
    net.party(PROVIDER).log.iter().filter(|effect| is(effect)).count()
}
