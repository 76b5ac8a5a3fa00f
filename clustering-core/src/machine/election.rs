use std::{collections::BTreeSet, time::Duration};

use super::{InFlight, Machine, Output, Purpose, Reply, RequestError, RequestId, Timers, history};
use crate::{
    config::STAGGER,
    event::Event,
    name::NodeName,
    record::{Cause, LeaderRecord, encode},
    store::{Guard, LeaseId, Revision, Txn},
    time::Timestamp,
    version::Term,
};

/// By how many staggers others let the one go first to whom the lead was handed: 500 ms.
const HEAD_START: u32 = 10;

/// Who leads, and what this node does about it.
///
/// A node leads while the election key stands under the lease of its session, and *acts* as leader only until its
/// leadership deadline. Nobody polls: candidates wait for the log to say that nobody leads, and then campaign in the
/// order of their age, a stagger apart, each only if nobody leads yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Election {
    pub(crate) campaign: InFlight,
    pub(crate) resign: InFlight,
    /// The term under which this node leads, by the log.
    leading: Option<Term>,
    /// Whether it may act: told of in both directions.
    acting: bool,
    /// The term that it gives up. It does not act under it any more, whatever the log says yet.
    resigning: Option<Term>,
    /// It led and lost the lead while its session lives: others first, until one led or this time has come.
    held_off_until: Option<Timestamp>,
    /// Since when nobody leads, while this node has been a member.
    leaderless_since: Option<Timestamp>,
    /// The place among the candidates, until those change.
    rank: Option<u32>,
    /// When this node will campaign, if nobody leads by then.
    due: Option<Timestamp>,
    /// Who led last, and under which term.
    last: Option<(NodeName, Term)>,
    /// The lead of which was told: its term, and the lease that tells it from one of the same number in a history that
    /// was rewound.
    told: Option<(Term, Option<LeaseId>)>,
    resigns: Vec<RequestId>,
}

impl Election {
    /// The candidates changed.
    pub(crate) fn rerank(&mut self) {
        self.rank = None;
    }

    /// Terms known from before say nothing of those to come.
    pub(crate) fn rewound(&mut self) {
        self.last = None;
    }

    /// Drops requests whose callers no longer wait.
    pub(crate) fn abandon(&mut self, ids: &BTreeSet<RequestId>) {
        self.resigns.retain(|id| !ids.contains(id));
    }

    /// The term under which this node leads, by the log. Whether it may act is another question.
    pub(crate) fn leading(&self) -> Option<Term> {
        self.leading
    }
}

impl Machine {
    /// The term under which this node may act as leader now.
    pub(super) fn active_term(&self, now: Timestamp) -> Option<Term> {
        let term = self.election.leading?;
        let resigning = self.election.resigning == Some(term);
        let in_time = now < self.leadership_deadline()?;
        (in_time && !resigning && self.membership.is_member() && !self.is_ending()).then_some(term)
    }

    /// Until when this node may act as leader, and under which term: what others may rely on without asking again.
    pub(super) fn leadership(&self) -> Option<(Term, Timestamp)> {
        let term = self.election.leading?;
        let resigning = self.election.resigning == Some(term);
        let until = self.leadership_deadline()?;
        (!resigning && self.membership.is_member() && !self.is_ending()).then_some((term, until))
    }

    pub(super) fn election_timers(&self, timers: &mut Timers) {
        timers.maybe(self.election.due);
        timers.maybe(self.election.resign.due(self.fold.revision()));
        timers.maybe(self.leadership_deadline().filter(|_| self.election.acting));
    }

    /// The log says something new about the leader.
    pub(super) fn note_leader(&mut self, now: Timestamp) {
        let lead = self.fold.leader().map(|leader| (Term::new(leader.created), leader.lease));
        if lead == self.election.told {
            return;
        }
        self.election.told = lead;
        let term = self.fold.term();
        let name =
            self.fold.leader().and_then(|leader| leader.record.as_ref()).map(|record| record.node.clone());
        match (term, &name) {
            (Some(term), Some(name)) => self.election.last = Some((name.clone(), term)),
            (Some(_), None) => self.election.last = None,
            (None, _) => {}
        }
        self.election.leaderless_since = term.is_none().then_some(now);
        self.election.rank = None;
        // Where another has led, this node may campaign again.
        self.election.held_off_until = None;
        let own = self.own_term().is_some();
        self.emit(Event::LeaderChanged { leader: name, term, own });
    }

    /// The term of the election key, if that stands under the lease of this session.
    pub(super) fn own_term(&self) -> Option<Term> {
        let lease = self.session.held()?.lease;
        let leader = self.fold.leader()?;
        (leader.lease == Some(lease)).then(|| Term::new(leader.created))
    }

    pub(super) fn reconcile_election(&mut self, now: Timestamp) {
        let own = self.own_term();
        if self.election.leading != own {
            // Resigned, or somebody deleted the key to have another leader: others first.
            let pause = self.session.ttl().unwrap_or(self.config.ttl);
            self.election.held_off_until = Some(now + pause).filter(|_| self.fold.leader().is_none());
            self.election.leading = own;
            self.election.acting = false;
            self.election.resigning = None;
            self.election.resign.reset();
            self.election.campaign.reset();
            for id in std::mem::take(&mut self.election.resigns) {
                self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
            }
            // Leading begins with acting, unless the deadline has passed already.
            self.election.acting = self.active_term(now).is_some();
        }
        self.tell_suspension(now);
        self.vacate_misnamed(now);
        self.resign(now);
        self.campaign(now);
    }

