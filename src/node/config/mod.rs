//! Configuration of a node: flags > `CAPEX_*` environment > file > defaults.
//!
//! | setting | flag | environment | file |
//! |---|---|---|---|
//! | network | `--network` | `CAPEX_NETWORK` | `network` |
//! | definition of another network | `--definition` | `CAPEX_DEFINITION` | `definition` |
//! | data directory | `--datadir` | `CAPEX_DATADIR` | |
//! | file | `--config` | `CAPEX_CONFIG` | |
//! | chain source | `--chain-url`, `--chain-cookie` | `CAPEX_CHAIN_URL`, `CAPEX_CHAIN_COOKIE` | `[chain] url, cookie` |
//! | chain source, as newcomers are told of it | | | `[shared_chain] url, token` |
//! | peer-to-peer | `--listen`, `--peer` | `CAPEX_P2P_LISTEN`, `CAPEX_P2P_PEERS` | `[p2p] listen, peers` |
//! | HTTP API | `--api-listen` | `CAPEX_API_LISTEN` | `[api] listen` |
//! | password of the seed | `--password-file` | `CAPEX_PASSWORD_FILE` | `[wallet] password_file` |
//! | backup | | `CAPEX_BACKUP_PATH` | `[backup] path` |
//! | password of the backup | | `CAPEX_BACKUP_PASSWORD_FILE` | `[backup] password_file` |
//! | payout of sales | | `CAPEX_WALLET_PAYOUT` | `[wallet] payout` |
//! | coins whose keys are elsewhere | | `CAPEX_WALLET_DESCRIPTOR`, `CAPEX_WALLET_CHANGE_DESCRIPTOR` | `[wallet] descriptor, change_descriptor` |
//! | units for sale | | `CAPEX_CAPACITY` (`cpu.standard=4,…`) | `[capacity] "cpu.standard" = 4` |
//! | fees of a trade | | `CAPEX_MAX_FEE_SHARE` (`20%`) | `max_fee_share` |
//! | log filter | `--log` | `CAPEX_LOG` | `log` |
//! | more for sale than there is | `--allow-overcommit` | | `allow_overcommit` |
//! | a way out of leases | | | `[egress] allow, resolvers` |
//! | registries of images | | | `[host] registries` |
//! | a host without a self-test | | | `accept_untested` |
//! | real money | | | `allow_mainnet` |
//!
//! Secrets are never flags. `--datadir` puts everything in one directory, the file
//! included; without it the XDG base directories are used ([`dirs`]). In the file and in the
//! environment a path may begin with `~/`; one that is relative begins where the file is, and is
//! refused in a variable, which has no place of its own.

pub mod dirs;
pub mod file;
mod first;
pub mod layers;
mod network;
pub mod variables;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bitcoin::Address;
use bitcoin::address::NetworkUnchecked;
use capex_core::limits::UNITS_MAX;
use capex_core::params::Params;
use capex_core::settlement::fees::FeeLimit;
use capex_network::check_address;

use crate::definitions::{DEVNET, Definition};
use crate::executor::egress::{self, Egress};
use crate::executor::pulls::Registries;
use crate::wallet::{PayoutDescriptor, Watched};
use dirs::Env;
use file::{FileConfig, SharedFile};
pub use first::First;
use layers::{FileText, Names, Origin, Sourced, pick, pick_list};
use toml::Spanned;

/// Where `capex devchain` listens by default.
pub const DEVCHAIN_LISTEN: &str = "127.0.0.1:18543";
/// How the names of all variables begin.
pub const PREFIX: &str = "CAPEX_";
/// Levels of the log.
const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// A configuration file is a page of text; a larger one is a mistake.
pub const FILE_MAX_BYTES: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be used: an unknown key, a wrong type, a bad address.
    #[error("{origin}: {what}")]
    Invalid {
        /// Where it stands, as `path:line`, flag or variable.
        origin: Origin,
        what: String,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// Mainnet without consent.
    #[error("mainnet moves real money: set `allow_mainnet = true` in {}", path.display())]
    MainnetRefused {
        /// The file in which to consent.
        path: PathBuf,
    },
    /// Neither `--datadir` nor a home directory.
    #[error("no home directory: set HOME or pass --datadir")]
    NoHome,
}

