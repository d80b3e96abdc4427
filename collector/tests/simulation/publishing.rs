//! Publishers, a model of a broker, virtual time: whatever goes wrong, each line of the archive is published once and in order.
//!
//! ```text
//! PUBLISHING_SEED=4711 cargo test -p polisen-events-collector --test simulation publishing::every
//! PUBLISHING_SEEDS=1000000 cargo test --release -p polisen-events-collector --test simulation publishing::every
//! ```

mod kafka;
mod outbox;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use collector::clock::VirtualClock;
use collector::publish::{Beginning, Broker, BrokerError, PublishError, PublishOptions, Publisher};

use crate::rng::SeededRng;
use crate::seeds::{first_failure, number};
use crate::{SEEDS, TAPES};
use outbox::{Growing, Line, Outbox};
use server::Server;

const RESPONSES: usize = 10;
const STEPS: u32 = 200;
/// Number of turns after which a publisher without faults must be done.
const PATIENCE: usize = 20_000;

fn outbox_of(seed: u64) -> &'static Outbox {
    static ALL: OnceLock<Vec<Outbox>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let tapes = (0..TAPES / 2).map(|seed| crate::tape::Tape::record(seed, RESPONSES));
        tapes.map(|tape| Outbox::record(&tape)).collect()
    });
    &all[usize::try_from(seed % (TAPES / 2)).unwrap()]
}

/// A model of a broker, and the connections to it. What a connection sent arrives when the schedule says so.
trait Model: Sized + Send + 'static {
    /// What keeps the promises, and is switched off one at a time to see that the simulation can fail.
    type Guard: Copy + Debug + Send + Sync;

    /// What a publisher uses.
    type Broker: Broker + Sync + 'static;

    /// A broker, and publishers, without a guard.
    fn without(broken: Option<Self::Guard>, rng: &mut SeededRng) -> Self;

    fn broker(shared: &Shared<Self>, publisher: String) -> Self::Broker;

    fn connections(&self) -> usize;

    /// The oldest request of a connection arrives. Without `answers` the answer is lost, and with it the connection.
    fn receive(&mut self, connection: usize, answers: bool);

    /// The oldest request of a connection is not served now.
    fn refuse(&mut self, connection: usize);

    /// A connection is lost. What was under way arrives later, or never.
    fn cut(&mut self, connection: usize, arrives: bool);

    /// Time passes.
    fn pass(&mut self, rng: &mut SeededRng);

    /// What disturbed is over.
    fn settle(&mut self) {}

    /// What a consumer got that reads at once whatever it may, with the partition.
    fn consumed(&self) -> &[(usize, Line)];

    fn is_empty(&self) -> bool;

    /// Whether it refuses each message that it ever had.
    fn remembers_all(&self) -> bool;

    /// Every message is removed.
    fn purge(&mut self);
}

type Shared<M> = Arc<Mutex<M>>;

/// Lets the schedule decide what happens next.
#[derive(Debug, Default)]
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

struct Schedule<M> {
    rng: SeededRng,
    outbox: &'static Outbox,
    growing: Arc<Growing>,
    server: Shared<M>,
    publishers: Vec<Running>,
    started: u64,
    /// How many lines were checked.
    checked: usize,
    published: BTreeSet<Line>,
    /// The last line of each partition.
    last: BTreeMap<usize, Line>,
}

impl<M: Model> Schedule<M> {
    fn new(seed: u64, broken: Option<M::Guard>) -> Self {
        let outbox = outbox_of(seed);
        let mut rng = SeededRng::of(seed);
        let server = Arc::new(Mutex::new(M::without(broken, &mut rng)));
        let growing = outbox.growing();
        Self {
            rng,
            outbox,
            growing,
            server,
            publishers: Vec::new(),
            started: 0,
            checked: 0,
            published: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    fn start(&mut self, from: Beginning) {
        self.started += 1;
        let archive = self.growing.archive();
        let broker = M::broker(&self.server, format!("publisher {}", self.started));
        let options = PublishOptions {
            from,
            batch_messages: 1 + self.rng.index(9),
            failures: None,
            seed: self.started,
            ..PublishOptions::default()
        };
        let clock = Arc::new(VirtualClock::at(chrono::DateTime::UNIX_EPOCH));
        self.publishers
            .push(Box::pin(async move { Publisher::new(&archive, broker, clock, options).catch_up().await }));
    }

    /// Polls a publisher until it waits. It ends when it is done, or when another one has taken over.
    fn turn(&mut self, index: usize) -> Result<bool, String> {
        match self.publishers[index].as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(()) | Err(PublishError::Broker(BrokerError::Fenced { .. }))) => {}
            Poll::Ready(Err(error)) => return Err(format!("publishing ended: {error}")),
        }
        drop(self.publishers.swap_remove(index));
        Ok(true)
    }

