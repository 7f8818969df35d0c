//! Every bound of the protocol that no network may change, each with its reason.
//!
//! What a network may choose (timings, classes, ports) is in [`crate::params`].

/// A signed object. The largest, Terms with 8 funders and 16 unit ranges, stays under 2 KiB.
pub const SIGNED_MAX_BYTES: usize = 4096;
/// A journal record or a frame of several signed objects: a certificate of 64 hops is
/// about 100 KiB, a part of an epoch's result 240 kB.
pub const RECORD_MAX_BYTES: usize = 4 << 20;
/// An order on the wire.
pub const ORDER_MAX_BYTES: usize = 2048;
/// A gossip frame: one signed object and its envelope. 16 orders of the usual size fit, and
/// one of the largest.
pub const GOSSIP_MAX_BYTES: usize = 4096;
/// Orders of one owner in one gossip message, each with its work, which is looked at before the
/// first signature: what enters the book of an epoch
/// ([`ORDERS_PER_OWNER_BOOK`]), so that an owner needs one message an epoch.
pub const BUNDLE_ORDERS_MAX: usize = ORDERS_PER_OWNER_BOOK;
/// Key, length and signature around the payload of a signed object.
pub const ENVELOPE_BYTES: usize = 32 + 8 + 64;
/// A proof of equivocation: two signed objects of the largest size, each with its kind. A
/// smaller cap would let a provider escape by making its contradicting statements long.
pub const PROOF_MAX_BYTES: usize = 2 * (4 + ENVELOPE_BYTES + SIGNED_MAX_BYTES);
/// A settlement message.
pub const SETTLE_MAX_BYTES: usize = 64 << 10;
/// A reconciliation or fetch message.
pub const SYNC_MAX_BYTES: usize = 1 << 20;
/// A lease message: 256 KiB of payload and its frame.
pub const LEASE_MAX_BYTES: usize = 300 << 10;
/// Payload of one Put or Get.
pub const LEASE_CHUNK_BYTES: usize = 256 << 10;

