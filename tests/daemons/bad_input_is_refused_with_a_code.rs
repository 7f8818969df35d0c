//! Wrong files, wrong ids and wrong requests: a code, an exit code, and a daemon unharmed.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::daemon::{Daemon, capex, error_of};
use crate::world::World;

/// Sends bytes as they are; the first line of the answer and its body.
fn raw(daemon: &Daemon, request: &str) -> (String, String) {
    let addr = daemon.endpoints().api.strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    // A refusal may come before all of an oversize body is read.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let first = answer.lines().next().unwrap_or_default().to_owned();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (first, body.unwrap_or_default())
}

#[test]
fn requests_from_elsewhere_and_nonsense_are_refused() {
    let world = World::new();
    let mut daemon = world.daemon("only", 0);
    daemon.start(&[]);
    let host = daemon.endpoints().api.strip_prefix("http://").unwrap().to_owned();
    let cookie = std::fs::read_to_string(daemon.dir.join("cookie")).unwrap();
    let bearer = format!("Authorization: Bearer {cookie}\r\n");
    let get = |host: &str, headers: &str| {
        format!("GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n")
    };
    let post_to = |path: &str, headers: &str, body: &str| {
        format!(
            "POST /api/v1{path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let post = |headers: &str, body: &str| post_to("/orders", headers, body);
    let large = " ".repeat(70_000);
    let foreign = format!("{bearer}Origin: http://example.com\r\n");
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for (request, status, code) in [
        (get(&host, &bearer), 200, "\"network\":\"devnet\""),
        (get(&host, ""), 401, "api.unauthorised"),
        (get(&host, "Authorization: Bearer 00\r\n"), 401, "api.unauthorised"),
        (get("example.com", &bearer), 403, "api.host"),
        (get(&host, &foreign), 403, "api.origin"),
        (post("", "{}"), 401, "api.unauthorised"),
        (post(&bearer, "{\"side\":"), 400, "api.body"),
        (post(&bearer, "{\"side\":\"sideways\"}"), 400, "api.body"),
        (post(&bearer, &deep), 400, "api.body"),
        (post_to("/orders/preview", &bearer, &large), 413, "api.body_too_large"),
        ("nonsense\r\n\r\n".to_owned(), 400, ""),
    ] {
        let (line, body) = raw(&daemon, &request);
        let what = &request[..request.len().min(120)];
        assert!(line.contains(&format!(" {status} ")), "{what}: {line}");
        assert!(body.contains(code), "{what}: {body}");
    }
    assert!(daemon.status().is_some(), "it answers as before");
}

#[test]
fn wrong_files_and_ids_end_with_their_exit_codes() {
    let world = World::new();
    let mut daemon = world.daemon("only", 0);
    daemon.start(&[]);
    let file = |name: &str, text: &str| {
        let path = world.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };

    let order = file("order.toml", "class = \"cpu.standard\"\nqty = 2\nprise = \"5sat\"\n");
    let bid = ["buy", "--file", &order];
    assert_eq!(daemon.cli_error(&bid), (2, "order_file.unknown_key".to_owned()));
    let (_, _, err) = daemon.cli(&bid);
    assert!(err.contains("order.toml:3:"), "{err}");
    let order = file("value.toml", "class = \"cpu.standard\"\nqty = \"many\"\n");
    let (code, _, err) = daemon.cli(&["sell", "--file", &order]);
    assert!(code == 2 && err.contains("value.toml:2:"), "{code} {err}");

    let config = file("capex.toml", "network = \"devnet\"\n\nlisten_to = 3\n");
    let up = ["--config", &config, "--datadir", "elsewhere", "up"];
    let (code, _, err) = capex(world.path(), &up, &[]);
    assert!(code == 2 && err.contains("capex.toml:3"), "{code} {err}");

    let cert = file("cert.txt", "capex-certificate 1 devnet\nissue 00 11\n");
    let verify = ["cert", "verify", &cert];
    let (code, _, err) = capex(world.path(), &verify, &[]);
    assert!(code == 6 && err.contains("line 2"), "{code} {err}");

    for args in [
        ["cert", "show", "00112233"],
        ["trade", "show", "00112233"],
        ["lease", "show", "00112233"],
        ["order", "cancel", "00112233"],
    ] {
        let (code, reason) = daemon.cli_error(&args);
        assert!(code == 5 && reason.ends_with(".not_found"), "{args:?}: {code} {reason}");
    }
    daemon.kill();
    assert_eq!(daemon.cli_error(&["status"]), (3, "daemon.unreachable".to_owned()));
    let mut nobody = vec!["--datadir", daemon.dir.to_str().unwrap(), "--json"];
    nobody.extend(["wallet", "balance"]);
    assert_eq!(error_of(capex(world.path(), &nobody, &[])), (3, "daemon.unreachable".to_owned()));
}
