//! The chain source in tasks of its own: the loop never waits for it, and no transaction
//! waits for a scan.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use tokio::sync::mpsc;

use crate::chain::{ChainError, ChainSource, ChainUpdate, TxSender};
use capex_core::engine::io::Unsent;

/// Transactions that wait to be sent. More than a node has open settlements only means that
/// the server hangs, and every new tip tries again.
const SEND_QUEUE: usize = 1_024;

/// What the loop tells the chain.
#[derive(Debug)]
pub(super) struct ChainHandle {
    rescans: mpsc::Sender<u32>,
    sends: mpsc::Sender<Box<Transaction>>,
}

impl ChainHandle {
    /// Hands a transaction to the network. Returns `false` if too many wait already.
    pub(super) fn broadcast(&self, tx: Transaction) -> bool {
        self.sends.try_send(Box::new(tx)).is_ok()
    }

    /// Lets connected blocks be delivered again from a height on. Returns `false` if the task
    /// cannot be told now.
    pub(super) fn rescan_from(&self, height: u32) -> bool {
        self.rescans.try_send(height).is_ok()
    }
}

/// What the chain tells the loop.
#[derive(Debug)]
pub(super) enum ChainEvent {
    Update(Box<ChainUpdate>),
    Broadcasted {
        tx: Box<Transaction>,
        /// Sent, or why that is not known.
        result: Result<(), Unsent>,
    },
    /// The source does not answer, and why.
    Down(ChainError),
}

/// The two tasks of a source, to be started when the loop is ready for them.
pub(super) struct ChainTasks {
    source: Box<dyn ChainSource>,
    poll_every: Duration,
    rescans: mpsc::Receiver<u32>,
    sends: mpsc::Receiver<Box<Transaction>>,
    events: mpsc::Sender<ChainEvent>,
}

/// A source that is polled at least every `poll_every`, the handle to it, and what it tells.
pub(super) fn open(
    source: Box<dyn ChainSource>,
    poll_every: Duration,
    queue: usize,
) -> (ChainHandle, mpsc::Receiver<ChainEvent>, ChainTasks) {
    let (rescans, asked) = mpsc::channel(queue);
    let (sends, sent) = mpsc::channel(SEND_QUEUE);
    let (events, told) = mpsc::channel(queue);
    let tasks = ChainTasks { source, poll_every, rescans: asked, sends: sent, events };
    (ChainHandle { rescans, sends }, told, tasks)
}

impl ChainTasks {
    /// The futures of both tasks. They end when the loop is gone.
    pub(super) fn split(
        self,
    ) -> (impl Future<Output = ()> + Send, impl Future<Output = ()> + Send) {
        let Self { source, poll_every, rescans, sends, events } = self;
        let sending = send(source.sender(), sends, events.clone());
        (follow(source, poll_every, rescans, events), sending)
    }
}

async fn follow(
    mut source: Box<dyn ChainSource>,
    poll_every: Duration,
    mut rescans: mpsc::Receiver<u32>,
    events: mpsc::Sender<ChainEvent>,
) {
    let mut alarm = tokio::time::interval(poll_every);
    alarm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut rescan = tokio::select! {
            biased;
            asked = rescans.recv() => match asked {
                None => return,
                some => some,
            },
            _ = alarm.tick() => None,
        };
        // Every scan that was asked for goes before the next look: facts without it would pass
        // for all there is.
        while let Some(height) = rescan {
            if let Err(error) = source.rescan_from(height).await
                && events.send(ChainEvent::Down(error)).await.is_err()
            {
                return;
            }
            rescan = rescans.try_recv().ok();
        }
        if poll(source.as_mut(), &events).await.is_err() {
            return;
        }
    }
}

/// Everything there is: a source that is behind delivers bounded parts.
async fn poll(
    source: &mut dyn ChainSource,
    events: &mpsc::Sender<ChainEvent>,
) -> Result<(), mpsc::error::SendError<ChainEvent>> {
    loop {
        match source.poll().await {
            Ok(Some(update)) => events.send(ChainEvent::Update(Box::new(update))).await?,
            Ok(None) => return Ok(()),
            Err(error) => return events.send(ChainEvent::Down(error)).await,
        }
    }
}

/// One after the other: a child must not overtake its parent.
async fn send(
    sender: Arc<dyn TxSender>,
    mut sends: mpsc::Receiver<Box<Transaction>>,
    events: mpsc::Sender<ChainEvent>,
) {
    while let Some(tx) = sends.recv().await {
        let sent = sender.broadcast(&tx).await;
        let result = sent.map(|_| ()).map_err(|error| match error.may_have_sent() {
            true => Unsent::NoAnswer(error.to_string()),
            false => Unsent::Refused(error.to_string()),
        });
        if events.send(ChainEvent::Broadcasted { tx, result }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bitcoin::Txid;

    use super::*;

    /// Delivers one update per scan: the height from which it was asked for. Without any, it
    /// hangs.
    struct Scans(Option<u32>);

    #[async_trait]
    impl ChainSource for Scans {
        async fn poll(&mut self) -> Result<Option<ChainUpdate>, ChainError> {
            match self.0.take() {
                Some(height) => Ok(Some(ChainUpdate { height, ..ChainUpdate::default() })),
                None => std::future::pending().await,
            }
        }

        fn sender(&self) -> Arc<dyn TxSender> {
            Arc::new(Sends)
        }

        async fn rescan_from(&mut self, height: u32) -> Result<(), ChainError> {
            self.0 = Some(height);
            Ok(())
        }

        fn name(&self) -> &str {
            "scans"
        }
    }

    struct Sends;

    #[async_trait]
    impl TxSender for Sends {
        async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
            Ok(tx.compute_txid())
        }
    }

    fn transaction() -> Transaction {
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_scan_that_was_asked_for_goes_before_the_first_look() {
        let source = Box::new(Scans(Some(100)));
        let (handle, mut told, tasks) = open(source, Duration::from_secs(60), 8);
        assert!(handle.rescan_from(7));
        let (following, _sending) = tasks.split();
        let task = tokio::spawn(following);
        match told.recv().await {
            Some(ChainEvent::Update(update)) => assert_eq!(update.height, 7),
            other => panic!("{other:?}"),
        }
        task.abort();
    }

    #[tokio::test]
    async fn a_source_that_hangs_holds_no_transaction_up() {
        let (handle, mut told, tasks) = open(Box::new(Scans(None)), Duration::from_secs(60), 8);
        let (following, sending) = tasks.split();
        let tasks = [tokio::spawn(following), tokio::spawn(sending)];
        tokio::task::yield_now().await;
        assert!(handle.broadcast(transaction()));
        match told.recv().await {
            Some(ChainEvent::Broadcasted { tx, result: Ok(()) }) => assert_eq!(*tx, transaction()),
            other => panic!("{other:?}"),
        }
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
