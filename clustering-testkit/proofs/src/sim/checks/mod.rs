//! Checks that only a simulation can make, since it knows the total order of all events. Each check has its own file
//! and reports violations as `kind: details`.

pub(super) mod causes;
pub(super) mod crashes;
pub(super) mod p10_news;
pub(super) mod p11_health;
pub(super) mod p12_fence;
pub(super) mod p12_releases;
pub(super) mod p12_starvation;
pub(super) mod p1_newest_views;
pub(super) mod p1_placement;
pub(super) mod p2_labels;
pub(crate) mod p4_acknowledgements;
pub(super) mod p4_announcements;
pub(super) mod p5_places;
pub(crate) mod p5_writes;
pub(super) mod p6_claims;
pub(super) mod p8_formation;
