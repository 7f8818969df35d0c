//! The chain source in a task of its own: the loop never waits for it.

use std::time::Duration;

use bitcoin::Transaction;
use tokio::sync::mpsc;

use crate::chain::{ChainSource, ChainUpdate};

/// What the loop asks of the chain.
#[derive(Debug)]
pub(super) enum ChainCommand {
    Broadcast(Box<Transaction>),
    /// Deliver connected blocks again from a height on.
    RescanFrom(u32),
}

/// What the chain tells the loop.
#[derive(Debug)]
pub(super) enum ChainEvent {
    Update(Box<ChainUpdate>),
    Broadcasted {
        tx: Box<Transaction>,
        /// Sent, or the source's words.
        result: Result<(), String>,
    },
    /// The source does not answer.
    Down(String),
}

/// Polls a source, at least every `poll_every`, until the loop is gone.
pub(super) async fn run(
    mut source: Box<dyn ChainSource>,
    poll_every: Duration,
    mut commands: mpsc::Receiver<ChainCommand>,
    events: mpsc::Sender<ChainEvent>,
) {
    let mut alarm = tokio::time::interval(poll_every);
    alarm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut command = tokio::select! {
            biased;
            command = commands.recv() => match command {
                None => return,
                some => some,
            },
            _ = alarm.tick() => None,
        };
        // Everything that waits goes before the next look: facts without a rescan that was
        // asked for before them would pass for all there is.
        while let Some(next) = command {
            if let Some(event) = obey(source.as_mut(), next).await
                && events.send(event).await.is_err()
            {
                return;
            }
            command = commands.try_recv().ok();
        }
        if poll(source.as_mut(), &events).await.is_err() {
            return;
        }
    }
}

async fn obey(source: &mut dyn ChainSource, command: ChainCommand) -> Option<ChainEvent> {
    match command {
        ChainCommand::Broadcast(tx) => {
            let sent = source.broadcast(&tx).await;
            let result = sent.map(|_| ()).map_err(|error| error.to_string());
            Some(ChainEvent::Broadcasted { tx, result })
        }
        ChainCommand::RescanFrom(height) => {
            let asked = source.rescan_from(height).await;
            asked.err().map(|error| ChainEvent::Down(error.to_string()))
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
            Err(error) => return events.send(ChainEvent::Down(error.to_string())).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bitcoin::Txid;

    use super::*;
    use crate::chain::ChainError;

    /// Delivers one update per scan: the height from which it was asked for.
    struct Scans(Option<u32>);

    #[async_trait]
    impl ChainSource for Scans {
        async fn poll(&mut self) -> Result<Option<ChainUpdate>, ChainError> {
            Ok(self.0.take().map(|height| ChainUpdate { height, ..ChainUpdate::default() }))
        }

        async fn broadcast(&mut self, tx: &Transaction) -> Result<Txid, ChainError> {
            Ok(tx.compute_txid())
        }

        async fn rescan_from(&mut self, height: u32) -> Result<(), ChainError> {
            self.0 = Some(height);
            Ok(())
        }

        fn name(&self) -> &str {
            "scans"
        }
    }

    #[tokio::test]
    async fn what_was_asked_for_goes_before_the_first_look() {
        let (commands, waiting) = mpsc::channel(8);
        let (events, mut told) = mpsc::channel(8);
        let tx = Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: Vec::new(),
            output: Vec::new(),
        };
        commands.send(ChainCommand::Broadcast(Box::new(tx))).await.unwrap();
        commands.send(ChainCommand::RescanFrom(7)).await.unwrap();
        let source = Box::new(Scans(Some(100)));
        let task = tokio::spawn(run(source, Duration::from_secs(60), waiting, events));
        assert!(matches!(told.recv().await, Some(ChainEvent::Broadcasted { .. })));
        match told.recv().await {
            Some(ChainEvent::Update(update)) => assert_eq!(update.height, 7),
            other => panic!("{other:?}"),
        }
        task.abort();
    }
}
