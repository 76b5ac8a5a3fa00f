//! Guides for operators.

#[doc = include_str!("performance.md")]
pub mod performance {}
#[doc = include_str!("production.md")]
pub mod production {}
