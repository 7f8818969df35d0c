//! Whether a component can run at all, found out by reading it. A redemption consumes a
//! certificate for good, and compiling comes after it: so this comes before.

use wasmparser::{Encoding, Parser, Payload, Validator};

use capex_core::reason;
use capex_core::reasons::Reason;

/// Packages of WASI 0.2 that a workload may import. The network is among them: its calls are
/// there, and refuse.
const PACKAGES: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
/// Version of WASI, up to the number that may differ.
const WASI: &str = "@0.2.";
/// What is called to run a command.
const RUN: &str = "wasi:cli/run";
/// Bytes of a page of memory where a module names no other size.
const PAGE_BYTES: u64 = 64 << 10;

/// Why bytes are no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A module as compilers make it for WASI preview 1, or for browsers.
    #[error("this is a core module, and a lease runs components")]
    CoreModule,
    /// Cut off, damaged, no WebAssembly at all, or a feature that the back end does not have.
    #[error("not a valid WebAssembly component: {0}")]
    Invalid(String),
    /// Nothing to call.
    #[error("the component exports no {RUN}{WASI}x, so it is not a command")]
    NotACommand,
    /// It asks for what a lease does not offer.
    #[error("the component imports {0}, which a lease does not offer")]
    Import(String),
    /// Its memory at the start is more than it will have.
    #[error(
        "the component begins with {needed_bytes} bytes of memory, its blocks have {have_bytes}"
    )]
    Memory { needed_bytes: u64, have_bytes: u64 },
}

impl Unfit {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::CoreModule => reason!("workload.core_module"),
            Self::Invalid(_) => reason!("workload.not_wasm"),
            Self::NotACommand => reason!("workload.no_command"),
            Self::Import(_) => reason!("workload.import"),
            Self::Memory { .. } => reason!("workload.memory"),
        }
    }
}

/// What a component needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Memory of its largest module at the start, bytes.
    pub memory_bytes: u64,
}

impl Needs {
    /// Whether so much memory will do.
    ///
    /// # Errors
    /// [`Unfit::Memory`].
    pub fn fit(self, have_bytes: u64) -> Result<(), Unfit> {
        let needed_bytes = self.memory_bytes;
        if needed_bytes > have_bytes {
            return Err(Unfit::Memory { needed_bytes, have_bytes });
        }
        Ok(())
    }
}

/// Reads a component without compiling it: some milliseconds for each megabyte.
///
/// # Errors
/// The first reason for which it cannot run.
pub fn inspect(component: &[u8]) -> Result<Needs, Unfit> {
    let invalid = |error: wasmparser::BinaryReaderError| Unfit::Invalid(error.message().to_owned());
    let mut needs = Needs::default();
    let (mut depth, mut is_command) = (0_u32, false);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(Unfit::CoreModule);
            }
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    offered(import.map_err(invalid)?.name.name)?;
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    is_command |= is_run(export.map_err(invalid)?.name.name);
                }
            }
            Payload::MemorySection(memories) => {
                let mut bytes: u64 = 0;
                for memory in memories {
                    let memory = memory.map_err(invalid)?;
                    let page = memory.page_size_log2.map_or(PAGE_BYTES, |log| 1 << log.min(16));
                    bytes = bytes.saturating_add(memory.initial.saturating_mul(page));
                }
                needs.memory_bytes = needs.memory_bytes.max(bytes);
            }
            _ => {}
        }
    }
    Validator::new().validate_all(component).map_err(invalid)?;
    if is_command { Ok(needs) } else { Err(Unfit::NotACommand) }
}

fn is_run(export: &str) -> bool {
    export.strip_prefix(RUN).is_some_and(|version| version.starts_with(WASI))
}

fn offered(import: &str) -> Result<(), Unfit> {
    let is_known = PACKAGES.iter().any(|package| import.starts_with(package));
    if is_known && import.contains(WASI) {
        return Ok(());
    }
    Err(Unfit::Import(crate::executor::state::printable(import)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::samples::{BUSY, ESCAPE, MEMORY_HOG, WORDSUM};

    /// `(module (memory 2))`.
    const CORE_MODULE: [u8; 13] = *b"\0asm\x01\0\0\0\x05\x03\x01\0\x02";
    /// `(module (memory i64 2))`.
    const MEMORY64: [u8; 13] = *b"\0asm\x01\0\0\0\x05\x03\x01\x04\x02";
    /// `(component)`.
    const EMPTY: [u8; 8] = *b"\0asm\x0d\0\x01\0";

    fn code(bytes: &[u8]) -> &'static str {
        inspect(bytes).map_or_else(|unfit| unfit.reason().code(), |_| "fit")
    }

    /// A component that imports one empty instance of this name.
    fn importing(name: &str) -> Vec<u8> {
        let mut bytes = EMPTY.to_vec();
        // Type section: one instance type without declarations.
        bytes.extend([7, 3, 1, 0x42, 0]);
        let length = u8::try_from(name.len()).unwrap();
        // Import section: an instance of type 0.
        bytes.extend([10, length + 5, 1, 0, length]);
        bytes.extend(name.as_bytes());
        bytes.extend([5, 0]);
        bytes
    }

    #[test]
    fn what_cannot_run_is_found_out_by_reading_it() {
        let mut cut = WORDSUM.to_vec();
        cut.truncate(WORDSUM.len() - 1);
        let mut damaged = WORDSUM.to_vec();
        // The number of the first section.
        damaged[8] = 0xff;
        let table: [(&[u8], &str); 12] = [
            (WORDSUM, "fit"),
            (BUSY, "fit"),
            (MEMORY_HOG, "fit"),
            (ESCAPE, "fit"),
            (&CORE_MODULE, "workload.core_module"),
            (&MEMORY64, "workload.core_module"),
            (&EMPTY, "workload.no_command"),
            (&cut, "workload.not_wasm"),
            (&damaged, "workload.not_wasm"),
            (b"", "workload.not_wasm"),
            (b"#!/usr/bin/env python3\n", "workload.not_wasm"),
            (b"\x7fELF", "workload.not_wasm"),
        ];
        for (bytes, expected) in table {
            assert_eq!(code(bytes), expected, "{:?}", bytes.get(..8));
        }
    }

    #[test]
    fn only_what_a_lease_offers_may_be_imported() {
        let table = [
            ("wasi:cli/environment@0.2.0", "workload.no_command"),
            ("wasi:sockets/tcp@0.2.9", "workload.no_command"),
            ("wasi:cli/environment@0.3.0", "workload.import"),
            ("wasi:http/types@0.2.0", "workload.import"),
            ("my:own/thing@0.2.0", "workload.import"),
        ];
        for (name, expected) in table {
            assert_eq!(code(&importing(name)), expected, "{name}");
        }
    }

    #[test]
    fn memory_at_the_start_has_to_fit() {
        let needs = inspect(WORDSUM).unwrap();
        assert!(needs.memory_bytes > 0);
        assert_eq!(needs.fit(needs.memory_bytes), Ok(()));
        let refused = needs.fit(needs.memory_bytes - 1).unwrap_err();
        assert_eq!(refused.reason().code(), "workload.memory");
    }
}
