use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Slot, SlotCount, balance::balance};
use crate::{name::NodeName, node::Node, placement::Weight};

/// Decides which node owns which slot. The leader calls it when it publishes a version.
///
/// An assignor must be pure, and stable: given its own result as the previous assignment, it must return the same
/// result again. Otherwise the leader publishes one more version and reports it.
pub trait Assignor: fmt::Debug + Send + Sync + 'static {
    /// Returns the owner of each slot in `slots` as an index into `candidates`, or `None` for no owner.
    ///
    /// `slots` contains the slots to assign in ascending order, each with the index of its owner in the previous
    /// assignment, or `None` if it had no owner or its owner is no candidate. Slots that wait for an absent node, for
    /// example during its [restart grace](crate::Config::restart_grace), are left out. The result must have as many
    /// entries as `slots`.
    fn assign(&self, slots: &[(Slot, Option<usize>)], candidates: &[Candidate<'_>]) -> Vec<Option<usize>>;
}

/// A node that slots can be assigned to.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The node, with its metadata.
    pub node: &'a Node,
    /// The node's weight; 0 if it is cordoned.
    pub weight: Weight,
}

/// The default assignor. It balances exactly by weight and moves the fewest slots that this balance allows.
///
/// Nodes of equal weight own the same number of slots, or differ by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Balanced;

impl Balanced {
    /// Returns the owner of each slot as [`Assignor::assign`] does, given the previous owner of each slot and
    /// candidates that have only a weight. Tools use this to show which slots would move if the nodes changed.
    pub fn assign_by_weight(previous: &[Option<usize>], weights: &[Weight]) -> Vec<Option<usize>> {
        let weights: Vec<u32> = weights.iter().map(|weight| weight.get()).collect();
        balance(previous, &weights)
    }
}

impl Assignor for Balanced {
    fn assign(&self, slots: &[(Slot, Option<usize>)], candidates: &[Candidate<'_>]) -> Vec<Option<usize>> {
        let previous: Vec<Option<usize>> = slots.iter().map(|(_, owner)| *owner).collect();
        let weights: Vec<Weight> = candidates.iter().map(|candidate| candidate.weight).collect();
        Balanced::assign_by_weight(&previous, &weights)
    }
}

/// The owner of each slot, as stored with a version.
///
/// Owners are identified by the hash of their names, so the size does not depend on the lengths of the names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Assignment {
    /// Hashes of the names of all owners, in ascending order.
    owners: Box<[u64]>,
    /// For each slot the index of its owner, or [`UNOWNED`].
    slots: Box<[u16]>,
}

/// Index of a slot without an owner.
const UNOWNED: u16 = u16::MAX;

/// JSON of an assignment.
#[derive(Serialize, Deserialize)]
struct Record {
    /// The number of slots.
    slots: u16,
    /// Base64 of the hashes, 8 bytes each, and the index of each slot's owner, 2 bytes each, in little-endian order.
    owners: String,
}

impl Assignment {
    /// Creates an assignment from the owner of each slot.
    pub fn new<'a>(slots: SlotCount, owner: impl Fn(Slot) -> Option<&'a NodeName>) -> Self {
        let owned: Vec<Option<u64>> = slots.iter().map(|slot| owner(slot).map(hash)).collect();
        let mut owners: Vec<u64> = owned.iter().flatten().copied().collect();
        owners.sort_unstable();
        owners.dedup();
        let index = |owner: &u64| owners.binary_search(owner).map_or(UNOWNED, |index| index as u16);
        let slots = owned.iter().map(|owner| owner.as_ref().map_or(UNOWNED, index)).collect();
        Assignment { owners: owners.into(), slots }
    }

    /// Returns the number of slots.
    pub fn count(&self) -> SlotCount {
        SlotCount(self.slots.len() as u16)
    }

    /// Returns the slots that the node owns, in ascending order.
    pub fn of(&self, name: &NodeName) -> impl Iterator<Item = Slot> {
        let index = self.owners.binary_search(&hash(name)).map_or(UNOWNED, |index| index as u16);
        let is_its = move |(_, owner): &(Slot, &u16)| index != UNOWNED && **owner == index;
        self.count().iter().zip(&self.slots).filter(is_its).map(|(slot, _)| slot)
    }

    /// Returns the number of owners.
    pub(crate) fn owners(&self) -> usize {
        self.owners.len()
    }

    /// True if the node with that name owns slots.
    pub(crate) fn has_owner(&self, name: &NodeName) -> bool {
        self.owners.binary_search(&hash(name)).is_ok()
    }

    /// True if the node with that name owns the slot.
    pub fn is_owner(&self, slot: Slot, name: &NodeName) -> bool {
        let owner =
            self.slots.get(usize::from(slot.number())).and_then(|owner| self.owners.get(usize::from(*owner)));
        owner == Some(&hash(name))
    }

    /// Returns the owner of each slot as an index into `names`, or `None` if it has no owner or its owner is not among
    /// the names.
    pub fn among<'a>(&self, names: impl IntoIterator<Item = &'a NodeName>) -> Vec<Option<usize>> {
        let mut places = vec![None; self.owners.len()];
        for (place, name) in names.into_iter().enumerate() {
            if let Ok(index) = self.owners.binary_search(&hash(name)) {
                places[index] = Some(place);
            }
        }
        self.slots.iter().map(|owner| places.get(usize::from(*owner)).copied().flatten()).collect()
    }

    /// Encodes the assignment as it is stored. An assignment of 4,096 slots to 4,096 owners takes less than 54,656
    /// bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * self.owners.len() + 2 * self.slots.len());
        self.owners.iter().for_each(|owner| bytes.extend(owner.to_le_bytes()));
        self.slots.iter().for_each(|index| bytes.extend(index.to_le_bytes()));
        let record = Record { slots: self.count().get(), owners: STANDARD.encode(bytes) };
        serde_json::to_vec(&record).expect("a number and a text can be written as JSON")
    }

    /// Decodes a stored assignment.
    ///
    /// # Errors
    ///
    /// A description of the defect in the stored value.
    pub fn decode(value: &[u8]) -> Result<Self, String> {
        let record: Record = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let count = SlotCount::new(record.slots).map_err(|error| error.to_string())?;
        let bytes = STANDARD.decode(record.owners).map_err(|error| format!("owners: {error}"))?;
        let hashes = bytes.len().checked_sub(2 * usize::from(count.get())).filter(|hashes| hashes % 8 == 0);
        let Some(hashes) = hashes else {
            return Err(format!("owners: {} bytes do not fit {} slots", bytes.len(), count.get()));
        };
        let (hashes, indices) = bytes.split_at(hashes);
        let owners: Box<[u64]> = hashes.as_chunks().0.iter().copied().map(u64::from_le_bytes).collect();
        let slots: Box<[u16]> = indices.as_chunks().0.iter().copied().map(u16::from_le_bytes).collect();
        if !owners.is_sorted_by(|a, b| a < b) {
            return Err("owners: the hashes are not in ascending order".into());
        }
        match slots.iter().find(|index| **index != UNOWNED && usize::from(**index) >= owners.len()) {
            Some(index) => Err(format!("owners: index {index} exceeds the {} owners", owners.len())),
            None => Ok(Assignment { owners, slots }),
        }
    }
}

