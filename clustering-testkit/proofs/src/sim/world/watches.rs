use clustering_core::{
    machine::{Input, Token},
    store::{Batch, Key, Revision, StoreError, WatchEnd},
};

use super::{Due, World, process::Watch};
use crate::sim::{Kind, swarm::Way};

impl World<'_> {
    /// Returns 0 for the prefix of the log and 1 for the prefix of the acknowledgements.
    pub(super) fn place_of(&self, prefix: &Key) -> Option<usize> {
        [self.keys.view_prefix(), self.keys.ready_prefix()].iter().position(|known| *known == prefix)
    }

    /// Records that a process opens a watch.
    pub(super) fn note_watch(&mut self, process: usize, token: Token, prefix: &Key, after: Revision) {
        let place = self.place_of(prefix).unwrap_or_default();
        if self.processes[process].watches.iter().any(|watch| watch.place == place) {
            let who = &self.processes[process].label;
            self.book
                .fail(format!("leak: {who} opens a second watch of {prefix} without dropping the first"));
        }
        let watch = Watch { token, prefix: prefix.clone(), place, seen: after, open: false, coming: false };
        self.processes[process].watches.push(watch);
    }

    pub(super) fn watch_opened(&mut self, process: usize, token: Token, result: Result<(), StoreError>) {
        let this = &mut self.processes[process];
        let Some(place) = this.watches.iter().position(|watch| watch.token == token) else { return };
        if result.is_err() {
            this.watches.remove(place);
            return self.handle(process, Input::WatchOpened { token, result });
        }
        this.watches[place].open = true;
        let watch = &this.watches[place];
        let seen_in = &mut this.seen_in[watch.place];
        let resumes = self.store.resumes(watch.seen, *seen_in);
        if resumes.is_ok() {
            // The changes that the watch saw are also part of this era's history.
            *seen_in = self.store.era();
        }
        self.handle(process, Input::WatchOpened { token, result });
        match resumes {
            Ok(()) => self.come(process, token),
            Err(end) => self.end_watch(process, token, end),
        }
    }

    /// Schedules deliveries to the watches that the batch concerns.
    pub(super) fn tell_watches(&mut self, batch: &Batch) {
        let prefixes = [self.keys.view_prefix().clone(), self.keys.ready_prefix().clone()];
        let concerned = prefixes
            .map(|prefix| batch.changes.iter().any(|change| change.key().starts_with(prefix.as_str())));
        for process in 0..self.processes.len() {
            for watch in 0..self.processes[process].watches.len() {
                let watch = &self.processes[process].watches[watch];
                if concerned[watch.place] && watch.open {
                    let token = watch.token;
                    self.come(process, token);
                }
            }
        }
    }

    /// Schedules the next delivery of a watch, if there are changes and no delivery is in flight.
    pub(super) fn come(&mut self, process: usize, token: Token) {
        let watches = &self.processes[process].watches;
        let Some(place) = watches.iter().find(|watch| watch.token == token).map(|watch| watch.place) else {
            return;
        };
        let way = if place == 0 { Way::Log } else { Way::Ready };
        let mut delay = self.latency(process, false) + self.slowness(process, way);
        let now = self.now;
        let this = &mut self.processes[process];
        if let Some(choice) = this.window(Kind::WatchLag, now) {
            delay += this.random.ms(0, 100 + choice % 4_000);
        }
        let life = this.life;
        let Some(watch) = this.watches.iter_mut().find(|watch| watch.token == token && !watch.coming) else {
            return;
        };
        if self.store.next_after(&watch.prefix, watch.seen).is_some() {
            watch.coming = true;
            self.queue.push(now + delay, Due::Deliver { process, life, token });
        }
    }

    /// Delivers changes to a watch: usually all of them, one by one or in groups.
    pub(super) fn deliver(&mut self, process: usize, token: Token) {
        let mut batches = Vec::new();
        loop {
            let (now, era) = (self.now, self.store.era());
            let away = self.outage_until.max(self.processes[process].window_ends(Kind::Partition));
            let this = &mut self.processes[process];
            let (life, deaf) = (this.life, this.window(Kind::Deaf, now).is_some());
            let Some(watch) = this.watches.iter_mut().find(|watch| watch.token == token) else { return };
            if deaf {
                watch.coming = false;
                return;
            }
            if now < away {
                return self.queue.push(away, Due::Deliver { process, life, token });
            }
            watch.coming = false;
            if this.era != era {
                return;
            }
            let Some(batch) = self.store.next_after(&watch.prefix, watch.seen) else { break };
            watch.seen = batch.revision;
            this.seen_in[watch.place] = era;
            batches.push(batch);
            let (enough, at_once) = (this.random.percent(30), this.random.percent(50));
            if !at_once {
                self.deliver_all(process, token, std::mem::take(&mut batches));
            }
            if enough {
                self.deliver_all(process, token, batches);
                return self.come(process, token);
            }
        }
        self.deliver_all(process, token, batches);
    }

    fn deliver_all(&mut self, process: usize, token: Token, mut batches: Vec<Batch>) {
        match batches.len() {
            0 => {}
            1 => self.handle(process, Input::Batch { token, batch: batches.remove(0) }),
            _ => self.handle(process, Input::Batches { token, batches }),
        }
    }

    pub(super) fn break_watch(&mut self, process: usize, token: Token) {
        let this = &mut self.processes[process];
        let Some(place) = this.watches.iter().position(|watch| watch.token == token) else { return };
        if this.watches[place].open {
            return self.end_watch(process, token, WatchEnd::Disconnected { reason: "reset".to_owned() });
        }
        this.watches.remove(place);
        let result = Err(StoreError::unreachable("reset"));
        self.handle(process, Input::WatchOpened { token, result });
    }

    fn end_watch(&mut self, process: usize, token: Token, end: WatchEnd) {
        self.processes[process].watches.retain(|watch| watch.token != token);
        self.handle(process, Input::WatchEnded { token, end });
    }

    /// Reconnects a process to a restored store: the connection breaks, and with it all watches.
    pub(super) fn reconnect(&mut self, process: usize) {
        self.processes[process].era = self.store.era();
        let watches = self.processes[process].watches.iter();
        for token in watches.map(|watch| watch.token).collect::<Vec<_>>() {
            self.break_watch(process, token);
        }
    }
}
