//! Linear verification of a given result, without repeating the search.

use crate::reason;
use crate::reasons::Reason;
use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::instance::{Instance, MatchError, Mode};
use super::labels::Label;
use super::outcome::{Outcome, Trade};
use super::ranked::{Ask, Bid, Book};

/// Why a result does not hold. See [`CheckError::code`] for the stable codes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)] // Each message states what the variant and its fields mean.
pub enum CheckError {
    #[error("the book itself is refused: {0}")]
    Book(#[from] MatchError),
    #[error("trades are not strictly ascending by class, start, buy, sell")]
    Order,
    #[error("no live order {id:?} on this side and in this class")]
    UnknownOrder { id: String },
    #[error("bid {buy:?} and ask {sell:?} do not accept each other")]
    Incompatible { buy: String, sell: String },
    #[error("the run of bid {buy:?} from ask {sell:?} is not the one asked for and offered")]
    Run { buy: String, sell: String },
    #[error("bid {buy:?} is served in more than one run")]
    SplitRun { buy: String },
    #[error("bid {buy:?} wants all units from one ask")]
    SplitGang { buy: String },
    #[error("bid {buy:?} is served by more asks than the book allows")]
    TooManyLegs { buy: String },
    #[error("bid {buy:?} gets {qty} units, more than it wants")]
    Overfilled { buy: String, qty: u64 },
    #[error("bid {buy:?} gets {qty} units, fewer than its minimum")]
    Underfilled { buy: String, qty: u64 },
    #[error("ask {sell:?} is sold beyond its units in slot {slot}")]
    Oversold { sell: String, slot: u32 },
    #[error("prices do not cover exactly the slots with a trade")]
    PriceSlots,
    #[error("the run costs more than the limit of bid {buy:?}")]
    AboveLimit { buy: String },
    #[error("the run costs less than the limit of ask {sell:?}")]
    BelowLimit { sell: String },
    #[error("the total of bid {buy:?} from ask {sell:?} is not units times price")]
    Money { buy: String, sell: String },
    #[error("welfare is not the sum of the surpluses")]
    Welfare,
}

impl CheckError {
    /// The stable reason code of this failure.
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Book(refusal) => refusal.reason(),
            Self::Order => reason!("result.order"),
            Self::UnknownOrder { .. } => reason!("result.unknown_order"),
            Self::Incompatible { .. } => reason!("result.incompatible"),
            Self::Run { .. } => reason!("result.run"),
            Self::SplitRun { .. } => reason!("result.split_run"),
            Self::SplitGang { .. } => reason!("result.split_gang"),
            Self::TooManyLegs { .. } => reason!("result.too_many_legs"),
            Self::Overfilled { .. } => reason!("result.overfilled"),
            Self::Underfilled { .. } => reason!("result.underfilled"),
            Self::Oversold { .. } => reason!("result.oversold"),
            Self::PriceSlots => reason!("result.price_slots"),
            Self::AboveLimit { .. } => reason!("result.above_limit"),
            Self::BelowLimit { .. } => reason!("result.below_limit"),
            Self::Money { .. } => reason!("result.money"),
            Self::Welfare => reason!("result.welfare"),
        }
    }
}

/// Verifies that `outcome` is a safe result for `instance`: capacity, min fill, the most asks
/// that a bid may take, the limits of both sides, one price per (class, slot), exact money and
/// exact welfare.
///
/// Takes time linear in the orders and in trades × slots. A result that passes harms
/// nobody, but need not be the canonical one: that takes [`super::solve`].
///
/// # Errors
/// The first property that fails, or the refusal of the book itself.
pub fn verify(instance: &Instance, outcome: &Outcome) -> Result<(), CheckError> {
    let book = Book::new(&instance)?;
    let mut audit = Audit::new(&book, &outcome.prices);
    if !outcome.trades.windows(2).all(|pair| sort_key(&pair[0]) < sort_key(&pair[1])) {
        return Err(CheckError::Order);
    }
    for trade in &outcome.trades {
        audit.add(trade)?;
    }
    audit.finish(outcome.welfare_msat)
}

fn sort_key(trade: &Trade) -> (u16, u32, &str, &str) {
    (trade.class, trade.start, &trade.buy, &trade.sell)
}

/// What one bid receives in total.
struct Received<'a> {
    bid: &'a Bid,
    class: u16,
    start: u32,
    qty: u64,
    legs: usize,
}

struct Audit<'a> {
    book: &'a Book<'a>,
    bids: Vec<Option<&'a Bid>>,
    /// Likewise, with the class they belong to.
    asks: Vec<Option<(usize, &'a Ask)>>,
    prices: &'a BTreeMap<(u16, u32), u64>,
    received: BTreeMap<u32, Received<'a>>,
    /// Units sold per (ask, slot).
    sold: BTreeMap<(u32, u32), u64>,
    traded: BTreeSet<(u16, u32)>,
    welfare_msat: u128,
}

impl<'a> Audit<'a> {
    fn new(book: &'a Book<'a>, prices: &'a BTreeMap<(u16, u32), u64>) -> Self {
        let mut bids = vec![None; book.ids.len()];
        for bid in &book.bids {
            bids[bid.id_rank as usize] = Some(bid);
        }
        let mut asks = vec![None; book.ids.len()];
        for (at, class) in book.classes.iter().enumerate() {
            for ask in &class.asks {
                asks[ask.id_rank as usize] = Some((at, ask));
            }
        }
        Self {
            book,
            bids,
            asks,
            prices,
            received: BTreeMap::new(),
            sold: BTreeMap::new(),
            traded: BTreeSet::new(),
            welfare_msat: 0,
        }
    }

