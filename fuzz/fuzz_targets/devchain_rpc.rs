#![no_main]

#[path = "../bodies/devchain_rpc.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
