//! Why an image is refused.

use std::io;

use capex_core::ids::Digest;
use capex_core::reason;
use capex_core::reasons::Reason;

/// A refusal; [`Self::reason`] is stable. Nothing of the image is left where it was unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither of the forms that are read.
    #[error("no OCI layout, no saved image and no archive of a root file system: {0}")]
    Format(String),
    /// A saved image inside a compressed file: its parts cannot be reached one by one.
    #[error("the saved image is compressed as a whole")]
    Compressed,
    /// An index, manifest or configuration that cannot be read.
    #[error("{what}: {why}")]
    Document { what: &'static str, why: String },
    /// Nothing in it is for this kind of machine.
    #[error("the image has no variant for {0}")]
    Platform(String),
    /// More than one image, and nothing says which.
    #[error("there are {0} images in it")]
    Several(usize),
    /// The manifest names content that is not there.
    #[error("the content {0} is missing")]
    Missing(Digest),
    /// Content that has another digest or length than was said.
    #[error("the content {0} is not what its digest and length say")]
    Content(Digest),
    /// The workload declares other content than the manifest names.
    #[error("the manifest does not name exactly what the workload declares")]
    Undeclared,
    /// Damaged, cut off, or in a compression or form that is not read.
    #[error("a layer cannot be read: {0}")]
    Archive(String),
    /// A header that is longer than any honest one.
    #[error("a header of {0} bytes is too long")]
    Header(u64),
    /// A name that leaves the tree, goes through a link out of it, or is no name.
    #[error("the path {0} is not allowed")]
    Path(String),
    /// A hard link to what is not in the tree.
    #[error("the hard link {0} leads nowhere or out of the image")]
    Link(String),
    /// A device, a socket, or what else is neither file, directory, link nor pipe.
    #[error("{0} is a device or another special file")]
    Special(String),
    /// An owner beyond the ids that a lease has.
    #[error("{path} belongs to the id {id}, a lease has the ids below 65536")]
    Owner { path: String, id: u64 },
    /// A whiteout that hides a directory from inside it, or nothing.
    #[error("the whiteout {0} is not allowed")]
    Whiteout(String),
    /// More bytes than there is room for.
    #[error("the image unpacks to more than {0} bytes")]
    TooLarge(u64),
    /// The disk of the lease is full.
    #[error("the disk is full")]
    NoRoom,
    /// More files than there is room for.
    #[error("the image unpacks to more than {0} files")]
    TooMany(u64),
    /// The user that the image names is not in its passwd file.
    #[error("the image has no user or group {0}")]
    User(String),
    /// No command was given, and the image has none.
    #[error("there is no command to run")]
    NoCommand,
    /// What shall run is in no layer.
    #[error("the image has no program {0}")]
    NoProgram(String),
    /// The lease ended while its image was unpacked.
    #[error("cancelled")]
    Cancelled,
    /// The host failed.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl ImageError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Format(_) => reason!("image.format"),
            Self::Compressed => reason!("image.compressed"),
            Self::Document { .. } => reason!("image.document"),
            Self::Platform(_) => reason!("image.platform"),
            Self::Several(_) => reason!("image.several"),
            Self::Missing(_) => reason!("image.missing"),
            Self::Content(_) => reason!("image.content"),
            Self::Undeclared => reason!("image.undeclared"),
            Self::Archive(_) => reason!("image.archive"),
            Self::Header(_) => reason!("image.header"),
            Self::Path(_) => reason!("image.path"),
            Self::Link(_) => reason!("image.link"),
            Self::Special(_) => reason!("image.special"),
            Self::Owner { .. } => reason!("image.owner"),
            Self::Whiteout(_) => reason!("image.whiteout"),
            Self::TooLarge(_) | Self::NoRoom => reason!("image.too_large"),
            Self::TooMany(_) => reason!("image.too_many"),
            Self::User(_) => reason!("image.user"),
            Self::NoCommand => reason!("image.no_command"),
            Self::NoProgram(_) => reason!("image.no_program"),
            Self::Cancelled => reason!("image.cancelled"),
            Self::Io { .. } => reason!("image.io"),
        }
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
