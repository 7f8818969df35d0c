//! Order files: TOML read as the flags of `buy` and `sell`. A mistake names a line of the
//! text and is one line itself.

use capex::cli::order_file::{Mistake, parse};
use capex::cli::{buy, sell};

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check(text, parse::<buy::Flags>(text).err());
    check(text, parse::<sell::Flags>(text).err());
}

fn check(text: &str, mistake: Option<Mistake>) {
    if let Some(mistake) = mistake {
        assert!((1..=text.split('\n').count()).contains(&mistake.line), "{mistake:?}");
        assert!(!mistake.what.contains('\n'), "{mistake:?}");
    }
}
