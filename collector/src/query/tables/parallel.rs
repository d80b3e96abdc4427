//! Reads tables in threads, several at a time, and returns what they hold in order.

use std::collections::VecDeque;
use std::iter;
use std::task::Poll;
use std::thread;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;

use crate::query::{Item, Unreadable};

/// Maximum number of tables that are decoded at a time. Each holds two row groups in memory.
const MAX_THREADS: usize = 4;
/// Number of events that a thread hands over at a time, or a few more.
const BATCH: usize = 256;
/// Number of such batches that wait to be taken.
const BATCHES: usize = 2;

/// What a thread reports.
pub(super) enum Message {
    /// The table is read.
    Begun,
    Found(Vec<Item>),
    /// The table cannot be read, for this reason.
    NotUsed(String),
}

/// Number of tables that are decoded at a time on this machine.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// Reads a table in a thread of its own, which ends early if its messages are not wanted any more.
pub(super) fn in_thread<T: Iterator<Item = Vec<Item>>>(
    begin: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> BoxStream<'static, Message> {
    let (sender, mut receiver) = mpsc::channel(BATCHES);
    let work = move || match begin() {
        Ok(scan) => {
            let _ = sender.blocking_send(Message::Begun).and_then(|()| send_all(&sender, scan));
        }
        Err(reason) => _ = sender.blocking_send(Message::NotUsed(reason)),
    };
    let thread = match thread::Builder::new().name("table".to_owned()).spawn(work) {
        Ok(thread) => thread,
        Err(error) => {
            let reason = format!("no thread can be started: {error}");
            return stream::iter([Message::NotUsed(reason)]).boxed();
        }
    };
    let ended = stream::once(async move {
        let lost = || Unreadable::new("tables/".to_owned(), "a thread panicked");
        // It has dropped the sender, so it ends at once.
        Message::Found(thread.join().err().map(|_| Err(lost())).into_iter().collect())
    });
    stream::poll_fn(move |context| receiver.poll_recv(context)).chain(ended).boxed()
}

/// The same without a thread, as messages are taken.
pub(super) fn in_turn<T: Iterator<Item = Vec<Item>> + Send + 'static>(
    begin: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> BoxStream<'static, Message> {
    let messages = async move {
        match begin() {
            Ok(scan) => stream::iter(iter::once(Message::Begun).chain(scan.map(Message::Found))).boxed(),
            Err(reason) => stream::iter([Message::NotUsed(reason)]).boxed(),
        }
    };
    stream::once(messages).flatten().boxed()
}

fn send_all(
    sender: &mpsc::Sender<Message>,
    scan: impl Iterator<Item = Vec<Item>>,
) -> Result<(), mpsc::error::SendError<Message>> {
    let mut batch = Vec::new();
    for items in scan {
        batch.extend(items);
        if batch.len() >= BATCH {
            sender.blocking_send(Message::Found(std::mem::take(&mut batch)))?;
        } else if sender.is_closed() {
            return Ok(());
        }
    }
    sender.blocking_send(Message::Found(batch))
}

/// The items of parts in their order, with at most `limit` parts begun.
pub(super) fn flattened<'a, T: Send + 'a>(
    parts: BoxStream<'a, T>,
    limit: usize,
    begin: impl Fn(T) -> BoxStream<'a, Item> + Send + 'a,
) -> BoxStream<'a, Item> {
    let (mut parts, mut running) = (parts.fuse(), VecDeque::<BoxStream<'a, Item>>::new());
    stream::poll_fn(move |context| {
        loop {
            while running.len() < limit
                && let Poll::Ready(Some(part)) = parts.poll_next_unpin(context)
            {
                running.push_back(begin(part));
            }
            let Some(first) = running.front_mut() else {
                return if parts.is_done() { Poll::Ready(None) } else { Poll::Pending };
            };
            match first.poll_next_unpin(context) {
                Poll::Ready(None) => _ = running.pop_front(),
                polled => return polled,
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: usize) -> Item {
        Err(Unreadable::new(number.to_string(), ""))
    }

    fn place(item: &Item) -> String {
        item.as_ref().unwrap_err().place.clone()
    }

    #[tokio::test]
    async fn order_is_kept_and_few_parts_are_begun() {
        let parts = stream::iter(0..9_usize).boxed();
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&count);
        let begin = move |part: usize| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let items = move || Ok((0..600).map(move |at| vec![item(600 * part + at)]));
            let messages = in_thread(items).flat_map(|message| match message {
                Message::Found(items) => stream::iter(items).boxed(),
                _ => stream::empty().boxed(),
            });
            messages.boxed()
        };
        let mut found = flattened(parts, 3, begin);
        for at in 0..9 * 600 {
            assert_eq!(place(&found.next().await.unwrap()), at.to_string());
            let now = count.load(std::sync::atomic::Ordering::Relaxed);
            assert!(now <= at / 600 + 3, "{now} parts are begun at item {at}");
        }
        assert!(found.next().await.is_none());
    }

    #[tokio::test]
    async fn panic_is_no_end_of_the_answer() {
        let items = || Ok((0..300).map(|at| if at < 280 { vec![item(at)] } else { panic!("on purpose") }));
        let messages: Vec<Message> = in_thread(items).collect().await;
        let found = messages.iter().flat_map(|message| match message {
            Message::Found(items) => items.iter().map(place).collect(),
            _ => Vec::new(),
        });
        assert_eq!(found.last().as_deref(), Some("tables/"));
    }
}