fn hash(name: &NodeName) -> u64 {
    xxh3_64(name.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: usize) -> NodeName {
        NodeName::parse(&format!("node-{number}")).unwrap()
    }

    fn assignment(owners: &[Option<usize>]) -> Assignment {
        let names: Vec<NodeName> = (0..owners.len().max(30)).map(name).collect();
        let owner = |slot: Slot| owners[usize::from(slot.number())].map(|owner| &names[owner]);
        Assignment::new(SlotCount::new(owners.len() as u16).unwrap(), owner)
    }

    proptest! {
        #[test]
        fn assignments_survive_encoding(owners in prop::collection::vec(prop::option::of(0usize..30), 1..500)) {
            let assignment = assignment(&owners);
            prop_assert_eq!(Assignment::decode(&assignment.encode()), Ok(assignment.clone()));
            let names: Vec<NodeName> = (0..30).map(name).collect();
            prop_assert_eq!(&assignment.among(&names), &owners);
            for (slot, owner) in assignment.count().iter().zip(&owners) {
                let is_owner = names.iter().map(|name| assignment.is_owner(slot, name));
                prop_assert!(is_owner.eq((0..30).map(|number| *owner == Some(number))));
            }
            for (number, name) in names.iter().enumerate() {
                let slots: Vec<u16> = assignment.of(name).map(Slot::number).collect();
                let expected = (0..owners.len()).filter(|slot| owners[*slot] == Some(number));
                prop_assert_eq!(slots, expected.map(|slot| slot as u16).collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_value_is_decoded_or_refused(value in prop::collection::vec(any::<u8>(), 0..100), slots in any::<u16>()) {
            let record = Record { slots, owners: STANDARD.encode(&value) };
            let _ = Assignment::decode(&serde_json::to_vec(&record).unwrap());
            let _ = Assignment::decode(&value);
        }
    }

    #[test]
    fn the_largest_assignment_fits_into_a_value() {
        let owners: Vec<Option<usize>> = (0..4096).map(Some).collect();
        let size = assignment(&owners).encode().len();
        assert!(size < 54_656, "{size}");
    }

    #[test]
    fn errors_say_what_does_not_fit() {
        let error = |slots, bytes: &[u8]| {
            let record = Record { slots, owners: STANDARD.encode(bytes) };
            Assignment::decode(&serde_json::to_vec(&record).unwrap()).unwrap_err()
        };
        assert_eq!(error(0, &[]), "slots \"0\" cannot be used: it must be 1 to 4096");
        assert_eq!(error(2, &[0; 3]), "owners: 3 bytes do not fit 2 slots");
        assert_eq!(error(1, &[0; 9]), "owners: 9 bytes do not fit 1 slots");
        assert_eq!(error(1, &[0, 0]), "owners: index 0 exceeds the 0 owners");
        assert_eq!(error(1, &[0; 18]), "owners: the hashes are not in ascending order");
    }

    #[test]
    fn names_that_are_absent_own_nothing() {
        let assignment = assignment(&[Some(1), None, Some(2)]);
        assert_eq!(assignment.among([&name(2), &name(3)]), [None, None, Some(0)]);
        assert_eq!(assignment.of(&name(3)).count(), 0);
        assert_eq!(assignment.count().get(), 3);
    }
}
