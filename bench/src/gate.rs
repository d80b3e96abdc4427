//! The gate: says whether one build is slower than another, and says so only if it is.

pub mod baseline;
pub mod calibrate;
pub mod conditions;
pub mod instructions;
pub mod machine;
pub mod pairs;
pub mod programs;
pub mod report;
pub mod slices;
pub mod statistics;
pub mod work_tree;
