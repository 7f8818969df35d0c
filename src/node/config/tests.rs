use super::*;

fn home(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/home/a".to_owned())
}

fn load_text(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Overrides { datadir: Some(dir.path().to_path_buf()), ..Overrides::default() };
    let strip = format!("{}/", dir.path().display());
    Config::load(&flags, &home).map_err(|error| error.to_string().replace(&strip, ""))
}

#[test]
fn defaults_need_no_file() {
    let config = Config::load(&Overrides::default(), &home).unwrap();
    assert_eq!(config.params.name, "signet");
    assert_eq!(config.datadir, Path::new("/home/a/.local/share/capex/signet"));
    assert_eq!(config.file, Path::new("/home/a/.config/capex/config.toml"));
    assert_eq!(config.chain.url, "http://127.0.0.1:38332");
    assert_eq!(config.chain.cookie, Path::new("/home/a/.bitcoin/signet/.cookie"));
    assert_eq!(config.api.listen.port(), config.params.ports.api);
    assert!(matches!(Config::load(&Overrides::default(), &|_| None), Err(ConfigError::NoHome)));
}

#[test]
fn flags_win_over_environment_over_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = "network = \"devnet\"\n[api]\nlisten = \"127.0.0.1:1\"\n";
    std::fs::write(&path, text).unwrap();
    let flag = |api: Option<&str>| Overrides {
        config: Some(path.clone()),
        api_listen: api.map(str::to_owned),
        ..Overrides::default()
    };
    let env = |name: &str| match name {
        "CAPEX_API_LISTEN" => Some("127.0.0.1:2".to_owned()),
        _ => home(name),
    };
    let port = |flags: &Overrides, env: Env<'_>| {
        let config = Config::load(flags, env).unwrap();
        (config.api.listen.port(), config.origins["api.listen"].to_string())
    };
    assert_eq!(port(&flag(None), &home), (1, format!("{}:3", path.display())));
    assert_eq!(port(&flag(None), &env), (2, "CAPEX_API_LISTEN".to_owned()));
    assert_eq!(port(&flag(Some("127.0.0.1:3")), &env), (3, "--api-listen".to_owned()));
}

#[test]
fn no_lease_is_let_out_unless_the_operator_says_so() {
    for text in ["", "[egress]\n", "[egress]\nresolvers = [\"9.9.9.9\"]\n"] {
        assert_eq!(load_text(text).unwrap().egress, None, "{text}");
    }
    let egress = load_text("[egress]\nallow = true\n").unwrap().egress;
    assert_eq!(egress, Some(Egress::default()));
}

#[test]
fn images_are_fetched_from_nowhere_unless_the_operator_says_so() {
    assert_eq!(load_text("[host]\n").unwrap().registries.names().count(), 0);
    let text = "[host]\nregistries = [\"docker.io\", \"http://10.0.0.2:5000\"]\n";
    let names: Vec<String> = load_text(text).unwrap().registries.names().collect();
    assert_eq!(names, ["docker.io", "http://10.0.0.2:5000"]);
}

