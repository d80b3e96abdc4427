//! Second step of a run: finds the events in a response, in place.
//!
//! Every byte is validated, but no value is built: an event is a range of the response's bytes with its
//! id, its local day and a fingerprint of its content. The bytes go to the archive as they came. A text
//! that is not a JSON array is refused whole; an element that is not a valid event is kept apart with the reason.

mod content;
mod date;
mod fields;
mod fingerprint;
mod scan;
mod shape;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use chrono::NaiveDate;
use serde::Serialize;
use thiserror::Error;

use content::Canonical;
pub use content::content;
pub use date::{LocalTime, local_day, local_time};
pub use fields::{Fields, Values};
pub use fingerprint::Fingerprint;
pub use scan::{Fault, MAX_DEPTH, SyntaxError};
use scan::{RawString, Scanner, Stop};

/// An event's number, as its publisher gives it.
pub type EventId = i64;

/// Default of the maximum number of elements of a response: 500 times what the feed sends, and as many of its events as
/// 64 MiB hold.
pub const MAX_ELEMENTS: usize = 250_000;
/// Number of elements that are read between two checks of the deadline.
const ELEMENTS_PER_CHECK: usize = 1_024;

/// What reading a response may cost.
#[derive(Clone, Copy)]
pub struct ParseLimits<'a> {
    /// Maximum number of elements.
    pub max_elements: usize,
    /// Returns true once the time for it is over. Called every 1,024 elements.
    pub is_over: &'a (dyn Fn() -> bool + Sync),
}

impl Default for ParseLimits<'_> {
    /// [`MAX_ELEMENTS`], and no deadline.
    fn default() -> Self {
        Self { max_elements: MAX_ELEMENTS, is_over: &|| false }
    }
}

impl fmt::Debug for ParseLimits<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ParseLimits")
            .field("max_elements", &self.max_elements)
            .finish_non_exhaustive()
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a body is not a valid response. Nothing of such a body is stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Nothing but white space.
    #[error("the response is empty")]
    Empty,
    /// A byte sequence that is not text.
    #[error("the response is not UTF-8: invalid byte at offset {offset}")]
    InvalidUtf8 {
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// A web page, as gateways and block pages send it.
    #[error("the response is a web page, not JSON")]
    WebPage,
    /// A JSON value of another kind, such as an error object.
    #[error("the response is JSON, but {found} and not an array of events")]
    NotAnArray {
        /// What it is.
        found: &'static str,
    },
    /// No JSON.
    #[error("the response is not valid JSON: {0}")]
    Syntax(#[from] SyntaxError),
    /// More than [`ParseLimits::max_elements`].
    #[error("the response has more than {limit} elements, the maximum that `--max-elements` allows")]
    TooManyElements {
        /// The maximum.
        limit: usize,
    },
    /// The time for it was over.
    #[error("the run's time was over before the response was read")]
    Deadline,
    /// More bytes than a position in it can name.
    #[error("the response has {size_bytes} bytes, more than can be read")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
}

/// Why an element of a response is not a valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectReason {
    /// A number, a text, an array, null.
    #[error("not an object")]
    NotAnObject,
    /// No `id`.
    #[error("no id")]
    MissingId,
    /// An `id` that is no integer of 64 bits.
    #[error("the id is not an integer of 64 bits")]
    InvalidId,
    /// No `datetime`.
    #[error("no datetime")]
    MissingDatetime,
    /// A `datetime` that is no text, does not exist, or has no offset.
    #[error("the datetime is not a date and time with an offset")]
    InvalidDatetime,
    /// `id` or `datetime` twice: no reader could know which one counts.
    #[error("id or datetime is given twice")]
    AmbiguousKey,
    /// A `\ud800` without its partner: not text, and many readers refuse it.
    #[error("a string holds half a surrogate pair")]
    HalfSurrogate,
    /// More than [`MAX_DEPTH`] levels of arrays and objects, the array of the response included: many readers refuse it.
    #[error("nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// What is known of an event without building it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub id: EventId,
    /// Its local day, by its own `datetime`.
    pub day: NaiveDate,
    /// Its content.
    pub fingerprint: Fingerprint,
}

/// One element of a response.
#[derive(Debug, Clone)]
pub struct Element {
    span: Range<u32>,
    line_break: bool,
    /// The event, or why it is none.
    pub event: Result<Event, RejectReason>,
}

/// A response: a body that is a JSON array, and what its elements are.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    body: Cow<'a, [u8]>,
    elements: Vec<Element>,
}

impl<'a> Response<'a> {
    /// Reads a body.
    ///
    /// ```
    /// let body = br#"[{"id":1,"datetime":"2026-01-02 9:38:09 +01:00","name":"Brand"}]"#;
    /// let response = collector::event::Response::parse(body)?;
    /// let event = response.elements()[0].event.unwrap();
    /// assert_eq!((event.id, event.day.to_string().as_str()), (1, "2026-01-02"));
    /// # Ok::<(), collector::event::ResponseError>(())
    /// ```
    ///
    /// # Errors
    /// [`ResponseError`] if the body is anything but one JSON array in UTF-8 of at most [`MAX_ELEMENTS`].
    pub fn parse(body: &'a [u8]) -> Result<Self, ResponseError> {
        Self::parse_within(body, &ParseLimits::default())
    }