    fn rank(&self, id: &str) -> Option<usize> {
        self.book.ids.find(Label::Text(id)).map(|at| self.book.ids.at(at) as usize)
    }

    fn bid(&self, id: &str) -> Option<&'a Bid> {
        self.bids[self.rank(id)?]
    }

    fn ask(&self, id: &str) -> Option<(usize, &'a Ask)> {
        self.asks[self.rank(id)?]
    }

    fn add(&mut self, trade: &Trade) -> Result<(), CheckError> {
        let unknown = |id: &str| CheckError::UnknownOrder { id: id.to_owned() };
        let bid = self.bid(&trade.buy).ok_or_else(|| unknown(&trade.buy))?;
        let (class, ask) = self.ask(&trade.sell).ok_or_else(|| unknown(&trade.sell))?;
        if self.book.classes[class].id != trade.class {
            return Err(unknown(&trade.sell));
        }
        let limit = bid.alts.iter().find(|alt| alt.0 == class).map(|alt| alt.1);
        let limit_msat = limit.ok_or_else(|| unknown(&trade.buy))?;
        check_pair(trade, bid, ask)?;
        self.receive(trade, bid)?;
        self.sell(trade, ask)?;
        self.pay(trade, limit_msat, ask.limit_msat)
    }

    fn receive(&mut self, trade: &Trade, bid: &'a Bid) -> Result<(), CheckError> {
        let buy = || trade.buy.clone();
        let qty = u64::from(trade.qty);
        let received = self.received.entry(bid.id_rank).or_insert(Received {
            bid,
            class: trade.class,
            start: trade.start,
            qty: 0,
            legs: 0,
        });
        if (received.class, received.start) != (trade.class, trade.start) {
            return Err(CheckError::SplitRun { buy: buy() });
        }
        if received.qty > 0 && bid.mode == Mode::Gang {
            return Err(CheckError::SplitGang { buy: buy() });
        }
        received.legs += 1;
        if received.legs > bid.max_legs {
            return Err(CheckError::TooManyLegs { buy: buy() });
        }
        received.qty += qty;
        if received.qty > u64::from(bid.qty) {
            return Err(CheckError::Overfilled { buy: buy(), qty: received.qty });
        }
        Ok(())
    }

    fn sell(&mut self, trade: &Trade, ask: &'a Ask) -> Result<(), CheckError> {
        for slot in trade.start..trade.start + u32::from(trade.hours) {
            let sold = self.sold.entry((ask.id_rank, slot)).or_insert(0);
            *sold += u64::from(trade.qty);
            if *sold > u64::from(ask.qty) {
                return Err(CheckError::Oversold { sell: trade.sell.clone(), slot });
            }
            self.traded.insert((trade.class, slot));
        }
        Ok(())
    }

    fn pay(&mut self, trade: &Trade, limit_msat: u64, ask_msat: u64) -> Result<(), CheckError> {
        let hours = u128::from(trade.hours);
        let mut run_msat = 0u128;
        for slot in trade.start..trade.start + u32::from(trade.hours) {
            let price = self.prices.get(&(trade.class, slot)).ok_or(CheckError::PriceSlots)?;
            run_msat += u128::from(*price);
        }
        if run_msat > u128::from(limit_msat) * hours {
            return Err(CheckError::AboveLimit { buy: trade.buy.clone() });
        }
        if run_msat < u128::from(ask_msat) * hours {
            return Err(CheckError::BelowLimit { sell: trade.sell.clone() });
        }
        let qty = u128::from(trade.qty);
        if u128::from(trade.msat) != qty * run_msat || trade.sat != trade.msat / 1000 {
            return Err(CheckError::Money { buy: trade.buy.clone(), sell: trade.sell.clone() });
        }
        // Not negative: the run costs at least the ask and at most the limit.
        self.welfare_msat += u128::from(limit_msat - ask_msat) * hours * qty;
        Ok(())
    }

    fn finish(self, welfare_msat: u128) -> Result<(), CheckError> {
        for Received { bid, qty, .. } in self.received.into_values() {
            if qty < u64::from(bid.min_qty) {
                let buy = self.book.ids.label(bid.id_rank).to_string();
                return Err(CheckError::Underfilled { buy, qty });
            }
        }
        if !self.prices.keys().eq(self.traded.iter()) {
            return Err(CheckError::PriceSlots);
        }
        if self.welfare_msat != welfare_msat {
            return Err(CheckError::Welfare);
        }
        Ok(())
    }
}

/// Rules that concern one trade alone.
fn check_pair(trade: &Trade, bid: &Bid, ask: &Ask) -> Result<(), CheckError> {
    let names = || (trade.buy.clone(), trade.sell.clone());
    if !bid.accepts(ask) {
        let (buy, sell) = names();
        return Err(CheckError::Incompatible { buy, sell });
    }
    let end = trade.start.checked_add(trade.hours.into());
    let fits = u32::from(trade.hours) == bid.hours
        && trade.start >= bid.first_slot.max(ask.first_slot)
        && end.is_some_and(|end| end <= bid.end_slot.min(ask.end_slot))
        && trade.qty > 0;
    if !fits {
        let (buy, sell) = names();
        return Err(CheckError::Run { buy, sell });
    }
    Ok(())
}
