//! What the project's tests share: the failure matrix, the simulation, real hosts, and what stands in for k0s there. Never
//! shipped.

pub mod guests;
pub mod hosts;
pub mod matrix;
pub mod simulation;
pub mod stand_in;
pub mod ways;
