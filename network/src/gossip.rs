//! Gossipsub as Capex runs it, the messages that await a verdict, and those that await a subscriber.
//!
//! Each deviation from the library's default carries its reason.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, MaxCountSubscriptionFilter, Message,
    MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams,
    ValidationMode, WhitelistSubscriptionFilter, score_parameter_decay_with_base,
};
use sha2::{Digest, Sha256};

use crate::NetworkError;
use crate::config::Plan;
use crate::keys::PeerKey;
use crate::limits::{
    GOSSIP_FRAME_BYTES, MAX_TICKET_BYTES, MAX_TICKETS, MAX_UNSENT_PER_TOPIC, PEER_QUEUE,
    PEER_QUEUE_TIME, PEER_SHARE, TICKET_LIFETIME,
};

type Filter = MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>;
pub(crate) type Gossip = gossipsub::Behaviour<IdentityTransform, Filter>;

const HEARTBEAT: Duration = Duration::from_millis(700);
const DECAY_INTERVAL: Duration = Duration::from_secs(1);
const DECAY_TO_ZERO: f64 = 0.01;
/// Field tags and lengths around data and topic. The sender checks the cap of a topic against the
/// data, the receiver against all of the message: without this allowance an honest message of
/// exactly the cap would cost its sender 100 points at every neighbour.
const ENVELOPE_BYTES: usize = 16;
const HOUR: Duration = Duration::from_secs(3_600);

/// Score of one protocol fault reported by the node: one fault reaches the gossip threshold,
/// five the graylist.
pub(crate) const FAULT_SCORE: f64 = -500.0;

pub(crate) fn behaviour(plan: &Plan) -> Result<Gossip, NetworkError> {
    let topics: HashSet<_> = plan.topics.iter().map(|topic| topic.hash.clone()).collect();
    let filter = Filter {
        max_subscribed_topics: topics.len(),
        max_subscriptions_per_request: 100,
        filter: WhitelistSubscriptionFilter(topics),
    };
    let fail = |reason: String| NetworkError::BadConfig(reason);
    // Anonymous: the payload carries its own signature, a second one would only link it to a host.
    let mut gossip = Gossip::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config(plan).map_err(|error| fail(error.to_string()))?,
        filter,
    )
    .map_err(|error| fail(error.to_owned()))?;
    gossip.with_peer_score(score(plan), thresholds()).map_err(fail)?;
    for topic in &plan.topics {
        gossip
            .subscribe(&IdentTopic::new(topic.hash.as_str()))
            .map_err(|error| fail(error.to_string()))?;
    }
    Ok(gossip)
}

fn config(plan: &Plan) -> Result<gossipsub::Config, gossipsub::ConfigBuilderError> {
    let mut config = ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .mesh_outbound_min(3)
        .gossip_lazy(8)
        .gossip_factor(0.25)
        .heartbeat_interval(HEARTBEAT)
        // The default of 5 s is longer than two epochs of a devnet.
        .heartbeat_initial_delay(HEARTBEAT)
        .history_length(12)
        .history_gossip(3)
        // Orders are small; a publisher's first hop is where a message is most easily withheld.
        .flood_publish(true)
        .max_transmit_size(GOSSIP_FRAME_BYTES)
        // The defaults let a sender put more ids into one IHAVE (5000) than a receiver takes.
        .max_control_messages_sent(500)
        .max_control_message_size(65_536)
        .max_publish_messages(500)
        .max_ihave_messages_heartbeat(10)
        .connection_handler_queue_len(PEER_QUEUE)
        .publish_queue_duration(PEER_QUEUE_TIME)
        .forward_queue_duration(PEER_QUEUE_TIME)
        .idontwant_message_size_threshold(1_000)
        .idontwant_on_publish(false)
        // An order lives for one epoch; a replay in the next one is still recognised.
        .duplicate_cache_time((2 * plan.epoch).max(Duration::from_secs(120)))
        .prune_backoff(Duration::from_secs(60))
        .iwant_followup_time(Duration::from_secs(3));
    for topic in &plan.topics {
        let envelope = topic.hash.as_str().len() + ENVELOPE_BYTES;
        config.max_transmit_size_for_topic(topic.max_bytes + envelope, topic.hash.clone());
    }
    config.build()
}

/// SHA-256 of domain, topic length, topic and data, cut to 20 bytes: short ids keep IHAVE small.
fn message_id(message: &Message) -> MessageId {
    let topic = message.topic.as_str().as_bytes();
    let mut hash = Sha256::new();
    hash.update(b"capex/gossip/v1\0");
    hash.update((topic.len() as u64).to_be_bytes());
    hash.update(topic);
    hash.update(&message.data);
    MessageId::from(&hash.finalize()[..20])
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -500.0,
        publish_threshold: -1_000.0,
        graylist_threshold: -2_500.0,
        accept_px_threshold: 1_000.0,
        opportunistic_graft_threshold: 3.5,
    }
}

