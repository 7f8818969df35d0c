//! What a node that comes into a network for the first time has to ask of others.

use std::time::Duration;

use capex_core::ids::Digest;
use capex_network::{Command as NetCommand, Event as NetEvent, PeerKey, Secret};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::definitions::{self, Definition};
use crate::invite::Invite;
use capex_core::reason;
use capex_core::reasons::Reason;

/// How long peers are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Any: without topics nothing is gossiped.
const EPOCH_MS: u64 = 10_000;

/// Why there is no definition.
#[derive(Debug, thiserror::Error)]
pub enum NewcomerError {
    /// No network to ask by.
    #[error(transparent)]
    Network(#[from] capex_network::NetworkError),
    /// None of the peers can be reached.
    #[error("no peer of the invitation answers")]
    NoPeer,
    /// A peer was reached, and none has the text of that hash.
    #[error("no peer of the invitation has its definition of `{0}`")]
    NoDefinition(String),
    /// There is one, of that hash, and it cannot be used here.
    #[error("the definition of `{network}`: {what}")]
    Unusable { network: String, what: String },
}

impl NewcomerError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Network(_) => reason!("network.transport"),
            Self::NoPeer => reason!("join.no_peer"),
            Self::NoDefinition(_) => reason!("join.no_definition"),
            Self::Unusable { .. } => reason!("join.definition"),
        }
    }
}

/// The definition that an invitation means: one that ships, or that its peers have. A text is
/// believed if it has the hash, whoever sent it.
///
/// # Errors
/// See [`NewcomerError`].
pub async fn definition(invite: &Invite) -> Result<Definition, NewcomerError> {
    let unusable = |what| NewcomerError::Unusable { network: invite.network.clone(), what };
    let found = match Definition::shipped(&invite.network) {
        Ok(shipped) if shipped.hash() == invite.definition => return Ok(shipped),
        Ok(_) => return Err(unusable("it is not the one that ships with this program".into())),
        Err(_) => asked_for(invite).await?,
    };
    named(&found, &invite.network).map_err(unusable)
}

/// The definition of a text, if it is of that network.
fn named(text: &str, network: &str) -> Result<Definition, String> {
    let found = Definition::of_text(text)?;
    match found.params.name == network {
        true => Ok(found),
        false => Err(format!("it is of `{}`", found.params.name)),
    }
}

/// Asks each peer of the invitation for the text, under a key that is thrown away.
async fn asked_for(invite: &Invite) -> Result<String, NewcomerError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| NewcomerError::NoPeer)?;
    let (network, events) = capex_network::start(capex_network::Config {
        network: invite.network.clone(),
        secret: Secret::new(secret),
        listen: Vec::new(),
        bootstrap: invite.peers.clone(),
        loopback: true,
        topics: Vec::new(),
        protocols: vec![definitions::protocol()],
        streams: None,
        epoch_ms: EPOCH_MS,
    })?;
    let found = answered(&network, events, invite).await;
    network.shutdown().await;
    found
}

async fn answered(
    network: &capex_network::Handle,
    mut events: mpsc::Receiver<NetEvent>,
    invite: &Invite,
) -> Result<String, NewcomerError> {
    let no_definition = || NewcomerError::NoDefinition(invite.network.clone());
    let deadline = Instant::now() + PATIENCE;
    let mut asked: Vec<PeerKey> = Vec::new();
    let mut waits = 0_usize;
    loop {
        let Ok(Some(event)) = timeout_at(deadline, events.recv()).await else {
            return Err(if asked.is_empty() { NewcomerError::NoPeer } else { no_definition() });
        };
        match event {
            NetEvent::PeerUp { peer, .. } if !asked.contains(&peer) => {
                let id = asked.len() as u64;
                let (protocol, bytes) =
                    (definitions::PROTOCOL.to_owned(), invite.definition.0.to_vec());
                asked.push(peer);
                if network.send(NetCommand::Request { id, peer, protocol, bytes }).await.is_ok() {
                    waits += 1;
                }
            }
            NetEvent::Response { result, .. } => {
                if let Some(text) = result.ok().and_then(|bytes| text_of(bytes, invite.definition))
                {
                    return Ok(text);
                }
                waits = waits.saturating_sub(1);
                if waits == 0 && asked.len() >= invite.peers.len() {
                    return Err(no_definition());
                }
            }
            NetEvent::PeerUp { .. }
            | NetEvent::PeerDown { .. }
            | NetEvent::Gossip { .. }
            | NetEvent::Request { .. }
            | NetEvent::Listening { .. }
            | NetEvent::Restarted { .. }
            | NetEvent::PublishFailed { .. } => {}
        }
    }
}

fn text_of(bytes: Vec<u8>, hash: Digest) -> Option<String> {
    if definitions::hash(&bytes) != hash {
        return None;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_believed_by_its_hash_and_by_nothing_else() {
        let text = Definition::shipped("devnet").unwrap().text;
        let hash = definitions::hash(text.as_bytes());
        let answer = |asked: Digest| definitions::answer(&text, &asked.0);
        assert_eq!(text_of(answer(hash), hash), Some(text.clone()));
        // Who has another says nothing, and what somebody says instead is not taken.
        assert_eq!(answer(Digest([7; 32])), Vec::<u8>::new());
        assert_eq!(text_of(Vec::new(), hash), None);
        assert_eq!(text_of(format!("{text} ").into_bytes(), hash), None);
        let no_text = vec![0xff];
        assert_eq!(text_of(no_text.clone(), definitions::hash(&no_text)), None);
    }

    #[test]
    fn the_rules_of_another_network_are_not_those_that_were_meant() {
        let text = Definition::shipped("devnet").unwrap().text;
        assert_eq!(named(&text, "devnet").unwrap().text, text);
        assert!(named(&text, "harbour").unwrap_err().contains("`devnet`"));
        assert!(named("name = 1", "harbour").is_err());
    }
}
