//! Which limit would have matched, found by matching the book again.

use super::super::instance::{Instance, Order, PMAX_MSAT, Side};
use super::super::outcome::{Algorithm, solve};
use super::ExplainError;

/// The limit in one class at which an order begins to match, all other orders and its other
/// alternatives unchanged.
///
/// Found by running the matcher with other limits: with `limit_msat` the order gets units (in
/// whichever of its classes), with the next worse limit (one msat less for a bid, one more
/// for an ask) it gets none, and both were computed. Within one start of the search a higher
/// limit never loses a bid its fill, since it only comes to an emptier book. Between starts,
/// and for an ask, there can be further boundaries beyond: this is then one of them, not the
/// best. The lowest legal limit, 1 msat, also stands for a bid that matches at any: another
/// alternative serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Class of the alternative.
    pub class: u16,
    /// Lowest limit of a bid, highest of an ask, in msat per block; `None` if no legal limit
    /// matches.
    pub limit_msat: Option<u64>,
    /// Units that it would have got there.
    pub qty: u32,
    /// What they would have cost, msat.
    pub msat: u64,
}

/// The boundary of each alternative of order `id`, the other alternatives unchanged; of one
/// that traded, of the class in which it did.
///
/// Matches the book up to 42 times per alternative (the bisection of 10^12 limits): the
/// caller bounds the book.
///
/// # Errors
/// The refusal of the book itself, or `explain.unknown_order`.
pub fn boundaries(
    instance: &Instance,
    algorithm: Algorithm,
    id: &str,
) -> Result<Vec<Boundary>, ExplainError> {
    let unknown = || ExplainError::UnknownOrder { id: id.to_owned() };
    let at = instance.orders.iter().position(|order| order.id == id).ok_or_else(unknown)?;
    let traded = solve(instance, algorithm)?;
    let traded = traded.trades.iter().find(|trade| trade.buy == id || trade.sell == id);
    let only = traded.map(|trade| trade.class);
    let classes: Vec<u16> = match &instance.orders[at].side {
        Side::Buy { alts, .. } => alts.iter().map(|alt| alt.0).collect(),
        Side::Sell { class, .. } => vec![*class],
    };
    let mut trial = Trial { instance: instance.clone(), algorithm, at };
    classes
        .into_iter()
        .filter(|class| only.is_none_or(|only| only == *class))
        .map(|class| trial.boundary(class))
        .collect()
}

/// A book in which one order has another limit.
struct Trial {
    instance: Instance,
    algorithm: Algorithm,
    at: usize,
}

impl Trial {
    fn boundary(&mut self, class: u16) -> Result<Boundary, ExplainError> {
        let own_msat = limit_msat(self.order(), class);
        let is_bid = matches!(self.order().side, Side::Buy { .. });
        // Limits of 0 and beyond the highest legal one never match by themselves.
        let (mut matches_at, mut fails_at) =
            if is_bid { (PMAX_MSAT, 0) } else { (1, PMAX_MSAT + 1) };
        let mut filled = self.fill(class, matches_at)?;
        let mut found = Boundary { class, limit_msat: None, qty: filled.0, msat: filled.1 };
        if found.qty > 0 {
            let mut middle = own_msat;
            while matches_at.abs_diff(fails_at) > 1 {
                if middle <= matches_at.min(fails_at) || middle >= matches_at.max(fails_at) {
                    middle = matches_at.midpoint(fails_at);
                }
                filled = self.fill(class, middle)?;
                if filled.0 > 0 {
                    (matches_at, found.qty, found.msat) = (middle, filled.0, filled.1);
                } else {
                    fails_at = middle;
                }
            }
            found.limit_msat = Some(matches_at);
        }
        set_limit(&mut self.instance.orders[self.at], class, own_msat);
        Ok(found)
    }

    fn order(&self) -> &Order {
        &self.instance.orders[self.at]
    }

    /// Units that the order gets with this limit, and their price.
    fn fill(&mut self, class: u16, limit_msat: u64) -> Result<(u32, u64), ExplainError> {
        set_limit(&mut self.instance.orders[self.at], class, limit_msat);
        let outcome = solve(&self.instance, self.algorithm)?;
        let id = &self.order().id;
        let own = outcome.trades.iter().filter(|t| t.buy == *id || t.sell == *id);
        Ok(own.fold((0, 0), |(qty, msat), trade| (qty + trade.qty, msat + trade.msat)))
    }
}

fn limit_msat(order: &Order, class: u16) -> u64 {
    match &order.side {
        Side::Buy { alts, .. } => alts.iter().find(|alt| alt.0 == class).map_or(0, |alt| alt.1),
        Side::Sell { limit_msat, .. } => *limit_msat,
    }
}

fn set_limit(order: &mut Order, class: u16, to_msat: u64) {
    match &mut order.side {
        Side::Buy { alts, .. } => {
            for alt in alts.iter_mut().filter(|alt| alt.0 == class) {
                alt.1 = to_msat;
            }
        }
        Side::Sell { limit_msat, .. } => *limit_msat = to_msat,
    }
}
