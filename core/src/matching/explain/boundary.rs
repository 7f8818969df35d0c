//! Which limit would have matched, found by matching the book again.

use super::super::improve::match_work;
use super::super::instance::{Instance, Order, PMAX_MSAT, Side};
use super::super::outcome::{Algorithm, Outcome, solve};
use super::ExplainError;

/// Most matches that one bisection of the 10^12 limits takes.
const BISECTION_MATCHES: u64 = 42;
/// Matches that confirm its result: one on either side of the boundary.
const CONFIRMATION_MATCHES: u64 = 2;

/// The limit in one class at which an order begins to match, all other orders and its other
/// alternatives unchanged.
///
/// Found by running the matcher with other limits: with `limit_msat` the order gets units (in
/// whichever of its classes), with the next worse limit (one msat less for a bid, one more
/// for an ask) it gets none, and both were computed. Within one start of the search a higher
/// limit never loses a bid its fill, since it only comes to an emptier book. Between starts,
/// in the search of version 2, and for an ask, there can be further boundaries beyond: this
/// is then one of them, not the best. The lowest legal limit, 1 msat, also stands for a bid
/// that matches at any: another alternative serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    pub class: u16,
    /// Lowest limit of a bid, highest of an ask, in msat per block; `None` if no legal limit
    /// matches.
    pub limit_msat: Option<u64>,
    /// Units that it would have got there.
    pub qty: u32,
    /// What they would have cost, msat.
    pub msat: u64,
    /// Whether the version that was asked for says so. Otherwise this is the boundary by
    /// version 1, and no more than an indication.
    pub is_confirmed: bool,
}

/// The boundary of each alternative of order `id`, the other alternatives unchanged; of one
/// that traded in `outcome`, of the class in which it did.
///
/// Version 1 finds the boundary, with up to 42 matches per alternative; a search of version
/// 2 costs a hundred times as much, so that it only confirms it, with two. Both are limited
/// to `work_max`, in looks at an ask: where the estimate of the confirmation exceeds what is
/// left, it is not tried; where that of the bisection does, there is no answer at all.
///
/// # Errors
/// The refusal of the book itself, `explain.unknown_order` or `explain.book_too_large`.
pub fn boundaries(
    instance: &Instance,
    outcome: &Outcome,
    algorithm: Algorithm,
    id: &str,
    work_max: u64,
) -> Result<Vec<Boundary>, ExplainError> {
    let unknown = || ExplainError::UnknownOrder { id: id.to_owned() };
    let at = instance.orders.iter().position(|order| order.id == id).ok_or_else(unknown)?;
    let traded = outcome.trades.iter().find(|trade| trade.buy == id || trade.sell == id);
    let only = traded.map(|trade| trade.class);
    let mut classes: Vec<u16> = match &instance.orders[at].side {
        Side::Buy { alts, .. } => alts.iter().map(|alt| alt.0).collect(),
        Side::Sell { class, .. } => vec![*class],
    };
    classes.retain(|class| only.is_none_or(|only| only == *class));
    let bisections = BISECTION_MATCHES.saturating_mul(classes.len() as u64);
    let bisections = bisections.saturating_mul(match_work(instance, Algorithm::One)?);
    let left = work_max.checked_sub(bisections).ok_or(ExplainError::BookTooLarge)?;
    let mut trial = Trial { instance: instance.clone(), at, left };
    classes.into_iter().map(|class| trial.boundary(class, algorithm)).collect()
}

/// A book in which one order has another limit.
struct Trial {
    instance: Instance,
    at: usize,
    /// Work that confirmations may still take.
    left: u64,
}

impl Trial {
    fn boundary(&mut self, class: u16, algorithm: Algorithm) -> Result<Boundary, ExplainError> {
        let own_msat = limit_msat(self.order(), class);
        let mut found = self.bisect(class, own_msat)?;
        if algorithm != Algorithm::One {
            self.confirm(&mut found, algorithm)?;
        }
        set_limit(&mut self.instance.orders[self.at], class, own_msat);
        Ok(found)
    }

    /// The boundary by version 1.
    fn bisect(&mut self, class: u16, own_msat: u64) -> Result<Boundary, ExplainError> {
        // Limits of 0 and beyond the highest legal one never match by themselves.
        let (mut matches_at, mut fails_at) =
            if self.is_bid() { (PMAX_MSAT, 0) } else { (1, PMAX_MSAT + 1) };
        let mut filled = self.fill(class, matches_at, Algorithm::One)?;
        let (qty, msat) = filled;
        let mut found = Boundary { class, limit_msat: None, qty, msat, is_confirmed: true };
        if qty == 0 {
            return Ok(found);
        }
        let mut middle = own_msat;
        while matches_at.abs_diff(fails_at) > 1 {
            if middle <= matches_at.min(fails_at) || middle >= matches_at.max(fails_at) {
                middle = matches_at.midpoint(fails_at);
            }
            filled = self.fill(class, middle, Algorithm::One)?;
            if filled.0 > 0 {
                (matches_at, found.qty, found.msat) = (middle, filled.0, filled.1);
            } else {
                fails_at = middle;
            }
        }
        found.limit_msat = Some(matches_at);
        Ok(found)
    }

    /// Looks at both sides of a boundary with another version, if there is work left for it.
    fn confirm(&mut self, found: &mut Boundary, by: Algorithm) -> Result<(), ExplainError> {
        found.is_confirmed = false;
        let work = match_work(&self.instance, by)?.saturating_mul(CONFIRMATION_MATCHES);
        let Some(left) = self.left.checked_sub(work) else { return Ok(()) };
        self.left = left;
        let is_bid = self.is_bid();
        let Some(limit_msat) = found.limit_msat else {
            let best_msat = if is_bid { PMAX_MSAT } else { 1 };
            found.is_confirmed = self.fill(found.class, best_msat, by)?.0 == 0;
            return Ok(());
        };
        let filled = self.fill(found.class, limit_msat, by)?;
        if filled.0 == 0 {
            return Ok(());
        }
        let worse_msat = if is_bid { limit_msat - 1 } else { limit_msat + 1 };
        let is_legal = (1..=PMAX_MSAT).contains(&worse_msat);
        if !is_legal || self.fill(found.class, worse_msat, by)?.0 == 0 {
            (found.qty, found.msat) = filled;
            found.is_confirmed = true;
        }
        Ok(())
    }

    fn order(&self) -> &Order {
        &self.instance.orders[self.at]
    }

    fn is_bid(&self) -> bool {
        matches!(self.order().side, Side::Buy { .. })
    }

    /// Units that the order gets with this limit, and their price.
    fn fill(
        &mut self,
        class: u16,
        limit_msat: u64,
        by: Algorithm,
    ) -> Result<(u32, u64), ExplainError> {
        set_limit(&mut self.instance.orders[self.at], class, limit_msat);
        let outcome = solve(&self.instance, by)?;
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