    /// Resigns if another client has overwritten the election key under this node's lease, so that it no longer names
    /// this node. Until the key is deleted, other nodes would take the wrong node for the leader.
    fn vacate_misnamed(&mut self, now: Timestamp) {
        let (Some(term), Some(identity), Some(leader)) =
            (self.active_term(now), &self.identity, self.fold.leader())
        else {
            return;
        };
        if leader.record.as_ref().is_none_or(|record| record.node != identity.name) {
            let key = self.fold.keyspace().election_key().clone();
            self.emit(Event::Overwritten { key });
            self.step_down(now, term);
        }
    }

    fn tell_suspension(&mut self, now: Timestamp) {
        let Some(term) = self.election.leading else { return };
        if self.election.resigning.is_some() {
            return;
        }
        match (self.election.acting, self.active_term(now).is_some()) {
            (true, false) => {
                self.election.acting = false;
                self.emit(Event::LeadershipSuspended { term });
            }
            (false, true) => {
                self.election.acting = true;
                self.emit(Event::LeadershipResumed { term });
            }
            _ => {}
        }
    }

    pub(super) fn on_resign(&mut self, now: Timestamp, id: RequestId) {
        match self.active_term(now) {
            Some(term) => self.step_down(now, term),
            None if self.election.resigning.is_some() => {}
            None => {
                return self.outputs.push_back(Output::Reply { id, result: Err(RequestError::NotLeader) });
            }
        }
        self.election.resigns.push(id);
    }

    /// Gives up the lead. From now on this node does not act, and does not say that it leads.
    pub(super) fn step_down(&mut self, now: Timestamp, term: Term) {
        self.election.resigning = Some(term);
        self.resign(now);
    }

    fn resign(&mut self, now: Timestamp) {
        let folded = self.fold.revision();
        let Some(term) = self.election.resigning else { return };
        if self.is_ending() || !self.election.resign.is_free(now, folded) {
            return;
        }
        let election = self.fold.keyspace().election_key().clone();
        let txn = Txn::new().guard(Guard::created_at(election.clone(), term.revision())).delete(election);
        let token = self.commit(Purpose::Resign, txn);
        self.election.resign.sent(token, now, folded);
    }

    /// The session is over, and the lead with it.
    pub(super) fn lose_leadership(&mut self) {
        self.election.leading = None;
        self.election.acting = false;
        self.election.resigning = None;
        self.election.held_off_until = None;
        self.election.leaderless_since = None;
        self.election.campaign.reset();
        self.election.resign.reset();
        for id in std::mem::take(&mut self.election.resigns) {
            self.outputs.push_back(Output::Reply { id, result: Ok(Reply::Done) });
        }
    }

    fn campaign(&mut self, now: Timestamp) {
        self.election.due = None;
        let Some(modified) = self.membership.modified() else { return };
        if self.fold.leader().is_some() || self.is_ending() {
            return;
        }
        self.election.leaderless_since.get_or_insert(now);
        if self.election.rank.is_none() {
            self.election.rank = Some(self.rank());
        }
        if self.leadership_deadline().is_none_or(|deadline| now >= deadline) {
            // It could not act. A renewal will change that, and bring it here again.
            return;
        }
        let turn = self.turn().max(self.election.held_off_until.unwrap_or_default());
        if now < turn {
            self.election.due = Some(turn);
            return;
        }
        let folded = self.fold.revision();
        if !self.election.campaign.is_free(now, folded) {
            self.election.due = self.election.campaign.due(folded);
            return;
        }
        let Some(lease) = self.session.held().map(|held| held.lease) else { return };
        let Some(txn) = self.candidacy(now, lease, modified) else { return };
        let token = self.commit(Purpose::Elect, txn);
        self.election.campaign.sent(token, now, folded);
    }

    /// One commit elects and publishes. It leaves the term out of the version: that is the commit's own revision.
    fn candidacy(&mut self, now: Timestamp, lease: LeaseId, modified: Revision) -> Option<Txn> {
        let name = self.identity.as_ref()?.name.clone();
        let incarnation = self.membership.incarnation()?.clone();
        let mut causes = vec![Cause::Elected(name.clone())];
        causes.extend(self.causes());
        let record = self.next_version(now, None, causes);
        let leader = LeaderRecord { node: name.clone(), incarnation };
        let keys = self.fold.keyspace();
        let election = keys.election_key().clone();
        let txn = Txn::new()
            .guard(Guard::absent(election.clone()))
            .guard(Guard::modified_at(keys.node_key(&name), modified))
            .guard(Guard::modified_at(keys.version_key().clone(), self.fold.version_modified()))
            .put(election, encode(&leader), lease);
        Some(history::put_version(txn, keys, record))
    }

    /// When this node may campaign: by its place among the candidates.
    fn turn(&self) -> Timestamp {
        let since = self.election.leaderless_since.unwrap_or_default();
        let stagger: Duration = STAGGER.max(self.session.round_trip() * 2);
        since + stagger * self.election.rank.unwrap_or_default()
    }

    /// How many candidates are older. One that led last and still stands gave up the lead: it lets others go first, and
    /// nobody waits for it. Where an operator handed the lead to somebody, that one goes first, and the others come after
    /// it has had its time.
    fn rank(&self) -> u32 {
        let favoured = self.fold.favoured().map(|node| &node.name);
        let own = self.identity.as_ref().map(|identity| &identity.name);
        match favoured {
            None => self.seniority(),
            favoured if favoured == own => 0,
            Some(_) => HEAD_START + self.seniority(),
        }
    }

    fn seniority(&self) -> u32 {
        let Some(created) = self.membership.created() else { return 0 };
        let last = self.election.last.as_ref().map(|(name, _)| name);
        let older = self.fold.present().filter(|node| node.created < created && Some(&node.name) != last);
        older.count() as u32
    }
}
