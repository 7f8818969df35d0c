//! `capex cert list|show|export|verify|gift|recall|split|merge|fetch|import|redeem|detach`.

use std::path::PathBuf;

use super::cert_parts::{price, show, units};
use super::failure::Failure;
use super::file_out::Out;
use super::output::{self, short, slots};
use super::paging::{Page, show_list};
use super::{Context, cert_parts, cert_verify, id, key, redeem};
use crate::api::types::{Acknowledged, Certificate, FetchFrom, GiftTo, Gifted, ImportCertificate};

/// What about certificates.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// List certificates that this node issued, holds or held
    #[command(after_help = "Examples:
  capex cert list
  capex cert list --limit 20 --json

Next: capex cert show <id>")]
    List(Page),
    /// Show one certificate
    #[command(after_help = "Examples:
  capex cert show 0123abcd
  capex cert show 0123abcd --json

Next: capex cert export <id> --out cert.txt")]
    Show {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
    /// Write a certificate as a text file that anyone can verify
    #[command(after_help = "Examples:
  capex cert export 0123abcd
  capex cert export 0123abcd --out cert.txt

Next: capex cert verify cert.txt")]
    Export {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        #[command(flatten)]
        out: Out,
    },
    /// Verify a certificate file offline
    Verify(cert_verify::Flags),
    /// Give a certificate away, or a part of it; final
    #[command(after_help = "Examples:
  capex cert gift 0123abcd --to <key of the next holder>
  capex cert gift 0123abcd --to <key of the next holder> --qty 1 --yes --json

Next: capex cert show <id>")]
    Gift {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
        /// Key of the next holder, as their `capex status` prints it
        #[arg(long, value_name = "KEY", value_parser = key)]
        to: String,
        #[command(flatten)]
        cut: cert_parts::Cut,
    },
    /// Take back what you paid for and may recall
    ///
    /// That is what `capex buy --for-key KEY --recall` has bought, until its first slot begins or
    /// its holder has redeemed it. It is yours then, as if you had bought it for yourself.
    #[command(after_help = "Examples:
  capex cert recall 0123abcd
  capex cert recall 0123abcd --yes --json

Next: capex cert show <id>")]
    Recall {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
    /// Cut a certificate into a part and what is left
    ///
    /// Every part is a certificate of its own: it can be given away, split and redeemed by itself.
    Split(cert_parts::SplitFlags),
    /// Join certificates of one provider and class into one
    ///
    /// They have the same units one window after the other, or different units in one window.
    Merge(cert_parts::MergeFlags),
    /// Get a certificate that you hold from its provider
    ///
    /// A provider brings a certificate to its holder until the delivery window ends. Fetch one that
    /// did not come: while this node was away, or had no room.
    #[command(after_help = "Examples:
  capex cert fetch $CERT_ID --provider $PROVIDER_KEY
  capex cert fetch $CERT_ID --provider $PROVIDER_KEY --json

Next: capex cert list")]
    Fetch {
        /// Id, all 64 digits
        #[arg(value_parser = id)]
        id: String,
        /// Key of the provider
        #[arg(long, value_name = "KEY", value_parser = key)]
        provider: String,
    },
    /// Take in a certificate file that names this node as holder
    ///
    /// The way back to what was paid for when the data directory is lost but the key and the file
    /// are not. Everything in the file is verified, offline; nothing is asked of the provider.
    #[command(after_help = "Examples:
  capex cert import cert.txt
  capex cert import cert.txt --provider $PROVIDER_KEY --json

Next: capex cert redeem <id> --wasm <file>")]
    Import {
        /// Certificate file, `-` for standard input
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// Key of the provider, needed where this node knows nothing of it
        #[arg(long, value_name = "KEY", value_parser = key)]
        provider: Option<String>,
    },
    /// Run a workload on the capacity of a certificate; final
    Redeem(Box<redeem::Flags>),
    /// Let the workload go that came with its purchase, and hold it as any other
    #[command(after_help = "Examples:
  capex cert detach 0123abcd
  capex cert detach 0123abcd --json

Next: capex cert redeem <id> --wasm <file>")]
    Detach {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
}

/// Runs it.
///
/// # Errors
/// What a file, the daemon or the provider refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::List(page) => show_list(context, "/certificates", "cert list", page, list),
        Noun::Show { id } => {
            let certificate: Certificate = context.client()?.get(&format!("/certificates/{id}"))?;
            context.show(&certificate, show)
        }
        Noun::Export { id, out } => export(id, out, context),
        Noun::Verify(flags) => cert_verify::run(flags, context),
        Noun::Gift { id, to, cut } => gift(id, to, *cut, context),
        Noun::Recall { id } => recall(id, context),
        Noun::Split(flags) => cert_parts::split(flags, context),
        Noun::Merge(flags) => cert_parts::merge(flags, context),
        Noun::Fetch { id, provider } => {
            let body = FetchFrom { provider: provider.clone() };
            let path = format!("/certificates/{id}/fetch");
            let certificate: Certificate = context.client()?.post(&path, &body)?;
            context.show(&certificate, show)
        }
        Noun::Import { file, provider } => {
            let file = cert_verify::read(file, context)?;
            let body = ImportCertificate { file, provider: provider.clone() };
            let certificate: Certificate = context.client()?.post("/certificates/import", &body)?;
            context.show(&certificate, show)
        }
        Noun::Redeem(flags) => redeem::run(flags, context),
        Noun::Detach { id } => {
            let path = format!("/certificates/{id}/workload");
            let done: Acknowledged = context.client()?.delete(&path)?;
            context.show(&done, |_, page| {
                page.line("detached: nothing runs on it by itself");
            })
        }
    }
}