impl ConfigError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "config.invalid",
            Self::Unreadable { .. } => "config.unreadable",
            Self::MainnetRefused { .. } => "config.mainnet_refused",
            Self::NoHome => "config.no_home",
        }
    }
}

/// What the command line says; empty means not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--network`
    pub network: Option<String>,
    /// `--definition`
    pub definition: Option<PathBuf>,
    /// `--datadir`
    pub datadir: Option<PathBuf>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--chain-url`
    pub chain_url: Option<String>,
    /// `--chain-cookie`
    pub chain_cookie: Option<String>,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--peer`
    pub peers: Vec<String>,
    /// `--api-listen`
    pub api_listen: Option<String>,
    /// `--allow-overcommit`
    pub allow_overcommit: bool,
    /// `--log`
    pub log: Option<String>,
    /// `--password-file`
    pub password_file: Option<String>,
}

/// Where chain facts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// RPC address, `http://host:port`.
    pub url: String,
    /// Cookie file of the RPC server.
    pub cookie: PathBuf,
}

/// The peer-to-peer network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P2pConfig {
    pub listen: Vec<String>,
    /// Multiaddrs of first peers with `/p2p/<id>`, those of the definition included.
    pub peers: Vec<String>,
}

/// The HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiConfig {
    /// Loopback address; port 0 lets the system choose.
    pub listen: SocketAddr,
}

/// A place outside the wallet for what sales earn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayoutTo {
    /// All to one address.
    Address(Address),
    /// Each to a fresh address.
    Descriptor(PayoutDescriptor),
}

impl std::fmt::Display for PayoutTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Descriptor(descriptor) => descriptor.fmt(f),
        }
    }
}

/// Coins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalletConfig {
    /// Where sales are paid out, if not to the wallet.
    pub payout: Option<PayoutTo>,
    /// Coins whose keys are elsewhere.
    pub watched: Option<Watched>,
    /// File with the password of a sealed seed.
    pub password_file: Option<PathBuf>,
}

/// The backup that the node writes by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupConfig {
    /// File that is written anew at each change; none if not set.
    pub path: Option<PathBuf>,
    /// File with its password; under the words of the wallet if not set.
    pub password_file: Option<PathBuf>,
}

/// A complete configuration: every value checked, nothing left to look up.
#[derive(Debug, Clone)]
pub struct Config {
    pub params: Params,
    /// The text that defines them.
    pub definition: String,
    /// Keys, journal, cookie, endpoints, leases.
    pub datadir: PathBuf,
    /// The file that was read, or would have been.
    pub file: PathBuf,
    pub chain: ChainConfig,
    /// The chain source, as newcomers are told of it in invitations: its cookie is one by which
    /// they read and submit.
    pub shared_chain: Option<ChainConfig>,
    pub p2p: P2pConfig,
    pub api: ApiConfig,
    pub wallet: WalletConfig,
    pub backup: BackupConfig,
    /// Units for sale by class number. None at all: of every class what this machine has room for.
    pub capacity: BTreeMap<u16, u32>,
    /// Sell them though this machine does not have them.
    pub allow_overcommit: bool,
    /// Sell them though no self-test has proved what they promise.
    pub accept_untested: bool,
    /// What leases get that ask for a way out; nothing, unless the operator says so.
    pub egress: Option<Egress>,
    /// From where this host fetches images for holders; from nowhere, unless the operator says so.
    pub registries: Registries,
    /// Share of its worth that a trade may cost in fees, percent.
    pub max_fee_percent: u8,
    pub log: String,
    /// Where each setting came from, by its name in the file.
    pub origins: BTreeMap<&'static str, Origin>,
}

