//! Carries out what a seller is due to do, and answers its buyer.

use std::collections::BTreeMap;

use bitcoin::Txid;

use super::driver::{Known, Machine, Open, Turn};
use super::{Fresh, KEYS, Party, TradeEvent, TradePurpose, TradeReply, TradeRequest};
use crate::certificate::{Certificate, VerifiedCertificate, verify};
use crate::code;
use crate::engine::io::Protocol;
use crate::engine::kernel::{self, Context, Miss, Stored, Subject, Table};
use crate::engine::messages::SettleRequest;
use crate::ids::{Key, TradeId};
use crate::settlement::check::{Agreement, Now, PAYOUT_SPK_MAX_BYTES, SignedTerms};
use crate::settlement::facts::Facts;
use crate::settlement::objects::{Row, Terms, TermsRequest};
use crate::settlement::script::TEMPLATE;
use crate::settlement::seller::{Answer, Goods, Phase, Refused, Seller, Signed, State, Step};
use crate::settlement::timelock::Timelocks;
use crate::settlement::transaction::{KnownTx, OwnTx};
use crate::settlement::{Deadline, Rail};
use crate::units::TimeMs;
use crate::wire::{VERSION, sha256};

/// Label of claim keys.
pub(super) const CLAIM_LABEL: &str = "settlement/claim";
/// Label of preimages.
pub(super) const PREIMAGE_LABEL: &str = "settlement/preimage";
/// Label of the terms' nonce.
const NONCE_LABEL: &str = "settlement/nonce";

impl Stored for Seller {
    const TABLE: Table = Table::Seller;
}

impl Machine for Seller {
    type Id = TradeId;
    type Step = Step;

    fn id(&self) -> TradeId {
        self.trade
    }

    fn party(&self) -> Party {
        Party::Seller(self.trade)
    }

    fn key(&self) -> [u8; 32] {
        self.trade.0
    }

    fn news(&self) -> Option<(TradeId, &'static str)> {
        Some((self.trade, self.state.name()))
    }

    fn terms(&self) -> Option<&SignedTerms> {
        self.state.agreement().map(|agreement| &agreement.signed)
    }

    /// From the lock on: before it nobody pays.
    fn facts(&self) -> Option<&Facts> {
        let (signed, phase) = self.state.agreed()?;
        (!matches!(phase, Phase::TermsSigned { .. })).then_some(&signed.facts)
    }

    fn facts_mut(&mut self) -> Option<&mut Facts> {
        match &mut self.state {
            State::Agreed { phase: Phase::TermsSigned { .. }, .. } => None,
            State::Agreed { signed, .. } => Some(&mut signed.facts),
            State::Offered { .. } | State::Released { .. } => None,
        }
    }

