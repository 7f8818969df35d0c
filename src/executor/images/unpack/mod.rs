//! Layers become a root file system.
//!
//! A layer hides what lies below it by whiteouts, wherever they stand in it. So those of a
//! layer are looked for first, and its files are laid down in a second reading: no list of
//! what a layer has made is kept.

mod stream;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ImageError;
use super::names::{Parts, shown};
use super::tars::{Header, Kind, broken, for_each};
use capex_core::ids::Digest;
use stream::Stream;
pub(super) use stream::decompressed;
use tree::Tree;

/// In front of the name that a whiteout hides.
const WHITEOUT: &str = ".wh.";
/// Hides all that lower layers have in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// What union file systems of old kept beside the files, and means nothing to others.
const LEFTOVER: &str = ".wh..wh.";
/// Ids of a lease: its users and groups are numbered below.
const IDS: u32 = 65_536;

/// Room of a tree.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct Bounds {
    /// Content of all files, bytes.
    pub(in crate::executor) bytes: u64,
    /// Files, directories and links.
    pub(in crate::executor) files: u64,
}

/// A layer as it was received: its file, which may be compressed.
#[derive(Debug, Clone)]
pub(in crate::executor) struct Layer {
    pub(in crate::executor) file: PathBuf,
    /// SHA-256 of the archive in it; absent where nothing says so.
    pub(in crate::executor) diff_id: Option<Digest>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::executor) struct Unpacked {
    pub(in crate::executor) bytes: u64,
    pub(in crate::executor) files: u64,
}

/// Unpacks layers, lowest first, into a directory, which is made. Its files belong to the ids of
/// the archive counted from `first_id`, or to whoever unpacks: only the superuser gives files
/// away. `is_cancelled` is asked between entries.
///
/// # Errors
/// The first thing that is not allowed; then the directory is gone again.
pub(in crate::executor) fn unpack(
    layers: &[Layer],
    into: &Path,
    bounds: Bounds,
    first_id: Option<u32>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Unpacked, ImageError> {
    fs::create_dir(into).map_err(ImageError::io(into.display().to_string()))?;
    let laid = Tree::open(into, bounds, first_id).and_then(|mut tree| {
        for (number, layer) in layers.iter().enumerate() {
            if number > 0 {
                each_entry(layer, bounds, is_cancelled, |header, parts, _| {
                    hide(&tree, header, parts)
                })?;
            }
            each_entry(layer, bounds, is_cancelled, |header, parts, content| {
                lay(&mut tree, header, parts, content)
            })?;
        }
        Ok(tree.used())
    });
    if laid.is_err() {
        // The refusal says more than a failure of this would; the caller's directory goes anyway.
        let _ = fs::remove_dir_all(into);
    }
    laid
}

/// Whether a layer has an entry of a name, wherever it is: what is in none cannot be run.
///
/// # Errors
/// A layer that cannot be read as far as that.
pub(in crate::executor) fn has_name(
    layers: &[Layer],
    name: &str,
    bounds: Bounds,
) -> Result<bool, ImageError> {
    let mut is_found = false;
    for layer in layers {
        let searched = each_entry(layer, bounds, &|| false, |_, parts, _| {
            is_found = parts.split().is_some_and(|(_, last)| last == name);
            // The rest need not be read.
            if is_found { Err(ImageError::Cancelled) } else { Ok(()) }
        });
        if is_found {
            return Ok(true);
        }
        searched?;
    }
    Ok(false)
}

fn each_entry(
    layer: &Layer,
    bounds: Bounds,
    is_cancelled: &dyn Fn() -> bool,
    mut each: impl FnMut(&Header, &Parts, &mut dyn std::io::Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut stream = Stream::open(layer, bounds)?;
    for_each(&mut stream, |header, content, _| {
        if is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        each(header, &Parts::of(&header.path)?, content)
    })?;
    stream.finish()
}

/// What a whiteout hides: `Some(None)` is all of its directory.
fn whiteout(parts: &Parts) -> Result<Option<Option<&str>>, ImageError> {
    let refused = || ImageError::Whiteout(shown(parts.joined().as_bytes()));
    let Some((above, name)) = parts.split() else {
        return Ok(None);
    };
    if above.iter().any(|part| part.starts_with(WHITEOUT) && !part.starts_with(LEFTOVER)) {
        return Err(refused());
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    match hidden {
        _ if name == OPAQUE => Ok(Some(None)),
        // `.wh.` hides nothing, `.wh..` the directory that it stands in, `.wh...` the one above.
        "" | "." | ".." => Err(refused()),
        _ => Ok(Some(Some(hidden))),
    }
}

/// Whether a path belongs to what union file systems of old left.
fn is_leftover(parts: &Parts) -> bool {
    parts.split().is_some_and(|(above, name)| {
        let mut all = above.iter().map(String::as_str).chain([name]);
        name != OPAQUE && all.any(|part| part.starts_with(LEFTOVER))
    })
}

/// Removes what a layer hides of the layers below.
fn hide(tree: &Tree, header: &Header, parts: &Parts) -> Result<(), ImageError> {
    if is_leftover(parts) {
        return Ok(());
    }
    let Some((above, _)) = parts.split() else {
        return Ok(());
    };
    match whiteout(parts)? {
        None => Ok(()),
        Some(_) if header.kind != Kind::File => {
            Err(ImageError::Whiteout(shown(parts.joined().as_bytes())))
        }
        Some(Some(hidden)) => tree.hide(above, hidden),
        Some(None) => tree.empty(above),
    }
}

fn lay(
    tree: &mut Tree,
    header: &Header,
    parts: &Parts,
    content: &mut dyn std::io::Read,
) -> Result<(), ImageError> {
    if is_leftover(parts) || whiteout(parts)?.is_some() {
        return Ok(());
    }
    tree.lay(header, parts, content)
}

#[cfg(test)]
pub(super) mod tests;
