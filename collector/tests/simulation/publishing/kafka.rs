//! A model of a cluster of Kafka with one topic and one transactional id, and the connections to it.
//!
//! As Kafka before version 4, and without the verification of partitions: the leader of a partition compares the epoch of a message
//! with the newest one that it has seen itself, and not with the coordinator's. A message that arrives after its transaction had
//! ended becomes a part of the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use collector::publish::{BrokerError, Ends, Message, Stored, Topic, TopicLimits, Transactions};

use super::outbox::{Line, line_of};
use super::{Model, Shared, Turn};
use crate::rng::SeededRng;

/// What keeps the promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// The coordinator and the leaders compare epochs.
    Epoch,
    /// What is not committed is aborted, of all partitions.
    Abort,
    /// The publisher ends no transaction while a message is under way.
    Answers,
    /// The publisher asks for the last message after an unknown outcome, and does not trust what it knew before.
    ReadBack,
    /// The last message is a committed one.
    Committed,
    /// The publisher does not read the last message while a transaction is open before it.
    Undecided,
    /// Where the last message is gone, the publisher does not begin anew.
    LostPosition,
}

impl Guard {
    pub(super) const ALL: [Self; 7] = [
        Self::Epoch,
        Self::Abort,
        Self::Answers,
        Self::ReadBack,
        Self::Committed,
        Self::Undecided,
        Self::LostPosition,
    ];
}

#[derive(Debug, Clone)]
enum Request {
    /// Begin with a new epoch.
    Init,
    /// Add partitions to the transaction.
    Add(u32, BTreeSet<usize>),
    /// Store messages in a partition.
    Produce(u32, usize, Vec<Content>),
    /// Commit the transaction.
    Commit(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is done, at this epoch.
    Done(u32),
    /// Another producer has begun.
    Fenced,
    /// It is not done.
    Refused,
    /// The answer was lost.
    Lost,
}

/// A message with its line, or one of another program.
type Content = Option<(Stored, Line)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Of a transaction of another program.
    Foreign,
    Committed,
    Aborted,
}

#[derive(Debug, Default)]
struct Partition {
    messages: Vec<(Content, State)>,
    first: usize,
    /// The newest epoch that its leader has seen.
    epoch: u32,
    /// Up to which offset a consumer has read.
    consumed: usize,
}

impl Partition {
    fn stable(&self) -> usize {
        let is_open = |(_, state): &(Content, State)| matches!(state, State::Open | State::Foreign);
        self.messages.iter().position(is_open).unwrap_or(self.messages.len())
    }

    fn decide(&mut self, from: State, to: State) {
        self.messages.iter_mut().filter(|(_, state)| *state == from).for_each(|(_, state)| *state = to);
    }
}

type Reply = Arc<Mutex<Option<Answer>>>;

/// The cluster, and what is under way to it.
#[derive(Debug)]
pub(super) struct Cluster {
    broken: Option<Guard>,
    partitions: Vec<Partition>,
    /// The epoch that the coordinator gave last.
    epoch: u32,
    /// The partitions of the open transaction.
    open: BTreeSet<usize>,
    connections: Vec<VecDeque<(Request, Reply)>>,
    consumed: Vec<(usize, Line)>,
}

impl Cluster {
    fn serve(&mut self, request: Request) -> Answer {
        let (coordinator, is_checked) = (self.epoch, self.broken != Some(Guard::Epoch));
        match request {
            Request::Init => {
                self.epoch += 2;
                let is_committed = self.broken == Some(Guard::Abort);
                self.end(self.epoch - 1, if is_committed { State::Committed } else { State::Aborted });
                Answer::Done(self.epoch)
            }
            Request::Add(epoch, _) | Request::Commit(epoch) if is_checked && epoch != coordinator => {
                Answer::Fenced
            }
            Request::Add(epoch, partitions) => {
                self.open.extend(partitions);
                Answer::Done(epoch)
            }
            Request::Produce(epoch, partition, contents) => {
                let partition = &mut self.partitions[partition];
                if is_checked && epoch < partition.epoch {
                    return Answer::Fenced;
                }
                partition.epoch = partition.epoch.max(epoch);
                partition.messages.extend(contents.into_iter().map(|content| (content, State::Open)));
                Answer::Done(epoch)
            }
            Request::Commit(epoch) => {
                self.end(epoch, State::Committed);
                Answer::Done(epoch)
            }
        }
    }

