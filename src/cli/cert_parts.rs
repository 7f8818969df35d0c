//! `capex cert split|merge`, and how lineage and units of a certificate look.

use super::failure::Failure;
use super::output::{self, short, slots};
use super::time::SlotWindow;
use super::{Context, id};
use crate::api::types::{
    Certificate, CertificateTransfer, MergeCertificates, SlotRange, SplitInto, SplitOff,
    TransferKind,
};

/// Columns of a calendar.
const COLUMNS: u32 = 48;
/// Rows of a calendar: unit ranges beyond are left out.
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
        .field("units", ranges.collect::<Vec<_>>().join(" "))
        .field("holder", &certificate.holder)
        .field("state", &certificate.state)
        .maybe("current", certificate.p_height.map(|height| format!("as of height {height}")))
        .maybe("lease", certificate.lease_id.as_ref());
    lineage(&certificate.transfers, page);
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
        let what = match transfer.kind {
            TransferKind::Sale => format!("sale   {} → {}", transfer.from, transfer.to),
            TransferKind::Gift => format!("gift   {} → {}", transfer.from, transfer.to),
            TransferKind::Split => format!("split  of {}", parents(transfer)),
            TransferKind::Merge => format!("merge  of {}", parents(transfer)),
        };
        page.field(&short(&transfer.cert_id), what);
    }
    if transfers.iter().any(|step| matches!(step.kind, TransferKind::Split | TransferKind::Merge)) {
        calendar(transfers, page);
    }
}

fn parents(transfer: &CertificateTransfer) -> String {
    let parents: Vec<String> = transfer.consumed.iter().map(|cert| short(cert)).collect();
    parents.join(" ")
}

/// `#` is this certificate, `.` what it was cut from or merged with.
fn calendar(transfers: &[CertificateTransfer], page: &mut output::Page) {
    let Some(now) = transfers.last() else { return };
    let start = transfers.iter().map(|step| step.window[0]).min().unwrap_or(0);
    let end = transfers.iter().map(|step| step.window[1]).max().unwrap_or(0);
    let mut cuts: Vec<u32> =
        transfers.iter().flat_map(|step| step.units.iter().flatten().copied()).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let width = end.saturating_sub(start).clamp(1, COLUMNS);
    let has = |step: &CertificateTransfer, unit: u32, slot: u32| {
        step.window[0] <= slot
            && slot < step.window[1]
            && step.units.iter().any(|[first, end]| *first <= unit && unit < *end)
    };
    let mark = |unit: u32, slot: u32| {
        if has(now, unit, slot) {
            '#'
        } else if transfers.iter().any(|step| has(step, unit, slot)) {
            '.'
        } else {
            ' '
        }
    };
    page.field(
        "calendar",
        format_args!("{}: # this certificate, . what it goes back to", slots([start, end])),
    );
    let rows = cuts.iter().zip(cuts.iter().skip(1));
    let rows =
        rows.filter(|(first, _)| transfers.iter().any(|step| has(step, **first, step.window[0])));
    for (first, after) in rows.take(ROWS) {
        let slot = |column: u32| {
            let offset =
                u64::from(column) * u64::from(end.saturating_sub(start)) / u64::from(width);
            start.saturating_add(u32::try_from(offset).unwrap_or(u32::MAX))
        };
        let line: String = (0..width).map(|column| mark(*first, slot(column))).collect();
        page.field(&format!("[{first}, {after})"), line);
    }
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
        ];
        let mut page = output::Page::default();
        lineage(&transfers, &mut page);
        let text = page.as_str().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("sale   aa → bb"), "{text}");
        assert!(lines[1].contains("split  of 0000000"), "{text}");
        let drawn: Vec<&str> =
            lines[3..].iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(drawn, ["........", "....####", "........"], "{text}");
    }

    #[test]
    fn what_was_never_cut_has_no_calendar() {
        let mut page = output::Page::default();
        lineage(&[step(TransferKind::Sale, 1, [0, 4], [100, 108])], &mut page);
        assert_eq!(page.as_str().to_owned().lines().count(), 1);
    }
}
