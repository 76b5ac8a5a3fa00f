//! A sorted map whose copies share what they have in common.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The most entries of a chunk.
const MOST: usize = 64;

/// A sorted map in chunks. A copy shares all chunks with its original; a change copies the one chunk that it changes,
/// and not even that where nobody shares it. So one that is not shared costs no more than a tree would, and less memory.
#[derive(Clone)]
pub(crate) struct Sorted<K, V> {
    /// None is empty.
    chunks: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { chunks: Vec::new(), len: 0 }
    }
}

impl<K, V> Sorted<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    /// The chunk in which the key stands or belongs, and where in it.
    fn find(&self, key: &K) -> (usize, Result<usize, usize>) {
        let place = self.chunks.partition_point(|chunk| chunk[0].0 <= *key).saturating_sub(1);
        let chunk = self.chunks.get(place).map_or(&[][..], |chunk| chunk);
        (place, chunk.binary_search_by(|(other, _)| other.cmp(key)))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (place, at) = self.find(key);
        at.ok().map(|at| &self.chunks[place][at].1)
    }

    /// Returns the value that stood there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (place, at) = self.find(&key);
        let at = match at {
            Ok(at) => {
                return Some(std::mem::replace(&mut Arc::make_mut(&mut self.chunks[place])[at].1, value));
            }
            Err(at) => at,
        };
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(place) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            return None;
        };
        if chunk.len() < MOST {
            Arc::make_mut(chunk).insert(at, (key, value));
        } else if at == MOST {
            // As it is with keys that come in order: the full chunk stays full.
            self.chunks.insert(place + 1, Arc::new(vec![(key, value)]));
        } else {
            let mut upper = Arc::make_mut(chunk).split_off(MOST / 2);
            match at.checked_sub(MOST / 2) {
                Some(at) => upper.insert(at, (key, value)),
                None => Arc::make_mut(chunk).insert(at, (key, value)),
            }
            self.chunks.insert(place + 1, Arc::new(upper));
        }
        None
    }

    /// Returns the value that stood there.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (place, at) = self.find(key);
        let (_, value) = Arc::make_mut(&mut self.chunks[at.ok().map(|_| place)?]).remove(at.ok()?);
        self.len -= 1;
        if self.chunks[place].is_empty() {
            self.chunks.remove(place);
        } else {
            self.merge(place);
            self.merge(place.wrapping_sub(1));
        }
        Some(value)
    }

    /// Makes one of a small chunk and the next one, if that is small as well.
    fn merge(&mut self, place: usize) {
        let small = |place: usize| self.chunks.get(place).is_some_and(|chunk| chunk.len() <= MOST / 4);
        if small(place) && small(place.wrapping_add(1)) {
            let next = self.chunks.remove(place + 1);
            Arc::make_mut(&mut self.chunks[place]).extend(next.iter().cloned());
        }
    }
}

impl<K: Eq, V: Eq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(mine, theirs): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(mine, theirs);
        self.len == other.len
            && (self.chunks.iter().zip(&other.chunks).all(same) || self.iter().eq(other.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for Sorted<K, V> {}

impl<K: Hash, V: Hash> Hash for Sorted<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len);
        self.iter().for_each(|entry| entry.hash(state));
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut sorted = Sorted::default();
        for (key, value) in entries {
            sorted.insert(key, value);
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, hash::DefaultHasher};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn hash(sorted: &Sorted<u16, u8>) -> u64 {
        let mut hasher = DefaultHasher::new();
        sorted.hash(&mut hasher);
        hasher.finish()
    }

    fn is_well_kept(sorted: &Sorted<u16, u8>) -> bool {
        sorted.chunks.iter().all(|chunk| (1..=MOST).contains(&chunk.len()))
            && sorted.chunks.iter().map(|chunk| chunk.len()).sum::<usize>() == sorted.len()
    }

    proptest! {
        /// Puts and removals, and copies taken on the way, against a tree.
        #[test]
        fn it_is_what_a_tree_is_and_copies_stay_as_they_were(
            steps in vec((any::<bool>(), 0..400u16, any::<u8>()), 0..1500),
            copy_every in 1..200usize,
        ) {
            let (mut sorted, mut tree) = (Sorted::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, (put, key, value)) in steps.into_iter().enumerate() {
                if number % copy_every == 0 {
                    copies.push((sorted.clone(), tree.clone()));
                }
                // More puts than removals, then more removals.
                if put || number % 1000 < 400 {
                    prop_assert_eq!(sorted.insert(key, value), tree.insert(key, value));
                } else {
                    prop_assert_eq!(sorted.remove(&key), tree.remove(&key));
                }
                prop_assert_eq!(sorted.get(&key), tree.get(&key));
                prop_assert!(is_well_kept(&sorted));
            }
            copies.push((sorted, tree));
            for (sorted, tree) in copies {
                prop_assert!(sorted.iter().eq(tree.iter()) && sorted.len() == tree.len());
                let anew: Sorted<u16, u8> = tree.into_iter().collect();
                prop_assert!(sorted == anew && hash(&sorted) == hash(&anew));
            }
        }
    }

    #[test]
    fn keys_that_come_in_order_fill_the_chunks_and_small_ones_become_one() {
        let mut sorted: Sorted<u16, u8> = (0..640).map(|key| (key, 0)).collect();
        assert_eq!(sorted.chunks.len(), 10);
        for key in (0..640).filter(|key| key % 64 >= 16) {
            sorted.remove(&key);
        }
        assert_eq!((sorted.len(), sorted.chunks.len()), (160, 5));
    }

    #[test]
    fn what_differs_is_not_equal() {
        let sorted: Sorted<u16, u8> = (0..100).map(|key| (key, 0)).collect();
        let mut other = sorted.clone();
        assert_eq!(sorted, other);
        other.insert(99, 1);
        assert_ne!(sorted, other);
        other.insert(99, 0);
        assert_eq!(sorted, other);
        other.remove(&99);
        assert_ne!(sorted, other);
        assert!(!other.is_empty() && Sorted::<u16, u8>::default().is_empty());
    }

    #[test]
    fn a_change_copies_one_chunk() {
        let sorted: Sorted<u16, u8> = (0..640).map(|key| (key, 0)).collect();
        let mut other = sorted.clone();
        other.insert(5, 1);
        other.remove(&6);
        let shared = sorted.chunks.iter().zip(&other.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, 9);
    }
}
