//! k0rdentctl: from a YAML file to a k0rdent management cluster, and back to nothing.
//!
//! This crate only translates: [`arguments`] and [`settings`] turn what a person typed, and where, into plain values;
//! [`commands`] hand them to the `deploy` crate, or to the twin; [`views`] turn what comes back into text or JSON; and
//! [`printer`] prints it. Nothing else in the project reads the environment or prints.

mod arguments;
mod commands;
mod configuration;
mod credentials;
mod error;
mod keyring;
mod printer;
mod rehearse;
mod settings;
mod signals;
mod views;
mod way_out;
mod world;

/// Answers of clouds and clusters are JSON: small pieces of memory that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::main()
}
