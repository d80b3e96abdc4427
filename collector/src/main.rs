//! The program `collector`: parses, calls the library, turns the outcome into an exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = match cli::command_line().try_get_matches() {
        Ok(matches) => matches,
        Err(refused) => {
            // Help and version come this way too, on stdout and as success.
            let _ = refused.print();
            return if refused.use_stderr() { cli::Exit::Usage.into() } else { cli::Exit::Done.into() };
        }
    };
    cli::dispatch(&matches).into()
}
