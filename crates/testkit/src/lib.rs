//! What the project's tests share: the failure matrix. Never shipped.

pub mod matrix;
