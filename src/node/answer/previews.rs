//! What an order can cost, before it is placed: by the rules by which it is placed and signed.

use super::orders::side;
use crate::api::types::{Preview, Reason, slot_range};
use crate::clock::now_ms;
use crate::node::Node;
use capex_core::engine::market::{Judgement, OrderSpec};
use capex_core::order::Side;
use capex_core::settlement::fees::{CLAIM_VSIZE, FUND_TARGET, FUND_VSIZE, REFUND_VSIZE, fee_sat};
use capex_core::units::Units;

impl Node {
    pub(super) fn preview(&self, spec: &OrderSpec) -> Preview {
        let judged = self.engine().judge_order(now_ms(), spec);
        let spare = judged.units.as_ref().filter(|_| spec.is_spare).map(Units::count);
        let spec = &OrderSpec { qty: spare.unwrap_or(spec.qty), ..spec.clone() };
        let at = self.engine().circumstances(now_ms());
        let rate = at.chain.feerate_sat_kvb(FUND_TARGET);
        let fee = |vsize: u64| fee_sat(rate, vsize);
        let trades = at.trades_at_most(spec);
        let total_sat = spec.worth_sat(None, spec.qty);
        let (total_sat, fee_sat, worst_case_sat) = match spec.side {
            Side::Buy => {
                let fees = fee(FUND_VSIZE).saturating_add(fee(REFUND_VSIZE)).saturating_mul(trades);
                (total_sat, fee(FUND_VSIZE), total_sat.saturating_add(fees))
            }
            // What is earned is rounded down.
            Side::Sell => {
                let earned = u64::try_from(spec.worth_msat(None, spec.qty) / 1000);
                let claims = fee(CLAIM_VSIZE).saturating_mul(trades);
                (earned.unwrap_or(u64::MAX), fee(CLAIM_VSIZE), claims)
            }
        };
        let slot_ms = u64::from(at.params.slot_s) * 1000;
        Preview {
            side: side(spec.side),
            class: spec.alts.first().map(|alt| self.class_name(alt.class)).unwrap_or_default(),
            qty: spec.qty,
            window: slot_range(spec.window),
            starts_at: u64::from(spec.window.start) * slot_ms,
            ends_at: u64::from(spec.window.end) * slot_ms,
            total_sat,
            fee_sat,
            worst_case_sat,
            max_fee_sat: spec.fees.allowed_sat(total_sat),
            warnings: self.warnings_of(spec, judged),
        }
    }

    fn warnings_of(&self, spec: &OrderSpec, judged: Judgement) -> Vec<Reason> {
        let objections = judged.objections.into_iter();
        let mut warnings: Vec<Reason> = objections
            .map(|refusal| Reason { code: refusal.code, message: refusal.message })
            .collect();
        if spec.side == Side::Buy && self.driver.wallet().is_watch_only() {
            let fund_s = self.engine().params().settle.fund_ms / 1000;
            warnings.push(Reason {
                code: "wallet.unsigned".to_owned(),
                message: format!(
                    "each trade waits for a signature made elsewhere, at most {fund_s} s after its \
                     terms: `capex wallet psbt list`"
                ),
            });
        }
        if spec.side == Side::Buy {
            warnings.push(Reason {
                code: "trade.default_risk".to_owned(),
                message:
                    "payment proves the sale, not delivery: a provider that sells can still fail"
                        .to_owned(),
            });
        }
        warnings
    }
}
