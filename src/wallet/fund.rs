//! Locking, signing and journaling transactions.

use bitcoin::{Address, Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use sha2::{Digest, Sha256};

use super::Wallet;
use super::entry::{End, Entry, EntryId, Fund, Kind, row};
use super::error::WalletError;
use super::persist::FUND_TABLE;
use super::select::Wish;
use super::sign::sign_key_spends;
use crate::store::{Record, erase};

/// Most outputs of one FUND: the funders of one Terms (at most 8) and room for batching.
pub const MAX_FUND_OUTPUTS: usize = 32;
/// Highest fee rate that the wallet signs for, sat per 1,000 virtual bytes: ten times the
/// highest rates ever paid for long, so only a broken estimate is above it.
pub const MAX_FEERATE_SAT_KVB: u64 = 10_000_000;

/// A signed and journaled transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funded {
    /// The transaction, ready to broadcast.
    pub tx: Transaction,
    /// Where the given outputs are, in the given order; empty for a cancelling transaction.
    pub outpoints: Vec<OutPoint>,
    pub fee_sat: u64,
}

/// How much a payment pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amounts {
    /// This many sat.
    Exactly(u64),
    /// Every coin that is free, less the fee.
    All,
}

/// What a payment is, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub tx: Transaction,
    /// What reaches the address, sat.
    pub amount_sat: u64,
    pub fee_sat: u64,
    /// What comes back to the wallet, sat.
    pub change_sat: u64,
    /// Whether it waits for a signature made elsewhere.
    pub awaits: bool,
}

