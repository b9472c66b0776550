//! Behaves as k0s on a real host, with the twin's model in the place of Kubernetes. See [`testkit::stand_in`].

use std::process::ExitCode;

#[expect(clippy::disallowed_methods, reason = "a program of its own, which never ships")]
fn main() -> ExitCode {
    testkit::stand_in::main(std::env::args().skip(1).collect())
}
