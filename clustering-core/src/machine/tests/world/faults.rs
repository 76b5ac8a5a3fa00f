use std::time::Duration;

use super::{Due, World};
use crate::{
    machine::{Input, RequestId, tests::bench::ms},
    node::Metadata,
    store::{Txn, WatchEnd},
};

/// Injects faults.
impl World {
    pub(super) fn inject_fault(&mut self) {
        if !self.stormy {
            return;
        }
        let process = self.below(self.processes.len() as u64) as usize;
        let own = self.processes[process].name.clone();
        let node_key = self.keys.node_key(&own);
        let ready_key = self.keys.readiness_key(&own);
        match self.below(19) {
            0 => {
                self.dies(process);
                self.kill(process);
            }
            1 if self.is_awake(process) => self.handle(process, Input::Stop { keep: Duration::ZERO }),
            2 => self.processes[process].frozen_until = self.now + ms(self.below(12_000)),
            3 => self.unreachable_until = self.now + ms(self.below(7_000)),
            4 => self.store.compact(),
            5 | 6 => {
                while !self.processes[process].watches.is_empty() && self.is_awake(process) {
                    let end = WatchEnd::Disconnected { reason: "reset".to_owned() };
                    self.end_watch(process, 0, end);
                    if self.below(2) == 0 {
                        break;
                    }
                }
            }
            7 => self.interfere(Txn::new().delete(self.keys.election_key().clone())),
            8 => self.interfere(Txn::new().delete(node_key).delete(ready_key)),
            9 => self.interfere(Txn::new().put(self.keys.request_key().clone(), "{}", None)),
            10 => self.interfere(Txn::new().delete(ready_key)),
            11 => {
                let metadata = Metadata::from([("n".to_owned(), self.numbered.to_string())]);
                self.request(process, |id| Input::Update { id, metadata });
            }
            12 => self.request(process, |id| Input::Resign { id }),
            13 => self.request(process, |id| Input::Unregister { id }),
            14 => self.request(process, |id| Input::Register { id }),
            16 | 17 => self.report_falsely(process),
            15 => self.processes[process].deaf_until = self.now + ms(self.below(30_000)),
            _ => self.request(process, |id| Input::RequestVersion { id, why: None }),
        }
        for process in 0..self.processes.len() {
            if self.processes[process].machine.is_none() && self.below(3) == 0 {
                self.start(process);
            }
        }
        let time = self.now + ms(200 + self.below(2_500));
        self.at(time, Due::Fault);
    }

    fn is_awake(&self, process: usize) -> bool {
        self.processes[process].frozen_until <= self.now && self.processes[process].machine.is_some()
    }

    pub(super) fn request(&mut self, process: usize, input: impl FnOnce(RequestId) -> Input) {
        if self.is_awake(process) {
            let id = RequestId(self.numbered);
            self.handle(process, input(id));
        }
    }

    fn interfere(&mut self, txn: Txn) {
        self.store.commit(&txn).expect("a commit without guards succeeds");
        self.notify_watches();
    }
}