    /// Reads a body within other limits.
    ///
    /// # Errors
    /// As for [`Response::parse`], and [`ResponseError::Deadline`].
    pub fn parse_within(body: &'a [u8], limits: &ParseLimits<'_>) -> Result<Self, ResponseError> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        Ok(Self { elements: elements_of(body, limits)?, body: body.into() })
    }

    /// Reads a body of at most `max_elements`, and keeps it.
    ///
    /// # Errors
    /// As for [`Response::parse`].
    pub fn parse_owned(mut body: Vec<u8>, max_elements: usize) -> Result<Response<'static>, ResponseError> {
        if body.starts_with(BYTE_ORDER_MARK) {
            body.drain(..BYTE_ORDER_MARK.len());
        }
        let limits = ParseLimits { max_elements, ..ParseLimits::default() };
        Ok(Response { elements: elements_of(&body, &limits)?, body: body.into() })
    }

    /// The size of its body in bytes, without a byte-order mark.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.body.len()
    }

    /// Its elements, in the order in which they were sent.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// An element as it was sent.
    #[must_use]
    pub fn raw(&self, element: &Element) -> &[u8] {
        &self.body[element.span.start as usize..element.span.end as usize]
    }

    /// The fingerprint of a rejected element's content.
    #[must_use]
    pub fn rejected_fingerprint(&self, element: &Element) -> Fingerprint {
        Fingerprint::of_canonical(&content(self.raw(element)))
    }

    /// An element as one line: as it was sent, minified only if it holds a line break.
    #[must_use]
    pub fn line(&self, element: &Element) -> Cow<'_, [u8]> {
        let raw = self.raw(element);
        if element.line_break { Cow::Owned(minified(raw)) } else { raw.into() }
    }
}

/// Reads a line of the archive: one event, as [`Response::line`] wrote it.
///
/// # Errors
/// The reason why the line does not hold an event, or is not JSON at all.
pub fn parse_line(line: &[u8]) -> Result<Event, LineError> {
    if std::str::from_utf8(line).is_err() {
        return Err(LineError::Unreadable);
    }
    let mut scanner = Scanner::new(line);
    scanner.skip_space();
    let element =
        element(&mut scanner, line, &mut Canonical::default()).map_err(|Stop| LineError::Unreadable)?;
    scanner.expect_end().map_err(|Stop| LineError::Unreadable)?;
    element.event.map_err(LineError::NoEvent)
}

/// Why a line of the archive cannot be read as an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineError {
    /// No JSON in UTF-8.
    #[error("not valid JSON")]
    Unreadable,
    /// JSON, but no event.
    #[error("{0}")]
    NoEvent(RejectReason),
}

/// The elements of a body without a byte-order mark.
fn elements_of(body: &[u8], limits: &ParseLimits<'_>) -> Result<Vec<Element>, ResponseError> {
    if u32::try_from(body.len()).is_err() {
        return Err(ResponseError::TooLarge { size_bytes: body.len() });
    }
    if simdutf8::basic::from_utf8(body).is_err() {
        let offset = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(ResponseError::InvalidUtf8 { offset });
    }
    let mut scanner = Scanner::new(body);
    scanner.skip_space();
    expect_array(scanner.peek())?;
    let mut elements = Vec::new();
    let is_complete = array(&mut scanner, body, |element| {
        elements.push(element);
        let count = elements.len();
        count <= limits.max_elements && !(count % ELEMENTS_PER_CHECK == 0 && (limits.is_over)())
    });
    match is_complete {
        Ok(true) => Ok(elements),
        Ok(false) if elements.len() > limits.max_elements => {
            Err(ResponseError::TooManyElements { limit: limits.max_elements })
        }
        Ok(false) => Err(ResponseError::Deadline),
        Err(Stop) => Err(scanner.error().into()),
    }
}

fn expect_array(first: Option<u8>) -> Result<(), ResponseError> {
    let found = match first {
        Some(b'[') => return Ok(()),
        None => return Err(ResponseError::Empty),
        Some(b'<') => return Err(ResponseError::WebPage),
        Some(b'{') => "an object",
        Some(b'"') => "a string",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(_) => return Err(SyntaxError { fault: Fault::Unexpected, offset: 0 }.into()),
    };
    Err(ResponseError::NotAnArray { found })
}

/// Consumes the array, and hands its elements to `take` until that returns false. Whether it did not.
fn array(
    scanner: &mut Scanner<'_>,
    body: &[u8],
    mut take: impl FnMut(Element) -> bool,
) -> Result<bool, Stop> {
    scanner.expect(b'[')?;
    scanner.skip_space();
    let mut canonical = Canonical::default();
    if !scanner.eat(b']') {
        loop {
            if !take(element(scanner, body, &mut canonical)?) {
                return Ok(false);
            }
            scanner.skip_space();
            if !scanner.eat(b',') {
                break;
            }
            scanner.skip_space();
        }
        scanner.expect(b']')?;
    }
    scanner.expect_end()?;
    Ok(true)
}