    fn settle(&mut self, now: Now<'_>) -> bool {
        Self::settle(self, now)
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

    fn is_asking(&self) -> bool {
        self.must_ask()
            || matches!(&self.state, State::Agreed { phase: Phase::Quitting { .. }, .. })
    }

    fn own_txids(&self) -> Vec<Txid> {
        let claims = self.state.agreed().and_then(|(_, phase)| phase.claims());
        claims.into_iter().flatten().map(|(_, own)| own.tx.txid()).collect()
    }

    fn conduct(&self) -> Vec<(Subject, Result<(), Miss>)> {
        match &self.state {
            State::Agreed { phase: Phase::Settled { .. }, .. } => {
                vec![(Subject::Key(self.buyer), Ok(()))]
            }
            State::Offered { .. } | State::Agreed { .. } | State::Released { .. } => Vec::new(),
        }
    }

    fn perform(open: &mut Open<Self>, turn: &mut Turn<'_, '_>, step: Step) {
        match step {
            // A part that the buyer has asked for is late for another reason.
            Step::Release(_) if open.waits_for_part() => {
                open.release(turn, code!("resale.not_split"))
            }
            Step::Release(code) => open.release(turn, code),
            Step::AskKept => {
                if turn.ctx.chain.up && open.tries.is_message_due(turn.ctx.now_ms) {
                    open.ask_kept(turn);
                }
            }
            Step::NeverReveal(code) => {
                // Its silence has cost the sale.
                if open.machine.must_ask() {
                    open.missed(turn, open.machine.registrar, Miss::Lock);
                }
                open.enter_phase(turn, Phase::NeverReveal { code: code.to_owned() });
            }
            // Nothing is revealed without a chain.
            Step::Quit => open.quit(turn),
            Step::AskKey => {
                if open.tries.is_message_due(turn.ctx.now_ms) {
                    open.ask_key(turn);
                }
            }
            Step::Claim if open.is_over_unsold(turn) => {}
            Step::Claim => {
                let chain = turn.ctx.chain;
                // The first waits for no further tip, though the buyer was asked at this one.
                let agreed = open.machine.state.agreed();
                let is_first = agreed.is_some_and(|(_, phase)| phase.claims().is_none());
                if chain.up && (is_first || open.tries.is_tip_due(chain.height)) {
                    turn.shared.claimable(open.machine.trade);
                }
            }
            Step::Wait => {}
        }
    }

    fn tell(&self, turn: &mut Turn<'_, '_>) {
        let trade = self.trade;
        match &self.state {
            State::Released { code, .. } => {
                turn.events.push(TradeEvent::Void { trade, code: code.clone() });
            }
            State::Agreed { signed, phase } if phase.is_sold() => {
                let Terms { cert_id: cert, seq, .. } = *signed.agreement.terms();
                turn.events.push(TradeEvent::Sold { trade, cert, seq });
            }
            State::Offered { .. } | State::Agreed { .. } => {}
        }
    }

    fn resume(open: &mut Open<Self>, turn: &mut Turn<'_, '_>) {
        let Some((signed, phase @ Phase::ClaimSent { .. })) = open.machine.state.agreed() else {
            return;
        };
        let fundings = signed.facts.waiting_fundings().into_iter().cloned();
        let claims = phase.claims().into_iter().flatten().map(|(_, own)| own.tx.clone());
        let sent: Vec<KnownTx> = fundings.chain(claims).collect();
        for tx in sent {
            open.broadcast(turn, &tx);
        }
    }
}

/// A new seller's side.
pub(super) fn offer(
    now: Now<'_>,
    me: Key,
    row: &Row,
    trade: TradeId,
    buyer: Key,
    goods: Goods,
) -> Result<Seller, Refused> {
    let registrar = match &goods {
        Goods::Capacity { .. } => me,
        Goods::Certificate(title) => {
            verify(title, now.params).map_err(|error| error.code())?.provider
        }
        Goods::Part { provider, .. } => *provider,
    };
    Ok(Seller {
        trade,
        row: row.clone(),
        buyer,
        registrar,
        goods,
        opened_ms: now.ms,
        state: State::Offered { until_ms: Seller::patience_ms(now) },
        is_kept: false,
    })
}

/// The answer that carries an agreement.
fn terms_reply(agreement: &Agreement) -> TradeReply {
    let title = Box::new(agreement.title.clone());
    TradeReply::Terms { title, terms: agreement.signed.envelope.clone() }
}

impl Open<Seller> {
    fn enter(&mut self, turn: &mut Turn<'_, '_>, state: State) {
        self.machine.state = state;
        self.moved(turn);
    }

    fn enter_phase(&mut self, turn: &mut Turn<'_, '_>, next: Phase) {
        if let State::Agreed { phase, .. } = &mut self.machine.state {
            *phase = next;
            self.moved(turn);
        }
    }

    /// Asks the registrar, who is another, whether its lock still stands.
    fn ask_kept(&mut self, turn: &mut Turn<'_, '_>) {
        let Some((signed, _)) = self.machine.state.agreed() else { return };
        let request = SettleRequest::Trade(TradeRequest::IsKept(signed.hash()));
        let (to, purpose) = (self.machine.registrar, TradePurpose::IsKept(self.machine.trade));
        self.tried(turn);
        turn.ctx.out.send(to, Protocol::Settle, &request, purpose);
    }

    /// What the registrar says of its lock. Any other refusal is no answer.
    pub(super) fn on_kept(&mut self, turn: &mut Turn<'_, '_>, answer: kernel::Answer<TradeReply>) {
        let is_kept = match answer {
            kernel::Answer::Said(TradeReply::Kept) => true,
            kernel::Answer::Refused(code) if code == code!("lock.released") => false,
            kernel::Answer::Said(_) | kernel::Answer::Refused(_) | kernel::Answer::None => return,
        };
        match (self.machine.hear_kept(is_kept), is_kept) {
            (true, true) => self.changed(turn),
            (true, false) => self.moved(turn),
            (false, _) => {}
        }
    }

