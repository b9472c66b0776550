//! What the project's tests share: the failure matrix, the simulation, and real hosts. Never shipped.

pub mod hosts;
pub mod matrix;
pub mod simulation;
