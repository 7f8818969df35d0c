//! `capex wallet`: what the daemon says and does of coins. The seed file is in [`seed`].

use std::path::PathBuf;

use super::Context;
use super::failure::Failure;
use super::output::{Page, sat, short};
use super::psbt;
use super::seed::{self, Restored};
use super::time::utc;
use crate::api::types::{
    Address, Balance, BumpPayment, Coin, Descriptors, FundWallet, Funded, Payment, Rescan,
    RescanWallet, SendCoins, WalletTx,
};
use crate::wallet::RESTORE_GAP;
use capex_core::units::{amount_sat, feerate_sat_kvb};

/// What about the wallet.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Show what can be spent
    #[command(after_help = "Examples:
  capex wallet balance
  capex wallet balance --json

Next: capex wallet address")]
    Balance,
    /// Show every coin, and which of them are kept for a trade
    #[command(after_help = "Examples:
  capex wallet coins
  capex wallet coins --json

Next: capex wallet history")]
    Coins,
    /// Show what came and what went, for which trade, and what it cost
    #[command(after_help = "Examples:
  capex wallet history
  capex wallet history --json

Next: capex wallet balance")]
    History,
    /// Make a fresh receiving address
    #[command(after_help = "Examples:
  capex wallet address
  capex wallet address --json

Next: capex wallet balance")]
    Address,
    /// Pay to an address
    #[command(after_help = "Examples:
  capex wallet send bcrt1qexample 0.01btc --dry-run
  capex wallet send bcrt1qexample --all --coin 1111111111111111111111111111111111111111111111111111111111111111:0

Next: capex wallet history")]
    Send(Send),
    /// Replace an unconfirmed payment by one with a higher fee
    #[command(after_help = "Examples:
  capex wallet bump 1111111111111111111111111111111111111111111111111111111111111111
  capex wallet bump 1111111111111111111111111111111111111111111111111111111111111111 --fee-rate 40

Next: capex wallet history")]
    Bump {
        /// Id of the payment, as `wallet history` shows it
        txid: String,
        /// Sat per virtual byte [default: what the next chain block should take]
        #[arg(long, value_name = "RATE", value_parser = feerate)]
        fee_rate: Option<u64>,
    },
    /// Transactions that wait for a signature made elsewhere: list, export, import, drop
    #[command(subcommand)]
    Psbt(psbt::Noun),
    /// Look for coins further ahead, as after a restore
    #[command(after_help = "Examples:
  capex wallet rescan
  capex wallet rescan --gap 5000 --from 800000

Next: capex wallet balance")]
    Rescan {
        /// Addresses to look at beyond the last one that was handed out
        #[arg(long, default_value_t = RESTORE_GAP)]
        gap: u32,
        /// First chain block to read again [default: the first that the wallet knew]
        #[arg(long, value_name = "HEIGHT")]
        from: Option<u32>,
    },
    /// Show the public descriptors, to watch this wallet elsewhere
    #[command(after_help = "Examples:
  capex wallet descriptor
  capex wallet descriptor --json

Next: capex wallet words")]
    Descriptor,
    /// Show the words from which the wallet can be restored
    #[command(after_help = "Examples:
  capex wallet words
  capex wallet words --password-file /run/secrets/capex

Next: capex wallet encrypt")]
    Words(PasswordFile),
    /// Seal the keys, of coins and of the node, with a password
    #[command(after_help = "Examples:
  capex wallet encrypt --password-file /run/secrets/capex
  capex wallet encrypt --datadir /tmp/a --password-file /tmp/a.password

Next: capex up --password-file /run/secrets/capex")]
    Encrypt(PasswordFile),
    /// Take the password away from the keys
    #[command(after_help = "Examples:
  capex wallet decrypt --password-file /run/secrets/capex
  capex wallet decrypt --datadir /tmp/a --password-file /tmp/a.password

Next: capex wallet words")]
    Decrypt(PasswordFile),
    /// Make the seed file from words
    #[command(after_help = "Examples:
  capex wallet restore words.txt
  capex wallet restore words.txt --birthday 2026-01-31T00:00:00Z

Next: capex up")]
    Restore {
        /// The words.
        #[command(flatten)]
        from: Restored,
        /// The password.
        #[command(flatten)]
        password: PasswordFile,
    },
    /// Let the faucet of a development network pay this wallet
    #[command(after_help = "Examples:
  capex wallet fund 0.1btc
  capex wallet fund 2000000sat --json