    /// Whether its provider was asked to split off what it sells, in this life.
    fn waits_for_part(&self) -> bool {
        matches!(self.machine.goods, Goods::Part { .. }) && self.tries.has_tried()
    }

    /// The part that is sold has been split off, or will not be.
    pub(super) fn bring_part(
        &mut self,
        turn: &mut Turn<'_, '_>,
        part: Result<Certificate, &'static str>,
    ) {
        match part {
            Ok(part) => {
                if self.machine.take_part(part) {
                    self.changed(turn);
                }
            }
            Err(code) => self.release(turn, code),
        }
    }

    pub(super) fn release(&mut self, turn: &mut Turn<'_, '_>, code: &str) {
        // Only the provider could have split it, if it was asked.
        if let Goods::Part { provider, .. } = self.machine.goods {
            self.missed(turn, provider, Miss::Split);
        }
        if let Some((signed, phase)) = self.machine.state.agreed()
            && phase.claims().is_some()
        {
            let Terms { cert_id: cert, seq, .. } = *signed.agreement.terms();
            turn.events.push(TradeEvent::Unsold { cert, seq });
        }
        let agreement = self.machine.state.agreement().cloned().map(Box::new);
        self.enter(turn, State::Released { code: code.to_owned(), agreement });
        if let Some(terms_hash) = self.machine.takes_back() {
            turn.titles.take_back(turn.ctx, terms_hash);
        }
    }

    /// Answers a request for terms. The same request gets the same terms.
    pub(super) fn on_request(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        request: &TermsRequest,
        is_recallable: bool,
    ) -> Result<TradeReply, Refused> {
        if peer != self.machine.buyer {
            return Err(code!("trade.not_the_buyer"));
        }
        let heights = match self.machine.request(turn.now(), request, is_recallable)? {
            Answer::Agreed(agreement) => return Ok(terms_reply(agreement)),
            Answer::NotYet => {
                if let Some(cert) = self.machine.wants_split(turn.now()) {
                    let trade = self.machine.trade;
                    turn.events.push(TradeEvent::Wanted { trade, cert });
                }
                return Ok(TradeReply::NotYet);
            }
            Answer::Sign(heights) => heights,
        };
        let signed = Box::new(self.sign_terms(turn, request, is_recallable, heights)?);
        let reply = terms_reply(&signed.agreement);
        let phase = Phase::TermsSigned { until_ms: Seller::patience_ms(turn.now()) };
        self.enter(turn, State::Agreed { signed, phase });
        Ok(reply)
    }

    /// The certificate to sell: issued now, or held.
    fn title(
        &self,
        turn: &mut Turn<'_, '_>,
        request: &TermsRequest,
        is_recallable: bool,
    ) -> Result<(Certificate, VerifiedCertificate), Refused> {
        let Seller { trade, row, goods, .. } = &self.machine;
        let title = match goods {
            Goods::Capacity { units, features } => {
                let fresh = Fresh {
                    class: row.class,
                    features: *features,
                    units: units.clone(),
                    window: row.window(),
                    not_after_slot: request.not_after_slot(row.window()),
                    recall: request.sponsor().filter(|_| is_recallable),
                };
                let issue = turn.titles.issue(turn.ctx, *trade, &fresh)?;
                Certificate::issued(issue.envelope().clone())
            }
            Goods::Certificate(title) => (**title).clone(),
            Goods::Part { .. } => return Err(code!("resale.not_split")),
        };
        let facts = verify(&title, turn.ctx.params).map_err(|error| error.code())?;
        Ok((title, facts))
    }

