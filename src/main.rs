//! Entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(capex::cli::main())
}