fn export(id: &str, out: &Out, context: &mut Context<'_>) -> Result<(), Failure> {
    let text = context.client()?.text(&format!("/certificates/{id}/file"))?;
    match out.write(text.as_bytes(), context) {
        Some(written) => written,
        None if context.global.json => {
            context.io.json(&serde_json::json!({ "certificate_file": text }))
        }
        // The file's own form is printable ASCII; the daemon wrote it.
        None => Ok(context.io.out.write_all(super::sanitise::paragraph(&text).as_bytes())?),
    }
}

fn gift(
    id: &str,
    to: &str,
    cut: cert_parts::Cut,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let client = context.client()?;
    if !context.global.yes {
        let certificate: Certificate = client.get(&format!("/certificates/{id}"))?;
        let mut preview = output::Page::default();
        show(&certificate, &mut preview);
        preview
            .maybe("of it", cut.qty.map(|qty| format!("{qty} units")))
            .maybe("of its slots", cut.slots().map(slots))
            .field("gift to", to)
            .line("A gift is final and costs no fee.");
        context.io.confirm(&preview, "Give it away?", false)?;
    }
    let body = GiftTo { to: to.to_owned(), qty: cut.qty, window: cut.slots() };
    let gifted: Gifted = client.post(&format!("/certificates/{id}/gift"), &body)?;
    context.show(&gifted, |gifted, page| {
        page.field("certificate", &gifted.cert_id)
            .field("holder", &gifted.to)
            .field("transfers", gifted.seq);
    })
}

fn recall(id: &str, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    if !context.global.yes {
        let certificate: Certificate = client.get(&format!("/certificates/{id}"))?;
        let mut preview = output::Page::default();
        show(&certificate, &mut preview);
        preview.line("Its holder has nothing of it any more. This costs no fee.");
        context.io.confirm(&preview, "Take it back?", false)?;
    }
    let recalled: Certificate = client.post(&format!("/certificates/{id}/recall"), &())?;
    context.show(&recalled, show)
}

fn list(certificates: &[Certificate], page: &mut output::Page) {
    let row = |certificate: &Certificate| {
        [
            short(&certificate.cert_id),
            format!("{} × {}", units(certificate), certificate.class),
            slots(certificate.window),
            short(&certificate.provider),
            short(&certificate.holder),
            certificate.seq.to_string(),
            match &certificate.order_id {
                Some(_) => format!("{}, on offer", certificate.state),
                None => certificate.state.clone(),
            },
            certificate.best_bid_msat.map_or_else(String::new, price),
        ]
    };
    let headings =
        ["certificate", "what", "slots", "provider", "holder", "transfers", "state", "best bid"];
    page.table(headings, certificates.iter().map(row), "no certificates: see `capex help buy`");
}
