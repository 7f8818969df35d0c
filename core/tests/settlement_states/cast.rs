//! Everything that the parties of one trade sign, made once.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use capex_core::certificate::objects::{Activation, Binding, Consumed, Issue, Payment, blinded};
use capex_core::certificate::{Certificate, verify};
use capex_core::engine::kernel::Keys;
use capex_core::ids::{CertId, Key, TermsHash, TradeId};
use capex_core::params::{ChainParams, Params, Profile, SettleTimes};
use capex_core::settlement::Rail;
use capex_core::settlement::check::{Agreement, Now};
use capex_core::settlement::exit::HandedKey;
use capex_core::settlement::objects::{
    Accept, Funder, LockGrant, Quittance, Row, Terms, TermsCancel, TermsRequest,
};
use capex_core::settlement::script::TEMPLATE;
use capex_core::settlement::timelock::Timelocks;
use capex_core::settlement::transaction::{Holding, KnownTx, OwnTx, claim, key_spend, refund};
use capex_core::units::Units;
use capex_core::wire::{Envelope, VERSION, Verified, object_id, sha256};

/// Height of the first tip.
pub(crate) const FIRST: u32 = 300;
/// Time of the first tip, unix ms.
const START_MS: u64 = 1_000_000_000;
/// A chain block, and a slot.
const BLOCK_MS: u64 = 1_000;
const PRICE_SAT: u64 = 50_000;
const FEE_SAT: u64 = 500;
/// Delivery lasts so many slots.
const SLOTS: u16 = 2;

/// What is traded in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trades {
    One,
    /// The same certificate twice: the second sale begins when nothing holds it any more.
    InTurn,
    /// Two certificates of one seller, paid for by one funding.
    Together,
}

/// What all trades of a run share.
pub(crate) struct Stage {
    pub(crate) params: Params,
    pub(crate) secp: Secp256k1<All>,
    pub(crate) buyer: Keys,
    pub(crate) seller: Keys,
    pub(crate) provider: Keys,
    row: Row,
    issue: Verified<Issue>,
    title: Certificate,
    /// On sale in the second trade.
    other: Certificate,
    /// Blocks from the first tip to the start of delivery.
    pub(crate) delivery_in: u32,
    /// The buyer's funding is handed out to be signed.
    pub(crate) is_signed_elsewhere: bool,
}

/// The smallest profile that has every height of a settlement.
fn params(quits: bool) -> Params {
    let text = include_str!("../../../network/definitions/devnet.toml");
    let params: Params = toml::from_str(text).unwrap();
    let profile = Profile {
        min_price_sat: 0,
        fund_blocks: 3,
        funding_confirmations: 2,
        claim_blocks: 1,
        margin_blocks: 1,
        refund_blocks: 7,
        lead_s: 0,
    };
    let (terms_ms, fund_ms) = (BLOCK_MS, 2 * BLOCK_MS);
    let quit_ms = if quits { 2 * BLOCK_MS } else { 0 };
    let settle = SettleTimes { terms_ms, fund_ms, conflict_wait_ms: 0, quit_ms };
    let chain = ChainParams { block_ms: BLOCK_MS, final_blocks: 2, ..params.chain };
    Params { slot_s: 1, profiles: vec![profile], settle, chain, ..params }.validate().unwrap()
}

