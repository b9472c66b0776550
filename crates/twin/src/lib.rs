//! An internet in a box.
//!
//! The twin holds a small world: Azure Resource Manager with its login endpoint, virtual machines that boot, read the
//! cloud-init they were given and answer SSH, and the Kubernetes API servers that k0s starts on them. Clients meet it
//! over wire protocols only, through [`Twin::connect`] (in memory, under the runtime's clock) or over loopback TCP
//! ([`serve`]). It shares no type with any client, so that a misunderstanding cannot cancel itself out.
//!
//! - [`world`]: the state, the clock and the agenda of things that will happen
//! - [`latency`]: how long things take, with the source of each figure
//! - [`ledger`]: what was asked and what changed, in order
//! - [`faults`]: what goes wrong, on demand; [`actions`]: what others do behind a client's back
//! - [`azure`], [`machine`], [`kube`]: the three kinds of inhabitants
//! - [`net`], [`tls`], [`http`]: how clients reach them; [`proxy`]: who may stand between
//! - [`critical_path`]: how fast the fastest possible client would have been
//! - [`serve`]: the same world over TCP, for other programs

pub mod actions;
pub mod azure;
pub mod critical_path;
pub mod faults;
pub mod http;
pub mod internet;
pub mod kube;
pub mod latency;
pub mod ledger;
pub mod machine;
pub mod net;
pub mod proxy;
pub mod serve;
pub mod tls;
pub mod world;

pub use actions::Action;
pub use faults::{Fault, FaultKind};
pub use latency::Latency;
pub use ledger::{Entry, Ledger};
pub use world::{Options, Twin, World};
