//! `capex match --plot`: one picture for one book, the same bytes each time, well-formed
//! whatever the labels say.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use capex::cli::match_cmd::{self, Plot};
use capex_core::matching::PMAX_MSAT;
use serde_json::{Value, json};

use super::books;
use super::command::Ran;
use super::vectors::GOLDEN;

/// Rewrites the picture of the documentation.
const WRITE: &str = "CAPEX_WRITE_PICTURE";

fn plot(book: &Value, class: Option<u16>, slot: Option<u32>) -> (Ran, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.svg");
    let ran = plot_to(book, Plot { path: path.clone(), class, slot });
    (ran, fs::read_to_string(path).ok())
}

fn plot_to(book: &Value, plot: Plot) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let text = book.to_string();
    let mut input = text.as_bytes();
    let exit_code =
        match_cmd::run_and_plot("-", None, Some(&plot), true, &mut input, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit_code, out: text(out), err: text(err) }
}

fn picture(book: &Value) -> String {
    let (ran, picture) = plot(book, None, None);
    assert_eq!((ran.exit_code, ran.err.as_str()), (0, ""));
    picture.unwrap()
}

fn reason((ran, picture): (Ran, Option<String>)) -> (u8, String) {
    assert_eq!((ran.out.as_str(), picture), ("", None));
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    (ran.exit_code, error["error"]["code"].as_str().unwrap().to_owned())
}

/// Whether tags nest, attributes are quoted, and texts hold only characters and references
/// of XML. Gives the texts.
fn texts_of_xml(svg: &str) -> Vec<String> {
    let allowed = |c: char| c == '\n' || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    assert!(svg.chars().all(allowed));
    let body = svg.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap();
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    for part in body.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("{part}"));
        assert!(!text.contains('>'), "{part}");
        for reference in text.split('&').skip(1) {
            let name = reference.split_once(';').map(|(name, _)| name);
            assert!(matches!(name, Some("amp" | "lt" | "gt" | "quot" | "#39")), "{part}");
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(attributes.split('"').count() % 2 == 1, "{part}");
        if !tag.ends_with('/') {
            open.push(name);
            texts.push(text.to_owned());
        }
    }
    assert!(open.is_empty());
    texts
}

#[test]
fn the_picture_of_the_documentation_is_that_of_its_book() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    let book = fs::read_to_string(folder.join("book.json")).unwrap();
    let drawn = picture(&serde_json::from_str(&book).unwrap());
    if std::env::var_os(WRITE).is_some() {
        fs::write(folder.join("book.svg"), &drawn).unwrap();
    }
    let kept = fs::read_to_string(folder.join("book.svg")).unwrap();
    assert!(drawn == kept, "run with {WRITE}=1 and look at the change of docs/images/book.svg");
    let texts = texts_of_xml(&drawn).join("\n");
    for part in ["clearing price 96 sat", "14 blocks traded", "sat per block", "blocks", "ask-hill"]
    {
        assert!(texts.contains(part), "{part}");
    }
}

#[test]
fn every_vector_has_a_picture_beside_its_result() {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    for vector in vectors {
        let (ran, picture) = plot(&vector["input"], None, None);
        if vector["input"]["orders"].as_array().unwrap().is_empty() {
            assert_eq!(reason((ran, picture)), (6, "match.plot_empty".to_owned()));
            continue;
        }
        assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), vector["expect"]);
        let texts = texts_of_xml(&picture.unwrap());
        let sellers = vector["expect"]["trades"].as_array().unwrap().iter().map(|t| &t["sell"]);
        for seller in sellers {
            let seller = seller.as_str().unwrap();
            assert!(texts.iter().any(|text| text == seller), "{}: {seller}", vector["name"]);
        }
    }
}

#[test]
fn random_and_crowded_books_have_well_formed_pictures_of_bounded_size() {
    let random = (0..200).map(books::random);
    let mut drawn = 0;
    for book in random.chain((0..4).map(books::crowded)) {
        let book = match_cmd::to_json(&book);
        let (ran, Some(svg)) = plot(&book, None, None) else { continue };
        assert_eq!(ran.exit_code, 0);
        texts_of_xml(&svg);
        assert!(svg.len() < 1 << 20, "{}", svg.len());
        assert_eq!(plot(&book, None, None).1, Some(svg));
        drawn += 1;
    }
    assert!(drawn > 150, "{drawn}");
}

