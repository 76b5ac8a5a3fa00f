use std::fmt;

use super::Slot;

/// A set of slots: one bit for each.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct SlotSet(Box<[u64]>);

impl SlotSet {
    /// True if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of slots in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True if the set contains `slot`.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.get(usize::from(slot.0) / 64).is_some_and(|word| word >> (slot.0 % 64) & 1 == 1)
    }

    /// Returns the slots in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let slots = |(place, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| Slot(place as u16 * 64 + bit))
        };
        self.0.iter().enumerate().flat_map(slots)
    }

    /// Returns the slots of both sets.
    #[must_use]
    pub fn union(&self, other: &SlotSet) -> SlotSet {
        self.merge(other, |a, b| a | b)
    }

    /// Returns the slots that both sets contain.
    #[must_use]
    pub fn intersection(&self, other: &SlotSet) -> SlotSet {
        self.merge(other, |a, b| a & b)
    }

    /// Returns the slots of this set that `other` does not contain.
    #[must_use]
    pub fn difference(&self, other: &SlotSet) -> SlotSet {
        self.merge(other, |a, b| a & !b)
    }

    /// True if `other` contains all slots of this set.
    pub fn is_subset(&self, other: &SlotSet) -> bool {
        self.difference(other).is_empty()
    }

    /// Combines both sets word by word. Words that are zero at the end are cut off, so that equal sets are equal.
    fn merge(&self, other: &SlotSet, combine: impl Fn(u64, u64) -> u64) -> SlotSet {
        let word = |set: &SlotSet, place: usize| set.0.get(place).copied().unwrap_or(0);
        let places = 0..self.0.len().max(other.0.len());
        trimmed(places.map(|place| combine(word(self, place), word(other, place))).collect())
    }
}

fn trimmed(mut words: Vec<u64>) -> SlotSet {
    let used = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    words.truncate(used);
    SlotSet(words.into())
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut words = Vec::new();
        for Slot(number) in slots {
            let place = usize::from(number) / 64;
            if words.len() <= place {
                words.resize(place + 1, 0);
            }
            words[place] |= 1 << (number % 64);
        }
        SlotSet(words.into())
    }
}

/// Formats the set as ranges, such as `0-3,7`.
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slots = self.iter().map(Slot::number).peekable();
        let mut separator = "";
        while let Some(first) = slots.next() {
            let mut last = first;
            while let Some(next) = slots.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

/// Serializes the set as a list of numbers.
impl serde::Serialize for SlotSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Slot::number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(numbers: &BTreeSet<u16>) -> SlotSet {
        numbers.iter().copied().map(Slot).collect()
    }

    fn numbers(set: &SlotSet) -> BTreeSet<u16> {
        set.iter().map(Slot::number).collect()
    }

    proptest! {
        #[test]
        fn sets_of_slots_behave_like_sets(
            a in prop::collection::btree_set(0u16..4096, 0..40),
            b in prop::collection::btree_set(0u16..200, 0..40),
        ) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(&numbers(&x), &a);
            prop_assert_eq!(numbers(&x.union(&y)), &a | &b);
            prop_assert_eq!(x.intersection(&y), set(&(&a & &b)));
            prop_assert_eq!(x.difference(&y), set(&(&a - &b)));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!((x.len(), x.is_empty()), (a.len(), a.is_empty()));
            prop_assert!((0..4096).all(|number| x.contains(Slot(number)) == a.contains(&number)));
        }
    }

    #[test]
    fn sets_are_displayed_as_ranges() {
        let shown = |numbers: &[u16]| set(&numbers.iter().copied().collect()).to_string();
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&[5]), "5");
        assert_eq!(shown(&[0, 1, 2, 3, 7, 63, 64, 4095]), "0-3,7,63-64,4095");
    }
}
