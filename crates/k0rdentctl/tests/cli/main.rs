//! The program as people and scripts meet it: the built binary, in an empty directory, with an empty environment.

mod configuration;
mod environment;
mod help;
mod looking;
mod plans;
mod proxies;
mod running;
mod teardown;
mod twin;
mod uninstalling;
mod way_in;
mod worlds;
