//! The election of the leader (P5, P6).

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use super::{
    facts::Facts,
    in_flight::InFlight,
    log::Resync,
    membership::Membership,
    outbox::Outbox,
    output::{Purpose, RequestError},
    session::{Epoch, Session, SessionChange},
    timers::Timers,
    token::{RequestId, Token},
    versions::{self, VersionInputs},
};
use crate::{
    config::STAGGER,
    event::Event,
    fold::{Changed, Fold},
    name::NodeName,
    node::Node,
    record::{Cause, LeaderRecord, encode},
    store::{Guard, LeaseId, Revision, StoreError, Txn},
    time::Timestamp,
    version::Term,
};

/// Additional staggers, 500 ms in all, that other candidates wait after the node that an operator proposed, and that
/// reluctant candidates wait after the others.
const HEAD_START: u32 = 10;

/// Campaigns, leads and resigns.
///
/// A node leads while the election key is stored under the lease of its session, and *acts* as leader only until its
/// leadership deadline. Candidates do not poll: they wait until the log shows that there is no leader, and then
/// campaign one stagger apart, in the order of their [`Precedence`], each only if there is still no leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Election {
    epoch: Epoch,
    campaign: InFlight,
    resign: InFlight,
    /// The term under which this node leads, according to the log.
    leading: Option<Term>,
    /// Time until which it may act under that term; `None` if it may not, because it is resigning or about to end.
    until: Option<Timestamp>,
    /// True if the last event said that the node may act.
    acting: bool,
    /// The term that the node is giving up. It does not act under that term any more, whatever the log still says.
    resigning: Option<Term>,
    /// Time until which other candidates go first, if this node lost its leadership while its session was live and no
    /// other node has led since.
    held_off_until: Option<Timestamp>,
    /// Time at which this node, as a member, saw that there is no leader.
    leaderless_since: Option<Timestamp>,
    /// Position among the candidates; `None` after they changed.
    rank: Option<u32>,
    /// The candidates for which this node last resigned because it is reluctant to lead, each with the revision at
    /// which it registered. If none of them campaigned, and this node was elected again, it does not resign for them
    /// again.
    yielded_to: BTreeSet<(NodeName, Revision)>,
    /// Time at which this node campaigns if there is no leader by then.
    due: Option<Timestamp>,
    /// The last leader and its term.
    last: Option<(NodeName, Term)>,
    /// The last leadership that was reported: its term, and its lease, which distinguishes it from an equal term in a
    /// rewound history.
    reported: Option<(Term, Option<LeaseId>)>,
    /// Requests to resign that are not granted yet.
    resigns: Vec<RequestId>,
}

impl Election {
    /// Returns the term under which this node leads, according to the log. The node may not be allowed to act under it
    /// at the moment.
    pub(crate) fn leading(&self) -> Option<Term> {
        self.leading
    }

    /// Returns the term and the time until which this node may act under it without asking again.
    pub(crate) fn leadership(&self) -> Option<(Term, Timestamp)> {
        Some((self.leading?, self.until?))
    }

    /// Returns the term under which this node may act as leader at `now`.
    pub(crate) fn active_term(&self, now: Timestamp) -> Option<Term> {
        self.leadership().filter(|(_, until)| now < *until).map(|(term, _)| term)
    }

    /// True if this node's candidacy is in flight, or has succeeded and is not folded yet.
    pub(crate) fn may_win(&self, facts: &Facts) -> bool {
        self.campaign.is_under_way(facts)
    }

    pub(crate) fn fails_to_elect(&self, facts: &Facts) -> bool {
        self.campaign.is_failing(facts)
    }

    pub(crate) fn fails_to_resign(&self, facts: &Facts) -> bool {
        self.resign.is_failing(facts)
    }

    pub(crate) fn timers(&self, facts: &Facts, session: &Session, timers: &mut Timers) {
        timers.maybe(self.due);
        timers.maybe(self.resign.due(facts));
        timers.maybe(session.leadership_deadline(facts).filter(|_| self.acting));
    }

    /// Handles a snapshot. Terms of a log that was replaced cannot be compared with later ones.
    pub(crate) fn on_resync(&mut self, session: &Session, resync: &Resync, out: &mut Outbox) {
        self.follow_session(session, out);
        self.rank = None;
        if resync.rewound {
            self.last = None;
            self.yielded_to.clear();
        }
    }

