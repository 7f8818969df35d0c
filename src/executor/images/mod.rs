//! Images of containers: what a holder has is read as content by digest, and what a provider
//! has received is unpacked into a root file system.
//!
//! ```text
//! OCI layout directory │
//! saved image, a tar   ├─ source ─▶ manifest, configuration, layers ─ uploaded ─▶ unpack ─▶ a tree
//! root file system tar │
//! ```
//!
//! All of it may come from a stranger. A path is resolved by the kernel beneath the tree,
//! never as text; memory does not grow with what is read; and what is refused leaves nothing
//! behind.

mod error;
mod make;
mod manifest;
mod names;
mod source;
mod tars;
mod unpack;

pub use error::ImageError;
pub(super) use make::write_archive;
pub(super) use manifest::{Chosen, Config, Manifest, choose, declared, names};
pub(super) use names::{DEPTH_MAX, Parts, shown};
pub use source::{Blob, Given, check_program, open};
pub(super) use tars::{Header, Kind, for_each};
pub(super) use unpack::{Bounds, Layer, unpack};