const NETWORK: Names = Names { flag: "--network", env: "CAPEX_NETWORK" };
const DEFINITION: Names = Names { flag: "--definition", env: "CAPEX_DEFINITION" };
const CHAIN_URL: Names = Names { flag: "--chain-url", env: "CAPEX_CHAIN_URL" };
const CHAIN_COOKIE: Names = Names { flag: "--chain-cookie", env: "CAPEX_CHAIN_COOKIE" };
const LISTEN: Names = Names { flag: "--listen", env: "CAPEX_P2P_LISTEN" };
const PEERS: Names = Names { flag: "--peer", env: "CAPEX_P2P_PEERS" };
const API_LISTEN: Names = Names { flag: "--api-listen", env: "CAPEX_API_LISTEN" };
const PASSWORD_FILE: Names = Names { flag: "--password-file", env: "CAPEX_PASSWORD_FILE" };
const PAYOUT: Names = Names { flag: "", env: "CAPEX_WALLET_PAYOUT" };
const DESCRIPTOR: Names = Names { flag: "", env: "CAPEX_WALLET_DESCRIPTOR" };
const CHANGE_DESCRIPTOR: Names = Names { flag: "", env: "CAPEX_WALLET_CHANGE_DESCRIPTOR" };
const BACKUP: Names = Names { flag: "", env: "CAPEX_BACKUP_PATH" };
const BACKUP_PASSWORD: Names = Names { flag: "", env: "CAPEX_BACKUP_PASSWORD_FILE" };
const LOG: Names = Names { flag: "--log", env: "CAPEX_LOG" };

impl Config {
    /// Resolves flags, environment, file and defaults.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its place.
    pub fn load(flags: &Overrides, env: Env<'_>) -> Result<Self, ConfigError> {
        let (path, must_exist) = file_path(flags, env)?;
        let file = read_file(path, must_exist)?;
        Layers { flags, env, parsed: parse_file(&file)?, file }.resolve()
    }

    /// `url` of the devchain and cookie path in the state directory.
    #[must_use]
    pub fn default_devchain(env: Env<'_>) -> Option<ChainConfig> {
        let cookie = dirs::chain_cookie(&dirs::devchain(env)?);
        Some(ChainConfig { url: format!("http://{DEVCHAIN_LISTEN}"), cookie })
    }
}

/// Path of the configuration file, and whether it was named and so must exist.
///
/// # Errors
/// [`ConfigError::NoHome`].
pub fn file_path(flags: &Overrides, env: Env<'_>) -> Result<(PathBuf, bool), ConfigError> {
    if let Some(named) = path_named(("--config", flags.config.as_ref()), "CAPEX_CONFIG", env)? {
        return Ok((named.value, true));
    }
    let path = match datadir_named(flags, env)? {
        Some(dir) => Some(dir.value.join(dirs::CONFIG_FILE)),
        None => dirs::config_file(env),
    };
    path.map(|path| (path, false)).ok_or(ConfigError::NoHome)
}

/// The data directory that a flag or a variable names.
///
/// # Errors
/// A path that cannot be meant.
pub fn datadir_named(
    flags: &Overrides,
    env: Env<'_>,
) -> Result<Option<Sourced<PathBuf>>, ConfigError> {
    path_named(("--datadir", flags.datadir.as_ref()), "CAPEX_DATADIR", env)
}

