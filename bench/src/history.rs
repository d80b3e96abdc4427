//! What revisions took over time, as ratios to a pinned reference that was measured in the same minute: machines, governors
//! and years cancel out.
//!
//! [`measurement`] is what is kept, [`storage`] where; [`series`] chains measurements against different references;
//! [`findings`] are steps and drift in a series; [`document`] shows them; [`simulation`] measures how often they are wrong.

pub mod backfill;
pub mod branch;
pub mod document;
pub mod findings;
pub mod measurement;
pub mod series;
pub mod simulation;
pub mod storage;
