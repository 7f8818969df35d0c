#![no_main]

#[path = "../bodies/epoch.rs"]
mod body;
#[path = "../bodies/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
