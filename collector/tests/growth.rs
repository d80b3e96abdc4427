//! Holds the bounds on how cost grows, by counting what is asked for and allocated instead of measuring time.
#![expect(clippy::unwrap_used, reason = "a test that panics fails")]

#[path = "growth/queries.rs"]
mod queries;
#[path = "growth/response.rs"]
mod response;
#[path = "growth/store.rs"]
mod store;
#[path = "growth/verification.rs"]
mod verification;