/// Largest limit price, msat per block (10^12: ten bitcoin for one block).
pub const PRICE_MAX_MSAT: u64 = 1_000_000_000_000;
/// Largest quantity of an order, blocks at a time.
pub const QTY_MAX: u32 = 10_000;
/// Longest run of a bid, slots (a week of hours).
pub const SLOTS_MAX: u16 = 168;
/// Rolling horizon of an epoch, slots (two weeks of hours).
pub const HORIZON_SLOTS: u32 = 336;
/// Alternatives of a bid.
pub const ALTS_MAX: usize = 4;
/// Allow and deny keys of an order together.
pub const ALLOW_DENY_MAX: usize = 16;
/// Orders kept per owner and epoch before the root; the highest id is evicted. More would only
/// let one key fill memory, and with fewer the order of arrival would decide which of an
/// owner's 16 enter the book.
pub const ORDERS_PER_OWNER_KEPT: usize = 64;
/// Orders per owner that enter the book.
pub const ORDERS_PER_OWNER_BOOK: usize = 16;
/// Orders of one epoch in all: bounds memory at about 200 MB, or 400 MB of the longest orders,
/// twice while one epoch is computed and the next is open. A stranger fills it with the proof of
/// work of each order (2^20 hashes on mainnet) and no money; when it is full the lowest ids stay,
/// so one who searched harder has room, and nothing of it outlives its epoch.
pub const ORDERS_PER_EPOCH: usize = 200_000;
/// Most asks that a network may let one bid take: the rows of an epoch are at most its bids,
/// times this. With the 16 of the public networks a full set of 200,000 orders gives 3.2
/// million rows of 220 bytes, 700 MB; a row costs its sender a sixteenth of an order's work.
pub const LEGS_MAX: u16 = 64;
/// Unit ranges of one certificate.
pub const UNIT_RANGES_MAX: usize = 16;
/// Units of one class that a provider may number.
pub const UNITS_MAX: u32 = 1_000_000;
/// Hops of a certificate.
pub const CERTIFICATE_HOPS_MAX: usize = 64;
/// Hops from which on a history is left behind a checkpoint, if its holder asks: a quarter of what
/// may be, so that nobody has one signed for a hop or two.
pub const CHECKPOINT_HOPS: usize = 16;
/// Hops from which on a holder asks for a checkpoint.
pub const CHECKPOINT_ASKED_HOPS: usize = 32;
/// Parts of one split: their Activations are one answer of at most 34 KiB.
pub const SPLIT_PARTS_MAX: usize = 16;
/// Certificates that one merge joins. With this and [`ROOTS_MAX`] an Activation is at most 1,500
/// bytes, so that an order of 2 KiB can carry it.
pub const MERGE_PARTS_MAX: usize = 8;
/// Certificates that splits and merges may make of one Issue, over its life. A holder makes them
/// for nothing: with the history of each a provider keeps at most 16 MiB for one purchase, and its
/// register of 65,536 is not filled by fewer than 256 of them. They are forgotten with their
/// windows.
pub const PARTS_PER_ROOT_MAX: usize = 256;
/// Issues to which one certificate may go back.
pub const ROOTS_MAX: usize = 16;
/// Funders of one trade.
pub const FUNDERS_MAX: usize = 8;
/// Pools of which one daemon is a member, those that are over included: the oldest of these makes
/// room. Only its owner founds and joins them, and 8 members each take 1 kB.
pub const POOLS_MAX: usize = 64;
/// Live locks that one buyer key may hold at one provider (free option griefing).
pub const LIVE_LOCKS_PER_KEY: usize = 8;
/// Addresses of a Contact.
pub const CONTACT_ADDRS_MAX: usize = 8;
/// Bytes of one address of a Contact.
pub const CONTACT_ADDR_BYTES: usize = 128;
/// Contacts remembered, at most 3.7 kB each, 15 MB in all; the one heard longest ago goes first,
/// of those without an order before those with one, since keys are free and work is not. Who
/// was dropped is heard again within a minute.
pub const CONTACTS_MAX: usize = 4096;
/// How far the time in a Contact may be off, ms: it is published anew each minute, so an
/// older one is a replay, and one from the future would never be replaced.
pub const CONTACT_SKEW_MS: u64 = 600_000;
/// Roots remembered per epoch (one per key). Only keys with an order in it count, so each costs
/// its work; those that come when it is full are not heard, and all go with their epoch.
pub const ROOTS_PER_EPOCH: usize = 4096;
/// Computed epochs whose orders and result stay in the store: about 24 MB each with 100,000
/// orders.
pub const EPOCHS_KEPT: usize = 64;
/// Computed epochs whose orders and result stay in memory too: about 120 MB each with 100,000
/// orders. A peer that has not traded for so long is found again with its next order.
pub const EPOCHS_IN_MEMORY: usize = 4;
/// Standing orders of one daemon. Only its owner places them; of more than 16 an epoch takes
/// those that waited longest, so with all of them each is signed every 64 epochs.
pub const STANDING_ORDERS_MAX: usize = 1024;
/// Finished standing orders of one daemon that stay in memory and store: as many as may stand,
/// so that a list shows all of a busy day, and a standing order's room is used again.
pub const STANDING_FINISHED_KEPT: usize = 1024;
/// Keys and coins whose misses are remembered, 200 to 450 bytes each. A stranger fills it only by
/// being matched and failing, each time with another key and its work; then those go first
/// whose denial ends first.
pub const CONDUCT_MAX: usize = 1024;
/// Settlements that are not finished, per daemon.
pub const OPEN_SETTLEMENTS_MAX: usize = 1024;
/// Trades that one funding pays for: as many as a buyer may have locks at one provider.
pub const FUND_TERMS_MAX: usize = LIVE_LOCKS_PER_KEY;
/// Inputs of one transaction that claims several contracts, at 101 vB each by script: 16 save 60
/// of 155 vB each, twice as many one more, and each trade keeps the bytes of all.
pub const CLAIM_INPUTS_MAX: usize = 16;
/// A trade that could go on waits for others to share a transaction with for at most this part of
/// the time that Terms have: twice the time after which a message that was lost is sent again.
pub const BATCH_WAIT_PART: u64 = 4;
/// Inputs of the fundings of a trade that are watched for a replacement: those of every open
/// settlement fit the watch list, whatever a buyer shows. A replacement of further inputs alone
/// goes unseen until delivery is over.
pub const WATCHED_INPUTS_MAX: usize = 64;
/// Coins that one of several funders puts into their one transaction: those of eight are watched,
/// and their signatures fit a message.
pub const JOINT_COINS_MAX: usize = WATCHED_INPUTS_MAX / FUNDERS_MAX;
/// Of the time of a consent those who pay by one transaction keep this part for each of the last two
/// steps: to sign once all have put something in, and to show the whole once all have signed. A third
/// is left at the lock, of which a quarter each is that.
pub const JOINT_STEP_PART: u64 = 12;
/// Certificates that extend one lease: its window is no longer than the horizon, and a day in
/// parts of an hour fits twice.
pub const EXTENSIONS_MAX: usize = 64;
/// Leases that have not been released, per daemon.
pub const OPEN_LEASES_MAX: usize = 1024;
/// Maintenances that a provider has announced and that are not over: every holder concerned is told
/// of all of them in one answer. As many that are over are remembered, to count what was lost.
pub const MAINTENANCES_MAX: usize = 16;
/// Longest maintenance, slots (a week of hours): a longer one is no pause of a provider.
pub const MAINTENANCE_MAX_SLOTS: u32 = 168;
/// Bytes of what a provider says of a maintenance: a line.
pub const MAINTENANCE_WHY_MAX_BYTES: usize = 200;
/// How long a challenge waits for its Redeem, ms. There is one for each certificate issued, given
/// to none but its holder.
pub const CHALLENGE_MS: u64 = 60_000;
/// Bytes of memory for statements of providers, which are compared with each other: about 50,000
/// of the usual length. When it is full, the provider of whom most is remembered gives up its
/// oldest.
pub const STATEMENTS_MAX_BYTES: usize = 48 << 20;
/// A reason code that is taken from a peer: twice the longest that this program has.
pub const CODE_MAX_BYTES: usize = 64;
/// Requests of our own that wait for their answer.
pub const REQUESTS_PENDING_MAX: usize = 4096;
/// Bytes kept of each standard stream of a lease, by its provider and by its holder: enough
/// for a log, too little to fill a disk.
pub const STREAM_MAX_BYTES: u64 = 1 << 20;
/// A certificate whose workload came with its purchase is presented so long before its window,
/// ms, or two slots if that is less: until then its holder may give it away or sell it, and then a
/// provider that does not answer at once is asked again.
pub const ATTACHED_LEAD_MS: u64 = 120_000;
/// What an upload is thought to bring in a second, bytes: so much earlier is it presented.
pub const ATTACHED_UPLOAD_BYTES_PER_S: u64 = 1 << 20;
/// Bytes of all result files that the holder of a lease takes.
pub const RESULTS_MAX_BYTES: u64 = 256 << 20;
/// Input files of a workload, and as many results.
pub const WORKLOAD_FILES_MAX: usize = 16;
/// Bytes of a component with its inputs, and of the inputs of any workload: they are taken by an
/// API that keeps them in memory.
pub const WORKLOAD_MAX_BYTES: u64 = 64 << 20;
/// Bytes of a name inside a workload.
pub const WORKLOAD_NAME_BYTES: usize = 128;
/// Life of a call that opens a stream into a lease, s: as that of any other call.
pub const ACCESS_LIFE_MAX_S: u64 = 300;
/// Bytes of all arguments, variables and paths of such a call: what is signed has at most
/// [`SIGNED_MAX_BYTES`], names, keys and lengths included.
pub const ACCESS_STRINGS_MAX_BYTES: usize = 2 << 10;
/// Arguments of a workload, and variables of its environment: more belongs into an input file.
pub const WORKLOAD_STRINGS_MAX: usize = 64;
/// Bytes of all arguments, variables and paths together: with names and digests a Redeem stays
/// under a tenth of a lease message.
pub const WORKLOAD_STRINGS_MAX_BYTES: usize = 16 << 10;
/// Ports of a workload that are forwarded: a service has a handful.
pub const WORKLOAD_PORTS_MAX: usize = 16;
/// Longest time between stop signal and kill, ms: what is shut down within half a minute by a
/// service manager is shut down here.
pub const WORKLOAD_GRACE_MAX_MS: u32 = 30_000;
/// Highest number of a signal on Linux.
pub const SIGNAL_MAX: u8 = 64;
/// Config and layers of an image: builders make at most 127 layers, and with its digests a
/// Redeem grows by 5 kB.
pub const IMAGE_BLOBS_MAX: usize = 128;
/// Bytes of a manifest, which is read as a whole: registries take no larger one.
pub const IMAGE_MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// Bytes of an image with all its layers. It takes no more than the disk that was bought either:
/// a provider keeps it beside that.
pub const IMAGE_MAX_BYTES: u64 = 32 << 30;
/// Bytes of the name of an image in a registry: registries have repositories of up to 255.
pub const IMAGE_NAME_MAX_BYTES: usize = 320;
/// Bytes of the documents of an image that its provider has pulled, all together: they come in one
/// answer. Those of an image of 127 layers and of an index for 20 kinds of machines have a quarter.
pub const PULLED_DOCUMENTS_MAX_BYTES: usize = 256 << 10;