/// Decay after which a counter of one is forgotten in the given time.
fn decay(time: Duration) -> f64 {
    score_parameter_decay_with_base(time, DECAY_INTERVAL, DECAY_TO_ZERO)
}

fn score(plan: &Plan) -> PeerScoreParams {
    let topics = plan.topics.iter().map(|topic| (topic.hash.clone(), topic_score()));
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    PeerScoreParams {
        topics: topics.collect(),
        topic_score_cap: 0.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_threshold: 5.0,
        ip_colocation_factor_weight: -100.0,
        // Else the nodes of a devnet, which share one address, graylist each other.
        ip_colocation_factor_whitelist: loopback.into_iter().filter(|_| plan.loopback).collect(),
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_decay: decay(HOUR),
        decay_interval: DECAY_INTERVAL,
        decay_to_zero: DECAY_TO_ZERO,
        retain_score: 6 * HOUR,
        ..PeerScoreParams::default()
    }
}

fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 0.1,
        time_in_mesh_weight: 0.000_27,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 1.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: decay(Duration::from_secs(600)),
        first_message_deliveries_cap: 100.0,
        // P3 and P3b off: topics are quiet between epochs, and the defaults punish that with
        // -200 per honest peer after 5 s.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // Squared and times the topic weight: one invalid message costs 100, five 2500.
        invalid_message_deliveries_weight: -1_000.0,
        invalid_message_deliveries_decay: decay(HOUR),
        ..TopicScoreParams::default()
    }
}

/// A gossip message that awaits its verdict.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) message: MessageId,
    pub(crate) peer: PeerKey,
    bytes: usize,
    expires: Instant,
}

/// What of one peer, or of all, awaits a verdict.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    /// The load with one more message, unless that is more than a share of what all may hold.
    fn with(self, bytes: usize, share: usize) -> Option<Self> {
        let more = Self { messages: self.messages + 1, bytes: self.bytes + bytes };
        let fits = more.messages <= MAX_TICKETS / share && more.bytes <= MAX_TICKET_BYTES / share;
        fits.then_some(more)
    }

    fn without(self, bytes: usize) -> Self {
        Self { messages: self.messages.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// The messages that await a verdict, by ticket.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    held: BTreeMap<u64, Held>,
    per_peer: BTreeMap<PeerKey, Load>,
    load: Load,
    next: u64,
}

impl Tickets {
    /// Issues a ticket, or `None` when the peer or all peers together hold too many.
    pub(crate) fn issue(
        &mut self,
        message: MessageId,
        peer: PeerKey,
        bytes: usize,
        now: Instant,
    ) -> Option<u64> {
        let of_peer = self.per_peer.get(&peer).copied().unwrap_or_default();
        let (load, of_peer) = (self.load.with(bytes, 1)?, of_peer.with(bytes, PEER_SHARE)?);
        let ticket = self.next;
        self.next += 1;
        self.load = load;
        self.per_peer.insert(peer, of_peer);
        self.held.insert(ticket, Held { message, peer, bytes, expires: now + TICKET_LIFETIME });
        Some(ticket)
    }

    /// Redeems a ticket; `None` when it has expired or was never issued.
    pub(crate) fn redeem(&mut self, ticket: u64) -> Option<Held> {
        let held = self.held.remove(&ticket)?;
        self.load = self.load.without(held.bytes);
        let of_peer = self.per_peer.get(&held.peer).copied().unwrap_or_default();
        match of_peer.without(held.bytes) {
            Load { messages: 0, .. } => self.per_peer.remove(&held.peer),
            left => self.per_peer.insert(held.peer, left),
        };
        Some(held)
    }

    /// The next message whose time is over. Tickets are issued in the order of time.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Held> {
        let (ticket, held) = self.held.first_key_value()?;
        if held.expires > now {
            return None;
        }
        let ticket = *ticket;
        self.redeem(ticket)
    }

    /// Forgets all messages; tickets are not used again.
    pub(crate) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

/// Own messages that no peer was there to take: the newest of each topic, for two epochs.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    topics: BTreeMap<String, VecDeque<(Instant, Vec<u8>)>>,
}

impl Unsent {
    /// Keeps a message until `until`. Returns whether an older one had to make room.
    pub(crate) fn keep(&mut self, topic: &str, bytes: Vec<u8>, until: Instant) -> bool {
        let queue = self.topics.entry(topic.to_owned()).or_default();
        queue.push_back((until, bytes));
        queue.len() > MAX_UNSENT_PER_TOPIC && queue.pop_front().is_some()
    }

