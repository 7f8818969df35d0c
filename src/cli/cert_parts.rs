//! `capex cert split|merge`, and how lineage and units of a certificate look.

use super::explain::because;
use super::failure::Failure;
use super::output::{self, short, slots};
use super::time::{SlotWindow, utc};
use super::{Context, id};
use crate::api::types::{
    AttachedWorkload, Certificate, CertificateTransfer, MergeCertificates, SlotRange, SplitInto,
    SplitOff, TransferKind,
};
use capex_core::units::msat_to_sat;

/// Most columns of a calendar.
const COLUMNS: u32 = 48;
/// Most rows of a calendar: what is left out is counted.
const ROWS: usize = 16;

/// What is cut out of a certificate.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Cut {
    /// So many units, those with the lowest numbers [default: all]
    #[arg(long, value_name = "N")]
    pub qty: Option<u32>,
    /// These slots, a..b, the end not included [default: all]
    #[arg(long, value_name = "A..B")]
    pub window: Option<SlotWindow>,
}

impl Cut {
    /// The window as the API takes it.
    pub(super) fn slots(self) -> Option<SlotRange> {
        self.window.map(|window| [window.start, window.end])
    }
}

/// Flags of `cert split`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex cert split 0123abcd --qty 2
  capex cert split 0123abcd --window 480100..480112 --json

Next: capex cert list")]
pub struct SplitFlags {
    /// Id, or its first 8 or more digits
    #[arg(value_parser = id)]
    pub id: String,
    #[command(flatten)]
    pub cut: Cut,
}

/// Flags of `cert merge`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex cert merge 0123abcd 4567ef01
  capex cert merge 0123abcd 4567ef01 89ab2345 --json

Next: capex cert show <id>")]
pub struct MergeFlags {
    /// Ids, or their first 8 or more digits
    #[arg(value_parser = id, required = true, num_args = 2..=8)]
    pub ids: Vec<String>,
}

/// Cuts a part out of a certificate.
///
/// # Errors
/// What the daemon or the provider refused.
pub(super) fn split(flags: &SplitFlags, context: &mut Context<'_>) -> Result<(), Failure> {
    let body = SplitOff { qty: flags.cut.qty, window: flags.cut.slots() };
    let into: SplitInto =
        context.client()?.post(&format!("/certificates/{}/split", flags.id), &body)?;
    context.show(&into, |into, page| {
        let row = |part: &Certificate| {
            [short(&part.cert_id), units(part).to_string(), slots(part.window)]
        };
        page.field("split", &into.cert_id);
        page.table(["certificate", "units", "slots"], into.parts.iter().map(row), "nothing");
    })
}

/// Joins certificates into one.
///
/// # Errors
/// What the daemon or the provider refused.
pub(super) fn merge(flags: &MergeFlags, context: &mut Context<'_>) -> Result<(), Failure> {
    let body = MergeCertificates { certs: flags.ids.clone() };
    let merged: Certificate = context.client()?.post("/certificates/merge", &body)?;
    context.show(&merged, show)
}

/// One certificate.
pub(super) fn show(certificate: &Certificate, page: &mut output::Page) {
    let ranges = certificate.units.iter().map(|[first, end]| format!("[{first}, {end})"));
    page.field("certificate", &certificate.cert_id)
        .field("provider", &certificate.provider)
        .field("what", format_args!("{} × {}", units(certificate), certificate.class))
        .field("slots", slots(certificate.window))
        .maybe("redeem by", early(certificate).then_some(certificate.not_after_slot))
        .field("units", ranges.collect::<Vec<_>>().join(" "))
        .field("holder", &certificate.holder)
        .maybe(
            "recall",
            certificate
                .recall_by
                .as_ref()
                .map(|key| format!("by {key}, until its first slot begins")),
        )
        .field("state", &certificate.state)
        .maybe("pending", certificate.pending.map(pending))
        .maybe("current", certificate.p_height.map(|height| format!("as of height {height}")))
        .maybe("on offer", certificate.order_id.as_ref().map(|order| format!("by order {order}")))
        .maybe("best bid", certificate.best_bid_msat.map(price))
        .maybe("lease", certificate.lease_id.as_ref())
        .maybe("runs", certificate.workload.as_ref().map(by_itself));
    lineage(&certificate.transfers, page);
}

/// What came with its purchase.
fn by_itself(workload: &AttachedWorkload) -> String {
    let trouble = workload.code.as_ref();
    let trouble = trouble.map(|code| format!("; not yet: {code}, {}", because(code)));
    let (kind, at) = (&workload.kind, utc(workload.redeems_at));
    format!("{kind} by itself, redeemed at {at}{}", trouble.unwrap_or_default())
}