Next: capex wallet balance")]
    Fund {
        /// How much, with its unit: 0.1btc, 5000sat
        #[arg(default_value = "0.1btc", value_name = "AMOUNT", value_parser = amount)]
        amount: u64,
    },
}

/// Where the password of a sealed seed is.
#[derive(Debug, Clone, clap::Args)]
pub struct PasswordFile {
    /// File with the password, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Flags of `send`.
#[derive(Debug, clap::Args)]
pub struct Send {
    /// Where to: an address of this network
    #[arg(value_name = "ADDRESS")]
    pub to: String,
    /// How much, with its unit: 0.1btc, 5000sat
    #[arg(value_name = "AMOUNT", value_parser = amount, required_unless_present = "all")]
    pub amount: Option<u64>,
    /// Everything that is free, less the fee
    #[arg(long, conflicts_with = "amount")]
    pub all: bool,
    /// Sat per virtual byte [default: what six chain blocks should take]
    #[arg(long, value_name = "RATE", value_parser = feerate)]
    pub fee_rate: Option<u64>,
    /// Spend this coin and no others, as `wallet coins` names it; once for each coin
    #[arg(long = "coin", value_name = "TXID:VOUT")]
    pub coins: Vec<String>,
    /// Show amount and fee, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::Words(flag) => return seed::words(flag.password_file.as_deref(), context),
        Noun::Encrypt(flag) => return seed::encrypt(flag.password_file.as_deref(), context),
        Noun::Decrypt(flag) => return seed::decrypt(flag.password_file.as_deref(), context),
        Noun::Restore { from, password } => {
            return seed::restore(from, password.password_file.as_deref(), context);
        }
        Noun::Send(flags) => return send(flags, context),
        Noun::Psbt(noun) => return psbt::run(noun, context),
        Noun::Bump { txid, fee_rate } => return bump(txid, *fee_rate, context),
        _ => {}
    }
    ask(noun, context)
}

/// What the daemon answers at once.
fn ask(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    match noun {
        Noun::Balance => {
            let balance: Balance = client.get("/wallet")?;
            context.show(&balance, |balance, page| {
                page.field("spendable", sat(balance.spendable_sat))
                    .field("reserved", sat(balance.reserved_sat))
                    .field("confirmed", sat(balance.confirmed_sat))
                    .field("pending", sat(balance.pending_sat));
            })
        }
        Noun::Coins => {
            let coins: Vec<Coin> = client.get("/wallet/coins")?;
            context.show(&coins, |coins, page| show_coins(coins, page))
        }
        Noun::History => {
            let history: Vec<WalletTx> = client.get("/wallet/history")?;
            context.show(&history, |history, page| show_history(history, page))
        }
        Noun::Address => {
            let address: Address = client.post_empty("/wallet/address")?;
            context.show(&address, |address, page| {
                page.line(&address.address);
            })
        }
        Noun::Descriptor => {
            let found: Descriptors = client.get("/wallet/descriptors")?;
            context.show(&found, |found, page| {
                page.line(&found.receive).line(&found.change);
            })
        }
        Noun::Rescan { gap, from } => {
            let body = RescanWallet { gap: *gap, from_height: *from };
            let rescan: Rescan = client.post("/wallet/rescan", &body)?;
            context.show(&rescan, |rescan, page| {
                page.line(format_args!(
                    "Chain blocks from height {} are read again for {gap} addresses ahead.",
                    rescan.from_height
                ));
            })
        }
        Noun::Fund { amount } => {
            let funded: Funded =
                client.post("/wallet/fund", &FundWallet { amount_sat: *amount })?;
            context.show(&funded, |funded, page| {
                page.field("received", sat(funded.amount_sat))
                    .field("outputs", funded.outputs)
                    .field("txid", &funded.txid);
            })
        }
        Noun::Words(_)
        | Noun::Encrypt(_)
        | Noun::Decrypt(_)
        | Noun::Restore { .. }
        | Noun::Send(_)
        | Noun::Psbt(_)
        | Noun::Bump { .. } => Ok(()),
    }
}

