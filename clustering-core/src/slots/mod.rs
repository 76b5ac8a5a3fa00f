//! Slots: the shares into which an exclusive cluster divides its keys, and their assignment to nodes.
//!
//! Every key belongs to one of a fixed number of slots. The leader assigns the slots to nodes when it publishes a
//! version, starting from the previous assignment, and writes the result into the log. All nodes therefore see the
//! same assignment, and only the leader has to know how it was computed.
//!
//! This module contains the mapping of keys to slots, the default [`Assignor`] and the stored form of an assignment.
//! Only [exclusive](crate::Builder::exclusive) clusters have slots; others place keys by
//! [`placement`](crate::placement). See [`docs::ownership`](crate::docs::ownership) for their use, and
//! [`docs::protocol`](crate::docs::protocol) for the rules by which they move.
//!
//! # Specification
//!
//! ```text
//! slot(key) = ⌊XXH3_64(bytes of key, seed = 0) · number of slots / 2^64⌋
//! ```

mod assignment;
mod balance;
mod set;

use std::fmt;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

pub use self::{
    assignment::{Assignment, Assignor, Balanced, Candidate},
    set::SlotSet,
};
use crate::name::InvalidInput;

/// The number of slots of a cluster: 1 to 4,096. It is fixed for the life of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SlotCount(u16);

impl SlotCount {
    /// The largest number of slots.
    pub const MAX: SlotCount = SlotCount(4096);

    /// Creates a `SlotCount` from the number of slots.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] if the number is 0 or above [`MAX`](Self::MAX).
    pub fn new(number: u16) -> Result<Self, InvalidInput> {
        match number {
            1..=4096 => Ok(SlotCount(number)),
            _ => Err(InvalidInput::new("slots", &number.to_string(), "it must be 1 to 4096")),
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns the slot that the key belongs to.
    pub fn slot_of(self, key: impl AsRef<[u8]>) -> Slot {
        let scaled = u128::from(xxh3_64(key.as_ref())) * u128::from(self.0);
        Slot((scaled >> 64) as u16)
    }

    /// Returns the slot with that number, if there is one.
    pub fn slot(self, number: u16) -> Option<Slot> {
        (number < self.0).then_some(Slot(number))
    }

    /// Returns all slots in ascending order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Slot> {
        (0..self.0).map(Slot)
    }
}

impl fmt::Display for SlotCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A slot, numbered from 0.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Returns the slot's number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_slots_are_limited() {
        for number in [0, 4097, u16::MAX] {
            let error = SlotCount::new(number).unwrap_err();
            let expected = format!("slots \"{number}\" cannot be used: it must be 1 to 4096");
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(SlotCount::new(4096), Ok(SlotCount::MAX));
    }

    /// Programs in other languages compute the same slots.
    #[test]
    fn slots_of_known_keys_never_change() {
        let slots = SlotCount::new(256).unwrap();
        let of = |key: &str| slots.slot_of(key).number();
        assert_eq!([of(""), of("device-1"), of("device-42"), of("ключ")], [45, 240, 244, 154]);
        assert_eq!(SlotCount::new(1).unwrap().slot_of("any").number(), 0);
    }

    #[test]
    fn keys_spread_evenly() {
        let slots = SlotCount::new(100).unwrap();
        let mut keys = [0; 100];
        for number in 0..100_000 {
            keys[usize::from(slots.slot_of(format!("key-{number}")).number())] += 1;
        }
        assert!(keys.iter().all(|keys| (850..1150).contains(keys)), "{keys:?}");
    }
}