    /// Handles a change of the log.
    pub(crate) fn on_change(&mut self, facts: &Facts, session: &Session, change: &Changed, out: &mut Outbox) {
        match change {
            Changed::Leader => self.on_leader(facts, session, out),
            Changed::Up(_) | Changed::Renewed(_) | Changed::Down(..) => self.rank = None,
            Changed::Cordoned(_) | Changed::Uncordoned(_) => self.rank = None,
            Changed::Stable | Changed::Request => self.rank = None,
            _ => {}
        }
    }

    fn on_leader(&mut self, facts: &Facts, session: &Session, out: &mut Outbox) {
        let leader = facts.fold.leader();
        let lead = leader.map(|leader| (Term::new(leader.created), leader.lease));
        if lead == self.reported {
            return;
        }
        self.reported = lead;
        let term = facts.fold.term();
        let name = leader.and_then(|leader| leader.record.as_ref()).map(|record| record.node.clone());
        if let Some(term) = term {
            self.last = name.clone().map(|name| (name, term));
        }
        self.leaderless_since = term.is_none().then_some(facts.now);
        self.rank = None;
        // Another node has led, so this node may campaign again.
        self.held_off_until = None;
        let own = own_term(facts, session).is_some();
        if term.is_some() && !own {
            self.yielded_to.clear();
        }
        out.emit(Event::LeaderChanged { leader: name, term, own });
    }

    /// Follows the election key, and campaigns or resigns if that is due.
    pub(crate) fn reconcile(
        &mut self,
        facts: &Facts,
        session: &Session,
        inputs: &VersionInputs<'_>,
        membership: &Membership,
        out: &mut Outbox,
    ) {
        self.follow_session(session, out);
        self.follow_lead(facts, session, membership, out);
        self.report_suspension(facts, out);
        self.vacate_misnamed(facts, out);
        self.vacate_for_the_willing(facts, membership, out);
        self.resign(facts, out);
        self.campaign(facts, session, inputs, membership, out);
    }

    /// Ends the leadership together with the session.
    fn follow_session(&mut self, session: &Session, out: &mut Outbox) {
        if session.change_since(&mut self.epoch) == Some(SessionChange::Ended) {
            self.change_lead(None, out);
            self.held_off_until = None;
            self.leaderless_since = None;
        }
    }

    fn follow_lead(&mut self, facts: &Facts, session: &Session, membership: &Membership, out: &mut Outbox) {
        let own = own_term(facts, session);
        let changed = self.leading != own;
        if changed {
            // The node resigned, or somebody deleted the key to have another leader: let other candidates go first.
            let pause = session.ttl(facts);
            self.held_off_until = Some(facts.now + pause).filter(|_| facts.fold.leader().is_none());
            self.change_lead(own, out);
        }
        let may_act = membership.is_member() && !facts.is_ending() && self.resigning.is_none();
        self.until = session.leadership_deadline(facts).filter(|_| may_act);
        if changed {
            // A new lead needs no event, unless its deadline has already passed.
            self.acting = self.active_term(facts.now).is_some();
        }
    }

    fn change_lead(&mut self, leading: Option<Term>, out: &mut Outbox) {
        self.leading = leading;
        self.until = None;
        self.acting = false;
        self.resigning = None;
        self.campaign.reset();
        self.resign.reset();
        std::mem::take(&mut self.resigns).into_iter().for_each(|id| out.done(id));
    }

    /// Reports that the node may no longer act under its term, or may act again.
    fn report_suspension(&mut self, facts: &Facts, out: &mut Outbox) {
        let Some(term) = self.leading.filter(|_| self.resigning.is_none()) else { return };
        let acting = self.active_term(facts.now).is_some();
        match (std::mem::replace(&mut self.acting, acting), acting) {
            (true, false) => out.emit(Event::LeadershipSuspended { term }),
            (false, true) => out.emit(Event::LeadershipResumed { term }),
            _ => {}
        }
    }

