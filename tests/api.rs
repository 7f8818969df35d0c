//! The HTTP API against a fake event loop: who may call, forms of answers and errors.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

#[path = "api/fake.rs"]
#[allow(dead_code)]
mod fake;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use capex::api::types::Status;
use capex::api::{ApiHandle, CALL_QUEUE, Call, Query, REQUESTS_MAX};
use fake::Fake;
use serde_json::Value;

/// Sends a request as written and reads the whole answer.
fn raw(fake: &Fake, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(fake.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A refused upload may be answered and reset before it is read to its end.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

fn request(fake: &Fake, line: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    raw(
        fake,
        &format!(
            "{line} HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    )
}

fn with_cookie(fake: &Fake, line: &str, body: &str) -> (u16, Value) {
    let headers = format!("Host: {}\r\nAuthorization: Bearer {}\r\n", fake.addr, fake.cookie);
    let (status, body) = request(fake, line, &headers, body);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[test]
fn only_the_holder_of_the_cookie_may_call_and_no_page_of_a_browser() {
    let fake = Fake::start();
    let (addr, port, cookie) = (fake.addr, fake.addr.port(), fake.cookie.clone());
    let wrong = "0".repeat(cookie.len());
    let bearer = format!("Authorization: Bearer {cookie}\r\n");
    let host = format!("Host: {addr}\r\n");
    let table = [
        (format!("{host}{bearer}"), 200, ""),
        (format!("Host: localhost:{port}\r\n{bearer}"), 200, ""),
        (format!("Host: [::1]:{port}\r\n{bearer}"), 200, ""),
        (format!("{host}{bearer}Origin: http://{addr}\r\n"), 200, ""),
        (host.clone(), 401, "api.unauthorised"),
        (format!("{host}Authorization: Bearer {wrong}\r\n"), 401, "api.unauthorised"),
        (format!("{host}Authorization: Bearer \r\n"), 401, "api.unauthorised"),
        (format!("{host}Authorization: Basic {cookie}\r\n"), 401, "api.unauthorised"),
        (format!("{host}Authorization: Bearer {cookie}0\r\n"), 401, "api.unauthorised"),
        (format!("{host}{bearer}{bearer}"), 401, "api.unauthorised"),
        (format!("Host: evil.example:{port}\r\n{bearer}"), 403, "api.host"),
        (format!("Host: 127.0.0.1:1\r\n{bearer}"), 403, "api.host"),
        (format!("Host: 127.0.0.1\r\n{bearer}"), 403, "api.host"),
        (bearer.clone(), 403, "api.host"),
        (format!("{host}{bearer}Origin: http://evil.example\r\n"), 403, "api.origin"),
        (format!("{host}{bearer}Origin: null\r\n"), 403, "api.origin"),
        (format!("{host}{bearer}Origin: https://{addr}\r\n"), 403, "api.origin"),
    ];
    for (headers, status, code) in table {
        let (found, body) = request(&fake, "GET /api/v1/status", &headers, "");
        assert_eq!(found, status, "{headers}: {body}");
        if status == 200 {
            assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), fake::status());
        } else {
            let error = &serde_json::from_str::<Value>(&body).unwrap()["error"];
            assert_eq!(error["code"], code, "{headers}");
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()));
            assert!(!body.contains(&cookie));
        }
    }
}

#[test]
fn liveness_needs_no_cookie_but_the_right_host() {
    let fake = Fake::start();
    let host = format!("Host: {}\r\n", fake.addr);
    assert_eq!(request(&fake, "GET /livez", &host, ""), (200, "ok\n".to_owned()));
    assert_eq!(request(&fake, "GET /livez", "Host: evil.example\r\n", "").0, 403);
}

#[test]
fn requests_at_once_are_bounded_and_leave_the_node_alive() {
    let fake = Fake::start();
    let (addr, cookie) = (fake.addr, &fake.cookie);
    let head = format!(
        "POST /api/v1/quote HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {cookie}\r\n\
         Content-Length: 9\r\n\r\n"
    );
    let slow: Vec<TcpStream> = (0..REQUESTS_MAX)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let host = format!("Host: {addr}\r\n");
    let bearer = format!("{host}Authorization: Bearer {cookie}\r\n");
    // Until all of them have come, other requests are answered.
    let turns =
        |status| (0..1000).any(|_| request(&fake, "GET /api/v1/status", &bearer, "").0 == status);
    assert!(turns(503));
    assert_eq!(request(&fake, "GET /livez", &host, ""), (200, "ok\n".to_owned()));
    assert_eq!(request(&fake, "GET /api/v1/status", &host, "").0, 401, "refused without a place");
    drop(slow);
    assert!(turns(200));
}

#[test]
fn a_trade_says_what_comes_next_and_what_can_be_lost() {
    let fake = Fake::start();
    let (status, trade) = with_cookie(&fake, "GET /api/v1/trades/33333333", "");
    assert_eq!(status, 200);
    assert_eq!(trade["due"]["kind"], "refund");
    assert_eq!(
        (&trade["due"]["height"], &trade["due"]["minutes_left"]),
        (&350.into(), &1400.into())
    );
    assert_eq!((&trade["at_risk_sat"], &trade["fees_sat"]), (&446.into(), &308.into()));
    let steps = trade["timeline"].as_array().unwrap();
    let steps: Vec<&str> = steps.iter().map(|step| step["what"].as_str().unwrap()).collect();
    assert_eq!(steps, ["opened", "terms", "locked", "fund"]);
    assert!(trade["stuck"].is_null() && trade["advice"].is_null());
    let (status, stuck) = with_cookie(&fake, "GET /api/v1/trades/stuck", "");
    assert_eq!((status, stuck.as_array().unwrap().len()), (200, 1));
    assert_eq!(stuck[0]["stuck"]["code"], "trade.broadcast_failed");
}

#[test]
fn every_refusal_has_the_form_of_an_error() {
    let fake = Fake::start();
    let good = r#"{"side":"buy","alternatives":[{"class":"cpu.standard","limit_msat":1}],"qty":1,"window":[1,2],"slots":1}"#;
    let table = [
        ("GET /api/v1/nothing", "", 404, "api.no_route"),
        ("GET /nothing", "", 404, "api.no_route"),
        ("DELETE /api/v1/status", "", 405, "api.method"),
        ("GET /api/v1/orders/0707", "", 400, "id.syntax"),
        ("GET /api/v1/orders/ABCDEF00", "", 400, "id.syntax"),
        ("GET /api/v1/orders/..%2f..%2fetc", "", 400, "id.syntax"),
        ("GET /api/v1/orders/%ff%ff%ff%ff", "", 400, "api.path"),
        ("GET /api/v1/orders/deadbeef", "", 404, "order.not_found"),
        ("GET /api/v1/orders/07/explain", "", 400, "id.syntax"),
        ("GET /api/v1/orders/deadbeef/explain", "", 404, "order.not_found"),
        ("GET /api/v1/orders/07070707/explain?epoch=x", "", 400, "api.query"),
        ("GET /api/v1/orders/07070707/explain?when=1", "", 400, "api.query"),
        ("GET /api/v1/depth?class=cpu.big", "", 400, "order.unknown_class"),
        ("GET /api/v1/peers/ABABABAB", "", 400, "id.syntax"),
        ("GET /api/v1/peers/deadbeef", "", 404, "peer.not_found"),
        ("DELETE /api/v1/peers/deadbeef/misses", "", 404, "peer.not_found"),
        (
            "POST /api/v1/orders/preview",
            &good.replace("\"slots\":1", "\"slots\":0"),
            400,
            "order.run",
        ),
        ("POST /api/v1/quote", "{", 400, "api.body"),
        ("POST /api/v1/quote", &good.replace("\"slots\":1", "\"slots\":0"), 400, "order.run"),
        ("POST /api/v1/quote", &good.replace("\"qty\":1", "\"qty\":13"), 400, "order.window"),
        ("GET /api/v1/book", "", 400, "api.query"),
        ("GET /api/v1/book?class=cpu.big", "", 400, "order.unknown_class"),
        ("GET /api/v1/orders?limit=0", "", 400, "api.query"),
        ("GET /api/v1/trades?limit=1001", "", 400, "api.query"),
        ("GET /api/v1/certificates?before=-1", "", 400, "api.query"),
        ("GET /api/v1/leases?before=7-ff", "", 400, "api.query"),
        ("GET /api/v1/epochs?after=7", "", 400, "api.query"),
        ("GET /api/v1/epochs/x", "", 400, "api.path"),
        ("GET /api/v1/epochs/-1", "", 400, "api.path"),
        ("GET /api/v1/leases/eeeeeeee/logs?stream=x", "", 400, "api.query"),
        ("GET /api/v1/leases/eeeeeeee/results/none", "", 404, "result.not_found"),
        ("POST /api/v1/orders", "", 400, "api.body"),
        ("POST /api/v1/orders", "{", 400, "api.body"),
        ("POST /api/v1/orders", &good.replace("qty", "quantity"), 400, "api.body"),
        ("POST /api/v1/orders", &good.replace("\"qty\":1", "\"qty\":1.5"), 400, "api.body"),
        (
            "POST /api/v1/orders",
            &good.replace("\"qty\":1", "\"qty\":13"),
            409,
            "order.capacity_exceeded",
        ),
        ("POST /api/v1/peers", r#"{"address":"1.2.3.4:5"}"#, 400, "network.bad_address"),
        ("POST /api/v1/certificates/cccccccc/gift", r#"{"to":"me"}"#, 400, "key.syntax"),
        (
            "POST /api/v1/certificates/dddddddd/gift",
            &format!(r#"{{"to":"{}"}}"#, "ab".repeat(32)),
            404,
            "certificate.not_found",
        ),
        ("POST /api/v1/certificates/cccccccc/split", "{}", 409, "split.outside"),
        ("POST /api/v1/certificates/cccccccc/split", r#"{"qty":3}"#, 409, "split.outside"),
        ("POST /api/v1/certificates/cccccccc/split", r#"{"qty":0}"#, 409, "split.outside"),
        ("POST /api/v1/certificates/cccccccc/split", r#"{"qty":1.5}"#, 400, "api.body"),
        ("POST /api/v1/certificates/cccccccc/split", r#"{"units":1}"#, 400, "api.body"),
        (
            "POST /api/v1/certificates/cccccccc/split",
            r#"{"window":[109,111]}"#,
            409,
            "split.outside",
        ),
        ("POST /api/v1/certificates/dddddddd/split", r#"{"qty":1}"#, 404, "certificate.not_found"),
        (
            "POST /api/v1/certificates/cccccccc/gift",
            &format!(r#"{{"to":"{}","qty":3}}"#, "ab".repeat(32)),
            409,
            "split.outside",
        ),
        ("POST /api/v1/certificates/merge", r#"{"certs":["c"]}"#, 400, "id.syntax"),
        (
            "POST /api/v1/certificates/merge",
            r#"{"certs":["cccccccc","dddddddd"]}"#,
            404,
            "certificate.not_found",
        ),
        (
            "POST /api/v1/certificates/merge",
            &format!(r#"{{"certs":[{}"cccccccc"]}}"#, r#""cccccccc","#.repeat(8)),
            409,
            "merge.bad_parts",
        ),
        ("POST /api/v1/certificates/cccccccc/fetch", r#"{"provider":"me"}"#, 400, "key.syntax"),
        (
            "POST /api/v1/certificates/cccccccc/fetch",
            &format!(r#"{{"provider":"{}"}}"#, "ab".repeat(32)),
            400,
            "id.syntax",
        ),
        (
            "POST /api/v1/certificates/import",
            r#"{"file":"capex-certificate 1 signet\n"}"#,
            409,
            "certificate.other_network",
        ),
        (
            "POST /api/v1/certificates/import",
            r#"{"file":"capex-certificate 1 devnet\n","provider":"me"}"#,
            400,
            "key.syntax",
        ),
        (
            "POST /api/v1/certificates/cccccccc/redeem",
            r#"{"component_base64":"%"}"#,
            400,
            "workload.invalid",
        ),
        (
            "POST /api/v1/certificates/cccccccc/redeem",
            r#"{"component_base64":"","inputs":[{"name":"../x","base64":""}]}"#,
            400,
            "workload.invalid",
        ),
        (
            "POST /api/v1/certificates/cccccccc/redeem",
            r#"{"component_base64":"","results":["a/b"]}"#,
            400,
            "workload.invalid",
        ),
    ];
    for (line, body, status, code) in table {
        let (found, value) = with_cookie(&fake, line, body);
        assert_eq!(
            (found, value["error"]["code"].as_str()),
            (status, Some(code)),
            "{line} {body}: {value}"
        );
        assert!(
            value["error"]["message"].is_string() && value["error"].get("hint").is_some(),
            "{value}"
        );
    }
    let placed = fake.commands.lock().unwrap().iter().filter(|c| c.contains("Place")).count();
    assert_eq!(placed, 1, "only the refused order reached the loop");
}

#[test]
fn facts_of_an_explanation_have_one_field_with_a_unit() {
    let fake = Fake::start();
    let (status, value) = with_cookie(&fake, "GET /api/v1/orders/07070707/explain?epoch=5", "");
    assert_eq!((status, value["epoch"].as_u64()), (200, Some(5)));
    assert_eq!(value["nearest"][0]["own"], serde_json::json!({"run_msat": 40_000}));
    assert_eq!(value["nearest"][1]["theirs"], serde_json::json!({"classes": ["cpu.highmem"]}));
    let (status, value) = with_cookie(&fake, "GET /api/v1/depth?class=cpu.standard", "");
    assert_eq!((status, value["classes"][0]["class"].as_str()), (200, Some("cpu.standard")));
}

#[test]
fn bodies_are_bounded_before_they_are_read() {
    let fake = Fake::start();
    let large = format!("{{\"address\":\"{}\"}}", "x".repeat(capex::api::BODY_MAX_BYTES));
    let (status, value) = with_cookie(&fake, "POST /api/v1/peers", &large);
    assert_eq!((status, value["error"]["code"].as_str()), (413, Some("api.body_too_large")));
    // A certificate may be larger than anything else that is no upload, and no larger.
    let import = |bytes: usize| {
        let body = format!("{{\"file\":\"{}\"}}", "x".repeat(bytes));
        let (status, value) = with_cookie(&fake, "POST /api/v1/certificates/import", &body);
        (status, value["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let longest = capex_core::certificate::file::TEXT_MAX_BYTES;
    assert_eq!(import(longest), (409, "certificate.file_header".to_owned()));
    assert_eq!(import(longest + 1), (413, "certificate.file_too_long".to_owned()));
    // Without the cookie nothing of the body is read.
    let host = format!("Host: {}\r\n", fake.addr);
    assert_eq!(request(&fake, "POST /api/v1/peers", &host, &large).0, 401);
    // A chunked body cannot hide its size.
    let mut chunked = format!(
        "POST /api/v1/peers HTTP/1.1\r\n{host}Authorization: Bearer {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        fake.cookie
    );
    for _ in 0..=capex::api::BODY_MAX_BYTES / 4096 {
        chunked += &format!("1000\r\n{}\r\n", "x".repeat(4096));
    }
    chunked += "0\r\n\r\n";
    assert_eq!(raw(&fake, &chunked).0, 413);
}

#[test]
fn uploads_reach_the_loop_decoded() {
    let fake = Fake::start();
    let body = r#"{"component_base64":"AGFzbQ==","command":["-n"],"inputs":[{"name":"in.txt","base64":"aGk="}],"results":["out.txt"]}"#;
    let (status, value) = with_cookie(&fake, "POST /api/v1/certificates/cccccccc/redeem", body);
    assert_eq!((status, value["lease_id"].as_str()), (200, Some("ee".repeat(32).as_str())));
    let commands = fake.commands.lock().unwrap();
    let expected = r#"component: [0, 97, 115, 109], inputs: [("in.txt", [104, 105])]"#;
    for expected in [expected, r#"command: ["-n"]"#, r#"results: ["out.txt"]"#] {
        assert!(commands[0].contains(expected), "{commands:?}");
    }
}

#[test]
fn stopping_removes_cookie_and_endpoints_even_with_open_requests() {
    let mut fake = Fake::mute();
    let mut stream = TcpStream::connect(fake.addr).unwrap();
    let line = format!(
        "GET /api/v1/status HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
        fake.addr, fake.cookie
    );
    stream.write_all(line.as_bytes()).unwrap();
    while fake.commands.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    let started = std::time::Instant::now();
    fake.stop();
    assert!(started.elapsed() < capex::api::DRAIN_TIME + Duration::from_secs(5));
    assert!(!fake.path().join("cookie").exists());
    assert!(!fake.path().join("endpoints").exists());
}

#[tokio::test]
async fn a_stuck_or_stopped_loop_is_reported() {
    let (node, calls) = ApiHandle::channel();
    let waiting: Vec<_> = (0..CALL_QUEUE)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.call::<Status>(Call::Query(Query::Status)).await })
        })
        .collect();
    while calls.len() < CALL_QUEUE {
        tokio::task::yield_now().await;
    }
    let error = node.query::<Status>(Query::Status).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("api.busy", 503));
    drop(calls);
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap_err().code, "api.stopping");
    }
    assert_eq!(node.query::<Status>(Query::Status).await.unwrap_err().code, "api.stopping");
}
