//! The project's own chores.
//!
//! - `cargo xtask test`: every test that this machine can run, and a table of what ran
//! - `cargo xtask measure`: rehearsals from 1 to 500 machines, and what they cost

mod cargo;
mod measure;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test      every test that this machine can run, and a table of what ran
       cargo xtask measure   rehearsals from 1 to 500 machines, and what they cost";

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "a chore of the project, not a part of the program")]
    let chore = std::env::args().nth(1);
    let result = match chore.as_deref() {
        Some("test") => test::run(),
        Some("measure") => measure::run(),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
