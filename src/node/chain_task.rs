//! The chain source in a task of its own: the loop never waits for it.

use std::time::Duration;

use bitcoin::Transaction;
use tokio::sync::mpsc;

use crate::chain::{ChainSource, ChainUpdate};

/// What the loop asks of the chain.
#[derive(Debug)]
pub(super) enum ChainCommand {
    /// Send a transaction.
    Broadcast(Box<Transaction>),
    /// Deliver connected blocks again from a height on.
    RescanFrom(u32),
}

/// What the chain tells the loop.
#[derive(Debug)]
pub(super) enum ChainEvent {
    /// Something changed.
    Update(Box<ChainUpdate>),
    /// Answer to a broadcast.
    Broadcasted {
        /// Which.
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
        let event = tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(command) => obey(source.as_mut(), command).await,
            },
            _ = alarm.tick() => None,
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
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