fn path_named(
    (flag, value): (&'static str, Option<&PathBuf>),
    variable: &'static str,
    env: Env<'_>,
) -> Result<Option<Sourced<PathBuf>>, ConfigError> {
    let origin = Origin::Flag(flag);
    if let Some(path) = value {
        // Not every path is a text, and only a text begins with `~`.
        let value = match path.to_str() {
            Some(text) => place(text, &origin, env).map_err(|what| origin.refuse(what))?,
            None => path.clone(),
        };
        return Ok(Some(Sourced { value, origin }));
    }
    let named = env(variable).filter(|text| !text.is_empty());
    let named = named.map(|value| Sourced { value, origin: Origin::Env(variable) });
    named.map(|named| named.place(env)).transpose()
}

/// The path that a text of a flag, a variable or the file means.
fn place(text: &str, origin: &Origin, env: Env<'_>) -> Result<PathBuf, String> {
    let path = match text.strip_prefix('~') {
        None => PathBuf::from(text),
        Some(rest) => match rest.strip_prefix('/').or(rest.is_empty().then_some("")) {
            Some(rest) => {
                let home = dirs::home(env);
                home.ok_or_else(|| format!("`{text}`: HOME is not set"))?.join(rest)
            }
            None => return Err(format!("`{text}`: write the whole path, only ~/ is understood")),
        },
    };
    match origin {
        Origin::Env(_) if path.is_relative() => Err(format!(
            "`{text}` is relative, and would be another file in another directory: write the \
             whole path"
        )),
        Origin::File(file, _) => Ok(file.parent().unwrap_or(Path::new("")).join(path)),
        Origin::Flag(_) | Origin::Env(_) | Origin::Other(_) | Origin::Default => Ok(path),
    }
}

fn read_file(path: PathBuf, must_exist: bool) -> Result<FileText, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
    let size = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(FileText { path, text: String::new() });
        }
        Err(error) => return Err(unreadable(error)),
    };
    if size > FILE_MAX_BYTES {
        return Err(unreadable(std::io::Error::other("larger than 1 MiB")));
    }
    let text = std::fs::read_to_string(&path).map_err(unreadable)?;
    Ok(FileText { path, text })
}

fn parse_file(file: &FileText) -> Result<FileConfig, ConfigError> {
    file::parse(&file.text)
        .map_err(|mistake| Origin::File(file.path.clone(), mistake.line).refuse(mistake.what))
}

struct Layers<'a> {
    flags: &'a Overrides,
    env: Env<'a>,
    file: FileText,
    parsed: FileConfig,
}

