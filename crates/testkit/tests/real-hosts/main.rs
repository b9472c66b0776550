//! The product's documents, its SSH client and its commands against real hosts: see `testkit::hosts`.
//!
//! - [`birth`]: a host becomes what its document says
//! - [`mesh`]: WireGuard under systemd
//! - [`trouble`]: hosts that misbehave
//! - [`k0s`]: a cluster under systemd, with what stands in for k0s or with a real one
//! - [`provider`]: hosts that exist already, from what they were to a cluster and back, by the program itself
//! - [`contract`]: the twin's machines answer as real hosts do

mod birth;
mod contract;
mod k0s;
mod mesh;
mod provider;
mod trouble;
