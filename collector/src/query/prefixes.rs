//! Which listings name all objects of some days: few, and of few other days.

use std::collections::BTreeSet;

use chrono::{Datelike as _, Months, NaiveDate};

use crate::archive::Kind;

/// Maximum number of days of a month that are listed one by one; beyond it, the whole month is.
const FEW_DAYS: usize = 3;
/// More listings are not asked for: one of everything is cheaper.
const MOST_LISTINGS: usize = 64;

/// How the names of all objects of some days begin.
pub(super) fn of_days(kind: Kind, days: &BTreeSet<NaiveDate>) -> Vec<String> {
    if days.len() <= MOST_LISTINGS {
        return days.iter().map(|&day| kind.day_prefix(day)).collect();
    }
    of_period(kind, days.first().copied(), days.last().copied().unwrap_or(NaiveDate::MAX))
}

/// How the names of all objects from one day to another begin. With no first day: all.
pub(super) fn of_period(kind: Kind, from: Option<NaiveDate>, to: NaiveDate) -> Vec<String> {
    let Some(from) = from else { return vec![format!("{kind}/")] };
    let mut prefixes = Vec::new();
    let mut day = from;
    while day <= to {
        if prefixes.len() > MOST_LISTINGS {
            return vec![format!("{kind}/")];
        }
        let (end, prefix) = span(kind, day, to);
        match prefix {
            Some(prefix) => prefixes.push(prefix),
            None => prefixes.extend(
                day.iter_days().take_while(|day| *day < end && *day <= to).map(|day| kind.day_prefix(day)),
            ),
        }
        day = end;
    }
    prefixes
}

/// The year or the month from a day on, if that is best listed as one; and the first day after it.
fn span(kind: Kind, day: NaiveDate, to: NaiveDate) -> (NaiveDate, Option<String>) {
    let next_year = NaiveDate::from_ymd_opt(day.year() + 1, 1, 1).unwrap_or(NaiveDate::MAX);
    let first_of_month = day.with_day(1).unwrap_or(day);
    let next_month = first_of_month.checked_add_months(Months::new(1)).unwrap_or(NaiveDate::MAX);
    if day.ordinal() == 1 && next_year <= to {
        return (next_year, Some(format!("{kind}/{:04}/", day.year())));
    }
    let days = day.iter_days().take_while(|day| *day < next_month && *day <= to).count();
    let month = format!("{kind}/{:04}/{:02}/", day.year(), day.month());
    (next_month, (days > FEW_DAYS).then_some(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(from: &str, to: &str) -> Vec<String> {
        of_period(Kind::Events, Some(from.parse().unwrap()), to.parse().unwrap())
    }

    #[test]
    fn days_months_and_years_are_listed_as_such() {
        assert_eq!(listed("2026-01-02", "2026-01-02"), ["events/2026/01/02/"]);
        assert_eq!(listed("2026-01-31", "2026-02-01"), ["events/2026/01/31/", "events/2026/02/01/"]);
        assert_eq!(listed("2026-02-01", "2026-02-28"), ["events/2026/02/"]);
        assert_eq!(
            listed("2024-12-31", "2026-01-10"),
            ["events/2024/12/31/", "events/2025/", "events/2026/01/"]
        );
        assert_eq!(listed("2026-01-02", "2026-01-01"), [""; 0]);
        assert_eq!(of_period(Kind::Events, None, NaiveDate::MAX), ["events/"]);
        assert_eq!(listed("0001-01-01", "9999-12-31"), ["events/"]);
    }

    #[test]
    fn every_day_is_listed_once() {
        let begin: NaiveDate = "2023-11-20".parse().unwrap();
        for (skip, count) in [(0, 1), (5, 17), (11, 60), (42, 400), (43, 790)] {
            let days: Vec<NaiveDate> = begin.iter_days().skip(skip).take(count).collect();
            let prefixes = of_period(Kind::Events, days.first().copied(), days[count - 1]);
            for day in &days {
                let name = Kind::Events.day_prefix(*day);
                assert_eq!(prefixes.iter().filter(|prefix| name.starts_with(*prefix)).count(), 1, "{day}");
            }
        }
    }
}
