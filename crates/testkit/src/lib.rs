//! What the project's tests share: the failure matrix and the simulation. Never shipped.

pub mod matrix;
pub mod simulation;
