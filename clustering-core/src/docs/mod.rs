//! Guides: how the library works, how to own keys exclusively, how to operate it, how to add a store, and the
//! protocol for other languages.

#[doc = include_str!("checked.md")]
pub mod checked {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[doc = include_str!("crystal.md")]
pub mod crystal {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("ownership.md")]
pub mod ownership {}

#[doc = include_str!("promises.md")]
pub mod promises {}

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("recipes.md")]
pub mod recipes {}

#[doc = include_str!("store.md")]
pub mod store {}