    /// Resigns if another client has overwritten the election key under this node's lease, so that it no longer names
    /// this node. Until the key is deleted, other nodes would take the wrong node for the leader.
    fn vacate_misnamed(&mut self, facts: &Facts, out: &mut Outbox) {
        let (Some(_), Some(name), Some(leader)) =
            (self.active_term(facts.now), facts.name(), facts.fold.leader())
        else {
            return;
        };
        if leader.record.as_ref().is_none_or(|record| record.node != *name) {
            out.emit(Event::Overwritten { key: facts.keys().election_key().clone() });
            self.step_down(facts, out);
        }
    }

    /// Resigns if this node is reluctant to lead and another candidate is less reluctant.
    fn vacate_for_the_willing(&mut self, facts: &Facts, membership: &Membership, out: &mut Outbox) {
        let Some(own) = membership.own(facts).map(|own| Reluctance::of(&facts.fold, own)) else { return };
        if own == Reluctance::None || self.active_term(facts.now).is_none() {
            return;
        }
        let others = facts.fold.present().filter(|node| Reluctance::of(&facts.fold, node) < own);
        let willing: BTreeSet<_> = others.map(|node| (node.name.clone(), node.created)).collect();
        if !willing.is_subset(&self.yielded_to) {
            self.yielded_to = willing;
            self.step_down(facts, out);
        }
    }

    /// Gives up the lead. From now on this node does not act as leader, and does not say that it leads.
    pub(crate) fn step_down(&mut self, facts: &Facts, out: &mut Outbox) {
        self.resigning = self.leading;
        self.until = None;
        self.resign(facts, out);
    }

    fn resign(&mut self, facts: &Facts, out: &mut Outbox) {
        let Some(term) = self.resigning else { return };
        if facts.is_ending() || !self.resign.is_free(facts) {
            return;
        }
        let election = facts.keys().election_key().clone();
        let txn = Txn::new().guard(Guard::created_at(election.clone(), term.revision())).delete(election);
        self.resign.sent(facts, out.commit(Purpose::Resign, txn, facts.now));
    }

    fn campaign(
        &mut self,
        facts: &Facts,
        session: &Session,
        inputs: &VersionInputs<'_>,
        membership: &Membership,
        out: &mut Outbox,
    ) {
        self.due = None;
        let Some(own) = membership.own(facts) else { return };
        if facts.fold.leader().is_some() || facts.is_ending() {
            return;
        }
        self.leaderless_since.get_or_insert(facts.now);
        let rank = self.rank.unwrap_or_else(|| self.rank(facts, own));
        self.rank = Some(rank);
        if session.leadership_deadline(facts).is_none_or(|deadline| facts.now >= deadline) {
            // The node may not act as leader now. A renewal will change that, and is an input.
            return;
        }
        let turn = self.turn(session, rank).max(self.held_off_until.unwrap_or_default());
        if facts.now < turn {
            self.due = Some(turn);
        } else if !self.campaign.is_free(facts) {
            self.due = self.campaign.due(facts);
        } else if let Some(txn) = candidacy(facts, session, inputs, membership, out) {
            self.campaign.sent(facts, out.commit(Purpose::Elect, txn, facts.now));
        }
    }

    /// Returns the time at which this node may campaign, by its position among the candidates.
    fn turn(&self, session: &Session, rank: u32) -> Timestamp {
        let since = self.leaderless_since.unwrap_or_default();
        let stagger = STAGGER.max(session.round_trip() * 2);
        since + stagger * rank
    }

    /// Returns this node's position among the candidates: the number of candidates that campaign before it.
    ///
    /// The last leader is not counted if it is present: it gave up the leadership, so the other candidates campaign
    /// first. If an operator proposed a node, that node campaigns first, and the others wait longer before they
    /// follow. In the same way, reluctant candidates wait longer after all others.
    fn rank(&self, facts: &Facts, own: &Arc<Node>) -> u32 {
        let last = self.last.as_ref().map(|(name, _)| name);
        let is_other = |node: &&Arc<Node>| node.name != own.name && Some(&node.name) != last;
        let others = facts.fold.present().filter(is_other);
        let precedence = Precedence::of(&facts.fold, own);
        let first = others.clone().filter(|node| Precedence::of(&facts.fold, node) < precedence);
        let is_willing = |node: &Arc<Node>| Reluctance::of(&facts.fold, node) == Reluctance::None;
        let waits = !is_willing(own) && others.clone().any(is_willing);
        let rank = first.count() as u32 + if waits { HEAD_START } else { 0 };
        match facts.fold.favoured().map(|node| &node.name) {
            None => rank,
            Some(favoured) if *favoured == own.name => 0,
            Some(_) => HEAD_START + rank,
        }
    }