impl Stage {
    /// The seller is the provider itself, or another holder of the certificate; it may ask for
    /// the buyer's key.
    pub(crate) fn new(trades: Trades, is_one_node: bool, quits: bool) -> Self {
        let params = params(quits);
        let keys = |seed| Keys::new([seed; 32], [seed; 32]);
        let (buyer, provider) = (keys(1), keys(3));
        let seller = if is_one_node { keys(3) } else { keys(2) };
        // Time for a second trade after the first has been given up.
        let delivery_in = match trades {
            Trades::One => 9,
            Trades::Together => 10,
            Trades::InTurn => 15,
        };
        let start = u32::try_from(START_MS / 1000).unwrap() + delivery_in;
        let msat = PRICE_SAT * 1000;
        let (buy, sell) = ([1; 32], [2; 32]);
        let (class, slots, qty) = (1, SLOTS, 2);
        let row = Row { v: VERSION, epoch: 5, buy, sell, class, start, slots, qty, msat };
        let issue = |nonce: u8, units: Units| {
            let issue = Issue {
                v: VERSION,
                provider: provider.public(),
                class: 1,
                class_hash: params.class_hash(1).unwrap(),
                features: 0,
                units,
                window: row.window(),
                pay: Payment::Prepaid,
                binding: Binding::Registrar,
                nonce32: [nonce; 32],
                not_after_slot: row.window().end - 1,
            };
            provider.sign(issue, &params)
        };
        let other = issue(5, Units::range(6, 8).unwrap());
        let issue = issue(4, Units::range(4, 6).unwrap());
        let fresh = Certificate::issued(issue.envelope().clone());
        let mut stage = Self {
            secp: Secp256k1::new(),
            buyer,
            seller,
            provider,
            row,
            issue,
            title: fresh.clone(),
            other: fresh,
            delivery_in,
            is_signed_elsewhere: false,
            params,
        };
        if !is_one_node {
            stage.title = stage.resold(&stage.issue);
        }
        stage.other = match trades {
            Trades::Together if is_one_node => Certificate::issued(other.envelope().clone()),
            Trades::Together => stage.resold(&other),
            Trades::One | Trades::InTurn => stage.title.clone(),
        };
        stage
    }

    /// A certificate after the provider sold it to the seller.
    fn resold(&self, issue: &Verified<Issue>) -> Certificate {
        let (cert_id, x) = (CertId(issue.id()), [6; 32]);
        let window = self.row.window();
        let terms = self.provider.sign(
            Terms {
                v: VERSION,
                trade_id: TradeId([3; 32]),
                cert_id,
                seq: 0,
                prev_hash: issue.id(),
                class: 1,
                units: issue.units.clone(),
                window,
                from: self.provider.public(),
                to: self.seller.public(),
                funders: Vec::new(),
                price_sat: 0,
                payment_hash: sha256(&[&x]),
                s_xonly: [0; 32],
                payout_spk: Vec::new(),
                t0: 0,
                fund_by: 0,
                refund_at: 0,
                funding_confirmations: 1,
                template: TEMPLATE,
                nonce16: [0; 16],
            },
            &self.params,
        );
        let lock = self.lock(&terms, 0);
        let activation = self.activation(&terms, 0);
        let terms_hash = TermsHash(terms.id());
        let transfer = capex_core::settlement::objects::Transfer {
            v: VERSION,
            terms_hash,
            x,
            spend_txid: [0; 32],
            vin: 0,
            quittance: None,
        };
        let hop = capex_core::certificate::Hop::Sale {
            terms: terms.envelope().clone(),
            lock,
            transfer,
            activation,
        };
        Certificate { hops: vec![hop], ..Certificate::issued(issue.envelope().clone()) }
    }

    fn lock(&self, terms: &Verified<Terms>, attempt: u32) -> Envelope {
        let lock = LockGrant {
            v: VERSION,
            provider: self.provider.public(),
            cert_id: terms.cert_id,
            seq: terms.seq,
            attempt,
            prev_release: if attempt == 0 { [0; 32] } else { [9; 32] },
            terms_hash: TermsHash(terms.id()),
            fund_by: terms.fund_by,
            refund_at: terms.refund_at,
            p_height: terms.t0,
        };
        self.provider.sign(lock, &self.params).envelope().clone()
    }

    fn activation(&self, terms: &Verified<Terms>, attempt: u32) -> Envelope {
        let activation = Activation {
            v: VERSION,
            provider: self.provider.public(),
            cert_id: terms.cert_id,
            seq: terms.seq + 1,
            consumes: vec![Consumed {
                cert_id: terms.cert_id,
                seq: terms.seq,
                attempt,
                prev_hash: terms.prev_hash,
            }],
            roots: vec![terms.cert_id],
            holder_hash: blinded(terms.to, terms.nonce16, self.params.magic),
            class: terms.class,
            features: 0,
            units: terms.units.clone(),
            window: terms.window,
            cause_hash: terms.id(),
            p_height: terms.t0,
        };
        self.provider.sign(activation, &self.params).envelope().clone()
    }

