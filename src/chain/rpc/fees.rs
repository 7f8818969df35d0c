//! What a server says of fees.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::RpcClient;
use crate::chain::{ChainError, FEE_FLOOR_SAT_KVB, FEE_TARGETS};

#[derive(Deserialize)]
struct FeeEstimate {
    feerate: Option<f64>,
}

#[derive(Deserialize)]
struct MempoolInfo {
    mempoolminfee: f64,
}

/// Feerates in sat per 1,000 virtual bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Feerates {
    /// (target in chain blocks, rate), ascending by target.
    pub(super) estimates: Vec<(u16, u64)>,
    /// Under it the server's mempool takes nothing.
    pub(super) least_sat_kvb: u64,
}

/// Estimates for those of [`FEE_TARGETS`] for which the server has one.
pub(super) fn feerates(client: &RpcClient) -> Result<Feerates, ChainError> {
    let info: MempoolInfo = client.call_blocking("getmempoolinfo", &[])?;
    let params: Vec<Vec<Value>> = FEE_TARGETS.iter().map(|target| vec![json!(target)]).collect();
    let answers = client.batch_blocking::<FeeEstimate>("estimatesmartfee", &params)?;
    let rates = answers.into_iter().map(|answer| answer.ok()?.feerate);
    Ok(ordered(sat_kvb(info.mempoolminfee).unwrap_or(0), rates))
}

/// Rates by the order of [`FEE_TARGETS`], in BTC per kvB: none under the mempool's minimum, and
/// none under that of a longer target.
fn ordered(
    mempool_min: u64,
    rates: impl DoubleEndedIterator<Item = Option<f64>> + ExactSizeIterator,
) -> Feerates {
    let least_sat_kvb = FEE_FLOOR_SAT_KVB.max(mempool_min);
    let mut lowest = least_sat_kvb;
    let mut estimates = Vec::new();
    for (target, rate) in FEE_TARGETS.iter().zip(rates).rev() {
        // No rate is no promise: a floor in its place would be taken for an estimate.
        let Some(rate) = rate.and_then(sat_kvb).filter(|rate| *rate > 0) else { continue };
        lowest = lowest.max(rate);
        estimates.push((*target, lowest));
    }
    estimates.reverse();
    Feerates { estimates, least_sat_kvb }
}

/// BTC per kvB, as Core writes feerates, in sat per kvB; nothing for nonsense.
fn sat_kvb(btc_kvb: f64) -> Option<u64> {
    bitcoin::Amount::from_btc(btc_kvb).ok().map(bitcoin::Amount::to_sat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_does_not_estimate_is_left_out() {
        let of = |minimum, rates: [Option<f64>; 5]| ordered(minimum, rates.into_iter());
        let none = of(100, [None; 5]);
        assert_eq!((none.estimates, none.least_sat_kvb), (vec![], FEE_FLOOR_SAT_KVB));
        let nonsense = of(100, [Some(1e300), Some(-1.0), Some(0.0), Some(f64::NAN), None]);
        assert_eq!(nonsense.estimates, []);
        let some = of(5_000, [None, Some(0.000_2), None, Some(0.000_3), Some(0.000_000_1)]);
        assert_eq!(some.estimates, [(3, 30_000), (12, 30_000), (144, 5_000)]);
        assert_eq!(some.least_sat_kvb, 5_000);
    }
}