    fn end(&mut self, epoch: u32, decision: State) {
        for index in std::mem::take(&mut self.open) {
            let partition = &mut self.partitions[index];
            partition.epoch = partition.epoch.max(epoch);
            partition.decide(State::Open, decision);
        }
        self.consume();
    }

    fn consume(&mut self) {
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let stable = partition.stable();
            for (content, state) in &partition.messages[partition.consumed..stable] {
                if let (Some((_, line)), State::Committed) = (content, state) {
                    self.consumed.push((index, line.clone()));
                }
            }
            partition.consumed = stable;
        }
    }
}

impl Model for Cluster {
    type Guard = Guard;
    type Broker = Transactions<Connection>;

    fn without(broken: Option<Guard>, rng: &mut SeededRng) -> Self {
        let partitions = (0..=rng.index(3)).map(|_| Partition::default()).collect();
        let (connections, consumed) = (Vec::new(), Vec::new());
        Self { broken, partitions, epoch: 0, open: BTreeSet::new(), connections, consumed }
    }

    fn broker(shared: &Shared<Self>, publisher: String) -> Self::Broker {
        let topic =
            Connection { cluster: Arc::clone(shared), number: usize::MAX, epoch: 0, known: BTreeMap::new() };
        Transactions::new(topic, publisher)
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn receive(&mut self, connection: usize, answers: bool) {
        let Some((request, reply)) = self.connections[connection].pop_front() else { return };
        let answer = self.serve(request);
        *reply.lock().unwrap() = Some(if answers { answer } else { Answer::Lost });
        if !answers {
            self.cut(connection, true);
        }
    }

    fn refuse(&mut self, connection: usize) {
        let Some((_, reply)) = self.connections[connection].pop_front() else { return };
        *reply.lock().unwrap() = Some(Answer::Refused);
    }

    fn cut(&mut self, connection: usize, arrives: bool) {
        for (_, reply) in &self.connections[connection] {
            reply.lock().unwrap().get_or_insert(Answer::Lost);
        }
        if !arrives {
            self.connections[connection].clear();
        }
    }

    /// Now and then another program begins a transaction, or ends it.
    fn pass(&mut self, rng: &mut SeededRng) {
        match rng.below(100) {
            0 => {
                let index = rng.index(self.partitions.len());
                self.partitions[index].messages.push((None, State::Foreign));
            }
            1..10 => self.settle(),
            _ => {}
        }
    }

    fn settle(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.decide(State::Foreign, State::Aborted));
        self.consume();
    }

    fn consumed(&self) -> &[(usize, Line)] {
        &self.consumed
    }

    fn is_empty(&self) -> bool {
        self.consumed.is_empty()
    }

    fn remembers_all(&self) -> bool {
        false
    }

    fn purge(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.first = partition.messages.len());
    }
}

/// A publisher's connection.
#[derive(Debug)]
pub(super) struct Connection {
    cluster: Shared<Cluster>,
    number: usize,
    epoch: u32,
    /// What the last message of each partition was, for one that does not ask.
    known: BTreeMap<usize, Option<Stored>>,
}

impl Connection {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    fn send(&self, request: Request) -> Reply {
        let reply = Reply::default();
        self.cluster().connections[self.number].push_back((request, Arc::clone(&reply)));
        reply
    }

