//! Carries out what a registrar is due to do, and answers buyers.

use std::collections::BTreeSet;

use bitcoin::Txid;

use super::driver::{Known, Machine, NOT_ACCEPTED, Open, Told, Turn};
use super::{NO_AGREEMENT, Party, TradeReply};
use crate::code;
use crate::engine::kernel::{Miss, Stored, Subject, Table};
use crate::ids::{Key, TermsHash, TradeId};
use crate::settlement::Deadline;
use crate::settlement::check::{Now, SignedTerms};
use crate::settlement::facts::{Facts, FundFact};
use crate::settlement::objects::{Terms, Transfer};
pub(super) use crate::settlement::registrar::State;
use crate::settlement::registrar::{Paid, Registrar, Step, request};
use crate::settlement::seller::Refused;
use crate::settlement::transaction::{KnownTx, contract_vout};
use crate::units::TimeMs;
use crate::wire::Envelope;

impl Stored for Registrar {
    const TABLE: Table = Table::Registrar;
}

impl Machine for Registrar {
    type Id = TermsHash;
    type Step = Step;

    fn id(&self) -> TermsHash {
        self.hash()
    }

    fn party(&self) -> Party {
        Party::Registrar(self.hash())
    }

    fn key(&self) -> [u8; 32] {
        self.hash().0
    }

    /// People hear of the trade from its buyer and its seller.
    fn news(&self) -> Option<(TradeId, &'static str)> {
        None
    }

    fn terms(&self) -> Option<&SignedTerms> {
        Some(&self.signed)
    }

    fn facts(&self) -> Option<&Facts> {
        Some(&self.facts)
    }

    fn facts_mut(&mut self) -> Option<&mut Facts> {
        Some(&mut self.facts)
    }

    fn settle(&mut self, _: Now<'_>) -> bool {
        Self::settle(self)
    }

    fn due(&self, now: Now<'_>, sure: bool) -> Step {
        Self::due(self, now, sure)
    }

    fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, Deadline)> {
        Self::deadlines(self, slot_s)
    }

    fn is_done(&self) -> bool {
        self.state.is_done()
    }

    /// The lock stood for nothing: those who were to pay let it, and so may their coins again.
    fn conduct(&self) -> Vec<(Subject, Result<(), Miss>)> {
        if !self.is_lapsed() {
            // Those who paid wait for their refund because of those who did not.
            let missing = self.who_did_not_pay().map(Subject::Key);
            return missing.map(|by| (by, Err(Miss::Funding))).collect();
        }
        // Of those who pay together any may be at fault: who bid answers for them.
        let blamed = if self.together { 1 } else { usize::MAX };
        let payers = self.signed.terms.funders.iter().take(blamed);
        let payers = payers.map(|funder| Subject::Key(funder.key));
        let funds = self.facts.contracts().iter().filter_map(|contract| contract.fund.as_ref());
        // Anyone can name the coins of another in a payment that no chain source takes.
        let seen = funds.filter(|fund| fund.is_seen() && !self.together);
        let coins = seen.flat_map(FundFact::inputs).map(Subject::Coin);
        let blamed: BTreeSet<Subject> = payers.chain(coins).collect();
        blamed.into_iter().map(|by| (by, Err(Miss::Funding))).collect()
    }

    fn missed_funding(&self) -> Option<Txid> {
        let funds = self.facts.contracts().iter().filter_map(|contract| contract.fund.as_ref());
        // One that no chain source takes excuses nothing: it costs its maker as many misses as locks.
        funds.filter(|fund| fund.is_seen()).map(FundFact::txid).next().filter(|_| self.is_lapsed())
    }

    fn perform(open: &mut Open<Self>, turn: &mut Turn<'_, '_>, step: Step) {
        let chain = turn.ctx.chain;
        match step {
            Step::Release { code, evidence } => open.release(turn, code, evidence),
            Step::Activate(transfer) => {
                // Refused, it is tried again at the next tip.
                if open.tries.is_tip_due(chain.height) {
                    open.tried(turn);
                    let _ = open.activate(turn, transfer);
                }
            }
            Step::BroadcastFund => {
                // A buyer that waits for its acknowledgement makes the retries, unless the chain
                // source has not answered yet: each of several, also behind those that are funded.
                let facts = &open.machine.facts;
                let waits = facts.any_unseen()
                    && open.tries.is_message_due(turn.ctx.now_ms)
                    && !facts.any_offered();
                if chain.up && (waits || open.tries.is_tip_due(chain.height)) {
                    open.broadcast_fundings(turn);
                }
            }
            Step::Wait => {}
        }
    }

    fn tell(&self, turn: &mut Turn<'_, '_>) {
        let terms = self.hash();
        turn.told.push(match &self.state {
            State::Released { code } => Told::Released { terms, code: code.clone() },
            State::Locked | State::Funded | State::Activated { .. } => {
                Told::Granted { provider: turn.ctx.me(), terms }
            }
        });
    }

    fn resume(open: &mut Open<Self>, turn: &mut Turn<'_, '_>) {
        if open.machine.state == State::Funded {
            open.broadcast_fundings(turn);
        }
    }
}

