//! Maps the outcome of a verb to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(gitopsd::cli::Cli::from_args().run().code())
}
