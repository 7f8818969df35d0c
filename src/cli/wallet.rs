//! `capex wallet balance|address|fund`.

use super::Context;
use super::failure::Failure;
use super::output::{Page, sat};
use crate::api::types::{Address, Balance, FundWallet, Funded};
use crate::domain::units::Price;

/// What about the wallet.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Show what can be spent
    #[command(after_help = "Examples:
  capex wallet balance
  capex wallet balance --json

Next: capex wallet address")]
    Balance,
    /// Make a fresh receiving address
    #[command(after_help = "Examples:
  capex wallet address
  capex wallet address --json

Next: capex wallet balance")]
    Address,
    /// Let the faucet of a development network pay this wallet
    #[command(after_help = "Examples:
  capex wallet fund --yes
  capex wallet fund --amount 2000000sat --json --yes

Next: capex wallet balance")]
    Fund {
        /// How much, with its unit
        #[arg(long, default_value = "1000000sat", value_name = "AMOUNT", value_parser = whole_sat)]
        amount: u64,
    },
}

/// Runs it.
///
/// # Errors
/// What the daemon refused.
pub fn run(noun: &Noun, context: &mut Context<'_>) -> Result<(), Failure> {
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
        Noun::Address => {
            let address: Address = client.post_empty("/wallet/address")?;
            context.show(&address, |address, page| {
                page.line(&address.address);
            })
        }
        Noun::Fund { amount } => {
            let mut preview = Page::default();
            preview
                .field("faucet pays", sat(*amount))
                .field("fee", "paid by the faucet: 0 sat for you")
                .field("worst case", "nothing arrives; test coins have no value");
            context
                .io
                .confirm(&preview, "Ask the faucet?", context.global.yes)?;
            let funded: Funded = client.post(
                "/wallet/fund",
                &FundWallet {
                    amount_sat: *amount,
                },
            )?;
            context.show(&funded, |funded, page| {
                page.field("received", sat(funded.amount_sat))
                    .field("outputs", funded.outputs)
                    .field("txid", &funded.txid);
            })
        }
    }
}

/// For clap: an amount with its unit, in whole sats.
fn whole_sat(text: &str) -> Result<u64, String> {
    let msat = text
        .parse::<Price>()
        .map_err(|error| error.to_string())?
        .msat();
    if msat % 1000 == 0 {
        Ok(msat / 1000)
    } else {
        Err("not a whole number of sats".to_owned())
    }
}
