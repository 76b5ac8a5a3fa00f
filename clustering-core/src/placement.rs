//! Assignment of keys to nodes by rendezvous hashing with integer weights.
//!
//! Each node draws a pseudorandom number for each key, and the node with the largest draw owns the key. When a node
//! leaves, only its keys move, and they spread over all other nodes; when a node joins, it takes an even share from
//! each of them. There is no table to agree on: nodes with the same view compute the same owners.
//!
//! # Specification
//!
//! The algorithm is fixed, so that programs in other languages can compute the same owners and a new release never
//! moves a key:
//!
//! ```text
//! draw(node, key) = XXH3_64(bytes of key, seed = XXH3_64(bytes of node's name, seed = 0))
//! cost(node, key) = −log2((draw + 1) / 2^64) / weight
//! ```
//!
//! The node with the lowest cost owns the key; among nodes of equal weight this is the node with the largest draw. If
//! costs are equal, the node whose name sorts first (by bytes) wins. The logarithm is computed in fixed point with 56
//! fractional bits, so the result is the same on every machine. A node of weight 2 owns twice as many keys as a node of
//! weight 1; a node of weight 0 owns none. When the weight of a node changes, keys move only to or from that node.

use std::{cmp::Ordering, num::ParseIntError, str::FromStr};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The share of keys that a node owns, relative to other nodes. The default is 1; a node of weight 0 owns no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// Creates a weight. A node with twice the weight owns twice as many keys.
    pub const fn new(weight: u32) -> Self {
        Weight(weight)
    }

    /// Returns the weight as a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Weight(1)
    }
}

impl FromStr for Weight {
    type Err = ParseIntError;
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Weight)
    }
}

/// Assigns keys to members, which are identified by their index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Members grouped by weight; each group is in name order. There is nearly always a single group, in which case no
    /// logarithm has to be computed.
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    weight: u32,
    seats: Vec<Seat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seat {
    seed: u64,
    member: u32,
}

/// A member's bid for a key. The member with the lowest bid owns the key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bid {
    draw: u64,
    weight: u32,
    member: u32,
}

impl Bid {
    fn cmp(&self, other: &Bid) -> Ordering {
        let by_cost = if self.weight == other.weight {
            other.draw.cmp(&self.draw)
        } else {
            // Compares cost / weight, cross-multiplied to avoid rounding.
            let this = u128::from(neg_log2(self.draw)) * u128::from(other.weight);
            let that = u128::from(neg_log2(other.draw)) * u128::from(self.weight);
            this.cmp(&that)
        };
        by_cost.then(self.member.cmp(&other.member))
    }
}

/// Largest number of bids for which [`select_few`] is faster than [`select_many`].
const FEW: usize = 8;

/// Returns the `n` lowest bids in ascending order, by inserting each bid into a short sorted list.
fn select_few(bids: impl Iterator<Item = Bid>, n: usize) -> Vec<Bid> {
    let mut best: Vec<Bid> = Vec::with_capacity(n + 1);
    for bid in bids {
        if best.len() == n && best.last().is_none_or(|worst| bid.cmp(worst).is_ge()) {
            continue;
        }
        let place = best.partition_point(|better| better.cmp(&bid).is_lt());
        best.insert(place, bid);
        best.truncate(n);
    }
    best
}

/// Returns the `n` lowest bids in ascending order, by partitioning and then sorting them.
fn select_many(mut bids: Vec<Bid>, n: usize) -> Vec<Bid> {
    if n < bids.len() {
        bids.select_nth_unstable_by(n, Bid::cmp);
        bids.truncate(n);
    }
    bids.sort_unstable_by(Bid::cmp);
    bids
}

