//! A container: bought together with what runs in it, begun by itself, entered while it runs, and a
//! file got out of it. Where this machine can run none, it is said why.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Run;
use super::broken::Broken;
use super::closing::trade_part;
use super::document::{ContainerLease, ContainerPart, EntryPart, FilePart};
use super::plan::PlannedTrade;
use super::story::{count, id, msat};
use super::trading::{bid_window, order};
use super::wait::{Awaited, Look};
use crate::api::types::{
    Certificate, FileBody, Lease, Order, PlaceOrder, Placed, RedeemBody, Side,
};
use crate::cli::output::slots;
use crate::executor::{no_containers, write_program_image};
use capex_core::ids::to_hex;
use capex_core::reason;
use capex_core::wire::sha256;

const PROGRAMS: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
/// Where it lies in the image.
const PROGRAM: &str = "bin/busybox";
const IMAGE: &str = "container.tar";
const INPUT: &str = "input.txt";
/// Where the workload begins, and leaves what it makes.
const WORKDIR: &str = "/home";
const SORTED: &str = "/home/sorted.txt";
/// Sorts what it is given, says so, and stays until the window ends.
const SCRIPT: &str = "/bin/busybox sort -n input.txt > sorted.txt; echo sorted; \
     exec /bin/busybox sleep 3600";
const SAYS: &str = "sorted\n";

/// From the bid to the window, and as much again for a slow machine.
const BEGIN_TIME: Duration = Duration::from_secs(60);
const END_TIME: Duration = Duration::from_secs(40);

/// A container that was ordered.
pub(super) struct Ordered {
    order_id: String,
}

/// One that runs.
pub(super) struct Running {
    lease_id: String,
    cert_id: String,
    entry: EntryPart,
    file: FilePart,
}

/// The program of the image, or why there can be no container.
pub(super) fn program() -> Result<PathBuf, String> {
    if let Some(why) = no_containers() {
        return Err(why);
    }
    let found = PROGRAMS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| "busybox is not installed: busybox-static".to_owned())
}

