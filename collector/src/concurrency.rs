//! Runs futures several at a time, in order.
//!
//! The futures and the stream are boxed, so that every future that waits for them can be sent between threads: the
//! compiler cannot prove that of a stream over a borrowed iterator.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};

/// The results of the futures in their order, with at most `limit` (at least one) under way. A future is made when it is
/// about to begin.
pub(crate) fn buffered<'a, T: Send + 'a>(
    limit: usize,
    futures: impl IntoIterator<Item = BoxFuture<'a, T>, IntoIter: Send + 'a>,
) -> BoxStream<'a, T> {
    stream::iter(futures).buffered(limit.max(1)).boxed()
}
