//! `capex wallet balance|address|fund`.

use super::Context;
use super::failure::Failure;
use super::output::sat;
use crate::api::types::{Address, Balance, FundWallet, Funded};
use capex_core::units::amount_sat;

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
  capex wallet fund 0.1
  capex wallet fund 2000000sat --json

Next: capex wallet balance")]
    Fund {
        /// How much: 0.1 is bitcoin, 5000sat is sats
        #[arg(default_value = "0.1", value_name = "AMOUNT", value_parser = amount)]
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
            let funded: Funded =
                client.post("/wallet/fund", &FundWallet { amount_sat: *amount })?;
            context.show(&funded, |funded, page| {
                page.field("received", sat(funded.amount_sat))
                    .field("outputs", funded.outputs)
                    .field("txid", &funded.txid);
            })
        }
    }
}

/// For clap: an amount in bitcoin, or in sats with that unit.
fn amount(text: &str) -> Result<u64, String> {
    amount_sat(text).map_err(|error| error.to_string())
}
