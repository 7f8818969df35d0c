//! What all components of the engine stand on, and nothing that belongs to one of them.

mod answer;
mod clock;
mod conduct;
mod context;
mod counters;
mod gossip;
mod halt;
mod keys;
mod outbox;
mod record;
mod refusal;
mod retry;
mod timer;
mod treasury;

use bitcoin::secp256k1::{All, Secp256k1};

pub use self::answer::Answer;
pub use self::clock::{ClockCheck, ClockState};
pub use self::conduct::{Conduct, ConductV1, Denial, Miss, Subject};
pub use self::context::{ChainView, Context, Payout, WalletView};
pub use self::counters::{CounterV1, Counters, SaltV1};
pub use self::gossip::Judged;
pub(super) use self::gossip::{gossip_envelope, judge};
pub use self::halt::{Halt, IdentityInUse};
pub use self::keys::Keys;
pub use self::outbox::{KernelNews, Outbox};
pub use self::record::{
    Cause, Record, RecordTooLarge, Stored, Table, Unreadable, check_tables, decode_shorter, records,
};
pub use self::refusal::remote_code;
pub(super) use self::refusal::{answer, explain};
pub use self::retry::{Pace, Retry};
pub use self::timer::Timer;
pub use self::treasury::{Short, Treasury};
use crate::params::Params;
use crate::units::TimeMs;

/// The state that all components share.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) params: Params,
    pub(super) keys: Keys,
    pub(super) secp: Secp256k1<All>,
    pub(super) chain: ChainView,
    pub(super) wallet: WalletView,
    pub(super) treasury: Treasury,
    pub(super) conduct: Conduct,
    pub(super) counters: Counters,
    pub(super) out: Outbox,
}

impl Kernel {
    pub(super) fn new(params: Params, keys: Keys) -> Self {
        Self {
            params,
            keys,
            secp: Secp256k1::new(),
            chain: ChainView::default(),
            wallet: WalletView::default(),
            treasury: Treasury::default(),
            conduct: Conduct::default(),
            counters: Counters::default(),
            out: Outbox::default(),
        }
    }

    /// What a component may use while it handles an input.
    pub(super) fn context(&mut self, now_ms: TimeMs) -> Context<'_> {
        Context {
            now_ms,
            params: &self.params,
            keys: &self.keys,
            secp: &self.secp,
            chain: &self.chain,
            wallet: &mut self.wallet,
            treasury: &mut self.treasury,
            conduct: &mut self.conduct,
            counters: &mut self.counters,
            out: &mut self.out,
        }
    }
}