    /// Handles the reply to a commit. Returns false if it is no longer awaited.
    #[must_use]
    pub(crate) fn on_committed(
        &mut self,
        facts: &Facts,
        purpose: Purpose,
        token: Token,
        result: &Result<Revision, StoreError>,
    ) -> bool {
        match purpose {
            Purpose::Resign => self.resign.take(facts, token, result),
            _ => self.campaign.take(facts, token, result),
        }
    }

    /// Handles a request to resign. It is granted when the log shows that the lead is over.
    pub(crate) fn on_resign(&mut self, facts: &Facts, id: RequestId, out: &mut Outbox) {
        if self.active_term(facts.now).is_some() {
            self.step_down(facts, out);
        } else if self.resigning.is_none() {
            return out.refuse(id, RequestError::NotLeader);
        }
        self.resigns.push(id);
    }

    /// Drops requests whose callers are no longer waiting.
    pub(crate) fn abandon(&mut self, ids: &BTreeSet<RequestId>) {
        self.resigns.retain(|id| !ids.contains(id));
    }
}

/// Reason why a node does not lead while another candidate is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reluctance {
    None,
    /// Its priority is 0.
    ZeroPriority,
    Cordoned,
}

impl Reluctance {
    fn of(fold: &Fold, node: &Node) -> Self {
        match node.priority {
            _ if fold.is_cordoned(&node.name) => Reluctance::Cordoned,
            Some(0) => Reluctance::ZeroPriority,
            _ => Reluctance::None,
        }
    }
}

/// Rank of a candidate: the order in which candidates campaign. It depends only on the log, so that all nodes agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    reluctance: Reluctance,
    /// Nodes of an earlier release have no priority and campaign by age. They rank last, so that a node of this
    /// release always campaigns at once.
    priority: Reverse<Option<u32>>,
    /// True if the newest stable version does not contain the node as it is registered now.
    is_unproven: bool,
    /// The youngest node ranks first: in a rolling restart, it has just been restarted.
    created: Reverse<Revision>,
}

impl Precedence {
    fn of(fold: &Fold, node: &Node) -> Self {
        Precedence {
            reluctance: Reluctance::of(fold, node),
            priority: Reverse(node.priority),
            is_unproven: !fold.was_stable_with(node),
            created: Reverse(node.created),
        }
    }
}

/// Returns the term of the election key, if that is stored under the lease of this session.
fn own_term(facts: &Facts, session: &Session) -> Option<Term> {
    let lease = session.lease()?;
    let leader = facts.fold.leader()?;
    (leader.lease == Some(lease)).then(|| Term::new(leader.created))
}

/// Builds the commit that elects this node and publishes a version. The version record leaves the term out, since the
/// term is the commit's own revision.
fn candidacy(
    facts: &Facts,
    session: &Session,
    inputs: &VersionInputs<'_>,
    membership: &Membership,
    out: &mut Outbox,
) -> Option<Txn> {
    let (lease, modified) = (session.lease()?, membership.modified()?);
    let name = facts.name()?.clone();
    let incarnation = membership.incarnation()?.clone();
    let mut causes = vec![Cause::Elected(name.clone())];
    causes.extend(versions::causes(facts, inputs, None));
    let record = versions::next_version(facts, inputs, None, causes, out);
    let leader = LeaderRecord { node: name.clone(), incarnation };
    let keys = facts.keys();
    let election = keys.election_key().clone();
    let txn = Txn::new()
        .guard(Guard::absent(election.clone()))
        .guard(Guard::modified_at(keys.node_key(&name), modified))
        .guard(Guard::modified_at(keys.version_key().clone(), facts.fold.version_modified()))
        .put(election, encode(&leader), lease);
    Some(versions::put_version(txn, facts, record))
}
