//! P9. What a change of membership costs, by the ledger.
//!
//! From a stable version to the next, without faults: one revision in which the node comes or goes (also by its lease, which
//! is no commit of anybody's), one that publishes, one acknowledgement of each node, one that records it. Of the view's N
//! nodes that is N + 3, whichever change it was; a leader that is lost costs no more, as one commit elects and publishes.

use clustering_core::Version;

use super::Violation;
use crate::history::Ledger;

/// Counts the revisions that took the cluster from one stable version to the next, and compares with what is promised.
///
/// # Errors
///
/// [`Violation`] if it took more, or if there were versions between the two.
///
/// # Panics
///
/// If the versions are not two stable ones of the same era, in that order.
pub fn check_change(ledger: &Ledger, from: Version, to: Version) -> Result<usize, Violation> {
    let era = ledger.present();
    let stable = |version: Version| {
        let mut all = era.confirmed().iter();
        let confirmed = all.find(|confirmed| confirmed.version == version);
        confirmed.unwrap_or_else(|| panic!("{version} became stable in the present era")).revision
    };
    let (begin, end) = (stable(from), stable(to));
    assert!(begin < end, "{from} was stable before {to}");
    let between = |revision: clustering_core::store::Revision| begin < revision && revision <= end;
    let cost = era.commits().iter().filter(|revision| between(**revision)).count();
    let versions = era.versions().iter().filter(|published| between(published.revision)).count();
    let nodes = ledger.published(to).map_or(0, |published| published.cut.len());
    let violation = |expected: String, found: String| Violation {
        promise: "P9, cost,",
        expected,
        found,
        about: vec![from.to_string(), to.to_string()],
        timeline: Vec::new(),
    };
    if versions != 1 {
        return Err(violation("one version for one change".to_owned(), format!("{versions} versions")));
    }
    match cost == nodes + 3 {
        true => Ok(cost),
        false => Err(violation(
            format!("{} commits for a change that leaves {nodes} nodes", nodes + 3),
            format!("{cost} commits from {from} to {to}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promises::scene::{Scene, version};

    fn scene() -> Scene {
        let mut scene = Scene::of(&["a"]);
        scene.acknowledge("a", "V1");
        scene.confirm("V1");
        scene.join("b", 2);
        scene.publish("V2");
        scene.acknowledge("a", "V2");
        scene
    }

    #[test]
    fn a_join_costs_n_and_three() {
        let mut scene = scene();
        scene.acknowledge("b", "V2");
        scene.confirm("V2");
        assert_eq!(check_change(&scene.ledger(), version("V1"), version("V2")).unwrap(), 5);
    }

    #[test]
    fn another_commit_is_found() {
        let mut scene = scene();
        scene.acknowledge("b", "V2");
        scene.acknowledge("b", "V2");
        scene.confirm("V2");
        let violation = check_change(&scene.ledger(), version("V1"), version("V2")).unwrap_err();
        assert_eq!(violation.expected, "5 commits for a change that leaves 2 nodes");
    }

    #[test]
    fn another_version_is_found() {
        let mut scene = scene();
        scene.publish("V3");
        scene.acknowledge("a", "V3");
        scene.acknowledge("b", "V3");
        scene.confirm("V3");
        let violation = check_change(&scene.ledger(), version("V1"), version("V3")).unwrap_err();
        assert_eq!(violation.found, "2 versions");
    }
}