impl Run<'_> {
    /// Notes that there is no container, if one was asked for.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn excuse_container(&mut self) -> Result<(), Broken> {
        let Some(Err(why)) = &self.container else { return Ok(()) };
        let why = why.clone();
        self.story.tell(format_args!("no container here: {why}"))?;
        self.document.container =
            Some(ContainerPart { why_not: Some(why), ..ContainerPart::default() });
        Ok(())
    }

    /// Offers room for a container and buys it, with what shall run in it.
    ///
    /// # Errors
    /// What a node refused.
    pub(super) fn order_container(&mut self) -> Result<Option<Ordered>, Broken> {
        let Some(Ok(program)) = &self.container else { return Ok(None) };
        let image = self.home.path().join(IMAGE);
        write_program_image(program, PROGRAM, &image)
            .map_err(|error| Broken::new(reason!("devnet.config"), error.to_string()))?;
        let planned = &self.plan.container;
        let [seller, buyer] = [planned.seller, planned.buyer].map(|n| &self.nodes[n]);
        let status = self.end_of_epoch(seller)?;
        let offered = [status.first_slot, status.first_slot + super::trading::OFFERED_SLOTS];
        let _: Placed = seller.post("/orders", &order(planned, Side::Sell, offered))?;
        let window = bid_window(planned, &status);
        let order_id = self.bid_for_container(window)?;
        self.story.tell(format_args!(
            "{} offers {} × {}, for containers; {} bids at most {} a block for slots {}, and says what shall run",
            seller.name(),
            planned.units,
            planned.class,
            buyer.name(),
            msat(planned.bid_msat),
            slots(window),
        ))?;
        Ok(Some(Ordered { order_id }))
    }

    fn bid_for_container(&self, window: [u32; 2]) -> Result<String, Broken> {
        let planned = &self.plan.container;
        let image = self.home.path().join(IMAGE);
        let workload = RedeemBody {
            image: Some(image.display().to_string()),
            command: ["/bin/busybox", "sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
            workdir: Some(WORKDIR.to_owned()),
            inputs: vec![FileBody {
                name: INPUT.to_owned(),
                base64: BASE64.encode(&self.plan.inputs[0]),
            }],
            ..RedeemBody::default()
        };
        let bid = order(planned, Side::Buy, window);
        let bid = PlaceOrder { workload: Some(Box::new(workload)), ..bid };
        let placed: Placed = self.nodes[planned.buyer].post("/orders", &bid)?;
        Ok(placed.order_id)
    }

    /// Sees it begin by itself, runs a program in it, and gets a file out of it.
    ///
    /// # Errors
    /// What did not come about.
    pub(super) fn see_container(&mut self, ordered: Ordered) -> Result<Running, Broken> {
        let planned = self.plan.container.clone();
        let (lease, cert_id) = self.begun(ordered, &planned)?;
        let [buyer, seller] = [planned.buyer, planned.seller].map(|n| self.nodes[n].name());
        let lease_id = lease.lease_id.clone();
        self.story.tell(format_args!(
            "the container of {buyer} began by itself at {seller} as lease {}: certificate {} brought its workload",
            id(&lease_id),
            id(&cert_id),
        ))?;
        let want = sorted(&self.plan.inputs[0]);
        let command = ["/bin/busybox", "tail", "-n", "1", SORTED];
        let stdout =
            self.in_lease(&planned, &[&["exec", &lease_id, "--"], &command[..]].concat())?;
        let last = want.lines().last().unwrap_or_default();
        if stdout.trim_end() != last {
            let message =
                format!("the largest number is {last}, and the container says {stdout:?}");
            return Err(Broken::new(reason!("devnet.lease"), message).at(seller));
        }
        let here = self.home.path().join("sorted.txt");
        let path = here.display().to_string();
        self.in_lease(&planned, &["get", &lease_id, SORTED, &path])?;
        let got = std::fs::read(&here)?;
        let file = FilePart {
            path: SORTED,
            bytes: got.len() as u64,
            sha256: to_hex(&sha256(&[&got])),
            matches_expected: got == want.as_bytes(),
        };
        self.story.tell(format_args!(
            "{buyer} ran `{}` in it, which says {last}, and got {SORTED} out of it, {}",
            command[1..].join(" "),
            count(file.bytes, "byte"),
        ))?;
        let entry = EntryPart { command: command.map(str::to_owned).to_vec(), stdout };
        Ok(Running { lease_id, cert_id, entry, file })
    }

    /// The lease as its provider has it, once its workload has done its work, and its certificate.
    fn begun(&self, ordered: Ordered, planned: &PlannedTrade) -> Result<(Lease, String), Broken> {
        let [buyer, seller] = [planned.buyer, planned.seller].map(|n| &self.nodes[n]);
        let mut order_id = ordered.order_id;
        let awaited = Awaited { what: "the container", from: seller.name(), limit: BEGIN_TIME };
        self.wait(awaited, || {
            let bid: Order = buyer.get(&format!("/orders/{order_id}"))?;
            if bid.state == super::trading::EXPIRED && bid.filled_qty == 0 {
                order_id = self.bid_for_container(bid_window(planned, &buyer.status()?))?;
            }
            let held: Vec<Certificate> = buyer.get("/certificates")?;
            let Some(cert) = held.into_iter().find(|cert| cert.class == planned.class) else {
                return Ok(Look::Not(format!("its bid is {}", bid.state)));
            };
            let Some(lease_id) = &cert.lease_id else {
                let workload = cert.workload.and_then(|workload| workload.code);
                return Ok(Look::Not(format!("its certificate is {}, {workload:?}", cert.state)));
            };
            let lease = seller.lease(lease_id)?;
            let is_ready = lease.phase == "running" && buyer.logs(lease_id, "stdout")? == SAYS;
            let instead = format!("the lease is {}, {:?}", lease.phase, lease.code);
            Ok(Look::some(is_ready.then_some((lease, cert.cert_id)), || instead))
        })
    }

    /// Standard output of `capex lease …` of the buyer.
    fn in_lease(&self, planned: &PlannedTrade, words: &[&str]) -> Result<String, Broken> {
        let buyer = &self.nodes[planned.buyer];
        let dir = self.home.dir(buyer.name());
        let first = ["--network", "devnet", "--datadir"].map(OsStr::new);
        let command = ["lease"].iter().chain(words).map(OsStr::new);
        let args: Vec<&OsStr> = first.into_iter().chain([dir.as_os_str()]).chain(command).collect();
        let output = self.fleet.run(&args)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let message = format!("capex lease {}: {}", words.join(" "), said.trim_end());
            return Err(Broken::new(reason!("devnet.lease"), message).at(buyer.name()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sees its end, and that nothing is left of it.
    ///
    /// # Errors
    /// What was left behind, or is not as both sides have it.
    pub(super) fn end_container(&mut self, running: Running) -> Result<(), Broken> {
        let planned = self.plan.container.clone();
        let [buyer, seller] = [planned.buyer, planned.seller].map(|n| &self.nodes[n]);
        let Running { lease_id, cert_id, entry, file } = running;
        let awaited = Awaited { what: "its end", from: seller.name(), limit: END_TIME };
        let there = self.wait(awaited, || {
            let there = seller.lease(&lease_id)?;
            let is_over = there.phase == "released" && there.countersigned;
            let instead = format!("the lease is {}", there.phase);
            Ok(Look::some(is_over.then_some(there), || instead))
        })?;
        let awaited = Awaited { what: "its final claim", from: seller.name(), limit: END_TIME };
        let trade = self.wait(awaited, || {
            let Some(trade) = buyer.live_trade(planned.class, &self.sold)? else {
                return Ok(Look::Not("there is no trade".to_owned()));
            };
            let [bought, sold] = self.both(&planned, &trade.trade_id)?;
            let instead = format!("the sale is {}", sold.state);
            Ok(Look::some(trade_part(&bought, &sold, &seller.key), || instead))
        })?;
        let lease = ContainerLease {
            lease_id,
            cert_id,
            holder: there.holder,
            provider: there.provider,
            backend: there.backend,
            outcome: there.outcome,
            started_at: there.started_at,
            ended_at: there.ended_at,
            window: there.window,
            delivered_s: there.delivered_s,
            receipts: there.receipts,
            countersigned: there.countersigned,
            left_behind: there.left_behind,
        };
        if !file.matches_expected || !lease.left_behind.is_empty() {
            let message =
                format!("lease {}: {file:?}, {:?}", id(&lease.lease_id), lease.left_behind);
            return Err(Broken::new(reason!("devnet.lease"), message).at(seller.name()));
        }
        self.story.tell(format_args!(
            "the container ended with its window: {} s delivered, {} signed by both sides, nothing left behind",
            lease.delivered_s,
            count(lease.receipts.into(), "receipt"),
        ))?;
        self.document.fees_paid_sat += trade.settlement.fund.fee_sat + trade.seller_fees_sat;
        self.document.container = Some(ContainerPart {
            ran: true,
            why_not: None,
            trade: Some(trade),
            lease: Some(lease),
            entry: Some(entry),
            file: Some(file),
        });
        Ok(())
    }
}

/// What `sort -n` makes of numbers, each on a line of its own.
fn sorted(input: &str) -> String {
    let mut numbers: Vec<(u64, &str)> =
        input.lines().map(|line| (line.parse().unwrap_or(0), line)).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|(_, line)| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_by_their_value() {
        assert_eq!(sorted("10\n9\n100\n9\n"), "9\n9\n10\n100\n");
    }
}
