//! A buyer shows its funding to registrar and seller, for all the terms that it pays for.

use bitcoin::hashes::Hash;

use super::super::driver::{Known, NOT_ACCEPTED, Turn};
use super::super::past::LateAsk;
use super::super::{NO_AGREEMENT, TradeReply, Trades, seller_of};
use crate::code;
use crate::ids::{Key, TermsHash};
use crate::limits::FUND_TERMS_MAX;
use crate::settlement::seller::Refused;
use crate::settlement::transaction::KnownTx;

impl Trades {
    /// The registrar takes a funding for all of its terms or for none, because who sends it pays
    /// every contract. It acknowledges it once its own chain source has accepted it; until then the
    /// buyer asks again. A seller is shown it too.
    pub(in crate::engine::trades) fn on_fund(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        terms: Vec<TermsHash>,
        bytes: &[u8],
    ) -> Result<TradeReply, Refused> {
        if !(1..=FUND_TERMS_MAX).contains(&terms.len()) || !terms.is_sorted_by(|a, b| a < b) {
            return Err(code!("fund.malformed"));
        }
        for hash in &terms {
            if self.registrars.get(hash).is_none() && seller_of(turn.index, hash).is_none() {
                let late = self.past.answer(*hash, peer, LateAsk::Lock);
                return late.unwrap_or(Err(NO_AGREEMENT));
            }
        }
        let tx = bitcoin::consensus::deserialize(bytes).map_err(|_| code!("fund.malformed"))?;
        let tx = KnownTx::new(tx);
        let take = |hash| {
            let open = self.registrars.get(hash);
            open.map(|open| open.take_fund(turn, peer, &tx)).transpose()
        };
        let taken: Vec<_> = match terms.iter().map(take).collect() {
            Ok(taken) => taken,
            Err(code) => {
                // What is too late may be over.
                for hash in terms {
                    self.registrars.touch(turn, hash, |_, _| ());
                }
                return Err(code);
            }
        };
        let mut all = Known::Accepted;
        for (hash, taken) in terms.iter().zip(taken) {
            let registered = taken.and_then(|taken| {
                self.registrars.touch(turn, *hash, |open, turn| open.on_fund(turn, &tx, taken))
            });
            let shown = seller_of(turn.index, hash).and_then(|trade| {
                self.sellers.touch(turn, trade, |open, turn| open.on_fund(turn, peer, &tx))
            });
            let known = match registered {
                Some(known) => known,
                None => shown.unwrap_or(Err(NO_AGREEMENT))?,
            };
            all = all.max(known);
        }
        match all {
            Known::Accepted => Ok(TradeReply::FundAck { terms, txid: tx.txid().to_byte_array() }),
            Known::NotYet => Ok(TradeReply::NotYet),
            Known::Refused => Err(NOT_ACCEPTED),
        }
    }
}