impl Placement {
    /// Creates a placement on the given members, which must be sorted by name. A member's index is its position in
    /// `members`.
    pub fn new<'a>(members: impl IntoIterator<Item = (&'a str, Weight)>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for (member, (name, Weight(weight))) in (0..).zip(members) {
            if weight == 0 {
                continue;
            }
            let seat = Seat { seed: xxh3_64(name.as_bytes()), member };
            match groups.iter_mut().find(|group| group.weight == weight) {
                Some(group) => group.seats.push(seat),
                None => groups.push(Group { weight, seats: vec![seat] }),
            }
        }
        Placement { groups }
    }

    /// Returns the index of the member that owns the key, or `None` if no member has a weight above 0.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let best_of = |group: &Group| {
            // Seats are in name order and only a strictly larger draw replaces the best so far, so a tie goes to the
            // first name.
            let mut best: Option<(u64, u32)> = None;
            for seat in &group.seats {
                let draw = xxh3_64_with_seed(key, seat.seed);
                if best.is_none_or(|(largest, _)| draw > largest) {
                    best = Some((draw, seat.member));
                }
            }
            best.map(|(draw, member)| Bid { draw, weight: group.weight, member })
        };
        self.groups.iter().filter_map(best_of).min_by(Bid::cmp).map(|bid| bid.member as usize)
    }

    /// Returns the indices of the `n` members with the lowest bids, in ascending order of their bids.
    ///
    /// The first is the owner; each of the others would own the key if all members before it left. Fewer than `n`
    /// indices are returned if fewer members have a weight above 0.
    pub fn find_n(&self, key: &[u8], n: usize) -> Vec<usize> {
        let bid = |group: &Group, seat: &Seat| Bid {
            draw: xxh3_64_with_seed(key, seat.seed),
            weight: group.weight,
            member: seat.member,
        };
        let bids = self.groups.iter().flat_map(|group| group.seats.iter().map(move |seat| bid(group, seat)));
        let best = if n <= FEW { select_few(bids, n) } else { select_many(bids.collect(), n) };
        best.into_iter().map(|bid| bid.member as usize).collect()
    }
}