    fn sign_terms(
        &self,
        turn: &mut Turn<'_, '_>,
        request: &TermsRequest,
        is_recallable: bool,
        heights: Timelocks,
    ) -> Result<Signed, Refused> {
        let payout_spk = fresh_payout(turn.ctx)?;
        let (title, facts) = self.title(turn, request, is_recallable)?;
        let ctx = &mut *turn.ctx;
        let key_index = ctx.next_index(KEYS);
        let key = turn.single_use_key(CLAIM_LABEL, key_index).ok_or(code!("settle.key"))?;
        let ctx = &mut *turn.ctx;
        let mut nonce16 = [0; 16];
        nonce16.copy_from_slice(&ctx.secret(NONCE_LABEL, key_index)[..16]);
        let row = &self.machine.row;
        let terms = ctx.sign(Terms {
            v: VERSION,
            trade_id: self.machine.trade,
            cert_id: facts.cert_id,
            seq: facts.seq,
            prev_hash: facts.last_hash,
            class: row.class,
            units: facts.units.clone(),
            window: row.window(),
            from: ctx.me(),
            to: request.to,
            funders: request.funders.clone(),
            price_sat: row.price_sat(),
            payment_hash: sha256(&[&ctx.secret(PREIMAGE_LABEL, key_index)]),
            s_xonly: key.x_only_public_key().0.serialize(),
            payout_spk,
            t0: heights.t0,
            fund_by: heights.fund_by,
            refund_at: heights.refund_at,
            funding_confirmations: heights.funding_confirmations,
            template: TEMPLATE,
            nonce16,
        });
        let agreement = Agreement::new(title, &facts, &terms);
        // A funder's key may be unusable: then there is no address to agree on.
        Rail::of(ctx.secp, &terms, agreement.hash()).map_err(|error| error.code())?;
        ctx.wallet.use_payout();
        let facts = Facts::none(terms.funders.len());
        Ok(Signed { agreement, key_index, claimed_from: None, handed: None, facts })
    }

    /// The buyer shows its funding. It is the registrar's to send: before that one has
    /// acknowledged it nobody may be sure that the certificate will move.
    pub(super) fn on_fund(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        tx: &KnownTx,
    ) -> Result<Known, Refused> {
        let terms = self.machine.terms().map(|signed| &signed.terms);
        let mut funders = terms.into_iter().flat_map(|terms| &terms.funders);
        if peer != self.machine.buyer && !funders.any(|funder| funder.key == peer) {
            return Err(code!("trade.not_the_buyer"));
        }
        let Some(rail) = &self.rail else { return Err(code!("lock.not_granted")) };
        if self.machine.fund(turn.now(), rail, tx)? {
            self.changed(turn);
        }
        Ok(self.known(tx))
    }

    /// Sends claims of its contracts, new ones or the same once more.
    pub(super) fn send_claims(&mut self, turn: &mut Turn<'_, '_>, new: BTreeMap<u8, OwnTx>) {
        let Some((signed, phase)) = self.machine.state.agreed() else { return };
        let is_first = phase.claims().is_none();
        // A reorganisation may have thrown the funding out: it goes first.
        let mut txs: Vec<KnownTx> = signed.facts.waiting_fundings().into_iter().cloned().collect();
        txs.extend(new.values().map(|own| own.tx.clone()));
        let mut claims = phase.claims().cloned().unwrap_or_default();
        claims.extend(new);
        self.take_claims(turn, claims, is_first);
        self.tried(turn);
        for tx in txs {
            self.broadcast(turn, &tx);
        }
    }

    /// Written before anything is revealed.
    fn take_claims(&mut self, turn: &mut Turn<'_, '_>, new: BTreeMap<u8, OwnTx>, is_first: bool) {
        if is_first {
            if let State::Agreed { signed, .. } = &mut self.machine.state {
                signed.claimed_from = Some(turn.ctx.chain.height);
            }
            self.enter_phase(turn, Phase::ClaimSent { claims: new });
            return;
        }
        let State::Agreed {
            phase: Phase::ClaimSent { claims } | Phase::Claimed { claims }, ..
        } = &mut self.machine.state
        else {
            return;
        };
        if *claims != new {
            *claims = new;
            self.changed(turn);
        }
    }
}

/// Where the seller wants to be paid, which stays at hand until the terms are signed.
fn fresh_payout(ctx: &Context<'_>) -> Result<Vec<u8>, Refused> {
    let payout = ctx.wallet.next_payout().ok_or(code!("wallet.no_address"))?.to_bytes();
    let fits = (1..=PAYOUT_SPK_MAX_BYTES).contains(&payout.len());
    fits.then_some(payout).ok_or(code!("wallet.no_address"))
}
