//! Slots of an exclusive node in the variables and input of hooks.

use clap::{Args, value_parser};
use clustering_core::{
    Builder, NodeName, Release, View,
    slots::{Slot, SlotSet},
};
use serde_json::{Map, Value, json};

use super::hook::Hooks;
use crate::times::duration;

/// Exclusive ownership: each key is held by at most one node at any time.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Exclusive ownership")]
pub(crate) struct Exclusive {
    /// Number of slots into which keys are divided, from 1 to 4096; the same on all nodes of the cluster. The program
    /// must work on a key only while the node holds the key's slot
    #[arg(long, value_name = "SLOTS", value_parser = value_parser!(u16).range(1..=4096))]
    pub(crate) exclusive: Option<u16>,
    /// Hook that makes the program let go of slots that the node lost. Other nodes take them over after its exit code
    /// was 0; on any other the hook is retried. Without this option slots are handed over at once
    #[arg(long, value_name = "COMMAND", requires = "exclusive")]
    release: Option<String>,
    /// Time after which a node that has not released its slots leaves the cluster, and joins again later [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "exclusive")]
    release_timeout: Option<std::time::Duration>,
}

impl Exclusive {
    /// Adds the number of slots and the release hook to the builder of the node.
    pub(crate) fn describe(&self, mut builder: Builder, hooks: &Hooks) -> Builder {
        let Some(slots) = self.exclusive else { return builder };
        builder = builder.exclusive(slots);
        if let Some(timeout) = self.release_timeout {
            builder = builder.release_timeout(timeout);
        }
        let Some(command) = self.release.clone() else { return builder };
        let hooks = hooks.clone();
        builder.release(move |change: Release| {
            let (hooks, command) = (hooks.clone(), command.clone());
            async move { hooks.release(&command, &change).await }
        })
    }
}

/// Sets of slots for a hook: each is passed as a variable, such as `0-3,7`, and as a list of numbers in the hook's
/// input.
#[derive(Default)]
pub(super) struct Sets(Vec<(&'static str, &'static str, SlotSet)>);

impl Sets {
    pub(super) fn with(mut self, variable: &'static str, field: &'static str, slots: &SlotSet) -> Self {
        self.0.push((variable, field, slots.clone()));
        self
    }

    /// Adds the sets to the variables and to the input of a hook.
    pub(super) fn add_to(self, variables: &mut Vec<(&'static str, String)>, input: &mut Value) {
        for (variable, field, slots) in self.0 {
            variables.push((variable, slots.to_string()));
            input[field] = json!(slots);
        }
    }
}

/// Returns the owners of the slots in a view, and the absent nodes for which slots wait, if it hands slots over;
/// `find --view` reads them.
pub(super) fn owners(view: &View) -> Option<Value> {
    let count = view.slot_count().filter(|_| view.has_handover())?;
    let (mut owners, mut kept) = (Map::new(), Map::new());
    for slot in count.iter() {
        match (view.owner_of(slot), view.kept_for(slot)) {
            (Some(node), _) => add(&mut owners, &node.name, slot),
            (None, Some(name)) => add(&mut kept, name, slot),
            (None, None) => {}
        }
    }
    let mut slots = json!({ "count": count, "owners": owners });
    if !kept.is_empty() {
        slots["kept"] = kept.into();
    }
    Some(slots)
}

/// Adds a slot to the list under the name.
fn add(lists: &mut Map<String, Value>, name: &NodeName, slot: Slot) {
    if let Some(slots) = lists.entry(name.as_str()).or_insert_with(|| json!([])).as_array_mut() {
        slots.push(json!(slot));
    }
}