impl Layers<'_> {
    fn resolve(self) -> Result<Config, ConfigError> {
        let mut origins = BTreeMap::new();
        let mut keep = |name, origin| drop(origins.insert(name, origin));
        let definition = self.definition()?;
        keep("network", definition.origin);
        let Definition { params, text: definition } = definition.value;
        let datadir = self.datadir(&params)?;
        keep("datadir", datadir.origin);
        let (url, cookie) = self.chain(&params)?;
        keep("chain.url", url.origin);
        keep("chain.cookie", cookie.origin);
        let listen = self.listen(&params)?;
        keep("p2p.listen", listen.origin);
        let peers = self.peers(&params)?;
        keep("p2p.peers", peers.origin);
        let api = self.api(&params)?;
        keep("api.listen", api.origin);
        let payout = self.payout(&params)?;
        keep("wallet.payout", payout.origin);
        let watched = self.watched(&params)?;
        keep("wallet.descriptor", watched.origin);
        let (flag, in_file) =
            (self.flags.password_file.as_deref(), self.parsed.wallet.password_file.as_ref());
        let password_file = self.path(PASSWORD_FILE, flag, in_file)?;
        keep("wallet.password_file", password_file.origin);
        let backup = self.path(BACKUP, None, self.parsed.backup.path.as_ref())?;
        keep("backup.path", backup.origin);
        let in_file = self.parsed.backup.password_file.as_ref();
        let backup_password = self.path(BACKUP_PASSWORD, None, in_file)?;
        keep("backup.password_file", backup_password.origin);
        let capacity = self.capacity(&params)?;
        keep("capacity", capacity.origin);
        let max_fee = self.max_fee_percent()?;
        keep("max_fee_share", max_fee.origin);
        let log = self.log()?;
        keep("log", log.origin);
        Ok(Config {
            datadir: datadir.value,
            chain: ChainConfig { url: url.value, cookie: cookie.value },
            shared_chain: self.shared_chain()?,
            p2p: P2pConfig { listen: listen.value, peers: peers.value },
            api: ApiConfig { listen: api.value },
            wallet: WalletConfig {
                payout: payout.value,
                watched: watched.value,
                password_file: password_file.value,
            },
            backup: BackupConfig { path: backup.value, password_file: backup_password.value },
            capacity: capacity.value,
            allow_overcommit: self.flags.allow_overcommit
                || self.parsed.allow_overcommit == Some(true),
            accept_untested: self.parsed.accept_untested == Some(true),
            egress: self.egress()?,
            registries: self.registries()?,
            max_fee_percent: max_fee.value,
            log: log.value,
            file: self.file.path,
            params,
            definition,
            origins,
        })
    }

    fn named_url(&self) -> Option<Sourced<String>> {
        let flag = self.flags.chain_url.as_deref();
        pick(CHAIN_URL, flag, self.env, &self.file, self.parsed.chain.url.as_ref())
    }

    fn datadir(&self, params: &Params) -> Result<Sourced<PathBuf>, ConfigError> {
        if let Some(named) = datadir_named(self.flags, self.env)? {
            return Ok(named);
        }
        let value = dirs::data(self.env, &params.name).ok_or(ConfigError::NoHome)?;
        Ok(Sourced { value, origin: Origin::Default })
    }

    fn chain(&self, params: &Params) -> Result<(Sourced<String>, Sourced<PathBuf>), ConfigError> {
        let default = self.default_chain(params);
        let origin = Origin::Default;
        let url = match self.named_url() {
            Some(named) => named.parse(check_url)?,
            None => Sourced { value: default.url, origin: origin.clone() },
        };
        let flag = self.flags.chain_cookie.as_deref();
        let named =
            pick(CHAIN_COOKIE, flag, self.env, &self.file, self.parsed.chain.cookie.as_ref());
        let cookie = match named {
            Some(named) => named.place(self.env)?,
            None => Sourced { value: default.cookie, origin },
        };
        Ok((url, cookie))
    }

    fn shared_chain(&self) -> Result<Option<ChainConfig>, ConfigError> {
        let SharedFile { url, token } = &self.parsed.shared_chain;
        let in_file = |text: &Spanned<String>| Sourced {
            value: text.get_ref().clone(),
            origin: self.file.origin(text),
        };
        match (url, token) {
            (None, None) => Ok(None),
            (Some(url), Some(token)) => {
                let url = in_file(url).parse(check_url)?.value;
                Ok(Some(ChainConfig { url, cookie: in_file(token).place(self.env)?.value }))
            }
            (Some(one), None) | (None, Some(one)) => {
                Err(self.file.origin(one).refuse("shared_chain needs both, url and token"))
            }
        }
    }

    /// The devchain for devnet, else Bitcoin Core's own defaults for that chain.
    fn default_chain(&self, params: &Params) -> ChainConfig {
        if params.name == DEVNET
            && let Some(devchain) = Config::default_devchain(self.env)
        {
            return devchain;
        }
        let (port, folder) = match params.chain.network {
            bitcoin::Network::Bitcoin => (8332, ""),
            bitcoin::Network::Testnet => (18332, "testnet3"),
            bitcoin::Network::Testnet4 => (48332, "testnet4"),
            bitcoin::Network::Signet => (38332, "signet"),
            bitcoin::Network::Regtest => (18443, "regtest"),
        };
        let core = dirs::bitcoin_core(self.env).unwrap_or_else(|| PathBuf::from(".bitcoin"));
        ChainConfig {
            url: format!("http://127.0.0.1:{port}"),
            cookie: dirs::chain_cookie(&core.join(folder)),
        }
    }

    fn payout(&self, params: &Params) -> Result<Sourced<Option<PayoutTo>>, ConfigError> {
        let in_file = self.parsed.wallet.payout.as_ref();
        let Some(named) = pick(PAYOUT, None, self.env, &self.file, in_file) else {
            return Ok(Sourced { value: None, origin: Origin::Default });
        };
        named.parse(|text| check_payout(&text, params.chain.network).map(Some))
    }

    fn watched(&self, params: &Params) -> Result<Sourced<Option<Watched>>, ConfigError> {
        let in_file = self.parsed.wallet.change_descriptor.as_ref();
        let change = pick(CHANGE_DESCRIPTOR, None, self.env, &self.file, in_file);
        let in_file = self.parsed.wallet.descriptor.as_ref();
        let Some(named) = pick(DESCRIPTOR, None, self.env, &self.file, in_file) else {
            return match change {
                Some(change) => {
                    Err(change.origin.refuse("a change_descriptor without a descriptor".to_owned()))
                }
                None => Ok(Sourced { value: None, origin: Origin::Default }),
            };
        };
        let change = change.map(|change| change.value);
        let network = params.chain.network;
        named.parse(|text| Watched::parse(&text, change.as_deref(), network).map(Some))
    }

    /// A file that need not be named.
    fn path(
        &self,
        names: Names,
        flag: Option<&str>,
        in_file: Option<&Spanned<String>>,
    ) -> Result<Sourced<Option<PathBuf>>, ConfigError> {
        match pick(names, flag, self.env, &self.file, in_file) {
            Some(named) => {
                let Sourced { value, origin } = named.place(self.env)?;
                Ok(Sourced { value: Some(value), origin })
            }
            None => Ok(Sourced { value: None, origin: Origin::Default }),
        }
    }

    fn listen(&self, params: &Params) -> Result<Sourced<Vec<String>>, ConfigError> {
        let in_file = self.parsed.p2p.listen.as_ref();
        match pick_list(LISTEN, &self.flags.listen, self.env, &self.file, in_file) {
            Some(items) => check_all(items, |addr| check_multiaddr(addr, false)),
            None => Ok(Sourced { value: default_listen(params), origin: Origin::Default }),
        }
    }

    fn peers(&self, params: &Params) -> Result<Sourced<Vec<String>>, ConfigError> {
        let in_file = self.parsed.p2p.peers.as_ref();
        let mut peers = match pick_list(PEERS, &self.flags.peers, self.env, &self.file, in_file) {
            Some(items) => check_all(items, |addr| check_multiaddr(addr, true))?,
            None => Sourced { value: Vec::new(), origin: Origin::Default },
        };
        peers.value.extend(params.bootstrap.iter().cloned());
        Ok(peers)
    }

    fn api(&self, params: &Params) -> Result<Sourced<SocketAddr>, ConfigError> {
        let flag = self.flags.api_listen.as_deref();
        match pick(API_LISTEN, flag, self.env, &self.file, self.parsed.api.listen.as_ref()) {
            Some(named) => named.parse(check_api),
            None => Ok(Sourced {
                value: SocketAddr::from(([127, 0, 0, 1], params.ports.api)),
                origin: Origin::Default,
            }),
        }
    }

    fn capacity(&self, params: &Params) -> Result<Sourced<BTreeMap<u16, u32>>, ConfigError> {
        const ENV: &str = "CAPEX_CAPACITY";
        if let Some(text) = (self.env)(ENV).filter(|text| !text.is_empty()) {
            let origin = Origin::Env(ENV);
            return Sourced { value: text, origin }.parse(|text| capacity_of_text(&text, params));
        }
        let mut value = BTreeMap::new();
        let mut origin = Origin::Default;
        for (name, units) in &self.parsed.capacity {
            origin = self.file.origin(units);
            let (class, units) = units_of_value(name, units.get_ref())
                .and_then(|units| check_capacity(name, units, params))
                .map_err(|what| origin.refuse(what))?;
            value.insert(class, units);
        }
        Ok(Sourced { value, origin })
    }

    fn egress(&self) -> Result<Option<Egress>, ConfigError> {
        let parsed = &self.parsed.egress;
        let named = parsed.resolvers.iter().flatten();
        let check = |text: &Spanned<String>| {
            let origin = self.file.origin(text);
            let value = text.get_ref().clone();
            Ok(Sourced { value, origin }.parse(|text| check_resolver(&text))?.value)
        };
        let resolvers = named.map(check).collect::<Result<_, ConfigError>>()?;
        Ok((parsed.allow == Some(true)).then_some(Egress { resolvers }))
    }

    fn registries(&self) -> Result<Registries, ConfigError> {
        let mut registries = Registries::default();
        for text in self.parsed.host.registries.iter().flatten() {
            let added = registries.add(text.get_ref());
            added.map_err(|what| self.file.origin(text).refuse(what))?;
        }
        Ok(registries)
    }

    fn max_fee_percent(&self) -> Result<Sourced<u8>, ConfigError> {
        const ENV: &str = "CAPEX_MAX_FEE_SHARE";
        if let Some(value) = (self.env)(ENV).filter(|text| !text.is_empty()) {
            let origin = Origin::Env(ENV);
            return Sourced { value, origin }.parse(|text| percent(&text));
        }
        match &self.parsed.max_fee_share {
            Some(share) => {
                let (value, origin) = (share.get_ref().clone(), self.file.origin(share));
                Sourced { value, origin }.parse(|text| percent(&text))
            }
            None => Ok(Sourced { value: FeeLimit::DEFAULT_PERCENT, origin: Origin::Default }),
        }
    }

    fn log(&self) -> Result<Sourced<String>, ConfigError> {
        let named =
            pick(LOG, self.flags.log.as_deref(), self.env, &self.file, self.parsed.log.as_ref());
        let default = || Sourced { value: "info".to_owned(), origin: Origin::Default };
        named.unwrap_or_else(default).parse(check_log)
    }
}