fn bump(
    txid: &str,
    feerate_sat_kvb: Option<u64>,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let client = context.client()?;
    let body = BumpPayment { txid: txid.to_owned(), feerate_sat_kvb };
    let question = format!("Replace {} by a payment with a higher fee?", short(txid));
    context.io.confirm(&Page::default(), &question, context.global.yes)?;
    let bumped: Payment = client.post("/wallet/bump", &body)?;
    context.show(&bumped, |bumped, page| {
        show_payment(bumped, page);
        if !bumped.awaits_signature {
            page.line("The payment before it is void.");
        }
        next(bumped, format_args!("wallet history"), page);
    })
}

/// Previews, asks, pays.
fn send(flags: &Send, context: &mut Context<'_>) -> Result<(), Failure> {
    let client = context.client()?;
    let body = |dry_run: bool, feerate_sat_kvb: Option<u64>| SendCoins {
        to: flags.to.clone(),
        amount_sat: flags.amount,
        feerate_sat_kvb,
        coins: flags.coins.clone(),
        dry_run,
    };
    let quote: Payment = client.post("/wallet/send", &body(true, flags.fee_rate))?;
    if flags.dry_run {
        return context.show(&quote, |quote, page| {
            show_payment(quote, page);
            page.line("Nothing was sent.");
        });
    }
    let mut preview = Page::default();
    preview.field("to", &flags.to);
    show_payment(&quote, &mut preview);
    context.io.confirm(&preview, "Send these coins?", context.global.yes)?;
    let sent: Payment = client.post("/wallet/send", &body(false, flags.fee_rate))?;
    context.show(&sent, |sent, page| {
        page.field("to", &flags.to);
        show_payment(sent, page);
        page.field("txid", &sent.txid);
        next(sent, format_args!("wallet bump {}", sent.txid), page);
    })
}

/// What to do next: have it signed where the keys are, or what else there is.
fn next(payment: &Payment, otherwise: std::fmt::Arguments<'_>, page: &mut Page) {
    if payment.awaits_signature {
        page.line("It waits for its signature.");
        page.next(format_args!("wallet psbt export {} --out payment.psbt", short(&payment.txid)));
    } else {
        page.next(otherwise);
    }
}

fn show_payment(payment: &Payment, page: &mut Page) {
    let tenths = payment.fee_sat.saturating_mul(10) / payment.vsize.max(1);
    let rate = format!("{}.{} sat/vB", tenths / 10, tenths % 10);
    page.field("pays", sat(payment.amount_sat))
        .field("fee", format_args!("{} ({rate})", sat(payment.fee_sat)))
        .field("comes back", sat(payment.change_sat));
}

fn show_coins(coins: &[Coin], page: &mut Page) {
    let row = |coin: &Coin| {
        let height = coin.height.map_or_else(String::new, |height| height.to_string());
        [sat(coin.amount_sat), coin.state.clone(), height, coin.outpoint.clone()]
    };
    page.table(["AMOUNT", "STATE", "HEIGHT", "COIN"], coins.iter().map(row), "No coins.");
}

fn show_history(history: &[WalletTx], page: &mut Page) {
    let row = |tx: &WalletTx| {
        let (sign, moved) = match tx.received_sat.checked_sub(tx.sent_sat) {
            Some(more) => ("+", more),
            None => ("-", tx.sent_sat - tx.received_sat),
        };
        let text = |value: Option<String>| value.unwrap_or_default();
        [
            text(tx.at.map(utc)),
            text(tx.height.map(|height| height.to_string())),
            tx.what.clone(),
            format!("{sign}{}", sat(moved)),
            text(tx.fee_sat.filter(|_| tx.sent_sat > 0).map(sat)),
            text(tx.trade_id.as_deref().map(short)),
            tx.txid.clone(),
        ]
    };
    let headings = ["TIME", "HEIGHT", "WHAT", "AMOUNT", "FEE", "TRADE", "TXID"];
    page.table(headings, history.iter().map(row), "Nothing yet.");
}

/// For clap: an amount with its unit.
fn amount(text: &str) -> Result<u64, String> {
    amount_sat(text).map_err(|error| error.to_string())
}

/// For clap: sat per virtual byte, as sat per 1,000.
fn feerate(text: &str) -> Result<u64, String> {
    feerate_sat_kvb(text).map_err(|error| error.to_string())
}
