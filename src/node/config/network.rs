//! Which network a node is on: by its name, by a file, or by its chain.

use super::layers::{Origin, Sourced, pick};
use super::{ConfigError, DEFINITION, DEVCHAIN_LISTEN, Layers, NETWORK};
use crate::definitions::{DEFAULT_NETWORK, DEVNET, Definition};

impl Layers<'_> {
    /// The network named, or that of a file; else devnet if the chain is the default devchain; else
    /// signet.
    pub(super) fn definition(&self) -> Result<Sourced<Definition>, ConfigError> {
        let flag = self.flags.network.as_deref();
        let named = pick(NETWORK, flag, self.env, &self.file, self.parsed.network.as_ref());
        let found = match self.definition_file()? {
            Some(found) => {
                let own = &found.value.params.name;
                if let Some(named) = named.filter(|named| named.value != *own) {
                    let what = format!(
                        "`{}` is not the network of {}, `{own}`",
                        named.value, found.origin
                    );
                    return Err(named.origin.refuse(what));
                }
                found
            }
            None => {
                let fallback =
                    || Sourced { value: DEFAULT_NETWORK.to_owned(), origin: Origin::Default };
                let name = named.or_else(|| self.on_devchain()).unwrap_or_else(fallback);
                name.parse(|name| Definition::shipped(&name))?
            }
        };
        // Whatever it is called, its coins are real.
        let is_real = found.value.params.chain.network == bitcoin::Network::Bitcoin;
        if is_real && self.parsed.allow_mainnet != Some(true) {
            return Err(ConfigError::MainnetRefused { path: self.file.path.clone() });
        }
        Ok(found)
    }

    fn definition_file(&self) -> Result<Option<Sourced<Definition>>, ConfigError> {
        let flag = self.flags.definition.as_ref().map(|path| path.to_string_lossy());
        let in_file = self.parsed.definition.as_ref();
        let Some(named) = pick(DEFINITION, flag.as_deref(), self.env, &self.file, in_file) else {
            return Ok(None);
        };
        let Sourced { value, origin } = named.place(self.env)?;
        match Definition::in_file(&value) {
            Ok(value) => Ok(Some(Sourced { value, origin })),
            Err(what) => Err(origin.refuse(what)),
        }
    }

    fn on_devchain(&self) -> Option<Sourced<String>> {
        let url = self.named_url()?;
        url.value.strip_prefix("http://").filter(|rest| *rest == DEVCHAIN_LISTEN)?;
        Some(Sourced { value: DEVNET.to_owned(), origin: url.origin })
    }
}
