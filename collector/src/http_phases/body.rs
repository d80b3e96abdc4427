//! The body of a request, handed over in parts, so that the moment is known at which the last one was taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Call;

/// Size in bytes of the parts in which a body is handed over.
const PART_BYTES: usize = 64 * 1024;

impl Call {
    /// A body that notes when it was handed over.
    pub(crate) fn body(&self, bytes: Vec<u8>) -> reqwest::Body {
        reqwest::Body::wrap(MeasuredBody { rest: bytes.into(), call: self.clone() })
    }
}

/// A body in parts, which notes when the last one was handed over.
struct MeasuredBody {
    rest: Bytes,
    call: Call,
}

impl http_body::Body for MeasuredBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.rest.len().min(PART_BYTES);
        let part = self.rest.split_to(part);
        if self.rest.is_empty() {
            self.call.note(|moments, now| moments.sent = Some(now));
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
