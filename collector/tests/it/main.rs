//! The program from outside: it is run as its users run it, and judged by what it leaves behind.

#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod crash;
mod run;
mod support;
mod verify;