#[test]
fn mistakes_name_file_and_line() {
    let table = [
        ("network = \"devnet\"\n\nlisten = 1\n", "config.toml:3: unknown field `listen`"),
        ("[api]\nlisten = \"127.0.0.1:0\"\nport = 1\n", "config.toml:3: unknown field `port`"),
        ("network = \"bitcoin\"\n", "config.toml:1: unknown network `bitcoin`"),
        ("# c\n[api]\nlisten = \"localhost\"\n", "config.toml:3: `localhost` is not an address"),
        ("[api]\nlisten = \"0.0.0.0:80\"\n", "config.toml:2: 0.0.0.0:80 is not a loopback"),
        ("[capacity]\n\"cpu.standard\" = 1\n\"cpu.big\" = 1\n", "config.toml:3: unknown class"),
        ("[capacity]\n\"cpu.standard\" = -1\n", "config.toml:2: -1 is not a number of units"),
        (
            "[capacity]\ncpu.standard = 4\n",
            "config.toml:2: a class is quoted, as in \"cpu.standard\" = 4",
        ),
        ("[capacity.cpu]\nstandard = 4\n", "config.toml:1: a class is quoted, as in \"cpu.stan"),
        (
            "[capacity]\n\"cpu.standard\" = \"4\"\n",
            "config.toml:2: `\"4\"` is not a number of units: write one without quotes",
        ),
        (
            "[capacity]\n\"cpu.standard\" = 1\n\"cpu.standard\" = 2\n",
            "config.toml:3: duplicate key",
        ),
        ("[backup]\npath = \"~ann/b\"\n", "config.toml:2: `~ann/b`: write the whole path"),
        (
            "[egress]\nallow = true\nresolvers = [\"9.9.9.9\",\n\"192.168.1.1\"]\n",
            "config.toml:4: no lease can reach 192.168.1.1",
        ),
        ("[egress]\nresolvers = [\"dns\"]\n", "config.toml:2: `dns` is not an IPv4 address"),
        (
            "[host]\nregistries = [\"docker.io\",\n\"docker.io/library\"]\n",
            "config.toml:3: `docker.io/library` is not a registry: write it as docker.io",
        ),
        ("[capacity]\n\"cpu.standard\" = 1000001\n", "config.toml:2: 1000001 units"),
        (
            "[p2p]\npeers = [\n \"/ip4/1.2.3.4/tcp/1\",\n]\n",
            "config.toml:3: bad address /ip4/1.2.3.4/tcp/1: it lacks /p2p/<id>",
        ),
        (
            "[p2p]\nlisten = [\"127.0.0.1:1\"]\n",
            "config.toml:2: bad address 127.0.0.1:1: not a multiaddr",
        ),
        ("[chain]\nurl = \"https://x\"\n", "config.toml:2: `https://x` is not an RPC address"),
        (
            "[chain]\nurl = \"http://user:hunter2@x:1\"\n",
            "config.toml:2: an address with a user and password",
        ),
        ("\nlog = \"debgu\"\n", "config.toml:2: `debgu` is no level: use error, warn"),
        ("log = \"info,capex=debgu\"\n", "config.toml:1: `info,capex=debgu`: "),
        ("max_fee_share = \"20\"\n", "config.toml:1: `20` is not a share from 0% to 100%"),
        ("max_fee_share = \"101%\"\n", "config.toml:1: `101%` is not a share"),
        ("max_fee_share = 20\n", "config.toml:1: invalid type"),
        ("network = \n", "config.toml:1: "),
        ("network = \"devnet\"\nnetwork = \"devnet\"\n", "config.toml:2: "),
        ("allow_mainnet = \"yes\"\n", "config.toml:1: invalid type"),
    ];
    for (text, expected) in table {
        let error = load_text(text).expect_err(text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn sales_are_paid_out_to_an_address_of_this_network_alone() {
    let signet = "tb1p3r9dp24l7ewu8erp5hdxecs6l8rfqhj6l3tqdy0lvxf87g0pzzgsr8l4ze";
    let load = |network: &str, address: &str| {
        load_text(&format!("network = \"{network}\"\n[wallet]\npayout = \"{address}\"\n"))
    };
    let segwit = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
    let config = load("signet", segwit).unwrap();
    assert_eq!(config.wallet.payout.map(|address| address.to_string()).as_deref(), Some(segwit));
    let table = [
        ("devnet", segwit, "is not an address of regtest"),
        ("signet", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "is not an address of signet"),
        ("signet", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "is not a native segwit address"),
        ("signet", &signet[1..], "is not a bitcoin address"),
        ("signet", "", "is not a bitcoin address"),
    ];
    for (network, address, expected) in table {
        let error = load(network, address).unwrap_err();
        assert!(error.starts_with("config.toml:3: ") && error.contains(expected), "{error}");
    }
    assert_eq!(load_text("").unwrap().wallet.payout, None);
}

#[test]
fn mainnet_needs_consent_in_the_file() {
    let error = load_text("network = \"mainnet\"\n").unwrap_err();
    assert!(error.contains("allow_mainnet = true"), "{error}");
    let config = load_text("network = \"mainnet\"\nallow_mainnet = true\n").unwrap();
    assert_eq!(config.params.name, "mainnet");
    assert_eq!(config.chain.url, "http://127.0.0.1:8332");
}

#[test]
fn the_default_devchain_means_devnet() {
    let config = load_text("[chain]\nurl = \"http://127.0.0.1:18543\"\n").unwrap();
    assert_eq!(config.params.name, "devnet");
    let config = load_text("network = \"devnet\"\n").unwrap();
    assert_eq!(config.chain.url, "http://127.0.0.1:18543");
    let cookie = Path::new("/home/a/.local/state/capex/devchain/.cookie");
    assert_eq!(config.chain.cookie, cookie);
    assert_eq!(config.p2p.listen[1], "/ip4/127.0.0.1/tcp/0");
}

#[test]
fn the_share_of_fees_is_chosen_or_a_fifth() {
    let share = |text: &str| load_text(text).unwrap().max_fee_percent;
    assert_eq!(share(""), 20);
    assert_eq!(share("max_fee_share = \"0%\"\n"), 0);
    assert_eq!(share("max_fee_share = \" 100 %\"\n"), 100);
}

#[test]
fn capacity_comes_from_the_file_or_the_environment() {
    let config = load_text("[capacity]\n\"cpu.standard\" = 4\n\"cpu.highmem\" = 2\n").unwrap();
    assert_eq!(config.capacity, BTreeMap::from([(1, 4), (2, 2)]));
    let env = |name: &str| match name {
        "CAPEX_CAPACITY" => Some("cpu.standard=3, cpu.secure=1".to_owned()),
        _ => home(name),
    };
    let config = Config::load(&Overrides::default(), &env).unwrap();
    assert_eq!(config.capacity, BTreeMap::from([(1, 3), (3, 1)]));
}

#[test]
fn a_class_stands_in_the_environment_once() {
    let env = |name: &str| match name {
        "CAPEX_CAPACITY" => Some("cpu.standard=3,cpu.highmem=1, cpu.standard=4".to_owned()),
        _ => home(name),
    };
    let error = Config::load(&Overrides::default(), &env).unwrap_err();
    assert_eq!(error.to_string(), "CAPEX_CAPACITY: `cpu.standard` stands there twice");
}

#[test]
fn paths_of_the_file_begin_where_it_is_or_at_home() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = "[chain]\ncookie = \"~/core/.cookie\"\n[backup]\npath = \"safe/b\"\n\
                password_file = \"/p\"\n";
    std::fs::write(&path, text).unwrap();
    let flags = Overrides { config: Some(path.clone()), ..Overrides::default() };
    let config = Config::load(&flags, &home).unwrap();
    assert_eq!(config.chain.cookie, Path::new("/home/a/core/.cookie"));
    assert_eq!(config.backup.path, Some(dir.path().join("safe/b")));
    assert_eq!(config.backup.password_file.as_deref(), Some(Path::new("/p")));
    let flags = Overrides { datadir: Some(dir.path().to_owned()), ..flags };
    let homeless = Config::load(&flags, &|_| None).unwrap_err().to_string();
    assert!(homeless.ends_with("c.toml:2: `~/core/.cookie`: HOME is not set"), "{homeless}");
}

#[test]
fn paths_of_variables_are_whole() {
    let load = |variable: &'static str, text: &'static str| {
        let env = move |name: &str| match name {
            name if name == variable => Some(text.to_owned()),
            _ => home(name),
        };
        Config::load(&Overrides::default(), &env).map_err(|error| error.to_string())
    };
    for variable in ["CAPEX_DATADIR", "CAPEX_CONFIG", "CAPEX_CHAIN_COOKIE", "CAPEX_BACKUP_PATH"] {
        for text in ["a", "./a", "../a"] {
            let error = load(variable, text).unwrap_err();
            assert!(error.starts_with(&format!("{variable}: `{text}` is relative")), "{error}");
        }
    }
    assert_eq!(load("CAPEX_DATADIR", "~/a").unwrap().datadir, Path::new("/home/a/a"));
    assert_eq!(load("CAPEX_DATADIR", "").unwrap().datadir, load("", "").unwrap().datadir);
    let flags = Overrides { datadir: Some("~/b".into()), ..Overrides::default() };
    assert_eq!(Config::load(&flags, &home).unwrap().datadir, Path::new("/home/a/b"));
    let flags = Overrides { datadir: Some("b".into()), ..Overrides::default() };
    assert_eq!(Config::load(&flags, &home).unwrap().datadir, Path::new("b"));
}

#[test]
fn a_named_file_must_exist() {
    let flags = Overrides { config: Some("/nowhere/c.toml".into()), ..Overrides::default() };
    let error = Config::load(&flags, &home).unwrap_err();
    assert_eq!(error.code(), "config.unreadable");
}

#[test]
fn the_template_is_a_valid_file() {
    let chain = ChainConfig {
        url: "http://127.0.0.1:1".to_owned(),
        cookie: PathBuf::from("/a \"b\"/.cookie"),
    };
    let peers =
        ["/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
            .to_owned()];
    let listen = ["/ip4/0.0.0.0/tcp/7230".to_owned()];
    let first = First {
        network: "devnet",
        definition: None,
        chain: Some(chain.clone()),
        shared_chain: Some(chain.clone()),
        api: Some("127.0.0.1:0"),
        listen: &listen,
        peers: &peers,
    };
    let config = load_text(&first.text()).unwrap();
    assert_eq!((config.shared_chain.as_ref(), &config.chain), (Some(&chain), &chain));
    assert_eq!((config.p2p.peers, config.p2p.listen), (peers.to_vec(), listen.to_vec()));
    assert!(load_text(&First { network: "signet", ..First::default() }.text()).is_ok());
}

#[test]
fn coins_elsewhere_and_payouts_are_named_by_public_descriptors_of_the_network() {
    const KEY: &str = "tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp";
    let load = |lines: &str| load_text(&format!("network = \"signet\"\n[wallet]\n{lines}\n"));
    let both = load(&format!("descriptor = \"wpkh({KEY}/<0;1>/*)\"")).unwrap().wallet;
    let each = format!("descriptor = \"wpkh({KEY}/0/*)\"\nchange_descriptor = \"wpkh({KEY}/1/*)\"");
    assert_eq!(load(&each).unwrap().wallet.watched, both.watched);
    assert!(both.watched.is_some());
    let payout = load(&format!("payout = \"tr({KEY}/0/*)\"")).unwrap().wallet.payout;
    assert!(matches!(payout, Some(PayoutTo::Descriptor(_))), "{payout:?}");
    let bad = [
        format!("descriptor = \"wpkh({KEY}/0/*)\""),
        format!("change_descriptor = \"wpkh({KEY}/1/*)\""),
        format!("descriptor = \"pkh({KEY}/<0;1>/*)\""),
        format!("payout = \"tr({KEY}/<0;1>/*)\""),
        format!("payout = \"sh(wpkh({KEY}/0/*))\""),
    ];
    for lines in bad {
        let error = load(&lines).unwrap_err();
        assert!(error.starts_with("config.toml:3: "), "{lines}: {error}");
    }
}

#[test]
fn a_definition_in_a_file_is_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let devnet = Definition::shipped("devnet").unwrap().text;
    let own = devnet.replace("name = \"devnet\"", "name = \"harbour\"");
    write("own.toml", &own.replace("0x00, 0x05]", "0x10, 0x05]"));
    let real = Definition::shipped("mainnet").unwrap().text;
    let real = real.replace("name = \"mainnet\"", "name = \"real\"");
    write("real.toml", &real.replace("magic = [0xca, 0xfe", "magic = [0xca, 0xff"));
    write("broken.toml", "name = 1");
    let load = |text: &str| {
        write("config.toml", text);
        let config = Some(dir.path().join("config.toml"));
        Config::load(&Overrides { config, ..Overrides::default() }, &home)
    };
    let found = load("definition = \"own.toml\"\n").unwrap();
    assert_eq!(found.params.name, "harbour");
    assert!(found.datadir.ends_with("capex/harbour"), "{}", found.datadir.display());
    let refused = |text: &str| load(text).unwrap_err().to_string();
    let named = refused("network = \"signet\"\ndefinition = \"own.toml\"\n");
    assert!(named.contains("is not the network of") && named.contains("`harbour`"), "{named}");
    assert!(refused("definition = \"none.toml\"\n").contains("none.toml"));
    assert!(refused("definition = \"broken.toml\"\n").contains("config.toml:1"));
    // Whatever a network of real coins is called, somebody has to want it.
    let real = load("definition = \"real.toml\"\n").unwrap_err();
    assert_eq!(real.code(), "config.mainnet_refused");
    assert!(load("allow_mainnet = true\ndefinition = \"real.toml\"\n").is_ok());
}
