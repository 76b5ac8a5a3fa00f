//! Slots of an exclusive node in the variables and input of hooks.

use clustering_core::{
    NodeName, View,
    slots::{Slot, SlotSet},
};
use serde_json::{Map, Value, json};

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