/// QUIC and TCP on the port of the definition; a loopback network stays on this machine.
fn default_listen(params: &Params) -> Vec<String> {
    let host = if params.loopback { "127.0.0.1" } else { "0.0.0.0" };
    let port = params.ports.p2p;
    vec![format!("/ip4/{host}/udp/{port}/quic-v1"), format!("/ip4/{host}/tcp/{port}")]
}

fn check_all(
    items: Vec<Sourced<String>>,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Sourced<Vec<String>>, ConfigError> {
    let origin = items.first().map_or(Origin::Default, |item| item.origin.clone());
    let mut value = Vec::with_capacity(items.len());
    for item in items {
        check(&item.value).map_err(|what| item.origin.refuse(what))?;
        value.push(item.value);
    }
    Ok(Sourced { value, origin })
}

fn check_multiaddr(addr: &str, with_peer: bool) -> Result<(), String> {
    check_address(addr, with_peer).map_err(|error| error.to_string())
}

fn check_url(url: String) -> Result<String, String> {
    // What stands before an `@` is a secret, wherever it would be printed.
    if url.contains('@') {
        return Err("an address with a user and password: put the line `user:password` into a \
                    file that only you can read, and name that file as chain.cookie \
                    (--chain-cookie)"
            .to_owned());
    }
    let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', ' ']) => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(format!("`{url}` is not an RPC address such as http://127.0.0.1:18443")),
    }
}