/// Computes −log2((draw + 1) / 2^64) with 56 fractional bits. The computation uses integers only, so that the result is
/// the same on every machine.
fn neg_log2(draw: u64) -> u64 {
    const BITS: u32 = 56;
    let Some(x) = draw.checked_add(1) else { return 0 };
    let exponent = x.ilog2();
    // The mantissa is in [1, 2), with 63 fractional bits. Squaring it doubles its logarithm; whenever the square
    // reaches 2, the next bit of the logarithm is a one and the square is halved.
    let mut mantissa = x << (63 - exponent);
    let mut fraction = 0u64;
    for _ in 0..BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carry = (square >> 127) as u64;
        mantissa = (square >> (63 + carry)) as u64;
        fraction = (fraction << 1) | carry;
    }
    (64 << BITS) - ((u64::from(exponent) << BITS) | fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(names: &[&'static str]) -> Placement {
        Placement::new(names.iter().map(|name| (*name, Weight::default())))
    }

    fn keys(n: usize) -> impl Iterator<Item = String> {
        (0..n).map(|n| format!("device-{n}"))
    }

    #[test]
    fn the_logarithm_matches_floating_point() {
        for draw in [
            0,
            1,
            2,
            12_345,
            u64::from(u32::MAX),
            u64::MAX / 3,
            u64::MAX / 2,
            u64::MAX - 10_000,
            u64::MAX - 1,
        ] {
            let exact = 64.0 - ((draw as f64) + 1.0).log2();
            let ours = neg_log2(draw) as f64 / (1u64 << 56) as f64;
            assert!((exact - ours).abs() < 1e-9, "{draw}: {exact} {ours}");
        }
        assert_eq!(neg_log2(u64::MAX), 0);
        assert_eq!(neg_log2(0), 64 << 56);
        assert_eq!(neg_log2(u64::MAX / 2), 1 << 56);
    }

    #[test]
    fn the_cost_falls_strictly_as_the_draw_grows_near_the_maximum() {
        let step = 1 << 40;
        let mut last = u64::MAX;
        for n in (0..1000).rev() {
            let cost = neg_log2(u64::MAX - n * step);
            assert!(cost < last);
            last = cost;
        }
    }

    #[test]
    fn only_the_keys_of_a_leaving_node_move() {
        let before = ["a", "b", "c", "d", "e"];
        let after = ["a", "b", "d", "e"];
        let (old, new) = (even(&before), even(&after));
        let mut moved = 0;
        for key in keys(10_000) {
            let was = before[old.find(key.as_bytes()).unwrap()];
            let is = after[new.find(key.as_bytes()).unwrap()];
            if was == "c" {
                moved += 1;
            } else {
                assert_eq!(was, is, "{key}");
            }
        }
        assert!((1_800..2_200).contains(&moved), "{moved}");
    }

    #[test]
    fn the_second_candidate_owns_the_key_once_the_owner_has_left() {
        let names = ["a", "b", "c", "d", "e"];
        let all = even(&names);
        for key in keys(1_000) {
            let line = all.find_n(key.as_bytes(), 3);
            assert_eq!(Some(line[0]), all.find(key.as_bytes()));
            let without: Vec<_> = names.iter().copied().filter(|name| *name != names[line[0]]).collect();
            assert_eq!(without[even(&without).find(key.as_bytes()).unwrap()], names[line[1]]);
            assert_eq!(all.find_n(key.as_bytes(), 9).len(), 5);
            assert_eq!(all.find_n(key.as_bytes(), 9)[..3], line);
        }
        assert!(all.find_n(b"k", 0).is_empty());
    }

    #[test]
    fn keys_are_shared_by_weight_and_a_weight_change_moves_keys_only_to_or_from_its_node() {
        let place = |b| Placement::new([("a", Weight(1)), ("b", Weight(b)), ("c", Weight(2))]);
        let (light, heavy) = (place(1), place(5));
        let mut counts = [0; 3];
        for key in keys(40_000) {
            let was = light.find(key.as_bytes()).unwrap();
            let is = heavy.find(key.as_bytes()).unwrap();
            assert!(was == is || is == 1, "{key}: {was} {is}");
            assert_eq!(heavy.find_n(key.as_bytes(), 1), [is]);
            counts[is] += 1;
        }
        for (count, weight) in counts.into_iter().zip([1, 5, 2]) {
            assert!((weight * 4_700..weight * 5_300).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn both_selection_algorithms_return_the_same_order() {
        let names: Vec<String> = (0..40).map(|number| format!("n{number:02}")).collect();
        let weights = [1, 2, 5].map(Weight).into_iter().cycle();
        let all = Placement::new(names.iter().map(String::as_str).zip(weights));
        for key in keys(200) {
            let line = all.find_n(key.as_bytes(), names.len());
            assert_eq!(line.len(), names.len());
            for n in [0, 1, 2, FEW - 1, FEW, FEW + 1, 39] {
                assert_eq!(all.find_n(key.as_bytes(), n), line[..n], "{n} of {key}");
            }
        }
    }

    #[test]
    fn equal_draws_go_to_the_first_name() {
        let twins = even(&["a", "b", "b"]);
        let ours: Vec<_> = keys(100).filter(|key| twins.find(key.as_bytes()) != Some(0)).collect();
        assert!((40..90).contains(&ours.len()), "{}", ours.len());
        for key in ours {
            assert_eq!(twins.find(key.as_bytes()), Some(1));
            assert_eq!(twins.find_n(key.as_bytes(), 3)[..2], [1, 2]);
        }
    }

    #[test]
    fn a_node_of_weight_zero_owns_nothing() {
        let some = Placement::new([("a", Weight(0)), ("b", Weight(1))]);
        assert!(keys(100).all(|key| some.find(key.as_bytes()) == Some(1)));
        let none = Placement::new([("a", Weight(0))]);
        assert_eq!((none.find(b"k"), none.find_n(b"k", 2)), (None, vec![]));
    }
}
