//! Which machine and toolchain measured: results of different ones are not compared without a word.

use std::process::Command;

use serde::{Deserialize, Serialize};

use super::programs::output;

/// A kind of machine. Two hosts of one kind in a cloud are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture: `linux-x86_64`.
    pub platform: String,
    /// The processor, as the system names it.
    pub processor: String,
    /// Processors that this process may use.
    pub cpus: usize,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let keys = ["model name", "Model", "Hardware", "CPU implementer"];
        let value_of = |key: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        Self {
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            processor: keys.into_iter().find_map(value_of).unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}, {}, {} CPUs", self.platform, self.processor, self.cpus)
    }
}

/// The first line of `rustc --version` here.
///
/// # Errors
/// If `rustc` cannot be run.
pub fn toolchain() -> anyhow::Result<String> {
    Ok(output(Command::new("rustc").arg("--version"))?.trim().to_owned())
}
