//! Reports that people act on, from the records that runs leave: what is usual, what changed and when, what comes next.
//!
//! [`crate::record::history`] reads records, whoever wrote them; [`crate::quantity`] defines what is followed; [`change_points`]
//! and [`statistics`] say what numbers mean; each report makes a [`document`], which is shown as text, JSON, Markdown, CSV or HTML.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts of runs and quantiles, far below where a double is not exact"
)]

pub mod baseline;
pub mod change_points;
pub mod compare;
pub mod condition;
pub mod document;
pub mod pack;
pub mod report;
pub mod series;
pub mod statistics;