/// Consumes one element of the array.
fn element(scanner: &mut Scanner<'_>, body: &[u8], canonical: &mut Canonical) -> Result<Element, Stop> {
    scanner.take_traits();
    let start = scanner.position();
    if let Some(shaped) = shape::read(&body[start..]) {
        scanner.skip(shaped.length);
        let fingerprint = Fingerprint::of_canonical(&body[start..start + shaped.length]);
        let event = Event { id: shaped.id, day: shaped.day, fingerprint };
        return Ok(Element { span: span(start, scanner.position()), line_break: false, event: Ok(event) });
    }
    let event = if scanner.peek() == Some(b'{') {
        object(scanner)?
    } else {
        scanner.value(1)?;
        Err(RejectReason::NotAnObject)
    };
    let end = scanner.position();
    let traits = scanner.take_traits();
    let event = if traits.too_deep { Err(RejectReason::TooDeep) } else { event };
    let event = event.and_then(|(id, day)| {
        let fingerprint = fingerprint_of(&body[start..end], canonical)?;
        Ok(Event { id, day, fingerprint })
    });
    Ok(Element { span: span(start, end), line_break: traits.line_break, event })
}

#[expect(clippy::cast_possible_truncation, reason = "`parse` refuses bodies of 4 GiB, and a line is shorter")]
fn span(start: usize, end: usize) -> Range<u32> {
    start as u32..end as u32
}

/// Consumes an object, keeping what the checks need. Its depth is 2: it stands in the array.
fn object(scanner: &mut Scanner<'_>) -> Result<Result<(EventId, NaiveDate), RejectReason>, Stop> {
    let mut id = Member::Absent;
    let mut day = Member::Absent;
    scanner.expect(b'{')?;
    scanner.skip_space();
    if scanner.eat(b'}') {
        return Ok(Err(RejectReason::MissingId));
    }
    loop {
        let name = scanner.member_name()?;
        if name.is("id") {
            id.set(event_id(scanner)?);
        } else if name.is("datetime") {
            day.set(event_day(scanner)?);
        } else {
            scanner.value(2)?;
        }
        scanner.skip_space();
        if !scanner.eat(b',') {
            scanner.expect(b'}')?;
            break;
        }
        scanner.skip_space();
    }
    Ok(id
        .get(RejectReason::MissingId, RejectReason::InvalidId)
        .and_then(|id| Ok((id, day.get(RejectReason::MissingDatetime, RejectReason::InvalidDatetime)?))))
}

/// A member that counts: it must be there once, and be what it should be.
enum Member<T> {
    Absent,
    Once(Option<T>),
    Twice,
}

impl<T> Member<T> {
    fn set(&mut self, value: Option<T>) {
        *self = if matches!(self, Self::Absent) { Self::Once(value) } else { Self::Twice };
    }

    fn get(self, absent: RejectReason, invalid: RejectReason) -> Result<T, RejectReason> {
        match self {
            Self::Absent => Err(absent),
            Self::Once(value) => value.ok_or(invalid),
            Self::Twice => Err(RejectReason::AmbiguousKey),
        }
    }
}

fn event_id(scanner: &mut Scanner<'_>) -> Result<Option<EventId>, Stop> {
    if !matches!(scanner.peek(), Some(b'-' | b'0'..=b'9')) {
        return scanner.value(2).map(|()| None);
    }
    let number = scanner.number()?;
    Ok(std::str::from_utf8(number).ok().and_then(|digits| digits.parse().ok()))
}

fn event_day(scanner: &mut Scanner<'_>) -> Result<Option<NaiveDate>, Stop> {
    if scanner.peek() != Some(b'"') {
        return scanner.value(2).map(|()| None);
    }
    let raw: RawString<'_> = scanner.string()?;
    if raw.escaped {
        return Ok(raw.decode().and_then(|text| local_day(&text)));
    }
    Ok(std::str::from_utf8(raw.bytes).ok().and_then(local_day))
}

fn fingerprint_of(raw: &[u8], canonical: &mut Canonical) -> Result<Fingerprint, RejectReason> {
    canonical.write(raw);
    if canonical.half_surrogate {
        Err(RejectReason::HalfSurrogate)
    } else {
        Ok(Fingerprint::of_canonical(&canonical.bytes))
    }
}

/// Valid JSON without the white space between its tokens.
fn minified(json: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(json.len());
    let mut scanner = Scanner::new(json);
    loop {
        scanner.skip_space();
        let start = scanner.position();
        match scanner.peek() {
            None => return written,
            Some(b'"') if scanner.string().is_ok() => {}
            Some(_) => scanner.skip(1),
        }
        written.extend_from_slice(&json[start..scanner.position()]);
    }
}
