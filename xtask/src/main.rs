//! The project's own chores.
//!
//! - `cargo xtask test`: every test that this machine can run, and a table of what ran
//! - `cargo xtask azure-clients`: one tier of it, the Azure CLI and the Azure SDKs for Python on a served twin
//! - `cargo xtask real-hosts`: another one, the product on real hosts
//! - `cargo xtask measure`: rehearsals from 1 to 500 machines, and what they cost; machines on a served twin
//! - `cargo xtask twin-docs`: where the twin's behaviour comes from, in `docs/twin.md`
//! - `cargo xtask simulate`: lives of clusters, drawn by seed, on a world that goes wrong
//! - `cargo xtask kill-sweep`: the released program, killed at random instants

mod azure_clients;
mod cargo;
mod measure;
mod provenance;
mod real_hosts;
mod simulate;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test      every test that this machine can run, and a table of what ran
       cargo xtask azure-clients   one tier of it: the Azure CLI and the Azure SDKs for Python on a served twin
       cargo xtask real-hosts      another one: documents, commands and the SSH client on real hosts
       cargo xtask measure   rehearsals from 1 to 500 machines, and what they cost
       cargo xtask twin-docs   writes docs/twin.md: where the twin's behaviour comes from
       cargo xtask simulate --seeds N [--from S] [--plain]   lives of clusters, drawn by seed, on a world that goes wrong
       cargo xtask kill-sweep --kills N [--seed S] [--hunt]   the released program, struck by signals at random instants";

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "a chore of the project, not a part of the program")]
    let chore = std::env::args().nth(1);
    let result = match chore.as_deref() {
        Some("test") => test::run(),
        Some("azure-clients") => azure_clients::alone(),
        Some("real-hosts") => real_hosts::alone(),
        Some("measure") => measure::run(),
        Some("twin-docs") => provenance::write(),
        Some("simulate") => simulate::simulate(),
        Some("kill-sweep") => simulate::kill_sweep(),
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