/// Answers a request for a new lock.
pub(super) fn lock(
    turn: &mut Turn<'_, '_>,
    peer: Key,
    terms: &Envelope,
    accepts: &[Envelope],
) -> Result<Registrar, Refused> {
    // A stranger's signature is verified only if its terms could be good.
    let peeked = terms.peek::<Terms>().map_err(|_| NO_AGREEMENT)?;
    let holder = turn.titles.holder(peeked.cert_id).ok_or(NO_AGREEMENT)?;
    if holder != peeked.from {
        return Err(code!("lock.not_holder"));
    }
    let terms = terms.verify::<Terms>(turn.ctx.params.magic).map_err(|error| error.code())?;
    let accepts = request(turn.ctx.secp, turn.now(), peer, &terms, accepts)?;
    let lock = turn.titles.lock(turn.ctx, &terms, &accepts)?;
    Ok(Registrar::locked(&terms, lock.envelope().clone(), &accepts))
}

impl Open<Registrar> {
    fn enter(&mut self, turn: &mut Turn<'_, '_>, state: State) {
        self.machine.state = state;
        self.moved(turn);
    }

    fn broadcast_fundings(&mut self, turn: &mut Turn<'_, '_>) {
        let waiting = self.machine.facts.waiting_fundings();
        let waiting: Vec<KnownTx> = waiting.into_iter().cloned().collect();
        self.tried(turn);
        // Written before it leaves: after a crash nobody knows what the chain source answered.
        if self.machine.facts.offer() {
            self.changed(turn);
        }
        for tx in waiting {
            self.broadcast(turn, &tx);
        }
    }

    /// Ends the lock. Without evidence the register keeps it: nobody needs it any more.
    pub(super) fn release(
        &mut self,
        turn: &mut Turn<'_, '_>,
        code: &str,
        evidence: Option<[u8; 32]>,
    ) {
        if let Some(evidence) = evidence {
            turn.titles.release(turn.ctx, self.machine.hash(), evidence);
        }
        self.enter(turn, State::Released { code: code.to_owned() });
    }

    fn activate(
        &mut self,
        turn: &mut Turn<'_, '_>,
        transfer: Transfer,
    ) -> Result<Envelope, Refused> {
        let terms = self.machine.signed.envelope.verify::<Terms>(turn.ctx.params.magic);
        let terms = terms.map_err(|error| error.code())?;
        let activation = turn.titles.activate(turn.ctx, &terms, &transfer)?;
        self.enter(turn, State::Activated { transfer, activation: activation.clone() });
        Ok(activation)
    }

    /// The buyer shows its funding: what the lock is then, if that is news.
    pub(super) fn take_fund(
        &self,
        turn: &Turn<'_, '_>,
        peer: Key,
        tx: &KnownTx,
    ) -> Result<Option<Registrar>, Refused> {
        if !self.machine.is_party(peer) {
            return Err(code!("trade.not_the_buyer"));
        }
        let (conduct, now_ms) = (&*turn.ctx.conduct, turn.ctx.now_ms);
        let coins = tx.tx().input.iter().map(|input| input.previous_output);
        if coins.into_iter().any(|coin| conduct.is_coin_denied(now_ms, coin)) {
            return Err(code!("fund.coin_denied"));
        }
        let Some(rail) = &self.rail else { return Err(code!("lock.not_granted")) };
        let pays = |contract| contract_vout(tx.tx(), contract).is_some();
        if self.machine.together {
            // Whoever shows one that is no good could as well have kept its signature.
            if !rail.contracts().iter().all(pays) {
                return Err(code!("fund.pays_not_the_contract"));
            }
        } else {
            // Of several none may hold up another by what it shows for the other's contract.
            let funders = self.machine.signed.terms.funders.iter();
            let mut paid = funders.zip(rail.contracts()).filter(|(_, contract)| pays(contract));
            if paid.any(|(funder, _)| funder.key != peer) {
                return Err(code!("trade.not_the_buyer"));
            }
        }
        let known = rail.contracts().iter().zip(self.machine.facts.contracts());
        let mut shown =
            known.filter_map(|(contract, known)| Some((contract, known.fund.as_ref()?)));
        let waits = shown.any(|(contract, fund)| pays(contract) && !fund.is_seen());
        let may_try = self.tries.is_message_due(turn.ctx.now_ms);
        let mut next = self.machine.clone();
        let is_news = next.fund(turn.now(), rail, tx)?;
        // Each costs a write and a call of the chain source.
        if is_news && waits && !may_try {
            return Err(NOT_ACCEPTED);
        }
        Ok(is_news.then_some(next))
    }

    /// Takes note of a funding that the lock takes, and says what is known of it.
    pub(super) fn on_fund(
        &mut self,
        turn: &mut Turn<'_, '_>,
        tx: &KnownTx,
        taken: Option<Registrar>,
    ) -> Known {
        if let Some(next) = taken {
            self.machine = next;
            self.trouble = None;
            self.changed(turn);
        }
        self.known(tx)
    }

    /// The buyer asks for the Activation.
    pub(super) fn on_transfer(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        transfer: Transfer,
    ) -> Result<TradeReply, Refused> {
        if !self.machine.is_party(peer) {
            return Err(code!("trade.not_the_buyer"));
        }
        match self.machine.paid(turn.now(), &transfer)? {
            Paid::NotYet => Ok(TradeReply::NotYet),
            Paid::Activated(activation) => Ok(TradeReply::Activation(activation.clone())),
            Paid::Yes => self.activate(turn, transfer).map(TradeReply::Activation),
        }
    }
}
