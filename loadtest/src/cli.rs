//! The command line of `loadtest`.

mod capacity;
mod failover;
mod output;
mod reliability;
mod run;
mod serve;
mod service;
mod services;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates the feed and the services that the collector uses, on this machine, and measures the limits of the collector.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed or an expectation was broken, 2 wrong usage.")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate feeds at several rates; report what the collector stored and what it lost. Exit code 1 if a loss was not
    /// reported (`possible_gap`) or a report was false.
    Run(run::Run),
    /// Find the highest rate without loss for each interval and number of missed polls, by formula and by simulation.
    Capacity(capacity::Capacity),
    /// Measure how often a run succeeds with and without retries, and hold the documents' expected results against it.
    Reliability(reliability::Reliability),
    /// Let one of two simulated regions fail at random moments; measure recovery point, recovery time, and what is lost.
    Failover(failover::Failover),
    /// Serve a simulated feed for any collector, with a page that shows how it is used.
    Serve(serve::Serve),
    /// Run many collectors at once on one feed and one store.
    Stress(serve::Stress),
    /// Simulate a year of the service in virtual time; check that it polled on schedule and that its memory did not grow.
    Service(service::Service),
    /// Show where the time of a run goes when everything outside is as slow as documented; fail if it is too much.
    Timeline(services::Timeline),
    /// Serve Object Storage, the Vault, metadata and federation until interrupted; says in one line of JSON where.
    ServeOci(services::ServeOci),
}

/// Parses and carries out what was asked.
pub(crate) fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Run(command) => command.carry_out(),
        Command::Capacity(command) => command.carry_out(),
        Command::Reliability(command) => command.carry_out(),
        Command::Failover(command) => command.carry_out(),
        Command::Serve(command) => command.carry_out(),
        Command::Stress(command) => command.carry_out(),
        Command::Service(command) => command.carry_out(),
        Command::Timeline(command) => command.carry_out(),
        Command::ServeOci(command) => command.carry_out().map(|()| true),
    };
    output::end(done)
}
