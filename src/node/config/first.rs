//! The configuration file that a first command writes.

use capex_core::settlement::fees::FeeLimit;

use super::ChainConfig;

/// What a first configuration file says; the rest has its defaults.
#[derive(Debug, Clone, Default)]
pub struct First<'a> {
    pub network: &'a str,
    /// File of its definition, if it does not ship with the program.
    pub definition: Option<&'a str>,
    pub chain: Option<ChainConfig>,
    /// The same, as newcomers are told of it.
    pub shared_chain: Option<ChainConfig>,
    pub api: Option<&'a str>,
    pub listen: &'a [String],
    pub peers: &'a [String],
}

impl First<'_> {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let list =
            |texts: &[String]| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "# Capex node. Flags and CAPEX_* variables win over this file; unknown keys are errors.\n\
             network = {}\n",
            quoted(self.network)
        );
        if let Some(definition) = self.definition {
            text += &format!("definition = {}\n", quoted(definition));
        }
        text += &format!(
            "# No order is signed while the fees of a trade exceed this share of its worth.\n\
             # max_fee_share = \"{}%\"\n",
            FeeLimit::DEFAULT_PERCENT
        );
        let chains =
            [("chain", "cookie", &self.chain), ("shared_chain", "token", &self.shared_chain)];
        for (table, secret, chain) in chains {
            if let Some(ChainConfig { url, cookie }) = chain {
                let (url, cookie) = (quoted(url), quoted(&cookie.to_string_lossy()));
                text += &format!("\n[{table}]\nurl = {url}\n{secret} = {cookie}\n");
            }
        }
        if let Some(api) = self.api {
            text += &format!("\n[api]\nlisten = {}\n", quoted(api));
        }
        if !self.peers.is_empty() || !self.listen.is_empty() {
            text += "\n[p2p]\n";
            for (key, addresses) in [("listen", self.listen), ("peers", self.peers)] {
                if !addresses.is_empty() {
                    text += &format!("{key} = [{}]\n", list(addresses));
                }
            }
        }
        text + "\n# Units that this machine sells, by class; of none, as many as it has room for.\n[capacity]\n# \"cpu.standard\" = 2\n"
    }
}
