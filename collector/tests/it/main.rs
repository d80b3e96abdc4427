//! The programs from outside: they are run as their users run them, and judged by what they leave behind.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod analyze_metrics;
mod command_line;
mod cost;
mod crash;
mod day_index;
mod doctor;
mod evidence;
mod fetch;
mod foreign_files;
mod gaps;
mod health;
mod heartbeat;
mod http;
mod import;
mod import_inputs;
mod inputs;
mod lies;
mod mirror;
mod permissions;
mod phases;
mod printing;
mod properties;
mod publish;
mod quantities;
mod query;
mod random_restores;
mod reading;
mod record_schema;
mod restores;
mod run;
mod spawned;
mod stores;
mod summary;
mod support;
#[cfg(feature = "tables")]
mod tables;
#[cfg(feature = "otlp")]
mod traces;
mod verify;
mod versions;
mod watch;