    fn step(&mut self) -> Result<(), String> {
        let connections = self.server.lock().unwrap().connections();
        match self.rng.below(100) {
            0..45 if !self.publishers.is_empty() => {
                let index = self.rng.index(self.publishers.len());
                self.turn(index)?;
            }
            45..80 if connections > 0 => {
                // Mostly the newest, also those whose publisher is long gone.
                let newest = self.rng.chance(700);
                let connection = if newest { connections - 1 } else { self.rng.index(connections) };
                let mut server = self.server.lock().unwrap();
                match self.rng.below(40) {
                    0 => server.receive(connection, false),
                    1 => server.refuse(connection),
                    2 => server.cut(connection, self.rng.chance(500)),
                    _ => server.receive(connection, true),
                }
            }
            80..84 => self.growing.grow(),
            84..86 if !self.publishers.is_empty() => {
                let index = self.rng.index(self.publishers.len());
                // Killed, whatever it was doing.
                drop(self.publishers.swap_remove(index));
            }
            86..90 if self.publishers.len() < 2 => self.start(Beginning::Start),
            _ => self.server.lock().unwrap().pass(&mut self.rng),
        }
        if self.publishers.is_empty() && self.rng.chance(300) {
            self.start(Beginning::Start);
        }
        self.check()
    }

    /// Nothing is published twice, nothing before what precedes it in the archive.
    fn check(&mut self) -> Result<(), String> {
        let server = self.server.lock().unwrap();
        let consumed = server.consumed();
        for (partition, line) in &consumed[self.checked..] {
            let text = String::from_utf8_lossy(&line.1);
            if !self.published.insert(line.clone()) {
                return Err(format!("published twice: {text}"));
            }
            let order = |line: &Line| self.outbox.lines.get(line).map(|at| (*at, line.0));
            if self.last.get(partition).is_some_and(|before| order(before) > order(line))
                || order(line).is_none()
            {
                return Err(format!("published out of order: {text}"));
            }
            self.last.insert(*partition, line.clone());
        }
        self.checked = consumed.len();
        Ok(())
    }

    /// Without faults everything is published in the end.
    fn finish(&mut self) -> Result<(), String> {
        self.publishers.clear();
        self.server.lock().unwrap().settle();
        (0..self.outbox.stages()).for_each(|_| self.growing.grow());
        for _ in 0..PATIENCE {
            if self.publishers.is_empty() {
                self.start(Beginning::Start);
            }
            let ended = self.turn(0)?;
            let connections = self.server.lock().unwrap().connections();
            for connection in 0..connections {
                self.server.lock().unwrap().receive(connection, true);
            }
            self.check()?;
            if ended && self.published.len() == self.outbox.lines.len() {
                return self.purge();
            }
        }
        let missing = self.outbox.until(self.outbox.stages()).len() - self.published.len();
        Err(format!("{missing} lines are never published"))
    }

    /// After a purge nothing is published again: neither by itself nor, within the server's window, because somebody says so.
    fn purge(&mut self) -> Result<(), String> {
        if self.server.lock().unwrap().is_empty() {
            return Ok(());
        }
        let mut attempts = vec![Beginning::Start];
        if self.server.lock().unwrap().remembers_all() {
            attempts.push(Beginning::After(self.first_cursor()));
        }
        self.server.lock().unwrap().purge();
        for from in attempts {
            self.start(from);
            let mut result = None;
            for _ in 0..PATIENCE {
                let ended = self.turn(self.publishers.len() - 1);
                let newest = self.server.lock().unwrap().connections().saturating_sub(1);
                self.server.lock().unwrap().receive(newest, true);
                self.check()?;
                if ended != Ok(false) {
                    result = Some(ended);
                    break;
                }
            }
            self.publishers.clear();
            match result {
                Some(Err(_)) => {}
                other => return Err(format!("publishing after a purge did not fail: {other:?}")),
            }
        }
        Ok(())
    }

    fn first_cursor(&self) -> collector::archive::Cursor {
        let archive = self.growing.archive();
        outbox::now(archive.changes(None, 1)).unwrap().cursor
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.finish()
    }
}

fn first_violation<M: Model>(seeds: std::ops::Range<u64>, broken: Option<M::Guard>) -> Option<(u64, String)> {
    first_failure(seeds, |seed| Schedule::<M>::new(seed, broken).run())
}

fn assert_published_once<M: Model>() {
    let seeds = match number("PUBLISHING_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PUBLISHING_SEEDS").unwrap_or(SEEDS),
    };
    let found = first_violation::<M>(seeds, None);
    assert_eq!(found, None, "once more: PUBLISHING_SEED=… cargo test --test simulation publishing::every");
}

#[test]
fn every_line_is_published_once_and_in_order_to_nats() {
    assert_published_once::<Server>();
}

#[test]
fn every_line_is_published_once_and_in_order_to_kafka() {
    assert_published_once::<kafka::Cluster>();
}

#[track_caller]
fn assert_needed<M: Model>(guard: M::Guard) {
    let found = first_violation::<M>(0..SEEDS, Some(guard));
    assert!(found.is_some(), "without {guard:?} nothing went wrong in {SEEDS} schedules");
}

#[test]
fn without_the_expected_sequence_a_promise_is_broken() {
    assert_needed::<Server>(server::Guard::ExpectedSequence);
}

#[test]
fn without_message_ids_a_promise_is_broken() {
    assert_needed::<Server>(server::Guard::MessageId);
}

#[test]
fn without_reading_back_a_promise_is_broken() {
    assert_needed::<Server>(server::Guard::ReadBack);
}

#[test]
fn without_refusing_a_lost_position_a_promise_is_broken() {
    assert_needed::<Server>(server::Guard::LostPosition);
}

#[test]
fn without_a_guard_of_transactions_a_promise_is_broken() {
    for guard in kafka::Guard::ALL {
        assert_needed::<kafka::Cluster>(guard);
    }
}