/// What a bid pays.
pub(super) fn price(msat: u64) -> String {
    format!("{} sat/block", msat_to_sat(msat))
}

/// Whether it lapses before its window ends.
fn early(certificate: &Certificate) -> bool {
    certificate.not_after_slot.saturating_add(1) < certificate.window[1]
}

/// What its provider has still to activate.
fn pending(kind: TransferKind) -> String {
    let what = match kind {
        TransferKind::Sale | TransferKind::Resale => "sale",
        TransferKind::Gift => "gift",
        TransferKind::Split => "split",
        TransferKind::Merge => "merge",
        TransferKind::Recall => "recall",
    };
    format!("a {what}, signed here, waits for its provider")
}

/// How many units.
pub(super) fn units(certificate: &Certificate) -> u32 {
    certificate
        .units
        .iter()
        .map(|[first, end]| end.saturating_sub(*first))
        .fold(0, u32::saturating_add)
}

/// Every hop of the history, and the units and slots of its latest certificate within all that it
/// goes back to.
pub(super) fn lineage(transfers: &[CertificateTransfer], page: &mut output::Page) {
    for transfer in transfers {
        let (kind, size) = (kind(transfer.kind), size(transfer));
        let what = match transfer.kind {
            TransferKind::Sale
            | TransferKind::Resale
            | TransferKind::Gift
            | TransferKind::Recall => {
                format!("{kind} {size}, {} → {}", short(&transfer.from), short(&transfer.to))
            }
            TransferKind::Split | TransferKind::Merge => {
                format!("{kind} {size}, of {}", parents(transfer))
            }
        };
        page.field(&short(&transfer.cert_id), what);
    }
    if transfers.iter().any(|step| matches!(step.kind, TransferKind::Split | TransferKind::Merge)) {
        calendar(transfers, page);
    }
}

fn kind(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::Sale => "sale  ",
        TransferKind::Resale => "resale",
        TransferKind::Gift => "gift  ",
        TransferKind::Split => "split ",
        TransferKind::Merge => "merge ",
        TransferKind::Recall => "recall",
    }
}

/// How much there was after a hop.
fn size(transfer: &CertificateTransfer) -> String {
    let units = transfer.units.iter().map(|[first, end]| end.saturating_sub(*first));
    let units = units.fold(0, u32::saturating_add);
    let slots = transfer.window[1].saturating_sub(transfer.window[0]);
    let several = |count: u32| if count == 1 { "" } else { "s" };
    format!("{units} unit{} × {slots} slot{}", several(units), several(slots))
}

fn parents(transfer: &CertificateTransfer) -> String {
    let parents: Vec<String> = transfer.consumed.iter().map(|cert| short(cert)).collect();
    parents.join(" and ")
}

