//! Change points of series on standard input: each line `{"series": […], "window": 50, "max_p_value": 0.001,
//! "min_magnitude": 0}`, each answer a line of indices. For comparing with other implementations.

use std::io::{self, BufRead as _, Write as _};

use collector::analysis::change_points::{ChangePoint, Retest, Settings, change_points};
use serde::Deserialize;

#[derive(Deserialize)]
struct Question {
    series: Vec<f64>,
    window: usize,
    max_p_value: f64,
    min_magnitude: f64,
}

fn main() -> anyhow::Result<()> {
    for line in io::stdin().lock().lines() {
        let Question { series, window, max_p_value, min_magnitude } = serde_json::from_str(&line?)?;
        let settings = Settings {
            windows: vec![window],
            max_p_value,
            min_magnitude,
            min_length: 0,
            retest: Retest::AsOtava,
        };
        let found: Vec<usize> =
            change_points(&series, &settings).into_iter().map(|ChangePoint { index, .. }| index).collect();
        writeln!(io::stdout(), "{}", serde_json::to_string(&found)?)?;
    }
    Ok(())
}
