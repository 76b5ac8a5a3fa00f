use clustering_core::{
    Outcome, Term, View,
    machine::{Input, Reply, RequestError, RequestId, Token},
};
use clustering_testkit::history::{Ending, Member, Observation, WriteOutcome};

use super::{
    Due, World,
    process::{Check, Run},
};
use crate::sim::{Kind, Reached};

/// Simulated callbacks of the user.
impl World<'_> {
    pub(super) fn stabilize(&mut self, process: usize, token: Token, view: &View, attempt: u32) {
        let mut nodes = Member::all(view);
        if let Some(mut tamper) = self.tamper.take() {
            nodes = self.seat(process).and_then(|seat| tamper.given(&seat, view)).unwrap_or(nodes);
            self.tamper = Some(tamper);
        }
        let (version, revision) = (view.version(), view.revision());
        self.observe(process, Observation::StabilizeBegan { version, revision, attempt, nodes });
        let now = self.now;
        let this = &mut self.processes[process];
        let stuck = this.window(Kind::StuckStabilize, now).is_some();
        let run = Run { token, version, attempt, term: view.term(), told: false, stuck };
        this.stabilizing = Some(run);
        if stuck {
            return;
        }
        let mut time = if this.random.percent(5) { this.random.ms(50, 1_000) } else { this.random.ms(0, 20) };
        if let Some(choice) = this.window(Kind::SlowStabilize, now) {
            time += this.random.ms(100, 200 + choice % 6_000);
        }
        let outcome = if this.window(Kind::RefusingStabilize, now).is_some() {
            Outcome::refused("not now")
        } else if this.window(Kind::PanickingStabilize, now).is_some() {
            Outcome::refused("it panicked: at the disco")
        } else {
            Outcome::Ready
        };
        let life = this.life;
        self.queue.push(now + time, Due::Ended { process, life, token, outcome });
    }

    pub(super) fn announce(&mut self, process: usize, token: Token, view: &View, term: Term) {
        let version = view.version();
        self.book.counts.note(Reached::OnStable);
        self.observe(process, Observation::OnStableBegan { version, term });
        let this = &mut self.processes[process];
        this.announced = Some(version);
        this.announcing = Some(Run { token, version, attempt: 1, term, told: false, stuck: false });
        let time = if this.random.percent(20) { this.random.ms(0, 3_000) } else { this.random.ms(0, 50) };
        let outcome = if this.random.percent(5) { Outcome::refused("no") } else { Outcome::Ready };
        let life = this.life;
        self.queue.push(self.now + time, Due::Ended { process, life, token, outcome });
    }

    pub(super) fn check_health(&mut self, process: usize, token: Token) {
        self.observe(process, Observation::CheckBegan);
        let now = self.now;
        let this = &mut self.processes[process];
        let stuck = this.window(Kind::HangingHealth, now).is_some();
        this.checking = Some(Check { token, since: this.clock.at(now), stuck, ended: false });
        if stuck {
            return;
        }
        // Shorter than the shortest deadline, on any clock.
        let ttl = self.setup.ttl.as_millis() as u64;
        let time =
            if this.random.percent(5) { this.random.ms(0, ttl / 10) } else { this.random.ms(0, ttl / 250) };
        let outcome = match this.window(Kind::FailingHealth, now) {
            Some(_) => Outcome::refused("unhealthy"),
            None => Outcome::Ready,
        };
        let life = this.life;
        self.queue.push(now + time, Due::Ended { process, life, token, outcome });
    }

    pub(super) fn supersede(&mut self, process: usize, token: Token) {
        let this = &mut self.processes[process];
        let mut runs = [&mut this.stabilizing, &mut this.announcing].into_iter().flatten();
        let Some(run) = runs.find(|run| run.token == token) else { return };
        run.told = true;
        // Only some callbacks react.
        if !run.stuck && this.random.percent(50) {
            let (at, life) = (self.now + this.random.ms(0, 20), this.life);
            let outcome =
                if this.random.percent(50) { Outcome::Ready } else { Outcome::refused("superseded") };
            self.queue.push(at, Due::Ended { process, life, token, outcome });
        }
    }

    pub(super) fn abort(&mut self, process: usize, token: Token, reason: String) {
        let this = &mut self.processes[process];
        if this.stabilizing.as_ref().is_some_and(|run| run.token == token) {
            self.book.counts.note(Reached::AbortedRun);
        }
        if let Some(check) = this.checking.as_mut().filter(|check| check.token == token) {
            check.ended = true;
        }
        // A callback that blocks its thread cannot be aborted.
        if this.random.percent(80) {
            let (at, life) = (self.now + this.random.ms(0, 5), this.life);
            self.queue.push(at, Due::Ended { process, life, token, outcome: Outcome::refused(reason) });
        }
    }

    /// Lets callbacks that are stuck return.
    pub(super) fn unstick(&mut self, process: usize) {
        let now = self.now;
        let this = &mut self.processes[process];
        let life = this.life;
        if let Some(check) = this.checking.as_mut().filter(|check| check.stuck) {
            check.stuck = false;
            let (token, outcome) = (check.token, Outcome::Ready);
            self.queue.push(now, Due::Ended { process, life, token, outcome });
        }
        let this = &mut self.processes[process];
        let Some(run) = this.stabilizing.as_mut().filter(|run| run.stuck) else { return };
        run.stuck = false;
        let token = run.token;
        let outcome = if this.random.percent(50) { Outcome::Ready } else { Outcome::refused("stuck") };
        self.queue.push(now, Due::Ended { process, life, token, outcome });
    }

    pub(super) fn callback_ended(&mut self, process: usize, token: Token, outcome: Outcome) {
        if self.release_ended(process, token, &outcome) {
            return;
        }
        let ending = match &outcome {
            Outcome::Ready => Ending::Ready,
            Outcome::Refused { reason } => Ending::Refused(reason.clone()),
        };
        let this = &mut self.processes[process];
        if let Some(run) = this.stabilizing.take_if(|run| run.token == token) {
            let Run { version, attempt, told, .. } = run;
            self.observe(process, Observation::StabilizeEnded { version, attempt, ending, told });
            self.handle(process, Input::Stabilized { token, outcome });
        } else if let Some(run) = this.announcing.take_if(|run| run.token == token) {
            let (version, term) = (run.version, run.term);
            self.observe(process, Observation::OnStableEnded { version, term, ending });
            let result = match outcome {
                Outcome::Ready => Ok(()),
                Outcome::Refused { reason } => Err(reason),
            };
            self.handle(process, Input::Announced { token, result });
        } else if let Some(check) = this.checking.take_if(|check| check.token == token) {
            let ending = if check.ended { Ending::Dropped } else { ending };
            self.observe(process, Observation::CheckEnded { ending });
            let result = match outcome {
                Outcome::Ready => Ok(()),
                Outcome::Refused { reason } => Err(reason),
            };
            self.handle(process, Input::HealthReported { token, result });
        }
    }

    /// Handles the reply to a request of the user.
    pub(super) fn answered(&mut self, process: usize, id: RequestId, reply: Reply) {
        let Reply::Committed(result) = reply else { return };
        let owner_commits = &mut self.processes[process].owner_commits;
        if let Some(place) = owner_commits.iter().position(|(asked, _)| *asked == id) {
            owner_commits.swap_remove(place);
            if result.is_err() {
                self.book.counts.note(Reached::OwnerCommitRefused);
            }
            return;
        }
        let asked = &mut self.processes[process].asked;
        let Some(place) = asked.iter().position(|(asked, ..)| *asked == id) else { return };
        let (_, id, term) = asked.swap_remove(place);
        let outcome = match result {
            Ok(revision) => WriteOutcome::Done(revision),
            Err(RequestError::Store(error)) if error.effect() == clustering_core::store::Effect::Unknown => {
                WriteOutcome::Unknown(String::new())
            }
            Err(RequestError::Stopped(_)) => WriteOutcome::Unknown(String::new()),
            Err(_) => WriteOutcome::Refused(String::new()),
        };
        self.book.counts.note(match outcome {
            WriteOutcome::Done(_) => Reached::LeaderCommitDone,
            _ => Reached::LeaderCommitRefused,
        });
        self.observe(process, Observation::LeaderCommit { id, term, outcome });
    }
}