    /// What a party knows so many blocks after the first tip.
    pub(crate) fn now(&self, tip: u8) -> Now<'_> {
        let ms = START_MS + u64::from(tip) * BLOCK_MS;
        let median_time_past_s = u32::try_from(ms / 1000).unwrap();
        let tip = FIRST + u32::from(tip);
        Now { ms, tip, median_time_past_s, chain_up: true, params: &self.params }
    }

    fn key(&self, seed: u8) -> Keypair {
        Keypair::from_secret_key(&self.secp, &SecretKey::from_slice(&[seed; 32]).unwrap())
    }

    fn spk(&self, seed: u8) -> ScriptBuf {
        ScriptBuf::new_p2tr(&self.secp, self.key(seed).x_only_public_key().0, None)
    }
}

/// One trade: who signs what, and every transaction that it can come to.
pub(crate) struct Cast {
    pub(crate) trade: TradeId,
    pub(crate) row: Row,
    pub(crate) registrar: Key,
    pub(crate) title: Option<Certificate>,
    pub(crate) request: TermsRequest,
    pub(crate) terms: Verified<Terms>,
    pub(crate) agreement: Agreement,
    pub(crate) rail: Rail,
    pub(crate) heights: Timelocks,
    pub(crate) lock: Envelope,
    pub(crate) activation: Envelope,
    pub(crate) cancel: Verified<TermsCancel>,
    /// All terms that the funding pays for, ascending.
    pub(crate) paid: Vec<TermsHash>,
    pub(crate) fund: KnownTx,
    pub(crate) fund_cancel: OwnTx,
    pub(crate) claim: OwnTx,
    pub(crate) refund: OwnTx,
    pub(crate) key_spend: OwnTx,
    pub(crate) quittance: Envelope,
    /// The buyer's key.
    pub(crate) handed: HandedKey,
}

impl Cast {
    /// The trade of a number that begins at a tip.
    pub(crate) fn new(stage: &Stage, number: u8, t0: u8) -> Self {
        let (params, title) =
            (&stage.params, if number == 0 { &stage.title } else { &stage.other });
        // Attempts at the same certificate.
        let attempt = if stage.title == stage.other { u32::from(number) } else { 0 };
        let row = Row { epoch: stage.row.epoch + u64::from(number), ..stage.row.clone() };
        let trade = TradeId(object_id(&row, params.magic));
        let xonly = |seed: u8| stage.key(seed + number).x_only_public_key().0.serialize();
        let funder =
            Funder { key: stage.buyer.public(), refund_xonly: xonly(10), amount_sat: PRICE_SAT };
        let tip_height = FIRST + u32::from(t0);
        let request = TermsRequest {
            trade_id: trade,
            to: stage.buyer.public(),
            funders: vec![funder],
            tip_height,
            use_by: None,
        };
        let facts = verify(title, params).unwrap();
        let heights = Timelocks::new(params.profile(PRICE_SAT), tip_height);
        let terms = stage.seller.sign(
            Terms {
                v: VERSION,
                trade_id: trade,
                cert_id: facts.cert_id,
                seq: facts.seq,
                prev_hash: facts.last_hash,
                class: row.class,
                units: facts.units.clone(),
                window: row.window(),
                from: stage.seller.public(),
                to: request.to,
                funders: request.funders.clone(),
                price_sat: PRICE_SAT,
                payment_hash: sha256(&[&x(number)]),
                s_xonly: xonly(20),
                payout_spk: stage.spk(30).to_bytes(),
                t0: heights.t0,
                fund_by: heights.fund_by,
                refund_at: heights.refund_at,
                funding_confirmations: heights.funding_confirmations,
                template: TEMPLATE,
                nonce16: [number; 16],
            },
            params,
        );
        let hash = TermsHash(terms.id());
        let rail = Rail::of(&stage.secp, &terms, hash).unwrap();
        let funding = Funding::new(stage, number, &[(rail.contracts()[0].spk.clone(), PRICE_SAT)]);
        let txs = Txs::new(stage, number, &terms, &rail, &funding, 0);
        let cancel = TermsCancel { v: VERSION, terms_hash: hash };
        let quittance = Quittance { v: VERSION, terms_hash: hash, x: x(number) };
        Self {
            trade,
            row,
            registrar: stage.provider.public(),
            title: (!title.hops.is_empty()).then(|| title.clone()),
            request,
            agreement: Agreement::new(title.clone(), &facts, &terms),
            lock: stage.lock(&terms, attempt),
            activation: stage.activation(&terms, attempt),
            cancel: stage.buyer.sign(cancel, params),
            quittance: stage.seller.sign(quittance, params).envelope().clone(),
            handed: HandedKey(stage.key(10 + number).secret_bytes()),
            rail,
            heights,
            terms,
            paid: vec![hash],
            fund: funding.tx,
            fund_cancel: funding.cancel,
            claim: txs.claim,
            refund: txs.refund,
            key_spend: txs.key_spend,
        }
    }