fn order(id: &str, side: &str, window: [u32; 2], limit: u64) -> Value {
    json!({"id": id, "owner": format!("owner of {id}"), "side": side, "qty": 10_000,
        "window": window, "class": 7, "limit": limit})
}

fn book(orders: &[Value]) -> Value {
    json!({"beacon": "00".repeat(32), "orders": orders})
}

#[test]
fn labels_are_texts_and_extremes_fit() {
    let hostile = "</text><script>alert(\"1\")</script>&\u{202e}\u{1b}[2J\0\u{ffff}";
    let long = "x".repeat(100_000);
    let last = [u32::MAX - 1, u32::MAX];
    let books = [
        book(&[order(hostile, "buy", [0, 4], 100), order("s", "sell", [0, 4], 90)]),
        book(&[order("b", "buy", [0, 4], 100), order(hostile, "sell", [0, 4], 90)]),
        book(&[order(&long, "buy", [0, 4], 100), order("s", "sell", [0, 4], 90)]),
        book(&[order("b", "buy", last, PMAX_MSAT), order("s", "sell", last, 1)]),
        book(&[order("b", "buy", [0, 336], PMAX_MSAT), order("s", "sell", [0, 336], PMAX_MSAT)]),
        book(&[order("b", "buy", [0, 336], 1)]),
        book(&[order("s", "sell", [0, 336], 1)]),
    ];
    for book in books {
        let svg = picture(&book);
        texts_of_xml(&svg);
        assert!(!svg.contains("<script") && !svg.contains('\u{202e}') && svg.len() < 100_000);
    }
}

#[test]
fn class_and_slot_can_be_chosen() {
    let mut other = order("t", "sell", [2, 9], 50);
    other["class"] = 8.into();
    let book = book(&[order("b", "buy", [0, 4], 100), order("s", "sell", [0, 4], 90), other]);
    let heading = |class, slot| {
        let texts = texts_of_xml(&plot(&book, class, slot).1.unwrap());
        texts.into_iter().find(|text| text.starts_with("Supply and demand")).unwrap()
    };
    let table = [
        (None, None, "Supply and demand of class 7 in slot 0"),
        (Some(7), Some(3), "Supply and demand of class 7 in slot 3"),
        (Some(8), None, "Supply and demand of class 8 in slot 2"),
        (None, Some(8), "Supply and demand of class 8 in slot 8"),
    ];
    for (class, slot, expected) in table {
        assert_eq!(heading(class, slot), expected);
    }
    for (class, slot) in [(Some(9), None), (Some(7), Some(4)), (None, Some(9))] {
        let refused = reason(plot(&book, class, slot));
        assert_eq!(refused, (6, "match.plot_nothing_there".to_owned()), "{class:?} {slot:?}");
    }
}

#[test]
fn what_is_no_picture_is_refused_with_a_code() {
    let one = book(&[order("b", "buy", [0, 4], 100)]);
    assert_eq!(reason(plot(&json!([one]), None, None)), (6, "match.plot_array".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Plot { path: folder.path().join("no/book.svg"), class: None, slot: None };
    let refused = reason((plot_to(&one, nowhere), None));
    assert_eq!(refused, (2, "match.plot_unwritable".to_owned()));
    // A refused book leaves no picture, and its refusal is the result.
    let mut bad = one;
    bad["orders"][0]["qty"] = 10_001.into();
    let (ran, picture) = plot(&bad, None, None);
    assert_eq!((ran.exit_code, picture), (6, None));
    assert!(ran.out.contains("match.qty_too_large"), "{}", ran.out);
}

#[test]
fn colours_differ_between_neighbours_in_the_list_of_bids() {
    let sells = order("s", "sell", [0, 4], 1);
    let bids = (0..7).map(|at| {
        let mut bid = order(&format!("b{at}"), "buy", [at % 4, at % 4 + 1], 100);
        bid["qty"] = 1.into();
        bid
    });
    let svg = picture(&book(&bids.chain([sells]).collect::<Vec<_>>()));
    let fills = svg.lines().filter(|line| line.contains("width=\"12\" height=\"12\""));
    let fills: Vec<&str> = fills.map(|line| line.split("fill=").nth(1).unwrap()).collect();
    assert_eq!((fills.len(), fills.iter().collect::<BTreeSet<_>>().len()), (7, 7));
}
