//! Guides.

#[doc = include_str!("operators.md")]
pub mod operators {}
