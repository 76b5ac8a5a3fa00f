//! Which node owns which key: rendezvous hashing with whole-number weights.
//!
//! Each node draws a number for each key, and the largest draw owns it. When a node leaves, only its keys move, and
//! they spread over all others; when one joins, it takes an even share from each. There is no table to agree on: nodes
//! with the same view place the same.
//!
//! # Exactly
//!
//! So that programs in other languages can place alike, and releases never move a key:
//!
//! ```text
//! draw(node, key) = XXH3_64(bytes of key, seed = XXH3_64(bytes of node's name, seed = 0))
//! cost(node, key) = −log2((draw + 1) / 2^64) / weight
//! ```
//!
//! The node of least cost owns the key; among equal weights that is the one of largest draw. On equal costs the name
//! that sorts first (by bytes) wins. The logarithm is computed with whole numbers, 56 bits behind the point, so the
//! result is the same on every machine. A node of weight 2 owns twice the keys of one of weight 1; one of weight 0 owns
//! none. When a weight changes, keys move only to or from that node.

use std::{cmp::Ordering, num::ParseIntError, str::FromStr};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The share of keys that a node takes, relative to the others: 1 by default, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// Twice the number is twice the keys.
    pub const fn new(weight: u32) -> Self {
        Weight(weight)
    }

    /// Its number.
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

/// Places keys on members that are known by their index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Members of the same weight, in the order of their names. Nearly always one group: then no logarithm is needed.
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

/// A member's bid for a key. The least bid owns it.
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
            // cost / weight, cross-multiplied so that nothing is rounded.
            let this = u128::from(neg_log2(self.draw)) * u128::from(other.weight);
            let that = u128::from(neg_log2(other.draw)) * u128::from(self.weight);
            this.cmp(&that)
        };
        by_cost.then(self.member.cmp(&other.member))
    }
}

/// Up to so many bids it is faster to keep the best in order than to sort all.
const FEW: usize = 8;

/// The least `n` bids, in order, with one look at each.
fn the_few_best(bids: impl Iterator<Item = Bid>, n: usize) -> Vec<Bid> {
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

/// The least `n` bids, in order.
fn the_best(mut bids: Vec<Bid>, n: usize) -> Vec<Bid> {
    if n < bids.len() {
        bids.select_nth_unstable_by(n, Bid::cmp);
        bids.truncate(n);
    }
    bids.sort_unstable_by(Bid::cmp);
    bids
}

impl Placement {
    /// Places on the members given, by name and weight, sorted by name. A member's index is its place in that order.
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

    /// The index of the owner, or `None` if no member takes keys.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let best_of = |group: &Group| {
            // Seats stand in the order of their names, and only a strictly larger draw takes over: ties go to the first.
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

    /// The indices of the first `n` in the order of their bids: the owner, then who would own the key if those before
    /// it left. Fewer if fewer take keys.
    pub fn find_n(&self, key: &[u8], n: usize) -> Vec<usize> {
        let bid = |group: &Group, seat: &Seat| Bid {
            draw: xxh3_64_with_seed(key, seat.seed),
            weight: group.weight,
            member: seat.member,
        };
        let bids = self.groups.iter().flat_map(|group| group.seats.iter().map(move |seat| bid(group, seat)));
        let best = if n <= FEW { the_few_best(bids, n) } else { the_best(bids.collect(), n) };
        best.into_iter().map(|bid| bid.member as usize).collect()
    }
}

/// −log2((draw + 1) / 2^64), with 56 bits behind the point. Whole numbers only, so it is the same everywhere.
fn neg_log2(draw: u64) -> u64 {
    const BITS: u32 = 56;
    let Some(x) = draw.checked_add(1) else { return 0 };
    let exponent = x.ilog2();
    // The mantissa, from 1 to below 2, with 63 bits behind the point. Squaring it doubles its logarithm; each time that
    // it reaches 2 the next bit of the logarithm is a one.
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
    fn the_logarithm_is_right() {
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
    fn it_falls_while_the_draw_grows_also_next_to_the_top() {
        let step = 1 << 40;
        let mut last = u64::MAX;
        for n in (0..1000).rev() {
            let cost = neg_log2(u64::MAX - n * step);
            assert!(cost < last);
            last = cost;
        }
    }

    #[test]
    fn only_the_keys_of_the_one_that_leaves_move() {
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
    fn the_next_in_line_is_who_would_own_it() {
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
    fn weights_share_out_and_move_keys_only_to_or_from_their_node() {
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
    fn few_or_many_in_line_are_in_the_same_order() {
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
    fn of_equal_draws_the_first_in_the_order_of_names_wins() {
        let twins = even(&["a", "b", "b"]);
        let ours: Vec<_> = keys(100).filter(|key| twins.find(key.as_bytes()) != Some(0)).collect();
        assert!((40..90).contains(&ours.len()), "{}", ours.len());
        for key in ours {
            assert_eq!(twins.find(key.as_bytes()), Some(1));
            assert_eq!(twins.find_n(key.as_bytes(), 3)[..2], [1, 2]);
        }
    }

    #[test]
    fn weight_zero_takes_nothing() {
        let some = Placement::new([("a", Weight(0)), ("b", Weight(1))]);
        assert!(keys(100).all(|key| some.find(key.as_bytes()) == Some(1)));
        let none = Placement::new([("a", Weight(0))]);
        assert_eq!((none.find(b"k"), none.find_n(b"k", 2)), (None, vec![]));
    }
}
