//! A model of a server of NATS JetStream with one stream, and the connections to it.
//!
//! What a connection sent arrives when the schedule says so: also after its publisher has ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use collector::publish::{Answer, BrokerError, JetStream, Message, Stored, Stream, StreamLimits};

use super::outbox::{Line, line_of};
use super::{Model, Shared, Turn};
use crate::rng::SeededRng;

/// What keeps the promises, and is switched off one at a time to see that the simulation can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// The server compares the expected with the last sequence number.
    ExpectedSequence,
    /// The server remembers ids of messages for a while.
    MessageId,
    /// The publisher asks the server how far messages reach after an unknown outcome, and does not trust what it knew before.
    ReadBack,
    /// Where the last message is gone, the publisher does not begin anew.
    LostPosition,
}

/// Time for which ids of messages are remembered.
const WINDOW: u64 = 40;

type Reply = Arc<Mutex<Option<Answer>>>;

#[derive(Debug)]
struct Sent {
    id: String,
    expected: u64,
    publisher: String,
    line: Line,
    reply: Reply,
}

/// The server, and what is under way to it.
#[derive(Debug, Default)]
pub(super) struct Server {
    broken: Option<Guard>,
    time: u64,
    messages: BTreeMap<u64, Stored>,
    last: u64,
    ids: BTreeMap<String, (u64, u64)>,
    connections: Vec<VecDeque<Sent>>,
    consumed: Vec<(usize, Line)>,
}

impl Model for Server {
    type Guard = Guard;
    type Broker = JetStream<Connection>;

    fn without(broken: Option<Guard>, _: &mut SeededRng) -> Self {
        Self { broken, ..Self::default() }
    }

    fn broker(shared: &Shared<Self>, publisher: String) -> Self::Broker {
        JetStream::new(Connection::new(shared), publisher)
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn consumed(&self) -> &[(usize, Line)] {
        &self.consumed
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn pass(&mut self, rng: &mut SeededRng) {
        self.time += if rng.chance(20) { 1_000 } else { 1 };
    }

    fn receive(&mut self, connection: usize, answers: bool) {
        let Some(sent) = self.connections[connection].pop_front() else { return };
        let answer = self.store(&sent);
        *sent.reply.lock().unwrap() = Some(if answers { answer } else { lost() });
        if !answers {
            self.cut(connection, true);
        }
    }

    fn refuse(&mut self, connection: usize) {
        let Some(sent) = self.connections[connection].pop_front() else { return };
        *sent.reply.lock().unwrap() = Some(Answer::Refused("no memory".to_owned()));
    }

    fn cut(&mut self, connection: usize, arrives: bool) {
        for sent in &self.connections[connection] {
            let mut reply = sent.reply.lock().unwrap();
            reply.get_or_insert_with(lost);
        }
        if !arrives {
            self.connections[connection].clear();
        }
    }

    /// Whether every message is within the window of its id.
    fn remembers_all(&self) -> bool {
        self.ids.len() == self.consumed.len()
    }

    /// Everything is removed from the stream, which keeps its last sequence number.
    fn purge(&mut self) {
        self.messages.clear();
    }
}

impl Server {
    fn store(&mut self, sent: &Sent) -> Answer {
        let window = self.time.saturating_sub(WINDOW);
        self.ids.retain(|_, (_, at)| *at >= window);
        if self.broken != Some(Guard::MessageId)
            && let Some((number, _)) = self.ids.get(&sent.id)
        {
            return Answer::Duplicate(*number);
        }
        if self.broken != Some(Guard::ExpectedSequence) && sent.expected != self.last {
            return Answer::OtherLast;
        }
        self.last += 1;
        self.ids.insert(sent.id.clone(), (self.last, self.time));
        let stored = Stored { position: Some(sent.id.clone()), publisher: Some(sent.publisher.clone()) };
        self.messages.insert(self.last, stored);
        self.consumed.push((0, sent.line.clone()));
        if self.broken == Some(Guard::ExpectedSequence) {
            // The publisher checks the number; a server that stores anything would have given the expected one.
            return Answer::Stored(sent.expected + 1);
        }
        Answer::Stored(self.last)
    }
}

fn lost() -> Answer {
    Answer::Lost("the connection was lost".to_owned())
}

/// A publisher's connection.
#[derive(Debug)]
pub(super) struct Connection {
    server: Shared<Server>,
    number: usize,
    /// What the server answered last, for one that does not ask.
    known: Option<(u64, Option<Stored>)>,
}

impl Connection {
    fn new(server: &Shared<Server>) -> Self {
        Self { server: Arc::clone(server), number: usize::MAX, known: None }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }
}

#[async_trait]
impl Stream for Connection {
    async fn connect(&mut self) -> Result<StreamLimits, BrokerError> {
        Turn::default().await;
        let mut server = self.server.lock().unwrap();
        if self.number < server.connections() {
            server.cut(self.number, true);
        }
        self.number = server.connections();
        server.connections.push(VecDeque::new());
        Ok(StreamLimits::default())
    }

    async fn last(&mut self) -> Result<(u64, Option<Stored>), BrokerError> {
        Turn::default().await;
        let (broken, last, stored) = {
            let server = self.server();
            (server.broken, server.last, server.messages.get(&server.last).cloned())
        };
        match (broken, &self.known) {
            (Some(Guard::ReadBack), Some(known)) => return Ok((last, known.1.clone())),
            (Some(Guard::LostPosition), _) if stored.is_none() => return Ok((0, None)),
            _ => {}
        }
        self.known = Some((last, stored.clone()));
        Ok((last, stored))
    }

    async fn append(&mut self, publisher: &str, expected: u64, messages: &[Message]) -> Vec<Answer> {
        let mut replies = Vec::new();
        {
            let mut server = self.server();
            for (expected, message) in (expected..).zip(messages) {
                let reply = Reply::default();
                replies.push(Arc::clone(&reply));
                server.connections[self.number].push_back(Sent {
                    id: message.position.to_string(),
                    expected,
                    publisher: publisher.to_owned(),
                    line: line_of(message),
                    reply,
                });
            }
        }
        let mut answers = Vec::new();
        for reply in replies {
            let answer = loop {
                if let Some(answer) = reply.lock().unwrap().clone() {
                    break answer;
                }
                Turn::default().await;
            };
            let is_stored = matches!(answer, Answer::Stored(_));
            answers.push(answer);
            if !is_stored {
                break;
            }
        }
        answers
    }

    fn target(&self) -> String {
        "the model".to_owned()
    }
}
