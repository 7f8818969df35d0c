//! What surrounds the program: variables, the home directory, the place where it is started.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::fake::Fake;
use super::{capex, done, json_error, run};

#[test]
fn a_misspelt_variable_is_refused_with_what_was_meant() {
    let home = tempfile::tempdir().unwrap();
    let with = |args: &[&str], name: &str| {
        done(capex(home.path(), args).env(name, "cpu.standard=4").output().unwrap())
    };
    for args in [["--json", "up"], ["--json", "status"]] {
        let refused = with(&args, "CAPEX_CAPACTY");
        assert!(refused.2.contains("did you mean CAPEX_CAPACITY?"), "{}", refused.2);
        assert_eq!(json_error(refused), (2, "config.invalid".to_owned()), "{args:?}");
    }
    assert!(!home.path().join(".local").exists(), "nothing was begun");
    assert_eq!(with(&["--help"], "CAPEX_CAPACTY").0, 0, "help is given all the same");
    // What an orchestrator sets for a service of this name.
    assert_eq!(with(&["config", "show"], "CAPEX_PORT").0, 0);
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = OsStr::from_bytes(b"/tmp/\xff");
    for name in ["CAPEX_DATADIR", "XDG_DATA_HOME"] {
        let mut command = capex(home.path(), &["--json", "config", "show"]);
        let refused = done(command.env(name, path).output().unwrap());
        assert!(
            refused.2.contains(&format!("{name}: `/tmp/\\\\xff` is not UTF-8")),
            "{}",
            refused.2
        );
        assert_eq!(json_error(refused), (2, "config.invalid".to_owned()));
    }
}

#[test]
fn without_a_home_nothing_is_put_where_the_command_runs() {
    let place = tempfile::tempdir().unwrap();
    for home in ["", "here"] {
        for args in [vec!["--json", "init"], vec!["--json", "up"], vec!["--json", "config", "path"]]
        {
            let mut command = capex(place.path(), &args);
            let refused =
                done(command.env("HOME", home).current_dir(place.path()).output().unwrap());
            assert_eq!(json_error(refused), (2, "config.no_home".to_owned()), "{home:?} {args:?}");
        }
        let datadir = place.path().join("named");
        let args = ["--datadir", datadir.to_str().unwrap(), "config", "path"];
        let mut command = capex(place.path(), &args);
        let (code, out, _) = done(command.env("HOME", home).output().unwrap());
        assert_eq!((code, out.trim()), (0, datadir.join("config.toml").to_str().unwrap()));
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_first_configuration_names_whole_paths() {
    let home = tempfile::tempdir().unwrap();
    let args = ["init", "--datadir", "a", "--chain-cookie", "core/.cookie", "--network", "devnet"];
    let made = capex(home.path(), &args).current_dir(home.path()).output().unwrap();
    assert!(made.status.success());
    let shown = String::from_utf8(made.stdout).unwrap();
    assert!(shown.ends_with("Next: capex up --datadir a\n"), "{shown}");
    assert!(shown.contains("(capex wallet words --datadir a)"), "{shown}");
    let text = fs::read_to_string(home.path().join("a/config.toml")).unwrap();
    let cookie = home.path().canonicalize().unwrap().join("core/.cookie");
    assert!(text.contains(&format!("cookie = {:?}", cookie.to_str().unwrap())), "{text}");
}

#[test]
fn a_journal_cut_short_is_named_by_the_check() {
    let home = tempfile::tempdir().unwrap();
    let datadir = home.path().join("a");
    let args = |rest: &[&'static str]| {
        let dir = datadir.to_str().unwrap().to_owned();
        let mut all = vec!["--network".to_owned(), "devnet".into(), "--datadir".into(), dir];
        all.extend(rest.iter().map(|word| (*word).to_owned()));
        all
    };
    let ask = |rest: &[&'static str]| {
        let args = args(rest);
        run(home.path(), &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let meta = capex::definitions::load("devnet").unwrap();
    let meta = capex::store::Meta { network: meta.name, magic: meta.magic };
    fs::create_dir(&datadir).unwrap();
    let (store, _) = capex::store::Store::open(&datadir.join("store"), &meta).unwrap();
    for n in 0..2 {
        store.persist(&[capex::store::upsert(0xe1, [n], *b"{}")]).unwrap();
    }
    drop(store);
    let journal = fs::read_dir(datadir.join("store/journal")).unwrap().next().unwrap().unwrap();
    let bytes = fs::read(journal.path()).unwrap();
    fs::write(journal.path(), &bytes[..bytes.len() - 5]).unwrap();
    for at in 0..2 {
        let (code, _, err) = ask(&["db", "check"]);
        assert!(code == 1 && err.contains("ends with batch 1"), "{code} {err}");
        assert!(err.contains("the disk has lost the last one"), "{err}");
        assert_eq!(json_error(ask(&["--json", "db", "check"])), (1, "store.lost".to_owned()));
        if at == 0 {
            fs::remove_dir_all(datadir.join("store/index")).unwrap();
        }
    }
}

#[test]
fn ssh_finds_a_lease_from_anywhere_by_what_was_printed_in_one_place() {
    let fake = Fake::start();
    let (above, name) = (fake.path().parent().unwrap(), fake.path().file_name().unwrap());
    let args = ["--json", "lease", "ssh-config", "eeeeeeee", "--datadir", name.to_str().unwrap()];
    let (code, out, err) = done(capex(above, &args).current_dir(above).output().unwrap());
    assert_eq!(code, 0, "{err}");
    let printed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let (whole, settings) = (fake.path().to_str().unwrap(), &printed["settings"]);
    let way = settings["ProxyCommand"].as_str().unwrap();
    assert!(way.contains(&format!(" --datadir {whole} lease ssh ")), "{way}");
    assert_eq!(settings["UserKnownHostsFile"], format!("{whole}/ssh_known_hosts"));
}

#[test]
fn a_host_is_shown_with_the_maintenance_that_its_daemon_knows_of() {
    let fake = Fake::start();
    let show = |datadir: &str, flag: &[&str]| {
        let args = [&["host", "show", "--network", "devnet", "--datadir", datadir], flag].concat();
        run(fake.path(), &args).1
    };
    let nobody = fake.path().join("nobody");
    let table = [
        (nobody.to_str().unwrap(), serde_json::Value::Null, "not known: no daemon answers"),
        (fake.path().to_str().unwrap(), serde_json::json!([]), "none announced"),
    ];
    for (datadir, known, words) in table {
        let shown: serde_json::Value = serde_json::from_str(&show(datadir, &["--json"])).unwrap();
        assert_eq!(shown["maintenance"], known);
        assert!(show(datadir, &[]).contains(words), "{words}");
    }
}
