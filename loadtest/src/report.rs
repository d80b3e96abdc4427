//! What is shown of the results: tables for a terminal, a page with charts.

pub mod html;
pub mod table;
