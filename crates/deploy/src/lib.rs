//! From a configuration to a k0rdent management cluster, and back to nothing.
//!
//! The road that the data takes: [`config`] -> [`topology`] -> [`plan`] -> [`steps`] -> events -> [`views`]. This crate
//! prints nothing, reads no environment variable and does not know whether the world it talks to is real.
//!
//! - [`session`]: the front door
//! - [`recipe`]: the commands as tables of contents; [`task`]: every step by name; [`steps`]: what each does
//! - [`azure`], [`ssh`], [`kubernetes`]: the clients; [`seam`]: the one way out; [`proxy`]: who stands on it
//! - [`cloud_init`], [`mesh`], [`machine_proxy`], [`k0s`], [`kubeconfig`]: the documents that machines and people get
//! - [`environment`], [`keys`]: files and secrets

pub mod archive;
pub mod azure;
pub mod change;
pub mod cloud_init;
pub mod config;
pub mod control_plane;
pub mod deployment;
pub mod difference;
pub mod environment;
pub mod hosts;
pub mod http;
pub mod identity;
pub mod k0s;
pub mod keys;
pub mod kubeconfig;
pub mod kubernetes;
pub mod leftovers;
pub mod machine_proxy;
pub mod mesh;
pub mod observe;
pub mod plan;
pub mod preview;
pub mod prices;
pub mod proxy;
pub mod recipe;
mod release;
pub mod seam;
pub mod secret;
pub mod session;
pub mod ssh;
pub mod steps;
mod tags;
pub mod task;
pub mod topology;
pub mod views;
pub mod way_in;
pub mod words;
mod yaml;
