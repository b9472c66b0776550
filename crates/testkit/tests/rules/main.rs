//! The project's rules, as tests that read its sources or exercise what they protect.
//!
//! - [`layers`]: who may depend on whom, and who may read the environment or print
//! - [`world`]: who may open sockets, write files, start programs and tell the time
//! - [`effects`]: nothing is changed without a recorded intention, nothing created without a look, no wait without end
//! - [`secrets`]: secrets stay where they belong, and host keys are pinned
//! - [`formats`]: every file of ours carries its version, and a newer one is refused
//! - [`upkeep`]: sizes, lints, documents
//!
//! [`source`] reads the sources; [`self_test`] shows that the rules can be broken.

mod effects;
mod formats;
mod layers;
mod secrets;
mod self_test;
mod source;
mod stage;
mod upkeep;
mod world;