impl Wallet {
    /// Builds, locks, signs and journals the FUND of `terms_hash`: a transaction with the given
    /// `outputs` (script, sat). The same terms and outputs give the same transaction again;
    /// once that was broadcast, a higher `feerate_sat_kvb` gives one that replaces it
    /// (BIP-125), with the same outputs at the same places.
    ///
    /// Empty `outputs` cancel it instead: the answer spends its inputs, or those of them that
    /// will stay, back to the wallet with enough fee to replace the FUND; asked again, it is
    /// the same transaction, or a better one if the rate has risen or a coin has vanished.
    ///
    /// Coins are confirmed ones; only where these do not suffice own unconfirmed change, and
    /// then nothing else. `tip_height` becomes the lock time, against fee sniping. Nothing is
    /// broadcast. Where the keys are elsewhere, the transaction waits for its signature
    /// ([`Wallet::take_psbt`]); asked again, it is what came back. One that replaces it waits
    /// likewise, one at a time, and until it comes back the answer is what is signed.
    ///
    /// # Errors
    /// [`WalletError::Unsigned`], [`WalletError::InsufficientFunds`], [`WalletError::BadAmount`],
    /// [`WalletError::TooManyOutputs`], [`WalletError::BadFeerate`],
    /// [`WalletError::OtherOutputs`], [`WalletError::Cancelled`], [`WalletError::Released`],
    /// [`WalletError::NoFund`], [`WalletError::Confirmed`], [`WalletError::Dead`],
    /// [`WalletError::Orphaned`], [`WalletError::Superseded`], [`WalletError::Store`] (then no
    /// coin is locked).
    pub fn fund(
        &mut self,
        terms_hash: [u8; 32],
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Funded, WalletError> {
        check_feerate(feerate_sat_kvb)?;
        match self.entries.get(&terms_hash) {
            Some(Entry::Over { end, .. }) => Err(match end {
                End::Released => WalletError::Released,
                End::Paid => WalletError::Confirmed,
                End::Dead => WalletError::Dead,
            }),
            Some(Entry::Live(fund)) if fund.joint.is_some() => self.of_joint(fund),
            Some(Entry::Live(fund)) if fund.awaits && fund.outputs == outputs => {
                Err(WalletError::Unsigned)
            }
            Some(Entry::Live(fund)) if outputs.is_empty() => {
                let fund = fund.clone();
                self.cancel(terms_hash, fund, feerate_sat_kvb, tip_height)
            }
            Some(Entry::Live(fund)) if fund.cancel.is_some() => Err(WalletError::Cancelled),
            Some(Entry::Live(fund)) if fund.outputs != outputs => Err(WalletError::OtherOutputs),
            Some(Entry::Live(fund)) if fund.is_broadcast => {
                let fund = fund.clone();
                match self.bump(terms_hash, fund.clone(), feerate_sat_kvb) {
                    Ok(bumped) => Ok(bumped.funded()),
                    Err(WalletError::Confirmed) => Ok(fund.funded()),
                    Err(error) => Err(error),
                }
            }
            Some(Entry::Live(fund)) => Ok(fund.funded()),
            None if outputs.is_empty() => Err(WalletError::NoFund),
            None => {
                check_amounts(outputs)?;
                let fund = self.build(Wish::Outputs(outputs), feerate_sat_kvb, tip_height)?;
                let (funded, awaits) = (fund.funded(), fund.awaits);
                self.store_entry(terms_hash, Entry::Live(fund))?;
                if awaits { Err(WalletError::Unsigned) } else { Ok(funded) }
            }
        }
    }

    /// Lets other transactions spend the coins of a FUND that nobody answered for and that was
    /// never broadcast. The next FUND takes them first, and cancels this one by that; it stays
    /// journaled, since somebody holds its bytes.
    ///
    /// # Errors
    /// [`WalletError::NoFund`], [`WalletError::Store`].
    pub fn lend(&mut self, terms_hash: [u8; 32]) -> Result<(), WalletError> {
        let fund = match self.entries.get(&terms_hash) {
            Some(Entry::Live(fund)) => fund,
            Some(Entry::Over { .. }) => return Ok(()),
            None => return Err(WalletError::NoFund),
        };
        if fund.joint.is_some() {
            return self.lend_joint(terms_hash, fund.clone());
        }
        if fund.is_lent || fund.is_broadcast || fund.cancel.is_some() {
            return Ok(());
        }
        self.store_entry(terms_hash, Entry::Live(Fund { is_lent: true, ..fund.clone() }))
    }

    /// Pays to an address, from the given coins and no others if there are any. The transaction is
    /// journaled like a FUND, counts as broadcast from now on, and is forgotten by itself once it
    /// is final. Where the keys are elsewhere, it waits for its signature ([`Wallet::take_psbt`])
    /// until it is dropped ([`Wallet::drop_psbt`]).
    ///
    /// # Errors
    /// As [`Wallet::fund`]; [`WalletError::OtherNetwork`], [`WalletError::NoCoin`], [`WalletError::CoinLocked`], [`WalletError::CoinPending`].
    pub fn send(
        &mut self,
        to: &Address,
        amount: Amounts,
        feerate_sat_kvb: u64,
        coins: &[OutPoint],
    ) -> Result<Payment, WalletError> {
        let mut fund = self.build_payment(to, amount, feerate_sat_kvb, coins)?;
        fund.is_broadcast = !fund.awaits;
        let payment = payment_of(&fund);
        let mut hash = Sha256::new_with_prefix(b"capex/payment/v1\0");
        hash.update(payment.tx.compute_txid());
        self.store_entry(hash.finalize().into(), Entry::Live(fund))?;
        Ok(payment)
    }

    /// What [`Wallet::send`] would do now.
    ///
    /// # Errors
    /// As there.
    pub fn quote_send(
        &mut self,
        to: &Address,
        amount: Amounts,
        feerate_sat_kvb: u64,
        coins: &[OutPoint],
    ) -> Result<Payment, WalletError> {
        let fund = self.build_payment(to, amount, feerate_sat_kvb, coins)?;
        self.drop_draft(&fund.tx);
        Ok(payment_of(&fund))
    }

    fn build_payment(
        &mut self,
        to: &Address,
        amount: Amounts,
        feerate_sat_kvb: u64,
        coins: &[OutPoint],
    ) -> Result<Fund, WalletError> {
        check_feerate(feerate_sat_kvb)?;
        if !to.as_unchecked().is_valid_for_network(self.keys.network()) {
            return Err(WalletError::OtherNetwork);
        }
        let (script, tip_height) = (to.script_pubkey(), self.tip_height());
        let fund = match amount {
            Amounts::Exactly(amount_sat) => {
                let outputs = [(script, amount_sat)];
                check_amounts(&outputs)?;
                self.build_from(coins, Wish::Outputs(&outputs), feerate_sat_kvb, tip_height)?
            }
            Amounts::All => {
                self.build_from(coins, Wish::Sweep(&script), feerate_sat_kvb, tip_height)?
            }
        };
        let is_sweep = amount == Amounts::All;
        Ok(Fund { kind: Kind::Payment { is_sweep }, ..fund })
    }

    /// Replaces an unconfirmed payment by one that pays a higher fee; where the keys are elsewhere,
    /// once that has its signature.
    ///
    /// # Errors
    /// [`WalletError::Unsigned`], [`WalletError::NoPayment`], [`WalletError::Confirmed`], [`WalletError::BadFeerate`],
    /// [`WalletError::NotBumped`] when the change cannot pay more or the rate is not higher by
    /// a quarter, [`WalletError::Store`].
    pub fn bump_payment(
        &mut self,
        txid: Txid,
        feerate_sat_kvb: u64,
    ) -> Result<Payment, WalletError> {
        check_feerate(feerate_sat_kvb)?;
        let is_meant = |fund: &Fund| {
            matches!(fund.kind, Kind::Payment { .. }) && fund.tx.compute_txid() == txid
        };
        let found = self.entries.live().find(|(_, fund)| is_meant(fund));
        let (id, fund) = found.ok_or(WalletError::NoPayment)?;
        let fund = fund.clone();
        if fund.awaits || fund.bump.is_some() {
            return Err(WalletError::Unsigned);
        }
        let bumped = self.bump(id, fund, feerate_sat_kvb)?;
        if let Some(tx) = &bumped.bump {
            let (tx, waiting) = (tx.clone(), bumped.clone());
            return Ok(Payment { awaits: true, ..payment_of(&waiting.replaced_by(tx)) });
        }
        if bumped.tx.compute_txid() == txid {
            return Err(WalletError::NotBumped);
        }
        Ok(payment_of(&bumped))
    }

    /// Notes that a transaction of this wallet was broadcast at `seen_at_s` (unix seconds): its
    /// change can be spent, and [`Wallet::unsettled`] lists it until it confirms.
    ///
    /// # Errors
    /// [`WalletError::Store`].
    pub fn mark_broadcast(&mut self, tx: &Transaction, seen_at_s: u64) -> Result<(), WalletError> {
        self.see(tx, seen_at_s);
        let txid = tx.compute_txid();
        let newly = self.entries.live().find_map(|(id, fund)| {
            let is_newly = !fund.is_broadcast && fund.wanted().compute_txid() == txid;
            // The signatures of others came with it.
            let whole = fund.joint.as_ref().map_or(&fund.tx, |_| tx).clone();
            let seen = || Fund { tx: whole, is_broadcast: true, ..fund.clone() };
            is_newly.then(|| (id, Entry::Live(seen())))
        });
        match newly {
            Some((id, entry)) => self.store_entry(id, entry),
            None => self.commit(Vec::new()),
        }
    }

    /// Gives back the coins of `terms_hash`. The same terms are never funded again.
    ///
    /// # Errors
    /// [`WalletError::NoFund`], [`WalletError::Store`].
    pub fn release(&mut self, terms_hash: [u8; 32]) -> Result<(), WalletError> {
        match self.entries.get(&terms_hash) {
            Some(Entry::Live(_)) => {
                let entry = Entry::Over { at_height: self.tip_height(), end: End::Released };
                self.store_entry(terms_hash, entry)
            }
            Some(Entry::Over { .. }) => Ok(()),
            None => Err(WalletError::NoFund),
        }
    }

    /// FUNDs that never left the wallet for anybody else than the node that asked for them, or have
    /// been shown by that node: neither broadcast, nor handed out to be signed.
    pub fn unsent(&self) -> Vec<[u8; 32]> {
        let terms = self.entries.live().filter(|(_, fund)| fund.kind == Kind::Terms);
        let unsent = terms
            .filter(|(_, fund)| !fund.is_broadcast && !fund.is_exported && fund.cancel.is_none());
        unsent.map(|(id, _)| id).collect()
    }

    /// Broadcast transactions that can still confirm, to broadcast again: the FUND, or what
    /// cancels it.
    pub fn unsettled(&self) -> Vec<([u8; 32], Transaction)> {
        let open = self.entries.live().filter(|(_, fund)| fund.is_broadcast);
        open.filter(|(_, fund)| !fund.inputs().any(|coin| self.gone_at(coin).is_some()))
            .map(|(id, fund)| (id, fund.wanted().clone()))
            .collect()
    }

    /// Payments that can still confirm, to broadcast again.
    pub fn open_payments(&self) -> Vec<Transaction> {
        let payments =
            self.entries.live().filter(|(_, fund)| matches!(fund.kind, Kind::Payment { .. }));
        payments
            .filter(|(_, fund)| fund.is_broadcast)
            .filter(|(_, fund)| !fund.inputs().any(|coin| self.gone_at(coin).is_some()))
            .map(|(_, fund)| fund.tx.clone())
            .collect()
    }

    /// Keeps bdk, which only knows addresses in the chain as used, from giving the change
    /// addresses of journaled transactions to others.
    pub(super) fn mark_journaled_addresses(&mut self) {
        for (_, fund) in self.entries.live() {
            let cancel = fund.cancel.iter().flat_map(|cancel| &cancel.tx.output);
            for output in fund.tx.output.iter().chain(cancel) {
                let place = self.bdk.derivation_of_spk(output.script_pubkey.clone());
                if let Some((keychain, index)) = place {
                    self.bdk.mark_used(keychain, index);
                }
            }
        }
    }

    /// Forgets an entry; returns the row that says so.
    pub(super) fn forget(&mut self, id: EntryId) -> Record {
        self.entries.remove(&id);
        erase(FUND_TABLE, id)
    }

    /// Signs every input; where the keys are elsewhere, none.
    pub(super) fn sign(
        &self,
        mut tx: Transaction,
        prevouts: &[TxOut],
    ) -> Result<Transaction, WalletError> {
        if self.is_watch_only() {
            return Ok(tx);
        }
        let mut keys = Vec::with_capacity(prevouts.len());
        for prevout in prevouts {
            let derivation = self.bdk.derivation_of_spk(prevout.script_pubkey.clone());
            let (keychain, index) =
                derivation.ok_or_else(|| WalletError::build("a foreign coin"))?;
            keys.push(self.keys.spend_keypair(keychain as u32, index)?);
        }
        sign_key_spends(self.keys.secp(), &mut tx, prevouts, &keys)?;
        Ok(tx)
    }

    /// Stores an entry, and only then acts on it: on an error no coin is locked or freed.
    pub(super) fn store_entry(&mut self, id: EntryId, entry: Entry) -> Result<(), WalletError> {
        let row = row(&id, &entry)?;
        self.commit(vec![row])?;
        self.entries.insert(id, entry);
        self.refresh_balance();
        Ok(())
    }
}

pub(super) fn payment_of(fund: &Fund) -> Payment {
    let paid_sat: u64 = fund.outputs.iter().map(|(_, sat)| sat).sum();
    let total_sat: u64 = fund.tx.output.iter().map(|output| output.value.to_sat()).sum();
    Payment {
        tx: fund.tx.clone(),
        amount_sat: paid_sat,
        fee_sat: fund.fee_of(&fund.tx),
        change_sat: total_sat.saturating_sub(paid_sat),
        awaits: fund.awaits,
    }
}

pub(super) fn check_feerate(feerate_sat_kvb: u64) -> Result<(), WalletError> {
    if feerate_sat_kvb == 0 || feerate_sat_kvb > MAX_FEERATE_SAT_KVB {
        return Err(WalletError::BadFeerate { feerate_sat_kvb });
    }
    Ok(())
}

/// Refuses what cannot be added up, before bdk adds it up.
pub(super) fn check_amounts(outputs: &[(ScriptBuf, u64)]) -> Result<(), WalletError> {
    if outputs.len() > MAX_FUND_OUTPUTS {
        return Err(WalletError::TooManyOutputs { max: MAX_FUND_OUTPUTS });
    }
    let mut total_sat = 0u64;
    for (index, (_, amount_sat)) in outputs.iter().enumerate() {
        total_sat = total_sat
            .checked_add(*amount_sat)
            .filter(|total| *amount_sat > 0 && *total <= Amount::MAX_MONEY.to_sat())
            .ok_or(WalletError::BadAmount { index })?;
    }
    Ok(())
}
