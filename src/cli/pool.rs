//! `capex pool create|join|status|leave`: several pay for one certificate together.

use super::buy::{Bid, prepare};
use super::failure::Failure;
use super::order_flags::{need, sats};
use super::output::{self, sat, short, slots};
use super::time::{Moment, utc};
use super::{Context, id, key};
use crate::api::types::{Acknowledged, CreatePool, JoinPool, PlaceOrder, Pool, Status};
use capex_core::reason;
use capex_core::units::{Price, msat_to_sat};

/// What about pools.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// Found a pool and pledge a part; prints the invitation for the others
    ///
    /// The node bids when the pledges make up the highest price. All members then pay their parts of
    /// what it costs by one transaction, which is invalid until each has signed: a pool that misses
    /// its sum costs nobody anything. With --separately each pays by a transaction of its own, and
    /// gets its part back by a refund if the others do not pay.
    Create(Box<CreateFlags>),
    /// Pledge a part of somebody else's pool
    #[command(after_help = "Examples:
  capex pool join \"$INVITATION\" --share 2000sat
  capex pool join \"$INVITATION\" --share 2000sat --max-fee 500sat --json

Next: capex pool status")]
    Join {
        /// The line that `capex pool create` printed
        #[arg(value_name = "INVITATION")]
        invitation: String,
        /// What to pledge, with its unit
        #[arg(long, value_name = "AMOUNT", value_parser = sats)]
        share: u64,
        /// Most that the fees of it may come to [default: no cap beside `max_fee_share` of the configuration]
        #[arg(long, value_name = "AMOUNT", value_parser = sats)]
        max_fee: Option<u64>,
    },
    /// Show the pools of this node, or one: who pledged what, and what came of it
    #[command(after_help = "Examples:
  capex pool status
  capex pool status 0123abcd --json

Next: capex trade show <id>")]
    Status {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: Option<String>,
    },
    /// Withdraw a pledge while nobody has been asked to pay; a pool without its creator ends
    #[command(after_help = "Examples:
  capex pool leave 0123abcd
  capex pool leave 0123abcd --json

Next: capex pool status")]
    Leave {
        /// Id, or its first 8 or more digits
        #[arg(value_parser = id)]
        id: String,
    },
}

/// Flags of `pool create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  capex pool create --for-key $HOLDER_KEY --class cpu.standard --qty 4 --max-price 2500sat --for 2h --share 8000sat
  capex pool create --for-key $HOLDER_KEY --class cpu.standard --qty 4 --max-price 2500sat --for 2h --share 8000sat --separately

