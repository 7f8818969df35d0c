//! Definitions of networks: those that ship with the program, and files.
//!
//! A definition is a text. Its hash names it: nodes of one network have the same text, an
//! invitation carries the hash, and a peer is believed the text that has it.

use std::path::Path;

use capex_core::ids::Digest;
use capex_core::params::Params;
use capex_core::wire::sha256;
use capex_network::ProtocolConfig;

/// Name of the network on which a node starts unless told otherwise: test coins only.
pub const DEFAULT_NETWORK: &str = "signet";
/// Name of the network whose chain is `capex devchain`.
pub const DEVNET: &str = "devnet";
/// Name of the network that needs `allow_mainnet = true`.
pub const MAINNET: &str = "mainnet";

/// Longest text of a definition, bytes. Those that ship have 2,500.
pub const TEXT_MAX_BYTES: usize = 16 << 10;

/// The protocol by which a newcomer asks a peer for the text of a hash.
pub const PROTOCOL: &str = "definition/1";

/// Name and text of every definition.
const DEFINITIONS: [(&str, &str); 5] = [
    (MAINNET, include_str!("../network/definitions/mainnet.toml")),
    ("testnet4", include_str!("../network/definitions/testnet4.toml")),
    (DEFAULT_NETWORK, include_str!("../network/definitions/signet.toml")),
    ("regtest", include_str!("../network/definitions/regtest.toml")),
    (DEVNET, include_str!("../network/definitions/devnet.toml")),
];

/// Names of all networks, for error messages and completion.
#[must_use]
pub fn names() -> [&'static str; 5] {
    DEFINITIONS.map(|(name, _)| name)
}

/// A definition with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub params: Params,
    pub text: String,
}

impl Definition {
    /// The one of a network that ships with the program.
    ///
    /// # Errors
    /// An unknown name, in one line.
    pub fn shipped(name: &str) -> Result<Self, String> {
        let found = DEFINITIONS.iter().find(|(known, _)| *known == name);
        let Some((_, text)) = found else {
            return Err(format!(
                "unknown network `{name}`, expected one of {}",
                names().join(", ")
            ));
        };
        Ok(Self { params: params_of(text)?, text: (*text).to_owned() })
    }

    /// The one of a text, which may come from a stranger.
    ///
    /// # Errors
    /// What is wrong, in one line: a rule broken, or the name or the magic of a network that ships
    /// with the program under other rules.
    pub fn of_text(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(format!("a definition has at most {TEXT_MAX_BYTES} bytes"));
        }
        let params = params_of(text)?;
        for (name, shipped) in DEFINITIONS.iter().filter(|(_, shipped)| *shipped != text) {
            if params.name == *name {
                return Err(format!("`{name}` ships with the program, and is not this"));
            }
            if params_of(shipped)?.magic == params.magic {
                return Err(format!("it has the magic of `{name}`, and is another network"));
            }
        }
        Ok(Self { params, text: text.to_owned() })
    }

    /// The one in a file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`Self::of_text`]; in one line.
    pub fn in_file(path: &Path) -> Result<Self, String> {
        let at = |what: String| format!("{}: {what}", path.display());
        let size = std::fs::metadata(path).map_err(|error| at(error.to_string()))?.len();
        if size > TEXT_MAX_BYTES as u64 {
            return Err(at(format!("a definition has at most {TEXT_MAX_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
        Self::of_text(&text).map_err(at)
    }

    /// What names it: nodes whose definitions have another do not belong to one network.
    #[must_use]
    pub fn hash(&self) -> Digest {
        hash(self.text.as_bytes())
    }
}

/// The hash of a definition's text.
#[must_use]
pub fn hash(text: &[u8]) -> Digest {
    Digest(sha256(&[b"capex/definition", text]))
}

/// The protocol, as the network is told it.
#[must_use]
pub fn protocol() -> ProtocolConfig {
    ProtocolConfig { name: PROTOCOL.to_owned(), max_bytes: TEXT_MAX_BYTES }
}

/// The answer to whoever asks for the text of a hash: that text, or nothing if it is another.
#[must_use]
pub fn answer(text: &str, asked: &[u8]) -> Vec<u8> {
    if hash(text.as_bytes()).0 == asked { text.as_bytes().to_vec() } else { Vec::new() }
}

/// The rules of a network that ships with the program.
///
/// # Errors
/// As [`Definition::shipped`].
pub fn load(name: &str) -> Result<Params, String> {
    Definition::shipped(name).map(|definition| definition.params)
}

fn params_of(text: &str) -> Result<Params, String> {
    let params: Params = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    params.validate().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_loads_under_its_own_name() {
        for name in names() {
            assert_eq!(load(name).unwrap().name, name);
        }
        assert!(load("signets").unwrap_err().contains("testnet4"));
    }

    #[test]
    fn magics_and_public_ports_differ_between_networks() {
        let all: Vec<Params> = names().iter().map(|name| load(name).unwrap()).collect();
        for (n, a) in all.iter().enumerate() {
            for b in &all[n + 1..] {
                assert_ne!(a.magic, b.magic, "{} {}", a.name, b.name);
                assert!(a.ports.p2p == 0 || a.ports.p2p != b.ports.p2p, "{} {}", a.name, b.name);
            }
        }
    }

    fn founded(change: impl Fn(String) -> String) -> Result<Definition, String> {
        let text = Definition::shipped(DEVNET).unwrap().text;
        let text = text.replace("name = \"devnet\"", "name = \"harbour\"");
        Definition::of_text(&change(text.replace("0x00, 0x05]", "0x10, 0x05]")))
    }

    #[test]
    fn a_text_defines_a_network_of_its_own() {
        let founded = founded(|text| text).unwrap();
        assert_eq!(founded.params.name, "harbour");
        assert_ne!(founded.hash(), Definition::shipped(DEVNET).unwrap().hash());
        assert_eq!(founded.hash(), hash(founded.text.as_bytes()));
        // A text that ships is what it says.
        let shipped = Definition::shipped("signet").unwrap();
        assert_eq!(Definition::of_text(&shipped.text), Ok(shipped));
    }

    #[test]
    fn no_text_takes_the_place_of_a_network_that_ships() {
        let refused = |change: fn(String) -> String| founded(change).unwrap_err();
        let named = refused(|text| text.replace("harbour", "signet"));
        assert!(named.contains("`signet` ships"), "{named}");
        let magic = refused(|text| text.replace("0x10, 0x05]", "0x00, 0x01]"));
        assert!(magic.contains("magic"), "{magic}");
        let long = refused(|text| text + &"#".repeat(TEXT_MAX_BYTES));
        assert!(long.contains("at most"), "{long}");
    }

    #[test]
    fn the_text_of_a_stranger_cannot_break_what_reckons_with_it() {
        let cases: [(&str, &str); 9] = [
            ("name = \"harbour\"", "name = \"../x\""),
            ("name = \"harbour\"", "name = \"\""),
            ("open_ms = 1000", "open_ms = 18446744073709551615"),
            ("open_ms = 1000", "open_ms = 9223372036854775807"),
            ("slot_s = 4", "slot_s = 4294967295"),
            ("fund_blocks = 12", "fund_blocks = 4294967295"),
            ("lead_s = 18", "lead_s = 9223372036854775807"),
            ("block_ms = 500", "block_ms = 0"),
            ("pow_bits = 4", "pow_bits = 255"),
        ];
        for (from, to) in cases {
            let refused = founded(|text| {
                assert!(text.contains(from), "{from}");
                text.replace(from, to)
            });
            assert!(refused.is_err(), "{to}");
        }
    }
}
