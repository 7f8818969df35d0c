//! Entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    capex::cli::main()
}