    async fn answer(&self, reply: Reply) -> Result<u32, BrokerError> {
        loop {
            match *reply.lock().unwrap() {
                None => {}
                Some(Answer::Done(epoch)) => return Ok(epoch),
                Some(Answer::Fenced) => {
                    let (target, reason) = (self.target(), "fenced".to_owned());
                    return Err(BrokerError::Fenced { target, reason });
                }
                Some(Answer::Refused) => return Err(BrokerError::Temporary("not now".to_owned())),
                Some(Answer::Lost) => return Err(BrokerError::OutcomeUnknown("lost".to_owned())),
            }
            Turn::default().await;
        }
    }
}

#[async_trait]
impl Topic for Connection {
    async fn connect(&mut self) -> Result<TopicLimits, BrokerError> {
        Turn::default().await;
        let number = {
            let mut cluster = self.cluster();
            if self.number < cluster.connections() {
                cluster.cut(self.number, true);
            }
            cluster.connections.push(VecDeque::new());
            cluster.connections() - 1
        };
        self.number = number;
        Ok(TopicLimits::default())
    }

    async fn take_over(&mut self) -> Result<(), BrokerError> {
        let begun = self.send(Request::Init);
        self.epoch = match self.answer(begun).await {
            Err(BrokerError::OutcomeUnknown(reason)) => return Err(BrokerError::Temporary(reason)),
            answer => answer?,
        };
        Ok(())
    }

    async fn ends(&mut self) -> Result<Vec<Ends>, BrokerError> {
        Turn::default().await;
        let cluster = self.cluster();
        let offset = |offset: usize| i64::try_from(offset).unwrap();
        let ends = cluster.partitions.iter().map(|partition| {
            let (stable, end) = (offset(partition.stable()), offset(partition.messages.len()));
            let is_gone = partition.first == partition.messages.len();
            let first =
                if is_gone && cluster.broken == Some(Guard::LostPosition) { 0 } else { partition.first };
            let end = if cluster.broken == Some(Guard::Undecided) { stable } else { end };
            Ends { first: offset(first), stable, end }
        });
        Ok(ends.collect())
    }

    async fn last(&mut self, partition: usize, ends: Ends) -> Result<Option<Stored>, BrokerError> {
        Turn::default().await;
        let (broken, last) = {
            let cluster = self.cluster();
            let (broken, of) = (cluster.broken, &cluster.partitions[partition]);
            let stable = usize::try_from(ends.stable).unwrap().max(of.first);
            let is_last = |state: State| state == State::Committed || broken == Some(Guard::Committed);
            let mut kept = of.messages[of.first..stable].iter().rev();
            let last = kept.find_map(|(content, state)| content.as_ref().filter(|_| is_last(*state)));
            (broken, last.map(|(stored, _)| stored.clone()))
        };
        if broken == Some(Guard::ReadBack)
            && let Some(known) = self.known.get(&partition)
        {
            return Ok(known.clone());
        }
        self.known.insert(partition, last.clone());
        Ok(last)
    }

    async fn commit(&mut self, publisher: &str, messages: &[Message]) -> Result<(), BrokerError> {
        let (partitions, is_broken) = {
            let cluster = self.cluster();
            (cluster.partitions.len(), cluster.broken == Some(Guard::Answers))
        };
        let mut by_partition: BTreeMap<usize, Vec<Content>> = BTreeMap::new();
        for message in messages {
            let position = Some(message.position.to_string());
            let stored = Stored { position, publisher: Some(publisher.to_owned()) };
            let partition = usize::try_from(message.id.unsigned_abs()).unwrap() % partitions;
            by_partition.entry(partition).or_default().push(Some((stored, line_of(message))));
        }
        let added = self.send(Request::Add(self.epoch, by_partition.keys().copied().collect()));
        self.answer(added).await?;
        let sent: Vec<Reply> = by_partition
            .into_iter()
            .map(|(partition, contents)| self.send(Request::Produce(self.epoch, partition, contents)))
            .collect();
        if !is_broken {
            for reply in sent {
                self.answer(reply).await?;
            }
        }
        let committed = self.send(Request::Commit(self.epoch));
        self.answer(committed).await?;
        Ok(())
    }

    fn target(&self) -> String {
        "the model".to_owned()
    }
}
