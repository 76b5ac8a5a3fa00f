//! Placement, pinned: programs in other languages place alike, and no release ever moves a key.
//!
//! `placement_golden.txt` was made by an implementation of its own, in Python, of what the page of
//! [`placement`](clustering_core::placement) says: XXH3 by the `xxhash` package, the logarithm by `decimal` with 120
//! digits. It is not to be made anew from this crate.

use clustering_core::placement::{Placement, Weight};

/// One set of members and the lines of keys under it.
fn check(members: &str, lines: &[&str]) {
    let members = members.split(", ").map(|member| {
        let (name, weight) = member.rsplit_once('*').expect("name*weight");
        (name, weight.parse::<Weight>().expect("a weight"))
    });
    let members: Vec<(&str, Weight)> = members.collect();
    let placement = Placement::new(members.iter().copied());
    for line in lines {
        let (key, line) = line.split_once('\t').expect("key, tab, names");
        let expected: Vec<&str> = line.split(" | ").filter(|name| !name.is_empty()).collect();
        let key = read_key(key);
        let names = |line: Vec<usize>| line.into_iter().map(|index| members[index].0).collect::<Vec<_>>();
        assert_eq!(names(placement.find_n(&key, usize::MAX)), expected, "{key:?} among {members:?}");
        assert_eq!(placement.find(&key).map(|index| members[index].0), expected.first().copied());
        for n in 0..expected.len() {
            assert_eq!(names(placement.find_n(&key, n)), expected[..n]);
        }
    }
}

/// Hexadecimal; a byte, a star and a number is that byte so often.
fn read_key(text: &str) -> Vec<u8> {
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |place| u8::from_str_radix(&hex[place..place + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    match text.split_once('*') {
        Some((byte, times)) => bytes(byte).repeat(times.parse().expect("a number")),
        None => bytes(text),
    }
}

#[test]
fn keys_are_placed_where_they_always_were() {
    let sets = include_str!("placement_golden.txt").split("\n= ").skip(1);
    let mut checked = 0;
    for set in sets {
        let mut lines = set.lines();
        let (_, members) = lines.next().and_then(|line| line.split_once(": ")).expect("name: members");
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        check(members, &lines);
        checked += lines.len();
    }
    assert_eq!(checked, 480);
}
