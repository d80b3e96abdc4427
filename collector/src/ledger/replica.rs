//! The role of an archive that does not accept runs: a replica of another one, or an archive that another one took over.

use serde::{Deserialize, Serialize};

/// That this archive follows another one. No run stores anything into it until `collector adopt` removes this from its ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The location of the archive that it follows.
    pub primary: String,
    /// The epoch of that archive.
    pub epoch: u64,
    /// Whether its ledger is one that the primary had. Before the first copy is complete it vouches for nothing.
    #[serde(default)]
    pub complete: bool,
    /// Its own commits since both have had the same history, while they are brought together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoining: Option<Rejoining>,
}

/// A reconciliation under way: which commits of the replica are not part of the history of its primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoining {
    /// The last commit that both have.
    pub common: u64,
    /// The last commit of the replica.
    pub last: u64,
    /// The id of that commit.
    pub commit: String,
    /// Whether the primary holds everything that these commits stored.
    #[serde(default)]
    pub absorbed: bool,
}