    /// Takes the messages of a topic, oldest first.
    pub(crate) fn take(&mut self, topic: &str) -> VecDeque<(Instant, Vec<u8>)> {
        self.topics.remove(topic).unwrap_or_default()
    }

    /// Drops messages whose time is over and names their topics, once per message.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut late = Vec::new();
        for (topic, queue) in &mut self.topics {
            while queue.front().is_some_and(|(until, _)| *until <= now) {
                queue.pop_front();
                late.push(topic.clone());
            }
        }
        self.topics.retain(|_, queue| !queue.is_empty());
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);
    const C: PeerKey = PeerKey([3; 32]);

    fn id(n: u64) -> MessageId {
        MessageId::from(n.to_be_bytes().to_vec())
    }

    #[test]
    fn a_ticket_is_redeemed_once() {
        let mut tickets = Tickets::default();
        let ticket = tickets.issue(id(1), A, 10, Instant::now()).unwrap();
        assert_eq!(tickets.redeem(ticket).map(|held| held.message), Some(id(1)));
        assert!(tickets.redeem(ticket).is_none());
        assert_eq!(tickets.load, Load::default());
        assert!(tickets.per_peer.is_empty());
    }

    #[test]
    fn tickets_are_bounded_by_peer_count_and_bytes() {
        let now = Instant::now();
        let mut tickets = Tickets::default();
        let taken = (0..).take_while(|n| tickets.issue(id(*n), A, 1, now).is_some()).count();
        assert_eq!(taken, MAX_TICKETS / PEER_SHARE);
        let taken = (0..).take_while(|n| tickets.issue(id(*n), B, 1, now).is_some()).count();
        assert_eq!(taken, MAX_TICKETS / PEER_SHARE);
        assert!(tickets.issue(id(1), C, 1, now).is_none(), "all are taken");
        tickets.clear();
        let half = MAX_TICKET_BYTES / PEER_SHARE;
        assert!(tickets.issue(id(1), A, half + 1, now).is_none());
        assert_eq!(tickets.issue(id(1), A, half, now), Some(MAX_TICKETS as u64));
        assert!(tickets.issue(id(2), A, 1, now).is_none());
        assert!(tickets.issue(id(2), B, half, now).is_some());
        assert!(tickets.issue(id(3), C, 1, now).is_none());
    }

    #[test]
    fn a_burst_of_one_peer_fits() {
        let now = Instant::now();
        let mut tickets = Tickets::default();
        assert!((0..20_000).all(|n| tickets.issue(id(n), A, 500, now).is_some()));
    }

    #[test]
    fn tickets_expire_in_order() {
        let now = Instant::now();
        let mut tickets = Tickets::default();
        tickets.issue(id(1), A, 1, now).unwrap();
        tickets.issue(id(2), A, 1, now + Duration::from_secs(1)).unwrap();
        assert!(tickets.expired(now).is_none());
        assert_eq!(tickets.expired(now + TICKET_LIFETIME).map(|held| held.message), Some(id(1)));
        assert!(tickets.expired(now + TICKET_LIFETIME).is_none());
    }

    #[test]
    fn the_newest_unsent_messages_are_kept_until_their_time() {
        let now = Instant::now();
        let mut unsent = Unsent::default();
        for n in 0..=MAX_UNSENT_PER_TOPIC {
            let crowded = unsent.keep("orders", vec![u8::try_from(n).unwrap()], now);
            assert_eq!(crowded, n == MAX_UNSENT_PER_TOPIC);
        }
        let kept = unsent.take("orders");
        assert_eq!(kept.len(), MAX_UNSENT_PER_TOPIC);
        assert_eq!(kept.front().map(|(_, bytes)| bytes.clone()), Some(vec![1]));
        unsent.keep("roots", vec![1], now);
        unsent.keep("roots", vec![2], now + Duration::from_secs(1));
        assert_eq!(unsent.expire(now), ["roots"]);
        assert_eq!(unsent.take("roots").len(), 1);
    }

    #[test]
    fn message_ids_depend_on_topic_and_data() {
        let message = |topic: &str, data: &[u8]| Message {
            source: None,
            data: data.to_vec(),
            sequence_number: None,
            topic: IdentTopic::new(topic).hash(),
        };
        let one = message_id(&message("a", b"bc"));
        assert_eq!(one.0.len(), 20);
        assert_eq!(one, message_id(&message("a", b"bc")));
        assert_ne!(one, message_id(&message("ab", b"c")));
    }
}
