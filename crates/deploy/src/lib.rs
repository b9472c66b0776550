//! From a configuration to a k0rdent management cluster, and back to nothing.
//!
//! The road that the data takes: [`config`] -> [`topology`] -> plan -> steps -> events. This crate prints nothing,
//! reads no environment variable and does not know whether the world it talks to is real.

pub mod cloud_init;
pub mod config;
pub mod environment;
pub mod http;
pub mod k0s;
pub mod keys;
pub mod kubeconfig;
pub mod kubernetes;
pub mod mesh;
pub mod seam;
pub mod secret;
pub mod ssh;
pub mod topology;
