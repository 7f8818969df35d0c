//! One screen about this node.

use crate::api::types::{
    Capacity, ChainStatus, LEASE_ENDED_PHASES, Maintenance, Open, Reason, Status,
};
use crate::clock::now_ms;
use crate::definitions;
use crate::node::{Node, clock};
use capex_core::engine::kernel::ClockState;
use capex_core::epoch::{computed_at_ms, epoch_at};

/// Confirmation target of the fee rate shown, chain blocks.
const FEE_TARGET: u32 = 3;

/// Trades that need somebody and are named one by one.
const STUCK_SHOWN: usize = 5;
/// Digits of an id that tell it from others.
const SHORT_ID: usize = 12;

impl Node {
    pub(super) fn status(&self) -> Status {
        let params = self.engine().params();
        let now = now_ms();
        let epoch = epoch_at(now, params);
        let epochs = &self.engine().market().epochs;
        let computed = epochs.iter().filter(|(_, view)| view.result.is_some()).last();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: params.name.clone(),
            definition: definitions::hash(self.config.definition.as_bytes()).to_string(),
            key: self.engine().me().to_string(),
            phase: "ready".to_owned(),
            api: self.presence.api_addr.clone(),
            p2p: self.presence.listening.clone(),
            datadir: self.config.datadir.display().to_string(),
            started_at: self.presence.started_at_ms,
            now_at: now,
            peers: u32::try_from(self.engine().peers().len()).unwrap_or(u32::MAX),
            orders_seen: epochs.orders_seen(),
            epoch,
            epoch_ends_at: computed_at_ms(epoch, params),
            epoch_ms: params.epoch_ms(),
            matching_version: params.matching_version,
            computed_epoch: computed.map(|(epoch, _)| epoch),
            slot: self.now_slot(),
            slot_s: params.slot_s,
            first_slot: params.first_slot(epoch),
            min_trade_sat: params.min_trade_sat,
            classes: params.classes.iter().map(|class| class.name.clone()).collect(),
            chain: ChainStatus {
                source: self.config.chain.url.clone(),
                up: self.engine().chain().up,
                height: self.engine().chain().height,
                tip_at: self.chain_status.tip_at_ms,
                feerate_sat_kvb: self.engine().chain().feerate_sat_kvb(FEE_TARGET),
            },
            wallet: self.balance(),
            capacity: self.capacity(),
            maintenance: self.maintenance(now),
            open: self.open_matters(),
            warnings: self.warnings(),
        }
    }

    fn capacity(&self) -> Vec<Capacity> {
        let (ledger, params) = (&self.engine().register().ledger, self.engine().params());
        let slot = params.slot_at(now_ms());
        // Where classes share the host, those that have some of it.
        let offered = self.engine().market().offered_units();
        let is_shown = |class: &u16| match self.config.capacity.is_empty() {
            true => offered.contains_key(class) || ledger.highest(*class) > 0,
            false => self.config.capacity.contains_key(class),
        };
        let classes = params.classes.iter().map(|class| class.floors.id).filter(is_shown);
        let shown = |class: u16| {
            let (units, (sold, reserved)) = (ledger.capacity(class), ledger.taken_in(class, slot));
            let free = units.saturating_sub(sold).saturating_sub(reserved);
            Capacity { class: self.class_name(class), units, sold, reserved, free }
        };
        classes.map(shown).collect()
    }

    fn maintenance(&self, now_ms: u64) -> Vec<Maintenance> {
        let all = self.engine().leases().maintenances(now_ms);
        let shown = |(number, known): (u32, &capex_core::lease::Maintenance)| Maintenance {
            number,
            starts_at: known.from_ms,
            ends_at: known.to_ms,
            why: known.why.clone(),
        };
        all.map(shown).collect()
    }

    fn open_matters(&self) -> Open {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let me = self.engine().me();
        let certificates = self.certificate_views();
        let held = certificates.iter().filter(|view| view.facts.holder == me).count();
        let is_over = |phase: &str| LEASE_ENDED_PHASES.contains(&phase);
        let leases = self.engine().leases().views(me, now_ms());
        let leases = leases.iter().filter(|view| !is_over(&view.phase)).count();
        Open {
            orders: count(self.engine().market().standing().filter(|o| o.is_open()).count()),
            trades: count(self.engine().trades().newest(None, 0).count()),
            certificates: count(held),
            leases: count(leases),
        }
    }

    fn warnings(&self) -> Vec<Reason> {
        let mut warnings = Vec::new();
        let mut warn = |code: &str, message: String| {
            warnings.push(Reason { code: code.to_owned(), message });
        };
        if !self.engine().chain().up {
            let (code, why) = self.chain_status.trouble();
            let what = "nothing is spent while the chain source is not ready";
            warn(code, format!("{what}: {why}; `capex config show` names it"));
        }
        if let Some(words) = &self.overcommitted {
            warn("capacity.exceeds_host", words.clone());
        }
        if self.engine().peers().is_empty() {
            warn("peers.none", "no peers: add one with `capex peer add ADDRESS`".to_owned());
        }
        for waiting in self.psbts() {
            let txid: String = waiting.txid.chars().take(SHORT_ID).collect();
            let sat = waiting.amount_sat;
            warn(
                "wallet.unsigned",
                format!(
                    "a {} of {sat} sat waits for its signature: `capex wallet psbt export {txid}`",
                    waiting.what
                ),
            );
        }
        self.warn_of_trades(&mut warn);
        self.warn_of_workloads(&mut warn);
        let market = self.engine().market();
        let clock = market.clock();
        if clock.state != ClockState::Right {
            warn("clock.off", clock::words(&clock));
        }
        if let Some(last) = market.signed_ahead(now_ms(), self.engine().params()) {
            warn(
                "clock.was_ahead",
                format!(
                    "the clock was ahead once and orders were signed for epochs up to {last}: when \
                     those come, this node signs none for them; all others are as ever"
                ),
            );
        }
        if let Some(reason) =
            self.engine().register().halted().and_then(capex_core::reasons::Reason::find)
        {
            let hint = reason.hint().unwrap_or_default();
            warn(reason.code(), format!("{}: {hint}", reason.sentence()));
        }
        if let Some(keeper) = &self.backup
            && let Some(trouble) = keeper.standing().trouble
        {
            let path = keeper.path().display();
            let now = "`capex backup create FILE` writes one elsewhere";
            warn("backup.failed", format!("the backup {path} is old: {trouble}; {now}"));
        }
        warnings
    }

    /// Workloads that did not begin by themselves so far.
    fn warn_of_workloads(&self, warn: &mut impl FnMut(&str, String)) {
        let engine = self.engine();
        for (cert, attached) in engine.leases().attached(engine.params()) {
            let Some(code) = attached.refusal else { continue };
            let cert: String = cert.to_string().chars().take(SHORT_ID).collect();
            let why = capex_core::reasons::Reason::find(&code).map_or("", |why| why.sentence());
            warn(
                &code,
                format!(
                    "the workload of certificate {cert} has not begun, and is tried again: {why}: \
                     `capex cert show {cert}`"
                ),
            );
        }
    }

    /// Trades that do not go on by themselves, each with what can be done.
    fn warn_of_trades(&self, warn: &mut impl FnMut(&str, String)) {
        let stuck = self.stuck_trades();
        for trade in stuck.iter().take(STUCK_SHOWN) {
            let Some(reason) = &trade.stuck else { continue };
            let id: String = trade.trade_id.chars().take(SHORT_ID).collect();
            let state = &trade.state;
            let what = &reason.message;
            warn(&reason.code, format!("trade {id} ({state}): {what}: `capex trade show {id}`"));
        }
        let more = stuck.len().saturating_sub(STUCK_SHOWN);
        if more > 0 {
            warn("trade.overdue", format!("{more} more trades: `capex trade list --stuck`"));
        }
    }
}
