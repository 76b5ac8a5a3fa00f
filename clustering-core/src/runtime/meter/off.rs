use crate::{
    machine::{Input, Machine, Output},
    runtime::Status,
    time::Timestamp,
};

/// Stand-in that measures nothing.
#[derive(Debug)]
pub(crate) struct Meter;

impl Meter {
    pub(crate) fn new(_namespace: &str, _is_node: bool) -> Self {
        Meter
    }

    pub(crate) fn input(&mut self, _now: Timestamp, _input: &Input) {}

    pub(crate) fn look(&mut self, _machine: &Machine) {}

    pub(crate) fn outputs(&mut self, _now: Timestamp, _outputs: &[Output], _status: &Status) {}
}

pub(crate) fn missed(_events: u64) {}
