//! The default assignment: exactly balanced by weight, with the fewest moves that this balance allows.

use std::cmp::Reverse;

/// Assigns each slot to a member. Members are indices into `weights`; `previous` has the owner of each slot, or `None`
/// if the owner is not a member any more.
///
/// Each member receives its share by the largest remainder method. Where remainders are equal, the additional slots go
/// to members that already own more than the rest, so that as few slots as possible move. Returns `None` for every slot
/// if no member has a weight above 0.
pub(super) fn balance(previous: &[Option<usize>], weights: &[u32]) -> Vec<Option<usize>> {
    let mut held = vec![0; weights.len()];
    for owner in previous.iter().flatten() {
        held[*owner] += 1;
    }
    let Some(shares) = shares(previous.len(), weights, &held) else { return vec![None; previous.len()] };
    let mut room = shares;
    let mut owners: Vec<Option<usize>> = previous
        .iter()
        .map(|owner| owner.filter(|owner| room[*owner] > 0).inspect(|owner| room[*owner] -= 1))
        .collect();
    // Dealing the free slots out in turns spreads neighbouring slots over the members.
    let mut member = 0;
    for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
        while room[member % weights.len()] == 0 {
            member += 1;
        }
        let receiver = member % weights.len();
        room[receiver] -= 1;
        *owner = Some(receiver);
        member += 1;
    }
    owners
}

/// Returns the number of slots that each member is due, or `None` if no member has a weight above 0.
fn shares(slots: usize, weights: &[u32], held: &[usize]) -> Option<Vec<usize>> {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    if total == 0 {
        return None;
    }
    let exact = |weight: &u32| slots as u64 * u64::from(*weight);
    let mut shares: Vec<usize> = weights.iter().map(|weight| (exact(weight) / total) as usize).collect();
    let left = slots - shares.iter().sum::<usize>();
    let mut order: Vec<usize> = (0..weights.len()).filter(|member| weights[*member] > 0).collect();
    let claim = |member: &usize| (exact(&weights[*member]) % total, held[*member] > shares[*member]);
    order.sort_by_key(|member| Reverse(claim(member)));
    for member in order.into_iter().take(left) {
        shares[member] += 1;
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(owners: &[Option<usize>], members: usize) -> Vec<usize> {
        (0..members).map(|member| owners.iter().filter(|owner| **owner == Some(member)).count()).collect()
    }

    fn moves(previous: &[Option<usize>], owners: &[Option<usize>]) -> usize {
        previous.iter().zip(owners).filter(|(before, after)| before != after).count()
    }

    /// True if the counts follow from the largest remainder method, with any choice among equal remainders.
    fn is_balanced(counts: &[usize], slots: usize, weights: &[u32]) -> bool {
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let floor = |member: usize| (slots as u64 * u64::from(weights[member]) / total) as usize;
        let remainder = |member: usize| slots as u64 * u64::from(weights[member]) % total;
        let members = 0..weights.len();
        let extra = |member: &usize| counts[*member] == floor(*member) + 1;
        let fits = members.clone().all(|member| counts[member] == floor(member) || extra(&member));
        let least_extra = members.clone().filter(extra).map(remainder).min().unwrap_or(u64::MAX);
        let most_without = members.filter(|member| !extra(member)).map(remainder).max().unwrap_or(0);
        counts.iter().sum::<usize>() == slots && fits && least_extra >= most_without
    }

    /// Calls `check` with every assignment of the slots to the members.
    fn each(slots: usize, members: usize, mut check: impl FnMut(&[Option<usize>])) {
        for number in 0..members.pow(slots as u32) {
            let owner = |slot: usize| Some(number / members.pow(slot as u32) % members);
            check(&(0..slots).map(owner).collect::<Vec<_>>());
        }
    }

    fn case(slots: usize, members: usize) -> impl Strategy<Value = (Vec<Option<usize>>, Vec<u32>)> {
        (1..=slots, 1..=members).prop_flat_map(|(slots, members)| {
            let owner = prop::option::of(0..members);
            (prop::collection::vec(owner, slots), prop::collection::vec(0u32..5, members))
        })
    }

    proptest! {
        #[test]
        fn no_balanced_assignment_moves_fewer_slots((previous, weights) in case(6, 3)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let owners = balance(&previous, &weights);
            prop_assert!(is_balanced(&counts(&owners, weights.len()), previous.len(), &weights));
            let mut fewest = usize::MAX;
            each(previous.len(), weights.len(), |other| {
                if is_balanced(&counts(other, weights.len()), previous.len(), &weights) {
                    fewest = fewest.min(moves(&previous, other));
                }
            });
            prop_assert_eq!(moves(&previous, &owners), fewest);
        }

        #[test]
        fn shares_of_large_clusters_are_balanced((previous, weights) in case(1000, 60)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let owners = balance(&previous, &weights);
            prop_assert!(owners.iter().all(Option::is_some));
            prop_assert!(is_balanced(&counts(&owners, weights.len()), previous.len(), &weights));
        }

        #[test]
        fn a_balanced_assignment_stays_as_it_is((previous, weights) in case(300, 20)) {
            let owners = balance(&previous, &weights);
            prop_assert_eq!(balance(&owners, &weights), owners);
        }

        #[test]
        fn members_of_equal_weight_differ_by_one_slot_at_most(
            previous in prop::collection::vec(prop::option::of(0usize..17), 1..600),
            weight in 1u32..=u32::MAX,
        ) {
            let counts = counts(&balance(&previous, &[weight; 17]), 17);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }

        /// The slots of an absent member stay unassigned until the member is back.
        #[test]
        fn no_slot_moves_while_some_members_of_equal_weight_are_away_or_when_they_are_back(
            previous in prop::collection::vec(prop::option::of(0usize..17), 1..600),
            away in prop::collection::btree_set(0usize..17, 1..16),
            weight in 1u32..=u32::MAX,
        ) {
            let before = balance(&previous, &[weight; 17]);
            let present: Vec<usize> = (0..17).filter(|member| !away.contains(member)).collect();
            let place = |owner: &Option<usize>| present.binary_search(&owner.unwrap()).ok();
            let meanwhile: Vec<Option<usize>> = before.iter().map(place).filter(Option::is_some).collect();
            let weights = vec![weight; present.len()];
            prop_assert_eq!(balance(&meanwhile, &weights), meanwhile);
            prop_assert_eq!(balance(&before, &[weight; 17]), before);
        }
    }

    #[test]
    fn without_weight_nobody_owns_a_slot() {
        assert_eq!(balance(&[Some(0), None], &[0, 0]), [None, None]);
        assert_eq!(balance(&[None], &[]), [None]);
    }

    #[test]
    fn a_joining_member_takes_only_its_share() {
        let before = balance(&[None; 12], &[1, 1, 1, 0]);
        let after = balance(&before, &[1, 1, 1, 1]);
        assert_eq!(counts(&after, 4), [3, 3, 3, 3]);
        assert_eq!(moves(&before, &after), 3);
    }
}
