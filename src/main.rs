//! Entry point.
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [verb, dir] if verb == "shim" => capex::executor::shim::run(Path::new(dir)).into(),
        _ => ExitCode::FAILURE,
    }
}