Next: capex pool status")]
pub struct CreateFlags {
    /// Key that shall hold what is bought
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub for_key: String,
    /// Resource class, such as cpu.standard
    #[arg(long, value_name = "CLASS")]
    pub class: String,
    /// Blocks per slot, all at one provider
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub qty: u32,
    /// Highest price per block, with its unit: 20sat, 1500msat
    #[arg(long, value_name = "PRICE", visible_alias = "price")]
    pub max_price: Price,
    /// Start of the window: now, +30s, unix seconds or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// Length of the window: 2slots, 8s, 2h, 7d
    #[arg(long = "for", value_name = "LENGTH")]
    pub length: Option<super::time::Span>,
    /// The window in slots, a..b, instead of --from and --for
    #[arg(long, value_name = "A..B", conflicts_with_all = ["from", "length"])]
    pub window: Option<super::time::SlotWindow>,
    /// Consecutive slots needed inside the window [default: the whole window]
    #[arg(long, value_name = "N")]
    pub slots: Option<u16>,
    /// Feature that is required; repeat for more
    #[arg(long, value_name = "NAME")]
    pub feature: Vec<String>,
    /// What this node pledges, with its unit
    #[arg(long, value_name = "AMOUNT", value_parser = sats)]
    pub share: u64,
    /// Key of one who may pledge; repeat for more [default: whoever has the invitation]
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub invite: Vec<String>,
    /// Each pays by a transaction of its own: for members whose keys are elsewhere, and to buy of
    /// resellers too; one who does not pay costs the others two fees and the wait for a refund
    #[arg(long)]
    pub separately: bool,
    /// Until when pledges are gathered [default: until the window begins]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<Moment>,
    /// Most that the fees of the share may come to [default: no cap beside `max_fee_share` of the configuration]
    #[arg(long, value_name = "AMOUNT", value_parser = sats)]
    pub max_fee: Option<u64>,
    /// Show the preview and found nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs it.
///
/// # Errors
/// A flag, a declined prompt, or what the daemon or the creator refused.
pub fn run(noun: Noun, context: &mut Context<'_>) -> Result<(), Failure> {
    match noun {
        Noun::Create(flags) => create(*flags, context),
        Noun::Join { invitation, share, max_fee } => {
            let client = context.client()?;
            if !context.global.yes {
                let mut page = output::Page::default();
                page.field("pledge", sat(share)).line(
                    "It is kept until the pool bids or ends. Paid, it buys for the holder that the \
                     invitation names; nothing of it comes back but by a refund.",
                );
                context.io.confirm(&page, "Join?", false)?;
            }
            let body = JoinPool { invitation, share_sat: share, max_fee_sat: max_fee };
            let pool: Pool = client.post("/pools/join", &body)?;
            context.show(&pool, show)
        }
        Noun::Status { id: None } => {
            let pools: Vec<Pool> = context.client()?.get("/pools")?;
            context.show(&pools, |pools, page| list(pools, page))
        }
        Noun::Status { id: Some(id) } => {
            let pool: Pool = context.client()?.get(&format!("/pools/{id}"))?;
            context.show(&pool, show)
        }
        Noun::Leave { id } => {
            let done: Acknowledged = context.client()?.delete(&format!("/pools/{id}"))?;
            context.show(&done, |_, page| {
                page.line("left: the coins of the pledge are free");
            })
        }
    }
}

fn create(flags: CreateFlags, context: &mut Context<'_>) -> Result<(), Failure> {
    let (share_sat, max_fee_sat) = (flags.share, flags.max_fee);
    let (expires, dry_run) = (flags.expires, flags.dry_run);
    let (invited, all_or_nothing) = (flags.invite.clone(), !flags.separately);
    let (order, client) = prepare(bid(flags), None, context)?;
    let status: Status = client.status()?;
    let starts_ms = u64::from(order.window[0]) * u64::from(status.slot_s) * 1000;
    let body = CreatePool {
        expires_at: expires.map_or(starts_ms, |moment| moment.at_ms(status.now_at)),
        invited,
        all_or_nothing,
        share_sat,
        max_fee_sat,
        ..pool_of(order)?
    };
    if dry_run {
        return context.show(&body, preview);
    }
    if !context.global.yes {
        let mut page = output::Page::default();
        preview(&body, &mut page);
        context.io.confirm(&page, "Found this pool?", false)?;
    }
    let pool: Pool = client.post("/pools", &body)?;
    context.show(&pool, show)
}

/// The bid that the pool will make.
fn bid(flags: CreateFlags) -> Bid {
    let common = super::order_flags::Common {
        class: Some(flags.class),
        qty: Some(flags.qty),
        from: flags.from,
        length: flags.length,
        window: flags.window,
        feature: flags.feature,
        ..super::order_flags::Common::default()
    };
    Bid {
        common,
        max_price: Some(flags.max_price),
        slots: flags.slots,
        for_key: Some(flags.for_key),
        ..Bid::default()
    }
}

fn pool_of(order: PlaceOrder) -> Result<CreatePool, Failure> {
    let first = order.alternatives.into_iter().next();
    let first = first.ok_or_else(|| {
        Failure::new(reason!("order.incomplete"), "a pool is for one resource class")
    })?;
    Ok(CreatePool {
        holder: need(order.beneficiary, "for-key")?,
        class: first.class,
        features: order.features,
        qty: order.qty,
        window: order.window,
        slots: order.slots,
        limit_msat: first.limit_msat,
        expires_at: 0,
        invited: Vec::new(),
        all_or_nothing: true,
        share_sat: 0,
        max_fee_sat: None,
    })
}

fn preview(body: &CreatePool, page: &mut output::Page) {
    let price = msat_to_sat(body.limit_msat);
    page.field("what", format_args!("{} × {}", body.qty, body.class))
        .field("slots", slots(body.window))
        .field("run", format_args!("{} slots", body.slots))
        .field("limit", format_args!("{price} sat/block"))
        .field("for", &body.holder)
        .field("pledge", sat(body.share_sat))
        .field("expires", utc(body.expires_at))
        .field("paid", paid(body.all_or_nothing));
    invited(&body.invited, page);
}

/// How its members pay.
fn paid(all_or_nothing: bool) -> &'static str {
    match all_or_nothing {
        true => "all or nothing: by one transaction, which is invalid until all have signed",
        false => "separately: each by a transaction of its own, with a refund of its own",
    }
}

/// Who may pledge.
fn invited(keys: &[String], page: &mut output::Page) {
    if keys.is_empty() {
        page.field("invited", "whoever has the invitation");
    }
    for key in keys {
        page.field("invited", key);
    }
}

fn list(pools: &[Pool], page: &mut output::Page) {
    let row = |pool: &Pool| {
        [
            short(&pool.pool_id),
            format!("{} × {}", pool.qty, pool.class),
            slots(pool.window),
            sat(pool.price_sat),
            sat(pool.share_sat),
            sat(pool.missing_sat),
            pool.stage.clone(),
        ]
    };
    let headings = ["pool", "what", "slots", "price", "pledged", "missing", "stage"];
    page.table(headings, pools.iter().map(row), "no pools: see `capex help pool create`");
}

fn show(pool: &Pool, page: &mut output::Page) {
    page.field("pool", &pool.pool_id)
        .field("what", format_args!("{} × {}", pool.qty, pool.class))
        .field("slots", slots(pool.window))
        .field("run", format_args!("{} slots", pool.slots))
        .field("limit", format_args!("{} sat/block", msat_to_sat(pool.limit_msat)))
        .field("price", format_args!("at most {}", sat(pool.price_sat)))
        .field("for", &pool.holder)
        .field("expires", utc(pool.expires_at))
        .field("paid", paid(pool.all_or_nothing))
        .field("stage", &pool.stage)
        .maybe("reason", pool.code.as_ref())
        .maybe("trade", pool.trade_id.as_ref());
    invited(&pool.invited, page);
    for pledge in &pool.pledges {
        let by = if pledge.key == pool.creator { " (creator)" } else { "" };
        page.field("pledged", format_args!("{} by {}{by}", sat(pledge.share_sat), pledge.key));
    }
    page.field("missing", sat(pool.missing_sat)).field("invitation", &pool.invitation);
}
