//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Topics a node may declare. The design has five; sharding by class adds a handful.
pub const MAX_TOPICS: usize = 64;
/// Request protocols a node may declare.
pub const MAX_PROTOCOLS: usize = 16;
/// Longest name of a network, topic or protocol, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Largest gossip message a topic may allow: well under [`GOSSIP_FRAME_BYTES`], because the
/// gossipsub decoder counts the read-ahead (8 KiB) behind a frame as part of it.
pub const MAX_TOPIC_BYTES: usize = 48 * 1024;
/// Largest gossipsub frame, control messages included.
pub const GOSSIP_FRAME_BYTES: usize = 65_536;
/// Largest request or reply a protocol may allow: 16 MiB is far above every protocol of the
/// design and low enough that the open replies of [`MAX_INBOUND`] fit in memory.
pub const MAX_PROTOCOL_BYTES: usize = 16 * 1024 * 1024;

/// Gossip messages that may await a verdict: three bursts of 20,000 single orders within a
/// second, since a node that ends an epoch or compacts its journal may be late by some seconds.
/// What is not refused here is never lost on the way to the node.
pub const MAX_TICKETS: usize = 65_536;
/// Bytes of gossip that may await a verdict: all tickets for orders of 500 bytes, or 8,192
/// messages of the largest kind.
pub const MAX_TICKET_BYTES: usize = 32 * 1024 * 1024;
/// Share of one peer, of the tickets and of their bytes: half, so that no single peer blinds a
/// node, and enough for a whole burst from the only peer that a node has.
pub const PEER_SHARE: usize = 2;
/// Gossip messages on their way to the node: a burst of 20,000 from one peer, and room for what
/// others send. When it is full the swarm is not polled: the peers keep what they would send.
pub const MAX_LANE: usize = MAX_TICKETS / PEER_SHARE;
/// Bytes of gossip on their way to the node.
pub const MAX_LANE_BYTES: usize = MAX_TICKET_BYTES / PEER_SHARE;

/// Commands that may wait for the swarm task: a verdict for each ticket, so that none is lost,
/// and others.
pub const COMMAND_QUEUE: usize = MAX_TICKETS + 1_024;
/// Commands taken in one turn of the swarm task: a burst brings a verdict for each message.
pub const COMMANDS_PER_TURN: usize = 64;
/// Events that may wait in the channel to the node. An answer that comes during a burst of
/// gossip waits behind no more than these.
pub const EVENT_QUEUE: usize = 256;
/// Above this many undelivered events other than gossip an inbound request is dropped: the node
/// is behind, and the peer asks again.
pub const SHED_REQUESTS_ABOVE: usize = 512;
/// Above this many undelivered events other than gossip the swarm is not polled: back-pressure
/// reaches the peers.
pub const PAUSE_SWARM_ABOVE: usize = 2_048;
/// Above this many undelivered events other than gossip no command is taken either.
pub const PAUSE_COMMANDS_ABOVE: usize = 4_096;

/// Messages that may wait for one connection of a peer. Twelve peers of a mesh that all stand
/// still hold 12 × 4,096 × 4 KiB = 200 MB at worst, and that takes the proof of work of 65,536
/// orders; single orders come to 15 MB.
pub const PEER_QUEUE: usize = 4_096;
/// Time after which a message that waits for a connection is dropped: an order is good for most
/// of an epoch, and a slow peer has caught up by then or lost its place in the mesh.
pub const PEER_QUEUE_TIME: Duration = Duration::from_secs(5);

/// Age at which an unanswered ticket becomes `Ignore`: gossipsub forgets a message after
/// 12 heartbeats of 700 ms, and a verdict after that has no effect.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(8);
/// Newest messages per topic kept for the next subscriber while there is none.
pub const MAX_UNSENT_PER_TOPIC: usize = 64;

/// Longest life of a request, either way, from command to answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one peer served at the same time, and requests sent to one peer at the same time.
pub const MAX_REQUESTS_PER_PEER: usize = 2;
/// Requests of one peer taken per second in the long run: the costliest (a whole certificate, an
/// fsync) takes milliseconds of the node's loop, so that no single peer can occupy it. An upload
/// of 256 KiB parts still reaches 12 MiB/s.
pub const REQUESTS_PER_S: u32 = 50;
/// Requests of one peer taken at once after a pause.
pub const REQUEST_BURST: u32 = 200;
/// Peers whose request rate is remembered; one that was silent for four seconds needs no entry.
pub const MAX_METERED: usize = 4_096;
/// Inbound requests that may await a reply, over all peers.
pub const MAX_INBOUND: usize = 64;
/// Own requests not yet answered, over all peers.
pub const MAX_OUTBOUND: usize = 256;
/// Own requests waiting behind those in flight, for one peer.
pub const MAX_WAITING_PER_PEER: usize = 32;
/// Streams of one protocol on one connection: two each way and as many being closed.
pub const MAX_STREAMS: usize = 8;
/// Bytes of frames being read at one time, over all peers: what has arrived is counted, not what
/// was announced, so that silent streams hold nothing.
pub const MAX_READING_BYTES: usize = 64 * 1024 * 1024;
/// Growth of a frame buffer while it is read.
pub const READ_STEP_BYTES: usize = 16 * 1024;

