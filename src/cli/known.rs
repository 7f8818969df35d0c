//! Whom a bid trades with, by what this node has seen of them: turned into lists of keys before
//! the order is placed, so that nobody else learns more than that.

use super::client::Client;
use super::failure::Failure;
use crate::api::types::{Peer, PlaceOrder};
use capex_core::limits::ALLOW_DENY_MAX;
use capex_core::reason;

/// Flags of bids.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Known {
    /// Buy only of providers that have delivered to this node before, the best 16 of them as of now
    #[arg(long)]
    pub only_known: bool,
    /// Buy of no provider that has delivered less than this part of what it sold to this node; with
    /// --only-known, of none whose record is not as good
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub min_record: Option<u8>,
}

impl Known {
    /// Narrows an order by what is known now.
    ///
    /// # Errors
    /// `order.nobody_known`; what the daemon refused.
    pub fn narrow(&self, order: &mut PlaceOrder, client: &Client) -> Result<(), Failure> {
        if self.only_known || self.min_record.is_some() {
            self.narrow_by(order, client.get("/peers")?)?;
        }
        Ok(())
    }

    fn narrow_by(&self, order: &mut PlaceOrder, peers: Vec<Peer>) -> Result<(), Failure> {
        let least = u64::from(self.min_record.unwrap_or(0)) * 10;
        let known = peers.iter().filter_map(|peer| Some((permille(peer)?, peer.key.clone())));
        let (mut good, mut bad): (Vec<_>, Vec<_>) = known.partition(|(record, _)| *record >= least);
        if self.only_known {
            good.retain(|(_, key)| order.allow.is_empty() || order.allow.contains(key));
            good.retain(|(_, key)| !order.deny.contains(key));
            good.sort_by(|a, b| b.cmp(a));
            // Whoever is not allowed need not be denied.
            order.deny.clear();
            order.allow = good.into_iter().take(ALLOW_DENY_MAX).map(|(_, key)| key).collect();
            if order.allow.is_empty() {
                let message = "no provider has delivered to this node as you ask for";
                return Err(Failure::new(reason!("order.nobody_known"), message)
                    .with_hint("see `capex peer list`, or leave the flags out"));
            }
            return Ok(());
        }
        order.allow.retain(|key| !bad.iter().any(|(_, other)| other == key));
        // The worst first: there is room for so many.
        bad.sort();
        bad.retain(|(_, key)| !order.deny.contains(key));
        let room = ALLOW_DENY_MAX.saturating_sub(order.deny.len() + order.allow.len());
        order.deny.extend(bad.into_iter().take(room).map(|(_, key)| key));
        Ok(())
    }
}

/// What a provider has delivered of what it sold, in thousandths, if it has sold anything.
fn permille(peer: &Peer) -> Option<u64> {
    let percent = peer.record.delivered_percent.as_deref()?;
    let (whole, part) = percent.split_once('.').unwrap_or((percent, "0"));
    Some(whole.parse::<u64>().ok()? * 10 + part.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(key: &str, percent: Option<&str>) -> Peer {
        serde_json::from_value(serde_json::json!({
            "key": key, "connected": false, "addresses": [], "misses": {}, "denied_until": null,
            "equivocator": false,
            "record": {
                "leases": 1, "sold_block_s": "1", "delivered_block_s": "1", "unavailable": [],
                "delivered_percent": percent, "settled": 0, "defaulted": 0,
            },
        }))
        .unwrap()
    }

    fn order(allow: &[&str], deny: &[&str]) -> PlaceOrder {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        serde_json::from_value(serde_json::json!({
            "side": "buy", "alternatives": [], "qty": 1, "window": [1, 2],
            "allow": keys(allow), "deny": keys(deny),
        }))
        .unwrap()
    }

    #[test]
    fn what_is_known_narrows_an_order() {
        let peers = || {
            vec![
                peer("good", Some("99.5")),
                peer("fair", Some("90")),
                peer("poor", Some("12.3")),
                peer("new", None),
            ]
        };
        let known = |only_known, min_record| Known { only_known, min_record };
        type Keys = &'static [&'static str];
        type Rules = (Keys, Keys);
        // Flags, allow and deny of the owner; of the order, or why there is none.
        let table: [(Known, Rules, Result<Rules, &str>); 8] = [
            (known(true, None), (&[], &[]), Ok((&["good", "fair", "poor"], &[]))),
            (known(true, Some(90)), (&[], &[]), Ok((&["good", "fair"], &[]))),
            (known(true, Some(90)), (&[], &["good"]), Ok((&["fair"], &[]))),
            (known(true, None), (&["poor", "new"], &[]), Ok((&["poor"], &[]))),
            (known(true, Some(100)), (&[], &[]), Err("order.nobody_known")),
            (known(false, Some(95)), (&[], &["x"]), Ok((&[], &["x", "poor", "fair"]))),
            (known(false, Some(95)), (&["new", "fair"], &[]), Ok((&["new"], &["poor", "fair"]))),
            (known(false, Some(90)), (&[], &[]), Ok((&[], &["poor"]))),
        ];
        for (row, (known, (allow, deny), expected)) in table.into_iter().enumerate() {
            let mut order = order(allow, deny);
            let narrowed = known.narrow_by(&mut order, peers()).map_err(|failure| failure.code);
            match expected {
                Err(code) => assert_eq!(narrowed, Err(code.to_owned()), "row {row}"),
                Ok((allow, deny)) => {
                    assert_eq!(
                        (narrowed, order.allow, order.deny),
                        (
                            Ok(()),
                            allow.iter().map(|k| (*k).to_owned()).collect(),
                            deny.iter().map(|k| (*k).to_owned()).collect()
                        ),
                        "row {row}"
                    );
                }
            }
        }
    }
}