    /// Has one funding pay for both trades.
    pub(crate) fn pay_together(stage: &Stage, [first, second]: [&mut Self; 2]) {
        let output = |cast: &Self| (cast.rail.contracts()[0].spk.clone(), PRICE_SAT);
        let funding = Funding::new(stage, 0, &[output(first), output(second)]);
        let mut paid = vec![first.agreement.hash(), second.agreement.hash()];
        paid.sort();
        for (number, cast) in [first, second].into_iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let vout = u32::from(number);
            let txs = Txs::new(stage, number, &cast.terms, &cast.rail, &funding, vout);
            (cast.claim, cast.refund, cast.key_spend) = (txs.claim, txs.refund, txs.key_spend);
            (cast.fund, cast.fund_cancel) = (funding.tx.clone(), funding.cancel.clone());
            cast.paid = paid.clone();
        }
    }

    /// The buyer's consent, given at a tip.
    pub(crate) fn accept(&self, stage: &Stage, tip: u8) -> Verified<Accept> {
        stage.buyer.sign(
            Accept {
                v: VERSION,
                terms_hash: self.agreement.hash(),
                release_at_height: self.heights.release_at(),
                release_at_ms: stage.now(tip).ms + stage.params.settle.fund_ms,
                together: false,
            },
            &stage.params,
        )
    }
}

/// The preimage of a trade.
fn x(number: u8) -> [u8; 32] {
    [40 + number; 32]
}

/// What pays contracts, and what pays the buyer itself instead.
struct Funding {
    tx: KnownTx,
    cancel: OwnTx,
}

impl Funding {
    fn new(stage: &Stage, number: u8, outputs: &[(ScriptBuf, u64)]) -> Self {
        let coin = OutPoint { txid: Txid::from_byte_array([50 + number; 32]), vout: 0 };
        let output = |(script_pubkey, sat): (ScriptBuf, u64)| TxOut {
            value: Amount::from_sat(sat),
            script_pubkey,
        };
        let spend = |outputs: &[(ScriptBuf, u64)]| Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            }],
            output: outputs.iter().cloned().map(output).collect(),
        };
        let cancel = spend(&[(stage.spk(31), PRICE_SAT - FEE_SAT)]);
        Self { tx: KnownTx::new(spend(outputs)), cancel: OwnTx::new(cancel, FEE_SAT) }
    }
}

struct Txs {
    claim: OwnTx,
    refund: OwnTx,
    key_spend: OwnTx,
}

impl Txs {
    fn new(
        stage: &Stage,
        number: u8,
        terms: &Terms,
        rail: &Rail,
        funding: &Funding,
        vout: u32,
    ) -> Self {
        let contract = &rail.contracts()[0];
        let outpoint = OutPoint { txid: funding.tx.txid(), vout };
        let holding = Holding { contract, outpoint, value_sat: PRICE_SAT };
        let payout = ScriptBuf::from_bytes(terms.payout_spk.clone());
        let keys = [stage.key(20 + number), stage.key(10 + number)];
        let hash = TermsHash(object_id(terms, stage.params.magic));
        let key_spend = key_spend(&stage.secp, holding, &keys, hash, payout.clone(), FEE_SAT);
        let claim = claim(&stage.secp, holding, &keys[0], x(number), payout, FEE_SAT);
        let (key, to) = (stage.key(10 + number), stage.spk(32));
        let refund = refund(&stage.secp, holding, &key, terms.refund_at, to, FEE_SAT);
        let [claim, refund, key_spend] = [claim, refund, key_spend].map(Option::unwrap);
        Self { claim, refund, key_spend }
    }
}
