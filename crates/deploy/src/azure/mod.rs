//! Azure: the client of its Resource Manager (ARM), and what we know about the resources we keep there.
//!
//! The road of a request: [`arm::ArmClient`] asks [`budget`] for leave to send, [`auth`] for a token, sends, and turns
//! a refusal into an [`error::ArmError`]. What takes time in Azure is awaited with [`watch`].

pub mod arm;
pub mod auth;
pub mod budget;
pub mod error;
pub mod inventory;
pub mod policy;
pub mod preflight;
pub mod resources;
#[cfg(test)]
pub(crate) mod scripted;
pub mod watch;

pub use arm::{Answer, ArmClient, Call, Endpoints, Usage, UsageCounts};
pub use auth::{AzureCliLogin, Credentials};
pub use budget::Priority;
pub use error::{ArmError, ErrorClass, Retry, Scope};
pub use inventory::Inventory;
pub use preflight::{Demand, Facts, Finding, NodeDemand, Report, Severity};
pub use resources::{Ids, Tags};
pub use watch::{Evidence, Kind, Watch};