/// The cookie protects the API from other users of this machine, not from a network:
/// remote use goes through an SSH tunnel or a reverse proxy.
fn check_api(text: String) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is not an address with a port, such as 127.0.0.1:7211"))?;
    if addr.ip().is_loopback() {
        Ok(addr)
    } else {
        Err(format!("{addr} is not a loopback address"))
    }
}

/// A word alone would be taken for the name of a module, and a misspelt level would silence all
/// others: so a module needs its level.
fn check_log(filter: String) -> Result<String, String> {
    let words = filter.split(',').map(str::trim).filter(|word| !word.is_empty());
    for word in words.filter(|word| !word.contains(['=', '['])) {
        if !LOG_LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            let levels = LOG_LEVELS.join(", ");
            return Err(format!("`{word}` is no level: use {levels}, or module=level"));
        }
    }
    match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(format!("`{filter}`: {error}")),
    }
}

/// A native segwit address, or a descriptor of such: what sales pay to must be small, whatever
/// the seller likes.
fn check_payout(text: &str, network: bitcoin::Network) -> Result<PayoutTo, String> {
    if text.contains('(') {
        return PayoutDescriptor::parse(text, network).map(PayoutTo::Descriptor);
    }
    let address: Address<NetworkUnchecked> =
        text.parse().map_err(|_| format!("`{text}` is not a bitcoin address"))?;
    let address = address
        .require_network(network)
        .map_err(|_| format!("`{text}` is not an address of {network}"))?;
    match address.script_pubkey().is_witness_program() {
        true => Ok(PayoutTo::Address(address)),
        false => Err(format!("`{text}` is not a native segwit address (bc1…, tb1…, bcrt1…)")),
    }
}