/// Units from top to bottom, slots from left to right: `#` is this certificate, `.` what else it
/// was cut from or merged with.
fn calendar(transfers: &[CertificateTransfer], page: &mut output::Page) {
    let Some(now) = transfers.last() else { return };
    let start = transfers.iter().map(|step| step.window[0]).min().unwrap_or(0);
    let end = transfers.iter().map(|step| step.window[1]).max().unwrap_or(0);
    let span = end.saturating_sub(start).max(1);
    let slots_each = span.div_ceil(COLUMNS);
    let mut cuts: Vec<u32> =
        transfers.iter().flat_map(|step| step.units.iter().flatten().copied()).collect();
    cuts.sort_unstable();
    cuts.dedup();
    // A column is marked for any of its slots: a short part is not overlooked.
    let has = |step: &CertificateTransfer, unit: u32, column: u32| {
        let from = start.saturating_add(column.saturating_mul(slots_each));
        step.window[0] < from.saturating_add(slots_each)
            && from < step.window[1]
            && step.units.iter().any(|[first, end]| *first <= unit && unit < *end)
    };
    let mark = |unit: u32, column: u32| {
        if has(now, unit, column) {
            '#'
        } else if transfers.iter().any(|step| has(step, unit, column)) {
            '.'
        } else {
            ' '
        }
    };
    let mut rows: Vec<([u32; 2], String)> = Vec::new();
    for (first, after) in cuts.iter().zip(cuts.iter().skip(1)) {
        let line: String =
            (0..span.div_ceil(slots_each)).map(|column| mark(*first, column)).collect();
        match rows.last_mut() {
            Some((range, above)) if range[1] == *first && *above == line => range[1] = *after,
            _ => rows.push(([*first, *after], line)),
        }
    }
    rows.retain(|(_, line)| !line.trim().is_empty());
    let scale = if slots_each > 1 { format!(", {slots_each} a column") } else { String::new() };
    page.field("calendar", format_args!("# this certificate, . what else it goes back to"))
        .field("unit", format_args!("slots {}{scale}", slots([start, end])));
    let more = rows.len().saturating_sub(ROWS);
    for ([first, after], line) in rows.into_iter().take(ROWS) {
        page.field(&format!("[{first}, {after})"), line);
    }
    page.maybe("", (more > 0).then(|| format!("and {more} more ranges of units")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(
        kind: TransferKind,
        cert: u8,
        units: [u32; 2],
        window: [u32; 2],
    ) -> CertificateTransfer {
        CertificateTransfer {
            kind,
            from: "aa".to_owned(),
            to: "bb".to_owned(),
            cert_id: format!("{cert:064x}"),
            seq: 1,
            consumed: vec![format!("{:064x}", cert - 1)],
            units: vec![units],
            window,
        }
    }

    #[test]
    fn a_part_stands_within_what_it_was_cut_from() {
        let transfers = [
            step(TransferKind::Sale, 1, [0, 4], [100, 108]),
            step(TransferKind::Split, 2, [1, 3], [104, 108]),
            step(TransferKind::Resale, 2, [1, 3], [104, 108]),
        ];
        let mut page = output::Page::default();
        lineage(&transfers, &mut page);
        let text = page.as_str().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("sale   4 units × 8 slots, aa → bb"), "{text}");
        assert!(lines[1].contains("split  2 units × 4 slots, of 000000000000"), "{text}");
        assert!(lines[2].contains("resale 2 units × 4 slots, aa → bb"), "{text}");
        assert!(lines[4].contains("slots [100, 108)"), "{text}");
        assert_eq!(drawn(&lines[5..]), ["........", "....####", "........"], "{text}");
    }

    fn drawn<'a>(lines: &[&'a str]) -> Vec<&'a str> {
        lines.iter().map(|line| line.rsplit(' ').next().unwrap()).collect()
    }

    /// Units that always went together are one row, and a slot within a column is seen.
    #[test]
    fn a_calendar_is_as_small_as_what_it_shows() {
        let transfers = [
            step(TransferKind::Sale, 1, [0, 9], [100, 436]),
            step(TransferKind::Split, 2, [0, 4], [100, 436]),
            step(TransferKind::Split, 3, [0, 4], [105, 106]),
        ];
        let mut page = output::Page::default();
        lineage(&transfers, &mut page);
        let text = page.as_str().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[4].ends_with("slots [100, 436), 7 a column"), "{text}");
        let (first, rest) = (format!("#{}", ".".repeat(47)), ".".repeat(48));
        assert_eq!(drawn(&lines[5..]), [first, rest], "{text}");
    }

    #[test]
    fn ranges_of_units_that_have_no_room_are_counted() {
        let mut transfers = vec![step(TransferKind::Sale, 1, [0, 40], [100, 101])];
        let odd = |n: u32| [2 * n, 2 * n + 1];
        transfers.push(step(TransferKind::Split, 2, [0, 1], [100, 101]));
        transfers[1].units = (0..10).map(odd).collect();
        let mut page = output::Page::default();
        lineage(&transfers, &mut page);
        let text = page.as_str().to_owned();
        assert!(text.trim_end().ends_with("and 4 more ranges of units"), "{text}");
    }

    #[test]
    fn what_waits_for_the_provider_is_shown() {
        let mut certificate = Certificate {
            cert_id: "cc".to_owned(),
            provider: "aa".to_owned(),
            class: "cpu.standard".to_owned(),
            window: [100, 108],
            not_after_slot: 107,
            units: vec![[0, 4]],
            features: Vec::new(),
            holder: "bb".to_owned(),
            recall_by: None,
            seq: 1,
            transfers: Vec::new(),
            state: "held".to_owned(),
            pending: None,
            p_height: None,
            lease_id: None,
            order_id: None,
            best_bid_msat: None,
            workload: None,
        };
        for (kind, word) in [
            (None, None),
            (Some(TransferKind::Split), Some("a split, ")),
            (Some(TransferKind::Merge), Some("a merge, ")),
        ] {
            certificate.pending = kind;
            let mut page = output::Page::default();
            show(&certificate, &mut page);
            let text = page.as_str().to_owned();
            assert_eq!(text.contains("pending"), kind.is_some(), "{text}");
            assert!(word.is_none_or(|word| text.contains(word)), "{text}");
        }
    }

    #[test]
    fn what_was_never_cut_has_no_calendar() {
        let mut page = output::Page::default();
        lineage(&[step(TransferKind::Sale, 1, [0, 4], [100, 108])], &mut page);
        assert_eq!(page.as_str().to_owned().lines().count(), 1);
    }
}