/// Streams that other peers have open here, over all peers: each holds a task and two buffers of
/// some 10 KiB.
pub const MAX_INBOUND_STREAMS: usize = 512;
/// Streams that one peer has open here: a browser opens six connections through a forwarded port,
/// and a holder has several terminals and ports.
pub const MAX_INBOUND_STREAMS_PER_PEER: usize = 64;
/// Streams that wait for the node to take them.
pub const STREAM_QUEUE: usize = 64;
/// Own streams that are being opened.
pub const MAX_OPENING_STREAMS: usize = 64;

/// Connections being accepted.
pub const MAX_PENDING_IN: u32 = 32;
/// Connections being dialled.
pub const MAX_PENDING_OUT: u32 = 16;
/// Established inbound connections.
pub const MAX_ESTABLISHED_IN: u32 = 64;
/// Established outbound connections.
pub const MAX_ESTABLISHED_OUT: u32 = 32;
/// Established connections.
pub const MAX_ESTABLISHED: u32 = 96;
/// Connections per peer: two, because both sides may dial at once, and two more for the next process
/// with its key. That one could not say that it is another while those of the first, dead or
/// alive, took all the room.
pub const MAX_PER_PEER: u32 = 4;
/// Inbound connections from one /24 (IPv4) or /48 (IPv6), outside loopback networks.
pub const MAX_INBOUND_PER_SUBNET: usize = 5;
/// Share of the memory limit above which no connection is accepted.
pub const MEMORY_SHARE: f64 = 0.8;
/// Idle connections are closed after this; the library default of 10 s would flap between epochs.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Peers whose addresses are remembered.
pub const MAX_BOOK: usize = 1_024;
/// Addresses per remembered peer (a Contact carries at most as many).
pub const MAX_ADDRESSES: usize = 8;
/// Longest address in bytes of text.
pub const MAX_ADDRESS_BYTES: usize = 256;
/// Connected peers below which known peers are dialled.
pub const TARGET_PEERS: usize = 24;
/// Longest pause between two dials of one peer.
pub const MAX_REDIAL: Duration = Duration::from_secs(60);
/// First pause between two dials of one peer on a loopback network: a devnet meshes in a second.
pub const FIRST_REDIAL_LOOPBACK: Duration = Duration::from_millis(250);
/// First pause between two dials of one peer elsewhere.
pub const FIRST_REDIAL: Duration = Duration::from_secs(2);
/// Dials started in one tick, so that a long list does not use up [`MAX_PENDING_OUT`].
pub const MAX_DIALS_PER_TICK: usize = 4;
/// Peers that may be banned at a time; the ban that ends first makes room.
pub const MAX_BANS: usize = 4_096;
/// Peers whose protocol faults are remembered.
pub const MAX_FAULTY: usize = 4_096;
/// Protocol faults within [`FAULT_LIFETIME`] that end the conversation: the sixth falls below the
/// graylist, which stops gossip alone, so it bans, which stops requests too.
pub const FAULTS_TO_BAN: u32 = 6;
/// Length of that ban: as long as a fault counts.
pub const FAULT_BAN: Duration = FAULT_LIFETIME;
/// Time after which one protocol fault is forgotten (as long as an invalid message counts).
pub const FAULT_LIFETIME: Duration = Duration::from_secs(3_600);

/// Pause of the housekeeping on a loopback network.
pub const TICK_LOOPBACK: Duration = Duration::from_millis(50);
/// Pause of the housekeeping elsewhere.
pub const TICK: Duration = Duration::from_millis(250);
/// Attempts to listen on the port that was in use before a restart; then any configured one will do.
pub const RELISTEN_ATTEMPTS: u32 = 20;
/// A second crash within this time makes the supervisor wait before it starts the task again.
pub const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// First wait of the supervisor, doubled with each crash in the window.
pub const FIRST_RESTART: Duration = Duration::from_millis(100);
/// Longest wait of the supervisor.
pub const MAX_RESTART: Duration = Duration::from_secs(30);
/// Time given to connections to close when the node stops.
pub const GOODBYE: Duration = Duration::from_millis(500);
