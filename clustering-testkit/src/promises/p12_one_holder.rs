//! P12. At any moment, at most one process holds a key.
//!
//! A process holds a key from the time at which it reports this until it lets go of the key, is killed, or reaches the
//! time limit that it reported. The checker needs no ledger: it compares the times at which lives hold the same key, on
//! their common clock.

use std::collections::BTreeMap;

use clustering_core::NodeName;

use super::{Broken, Kept, Promise};
use crate::history::{Entry, Ledger, Life, Moment, Observation};

#[derive(Clone, Debug, Default)]
pub(crate) struct OneHolder {
    keys: BTreeMap<String, Vec<Span>>,
}

/// Time during which a life holds a key.
#[derive(Clone, Debug)]
struct Span {
    node: NodeName,
    life: Life,
    from: Moment,
    /// Time at which the holder let go, or the time limit until which it may hold the key. `None` if neither is known.
    until: Option<Moment>,
    /// True until the holder let go.
    is_open: bool,
}

impl Span {
    fn contains(&self, at: Moment) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }

    fn close(&mut self, at: Moment) {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
        self.is_open = false;
    }
}

impl OneHolder {
    /// Handles a report that a life holds a key. If the last span of that life has not ended, extends it.
    fn hold(&mut self, key: &str, entry: &Entry, until: Option<Moment>) -> Kept {
        let spans = self.keys.entry(key.to_owned()).or_default();
        let own = spans.iter().rposition(|span| span.is_open && span.life == entry.life);
        match own {
            Some(own) if spans[own].contains(entry.at) => spans[own].until = until,
            own => {
                let mut judged = Ok(());
                if let Some(own) = own {
                    spans[own].is_open = false;
                    judged = alone(key, spans, own);
                }
                let (node, life) = (entry.node.clone(), entry.life.clone());
                spans.push(Span { node, life, from: entry.at, until, is_open: true });
                judged.and_then(|()| first(key, spans, spans.len() - 1))?;
            }
        }
        Ok(())
    }

    /// Ends the open spans of a life, for one key or for all keys.
    fn let_go(&mut self, key: Option<&str>, entry: &Entry) -> Kept {
        for (held, spans) in &mut self.keys {
            if key.is_some_and(|key| key != held) {
                continue;
            }
            let Some(own) = spans.iter().rposition(|span| span.is_open && span.life == entry.life) else {
                continue;
            };
            spans[own].close(entry.at);
            alone(held, spans, own)?;
        }
        Ok(())
    }
}

impl Promise for OneHolder {
    fn name(&self) -> &'static str {
        "P12 (one holder)"
    }

    fn observe(&mut self, entry: &Entry, _: &Ledger) -> Kept {
        match &entry.observation {
            Observation::Holds { key, until } => self.hold(key, entry, *until),
            Observation::LetGo { key } => self.let_go(Some(key), entry),
            Observation::Killed => self.let_go(None, entry),
            _ => Ok(()),
        }
    }

    fn end(&mut self, _: &Ledger) -> Kept {
        self.keys.iter().try_for_each(|(key, spans)| {
            (0..spans.len()).filter(|own| spans[*own].is_open).try_for_each(|own| alone(key, spans, own))
        })
    }
}

/// Checks that no other life holds the key when this span begins.
fn first(key: &str, spans: &[Span], own: usize) -> Kept {
    let span = &spans[own];
    let other = spans.iter().find(|other| other.life != span.life && other.contains(span.from));
    other.map_or(Ok(()), |other| overlap(key, other, span))
}

/// Checks that no other life begins to hold the key within this span. If the history is checked while it is recorded,
/// this was already checked when the other life began.
fn alone(key: &str, spans: &[Span], own: usize) -> Kept {
    let span = &spans[own];
    let other = spans.iter().find(|other| other.life != span.life && span.contains(other.from));
    other.map_or(Ok(()), |other| overlap(key, span, other))
}

fn overlap(key: &str, before: &Span, after: &Span) -> Kept {
    let until = match before.until {
        Some(until) => format!("until {until}"),
        None => "and has not let go of it".to_owned(),
    };
    let found = format!(
        "{} holds {key} from {}, but {} holds it from {} {until}",
        after.life, after.from, before.life, before.from
    );
    let broken = Broken::new(format!("at most one process holds {key} at any moment"), found);
    Err(broken.about(&before.node).about(&after.node))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::promises::scene::{Scene, broken, kept};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn p12_a_key_may_change_hands_and_return() {
        let mut scene = Scene::new();
        scene.holds("a", "k", None);
        scene.pass(SECOND);
        scene.lets_go("a", "k");
        scene.holds("b", "k", None);
        scene.pass(SECOND);
        scene.lets_go("b", "k");
        scene.holds("a", "k", None);
        kept(scene);
    }

    #[test]
    fn p12_two_holders_at_once_are_found() {
        let mut scene = Scene::new();
        scene.holds("a", "k", None);
        scene.pass(SECOND);
        scene.holds("b", "other", None);
        scene.holds("b", "k", None);
        scene.pass(SECOND);
        scene.lets_go("b", "k");
        scene.lets_go("a", "k");
        broken("P12", "b#1 holds k", scene);
    }

    #[test]
    fn p12_two_holders_that_never_let_go_are_found_in_any_order_of_the_journals() {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let mut scene = Scene::new();
            scene.holds(first, "k", None);
            scene.pass(SECOND);
            scene.holds(second, "k", None);
            broken("P12", "at most one process", scene);
        }
    }

    #[test]
    fn p12_two_lives_of_one_node_are_two_holders() {
        let mut scene = Scene::new();
        scene.holds("a", "k", None);
        scene.pass(SECOND);
        scene.as_life("a#2");
        scene.holds("a", "k", None);
        broken("P12", "a#2 holds k", scene);
    }

    #[test]
    fn p12_a_killed_process_holds_nothing() {
        let mut scene = Scene::new();
        scene.holds("a", "k", None);
        scene.pass(SECOND);
        scene.saw("a", crate::history::Observation::Killed);
        scene.holds("b", "k", None);
        kept(scene);
    }

    /// Returns a scene in which a holds the key until `until`, extends this to `extended` after 10 s, and lets go after
    /// 40 s. From 30 s on, b holds the key.
    fn with_times(until: u64, extended: Option<u64>) -> Scene {
        let mut scene = Scene::new();
        scene.holds("a", "k", Some(until));
        scene.pass(10 * SECOND);
        if extended.is_some() {
            scene.holds("a", "k", extended);
        }
        scene.pass(20 * SECOND);
        scene.holds("b", "k", None);
        scene.pass(10 * SECOND);
        scene.lets_go("a", "k");
        scene
    }

    #[test]
    fn p12_a_holder_past_its_time_limit_holds_nothing_unless_the_limit_was_extended() {
        kept(with_times(25, None));
        kept(with_times(15, Some(30)));
        broken("P12", "b#1 holds k", with_times(35, None));
        broken("P12", "b#1 holds k", with_times(15, Some(31)));
    }

    #[test]
    fn p12_a_holder_that_returns_after_its_time_limit_begins_a_new_span() {
        let mut scene = Scene::new();
        scene.holds("a", "k", Some(10));
        scene.pass(20 * SECOND);
        scene.holds("b", "k", None);
        scene.pass(10 * SECOND);
        scene.lets_go("b", "k");
        scene.pass(10 * SECOND);
        scene.holds("a", "k", None);
        kept(scene.clone());
        scene.pass(SECOND);
        scene.holds("b", "k", None);
        broken("P12", "b#1 holds k", scene);
    }
}