fn check_capacity(name: &str, units: u32, params: &Params) -> Result<(u16, u32), String> {
    let Some(class) = params.class_named(name) else {
        let known: Vec<&str> = params.classes.iter().map(|class| class.name.as_str()).collect();
        return Err(format!("unknown class `{name}`, expected one of {}", known.join(", ")));
    };
    if units > UNITS_MAX {
        return Err(format!("{units} units of {name}: at most {UNITS_MAX}"));
    }
    Ok((class.floors.id, units))
}

/// A share: a whole number of percent with its sign.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    number
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| format!("`{text}` is not a share from 0% to 100%, such as 20%"))
}

fn check_resolver(text: &str) -> Result<Ipv4Addr, String> {
    let address = text.parse().map_err(|_| format!("`{text}` is not an IPv4 address"))?;
    if egress::is_refused(address) {
        return Err(format!("no lease can reach {address}: name a resolver on the outside"));
    }
    Ok(address)
}

fn capacity_of_text(text: &str, params: &Params) -> Result<BTreeMap<u16, u32>, String> {
    let item = |item: &str| {
        let (name, units) = item.split_once('=').ok_or("expected class=units, class=units")?;
        let units =
            units.trim().parse().map_err(|_| format!("`{units}` is not a number of units"))?;
        check_capacity(name.trim(), units, params)
    };
    let mut capacity = BTreeMap::new();
    for (class, units) in text.split(',').map(item).collect::<Result<Vec<_>, String>>()? {
        if capacity.insert(class, units).is_some() {
            let name = params.class(class).map(|class| class.name.as_str()).unwrap_or_default();
            return Err(format!("`{name}` stands there twice"));
        }
    }
    Ok(capacity)
}

/// The number behind a class in the file. A table is what a dot without quotes makes.
fn units_of_value(name: &str, value: &toml::Value) -> Result<u32, String> {
    if let toml::Value::Table(inner) = value {
        let inner = inner.keys().next().map_or("standard", String::as_str);
        return Err(format!(
            "a class is quoted, as in \"{name}.{inner}\" = 4: without quotes the dot makes a table \
             of it"
        ));
    }
    let Some(units) = value.as_integer() else {
        return Err(format!("`{value}` is not a number of units: write one without quotes"));
    };
    u32::try_from(units).map_err(|_| format!("{units} is not a number of units"))
}

/// Directory of the development chain: its data and its cookie.
#[must_use]
pub fn devchain_dir(named: Option<&Path>, env: Env<'_>) -> Option<PathBuf> {
    named.map(Path::to_path_buf).or_else(|| dirs::devchain(env))
}

#[cfg(test)]
mod tests;
