//! The network definitions that ship with the program.

use capex_core::params::Params;

/// Name of the network on which a node starts unless told otherwise: test coins only.
pub const DEFAULT_NETWORK: &str = "signet";
/// Name of the network whose chain is `capex devchain`.
pub const DEVNET: &str = "devnet";
/// Name of the network that needs `allow_mainnet = true`.
pub const MAINNET: &str = "mainnet";

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

/// The definition of a network, validated.
///
/// # Errors
/// What is wrong, in one line: an unknown name, or a definition that breaks a rule.
pub fn load(name: &str) -> Result<Params, String> {
    let found = DEFINITIONS.iter().find(|(known, _)| *known == name);
    let Some((_, text)) = found else {
        return Err(format!("unknown network `{name}`, expected one of {}", names().join(", ")));
    };
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
}
